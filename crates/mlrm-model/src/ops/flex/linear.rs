//! Linear maps.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::buffer::{build, column_sums, dense, tensor, values};
use super::kernel::Kernel;
use super::product::{Part, add_product, product};

/// `x weight`, or `x weight + bias`; inputs x `[rows, inputs]`, weight `[inputs, outputs]`, bias
/// `[outputs]`.
#[derive(Debug, Clone)]
pub(crate) struct Linear;

impl Kernel<2> for Linear {
    type Saved = [FlexTensor; 2];

    fn forward(&self, inputs: [FlexTensor; 2], keep: bool) -> (FlexTensor, Option<Self::Saved>) {
        let (x, weight) = (&inputs[0], &inputs[1]);
        let shape = [x.shape()[0], weight.shape()[1]];
        let output = tensor(product(matrix(x), matrix(weight)), shape);
        (output, keep.then_some(inputs))
    }

    fn backward(
        &self,
        saved: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        gradients(saved, &gradient, wanted)
    }
}

impl Kernel<3> for Linear {
    type Saved = [FlexTensor; 2];

    fn forward(&self, inputs: [FlexTensor; 3], keep: bool) -> (FlexTensor, Option<Self::Saved>) {
        let [x, weight, bias] = inputs;
        let bias = dense(bias);
        let (rows, outputs) = (x.shape()[0], weight.shape()[1]);
        let bias = values(&bias);
        let mut output = build(rows, outputs, |_, slot| slot.fill(bias.iter().copied()));
        add_product(&mut output, matrix(&x), matrix(&weight));
        let output = tensor(output, [rows, outputs]);
        (output, keep.then_some([x, weight]))
    }

    fn backward(
        &self,
        saved: Self::Saved,
        gradient: FlexTensor,
        [x, weight, bias]: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let [dx, dweight] = gradients(saved, &gradient, [x, weight]);
        let dbias = bias.then(|| {
            let width = gradient.shape()[1];
            tensor(column_sums(values(&dense(gradient)), width), [width])
        });
        [dx, dweight, dbias]
    }
}

/// ∂x = ∂ weightᵀ and ∂weight = xᵀ ∂.
fn gradients(
    [x, weight]: [FlexTensor; 2],
    gradient: &FlexTensor,
    wanted: [bool; 2],
) -> [Option<FlexTensor>; 2] {
    let incoming = matrix(gradient);
    let transposed = |(values, part): (_, Part)| (values, part.transposed());
    let dx = wanted[0].then(|| product(incoming, transposed(matrix(&weight))));
    let dweight = wanted[1].then(|| product(transposed(matrix(&x)), incoming));
    [
        dx.map(|values| tensor(values, x.shape())),
        dweight.map(|values| tensor(values, weight.shape())),
    ]
}

/// A tensor of two axes as it lies in memory, transposed or not.
fn matrix(tensor: &FlexTensor) -> (&[f32], Part) {
    (tensor.storage(), Part::of(tensor.layout()))
}
