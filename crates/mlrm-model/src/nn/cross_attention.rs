//! Attention of some positions to others, in the layout of PyTorch's `nn.MultiheadAttention`.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::attention::{AttentionMask, attend};
use super::linear::{Linear, linear, zeros};
use crate::ops;

/// Multi-head attention whose three input projections are one tensor (SigLIP's pooling head,
/// Qwen-VL's resampler).
#[derive(Module, Debug)]
pub struct CrossAttention {
    /// Query, key and value projections one below the other, `[3 * width, width]`.
    pub in_proj_weight: Param<Tensor<2>>,
    /// `[3 * width]`
    pub in_proj_bias: Param<Tensor<1>>,
    /// `[width, width]`
    pub out_proj: Linear,
    heads: usize,
}

impl CrossAttention {
    /// A layer of zeros.
    pub fn new(width: usize, heads: usize, device: &Device) -> Self {
        Self {
            in_proj_weight: zeros([3 * width, width], device),
            in_proj_bias: zeros([3 * width], device),
            out_proj: linear(width, width, true, device),
            heads,
        }
    }

    /// # Shapes
    /// `query`: `[batch, queries, width]`; `key`, `value`: `[batch, keys, width]`; result
    /// `[batch, queries, width]`
    pub fn forward(&self, query: Tensor<3>, key: Tensor<3>, value: Tensor<3>) -> Tensor<3> {
        let project = |index: usize, x: Tensor<3>| {
            let [batch, seq, width] = x.dims();
            let weight = self.in_proj_weight.val().narrow(0, index * width, width);
            let bias = self.in_proj_bias.val().narrow(0, index * width, width);
            let rows = x.reshape([batch * seq, width]);
            let rows = ops::linear(rows, weight.transpose(), Some(bias));
            rows.reshape([batch, seq, self.heads, width / self.heads])
        };
        let mask = AttentionMask::None.prepare(1, 1, &query.device());
        let (q, k, v) = (project(0, query), project(1, key), project(2, value));
        self.out_proj.forward(attend(q, k, v, &mask, None))
    }
}
