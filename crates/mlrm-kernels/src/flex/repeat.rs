//! One value for all items of a batch.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::buffer::{build, column_sums, dense, tensor, values};
use super::kernel::{Gradients, Kernel, Output};

/// `[1, …]` to `[batch, …]`. The gradients of all items are added up in f64.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repeat {
    pub(crate) batch: usize,
}

impl Kernel<1> for Repeat {
    type Saved = Vec<usize>;

    fn forward(&self, [x]: [FlexTensor; 1], _wanted: [bool; 1]) -> Output<Self::Saved> {
        let x = dense(x);
        let mut shape: Vec<usize> = x.shape().iter().copied().collect();
        let width = shape.iter().product();
        let one = values(&x);
        let all = build(self.batch, width, |_, slot| slot.copy(one).1);
        let saved = shape.clone();
        shape[0] = self.batch;
        (tensor(all, shape), Some(saved))
    }

    fn backward(&self, shape: Self::Saved, gradient: FlexTensor, _: [bool; 1]) -> Gradients<1> {
        let width = shape.iter().product();
        let sums = column_sums(values(&dense(gradient)), width);
        [Some(tensor(sums, shape))]
    }
}
