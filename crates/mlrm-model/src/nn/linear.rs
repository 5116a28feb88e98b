//! Linear maps and lookup tables; values come from [`crate::weights`].

use burn::module::{Module, Param, ParamId};
use burn::nn::Embedding;
use burn::tensor::{Device, Tensor};

use super::lora::LowRank;
use crate::ops;

/// A linear map `y = x·W + b`, which may have a low-rank adapter beside its weight:
/// `y = x·W + b + scale · (x·A)·B`.
///
/// [`crate::weights`] transposes its `weight` between checkpoint and module, and [`super::attach_adapters`] adapts it.
#[derive(Module, Debug)]
pub struct Linear {
    /// W, `[inputs, outputs]` (Hugging Face stores the transpose). An adapter hangs on the
    /// parameter as its reparameterisation, so `weight.val()` is the merged weight and
    /// `weight.base()` the one beside which the adapter stands. One that does not learn may be held
    /// quantised ([`crate::ops::quantise`]).
    pub weight: Param<Tensor<2>>,
    /// b, `[outputs]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// The leading axes are folded into rows first: one large matrix product instead of one a batch
    /// item, forward and backward. The merged weight is never formed: neither it nor a gradient of
    /// its size is held.
    ///
    /// # Shapes
    /// `[…, inputs]` → `[…, outputs]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let [inputs, outputs] = ops::dims(&self.weight.base());
        let mut shape = x.dims();
        let rows = shape[..D - 1].iter().product::<usize>();
        shape[D - 1] = outputs;
        let x = x.reshape([rows, inputs]);
        let y = match self.adapter() {
            None => self.without_adapter(x),
            Some(adapter) => adapter.add(x.clone(), self.without_adapter(x)),
        };
        y.reshape(shape)
    }

    /// The map as a part of a larger operation; `None` where it has a bias or a quantised weight, or where its adapter
    /// drops some of what it reads.
    pub fn plain(&self) -> Option<ops::Map> {
        let weight = self.weight.base();
        let low = self.adapter().map(LowRank::plain);
        let whole = self.bias.is_none() && weight.dtype().is_float() && !matches!(low, Some(None));
        let low = low.flatten();
        whole.then_some(ops::Map { weight, low })
    }

    /// The map with its bias as a part of a larger operation; `None` where it has an adapter or a quantised weight.
    pub fn layer(&self) -> Option<ops::Layer> {
        let weight = self.weight.base();
        let whole = self.adapter().is_none() && weight.dtype().is_float();
        whole.then(|| (weight, self.bias.as_ref().map(Param::val)))
    }

    /// x·W + b, `[rows, inputs]` → `[rows, outputs]`.
    fn without_adapter(&self, x: Tensor<2>) -> Tensor<2> {
        let (weight, bias) = (self.weight.base(), self.bias.as_ref().map(Param::val));
        if weight.dtype().is_float() {
            return ops::linear(x, weight, bias);
        }
        let y = ops::frozen_matmul(x, weight);
        match bias {
            Some(bias) => y + bias.unsqueeze(),
            None => y,
        }
    }

    /// The adapter beside the weight.
    pub fn adapter(&self) -> Option<&LowRank> {
        self.weight.reparameterization()
    }
}

/// A linear map of zeros, `[inputs, outputs]`.
pub fn linear(inputs: usize, outputs: usize, bias: bool, device: &Device) -> Linear {
    Linear {
        weight: zeros([inputs, outputs], device),
        bias: bias.then(|| zeros([outputs], device)),
    }
}

/// A lookup table of zeros, `[rows, width]`.
pub fn embedding(rows: usize, width: usize, device: &Device) -> Embedding {
    Embedding {
        weight: zeros([rows, width], device),
    }
}

/// A trainable tensor of zeros. They take no memory until they are read: loading puts a
/// checkpoint's values in their place before that.
pub(crate) fn zeros<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    lazy_zeros(shape, device, device.is_autodiff())
}

/// As [`zeros`], but a tensor that never learns.
pub(crate) fn fixed_zeros<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    lazy_zeros(shape, device, false)
}

fn lazy_zeros<const D: usize>(
    shape: [usize; D],
    device: &Device,
    learns: bool,
) -> Param<Tensor<D>> {
    let init = move |device: &Device, learns: bool| {
        let value = Tensor::zeros(shape, device);
        if learns { value.require_grad() } else { value }
    };
    Param::uninitialized(ParamId::new(), init, device.clone(), learns, shape.into())
}
