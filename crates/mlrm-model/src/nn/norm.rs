//! Normalisation layers, with the names that Hugging Face checkpoints use.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};

use super::linear::zeros;

/// Either norm, for families that differ in it.
#[derive(Module, Debug)]
pub enum Norm {
    /// Llama's.
    Rms(RmsNorm),
    /// OPT's.
    Layer(LayerNorm),
}

impl Norm {
    /// Normalises the last axis; any leading shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Rms(norm) => norm.forward(x),
            Self::Layer(norm) => norm.forward(x),
        }
    }
}

/// Root-mean-square norm: `x / sqrt(mean(x²) + epsilon) * weight`, the mean in f32.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// Scale, `[width]`, or what it differs from 1 by.
    pub weight: Param<Tensor<1>>,
    epsilon: f64,
    /// Whether the scale is `1 + weight`.
    from_one: bool,
}

impl RmsNorm {
    /// A norm over the last axis of `width` channels.
    pub fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            weight: zeros([width], device),
            epsilon,
            from_one: false,
        }
    }

    /// The same whose scale is `1 + weight`, as Gemma stores it.
    pub fn from_one(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            from_one: true,
            ..Self::new(width, epsilon, device)
        }
    }

    /// The scale and the epsilon, for operations that this norm is a part of; `None` where the scale is `1 + weight`.
    pub fn plain(&self) -> Option<(Tensor<1>, f64)> {
        (!self.from_one).then(|| (self.weight.val(), self.epsilon))
    }

    /// Normalises the last axis; any leading shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let weight = self.weight.val();
        if !self.from_one {
            return crate::ops::rms_norm(x, weight, self.epsilon);
        }
        // In f32, where a weight of 0.001 is not lost beside the 1.
        let dtype = x.dtype();
        let scale = weight.cast(DType::F32).add_scalar(1.0);
        crate::ops::rms_norm(x.cast(DType::F32), scale, self.epsilon).cast(dtype)
    }
}

/// Layer norm: `(x - mean) / sqrt(var + epsilon) * weight + bias`, statistics in f32.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale, `[width]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[width]`.
    pub bias: Param<Tensor<1>>,
    epsilon: f64,
}

impl LayerNorm {
    /// A norm over the last axis of `width` channels.
    pub fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            weight: zeros([width], device),
            bias: zeros([width], device),
            epsilon,
        }
    }

    /// Normalises the last axis; any leading shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        crate::ops::layer_norm(x, self.weight.val(), self.bias.val(), self.epsilon)
    }
}
