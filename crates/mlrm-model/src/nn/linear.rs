//! Construction of linear maps and lookup tables; values come from [`crate::weights`].

use burn::module::{Param, ParamId};
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Tensor};

/// A linear map of zeros, `[inputs, outputs]` as Burn stores it (Hugging Face stores the transpose).
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
    let init = move |device: &Device, learns: bool| {
        let value = Tensor::zeros(shape, device);
        if learns { value.require_grad() } else { value }
    };
    let learns = device.is_autodiff();
    Param::uninitialized(ParamId::new(), init, device.clone(), learns, shape.into())
}

/// `layer` applied to rows, `[rows, inputs]` → `[rows, outputs]`.
pub fn apply(layer: &Linear, x: Tensor<2>) -> Tensor<2> {
    let bias = layer.bias.as_ref().map(Param::val);
    crate::ops::linear(x, layer.weight.val(), bias)
}

/// `layer` applied to the last axis of `x`.
///
/// The leading axes are folded into rows first: one large matrix product instead of one a batch
/// item, forward and backward.
///
/// # Shapes
/// `[batch, seq, inputs]` → `[batch, seq, outputs]`
pub fn rows_linear(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    let [batch, seq, inputs] = x.dims();
    let y = apply(layer, x.reshape([batch * seq, inputs]));
    let outputs = y.dims()[1];
    y.reshape([batch, seq, outputs])
}
