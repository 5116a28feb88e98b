//! Normalisation layers, with the names that Hugging Face checkpoints use.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

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
    /// Scale, `[width]`.
    pub weight: Param<Tensor<1>>,
    epsilon: f64,
}

impl RmsNorm {
    /// A norm over the last axis of `width` channels.
    pub fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            weight: zeros([width], device),
            epsilon,
        }
    }

    /// Normalises the last axis; any leading shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        crate::ops::rms_norm(x, self.weight.val(), self.epsilon)
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
