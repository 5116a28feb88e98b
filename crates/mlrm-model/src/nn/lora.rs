//! Low-rank adapters: LoRA (arXiv 2106.09685) and its rank-stabilised scale (arXiv 2312.03732).

use burn::module::{Module, Param, Reparameterization, Reparameterizer};
use burn::tensor::{DType, Tensor};

use super::dropout::{Dropout, DropoutClock};
use crate::ops;

/// An adapter beside a linear map: `scale · (x·A)·B`, in f32 whatever the map computes in.
///
/// It hangs on the weight as Burn's reparameterisation, so that everything which walks a module
/// (optimiser, gradients, checkpoints, inference copies) finds A and B; the path of A is the
/// weight's and `.lora.a`. Burn's own LoRA would form the dense W + scale · A·B for every product,
/// and a gradient of its size; [`super::Linear`] does not.
#[derive(Module, Debug)]
pub struct LowRank {
    /// A, `[inputs, rank]` (PEFT's `lora_A.weight` is the transpose).
    pub a: Param<Tensor<2>>,
    /// B, `[rank, outputs]` (PEFT's `lora_B.weight` is the transpose).
    pub b: Param<Tensor<2>>,
    scale: f64,
    #[module(skip)]
    dropout: Dropout,
}

impl LowRank {
    /// `y + scale · (dropout(x)·A)·B`
    ///
    /// # Shapes
    /// `x`: `[rows, inputs]`, `y`: `[rows, outputs]` → as `y`
    pub fn add(&self, x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        let x = self.dropout.drop_values(x.cast(DType::F32));
        let scale = self.scale * self.dropout.gain();
        ops::add_low_rank(y, x, self.a.val(), self.b.val(), scale)
    }
}

impl LowRank {
    /// The adapter as a part of a larger operation; `None` while dropout is on.
    pub(super) fn plain(&self) -> Option<ops::LowRankChange> {
        (!self.dropout.drops()).then(|| ops::LowRankChange {
            a: self.a.val(),
            b: self.b.val(),
            scale: self.scale,
        })
    }
}

impl Reparameterization for LowRank {
    const NAME: &'static str = "lora";

    /// The merged weight, W + scale · A·B, in the base's number format; a quantised base becomes
    /// f32.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let change = self.a.val().matmul(self.b.val()).mul_scalar(self.scale);
        let change = change.reshape(ops::dims(&base));
        let dtype = base.dtype();
        let merged = ops::dequantise(base).cast(DType::F32) + change;
        match dtype.is_float() {
            true => merged.cast(dtype),
            false => merged,
        }
    }
}

/// What all adapters of a model share.
#[derive(Debug, Clone)]
pub struct AdapterShape {
    /// Width of the product between A and B.
    pub rank: usize,
    /// Multiplies the adapter's output.
    pub scale: f64,
    /// Share of the adapter's inputs that a training step leaves out.
    pub dropout: f64,
    /// Turns dropout on.
    pub clock: DropoutClock,
}

/// `module` with adapters of zeros beside the [`super::Linear`] maps that `stream` gives a number
/// for; it is asked with the path of the map's weight.
pub fn attach_adapters<M: Module>(
    module: M,
    shape: &AdapterShape,
    stream: &mut dyn FnMut(&str) -> Option<u64>,
) -> M {
    module.apply_reparameterization(Attach { shape, stream })
}

struct Attach<'a> {
    shape: &'a AdapterShape,
    stream: &'a mut dyn FnMut(&str) -> Option<u64>,
}

impl Reparameterizer for Attach<'_> {
    type Reparam = LowRank;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LowRank>) {
        let Some(stream) = (self.stream)(path) else {
            return (param, None);
        };
        let base = param.base();
        let (device, dims) = (base.device(), ops::dims(&base));
        let rank = self.shape.rank;
        let zeros =
            |shape: [usize; 2]| Param::from_tensor(Tensor::zeros(shape, (&device, DType::F32)));
        let adapter = LowRank {
            a: zeros([dims[0], rank]),
            b: zeros([rank, dims[D - 1]]),
            scale: self.shape.scale,
            dropout: Dropout::new(self.shape.dropout, stream, self.shape.clock.clone()),
        };
        (param, Some(adapter))
    }
}
