//! Rotary position embedding (RoFormer, arXiv 2104.09864), in the half-split layout of Llama.

use burn::tensor::{Device, Tensor, TensorData};

/// Cosines and sines of the rotary angles of positions 0…T−1, computed in f64 and stored in f32.
///
/// One table serves every layer and both queries and keys.
#[derive(Debug, Clone)]
pub struct RotaryTable {
    /// `[seq, head_dim / 2]`
    cos: Tensor<2>,
    /// `[seq, head_dim / 2]`
    sin: Tensor<2>,
}

impl RotaryTable {
    /// The table for `seq` positions: angle(p, i) = p · theta^(−2i / head_dim).
    pub fn new(seq: usize, head_dim: usize, theta: f64, device: &Device) -> Self {
        let half = head_dim / 2;
        let angle = |p: usize, i: usize| p as f64 * theta.powf(-2.0 * i as f64 / head_dim as f64);
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..seq * half)
                .map(|n| f(angle(n / half, n % half)) as f32)
                .collect();
            Tensor::from_data(TensorData::new(values, [seq, half]), device)
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }

    /// Rotates each head of `x` by its position: `x · cos + rotate_half(x) · sin`.
    ///
    /// # Shapes
    /// `[batch, seq, heads, head_dim]` → the same
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        crate::ops::rotate(x, self.cos.clone(), self.sin.clone())
    }

    /// Rotates rows whose positions differ from row to row (the pooled rows of the last layer).
    ///
    /// # Shapes
    /// `x`: `[batch, rows, heads, head_dim]`; `positions`: batch · rows values.
    pub fn apply_at(&self, x: Tensor<4>, positions: Tensor<1, burn::tensor::Int>) -> Tensor<4> {
        let [batch, rows, heads, head_dim] = x.dims();
        let cos = self.cos.clone().select(0, positions.clone());
        let sin = self.sin.clone().select(0, positions);
        let x = x.reshape([1, batch * rows, heads, head_dim]);
        crate::ops::rotate(x, cos, sin).reshape([batch, rows, heads, head_dim])
    }
}
