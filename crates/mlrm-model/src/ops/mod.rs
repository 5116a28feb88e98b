//! Element-wise chains of the decoder, written once as tensor operations that every backend runs.

use burn::tensor::activation::silu;
use burn::tensor::{DType, Tensor};

/// `x / sqrt(mean(x²) + epsilon) * weight` over the last axis, the mean in f32.
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let dtype = x.dtype();
    let x = x.cast(DType::F32);
    let scale = (x.clone().square().mean_dim(D - 1) + epsilon)
        .sqrt()
        .recip();
    (x * scale).cast(dtype) * weight.unsqueeze()
}

/// `silu(gate) * up`, `[rows, width]` each.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    silu(gate) * up
}

/// Rotates the two halves of each head by the angle of its position.
///
/// # Shapes
/// `x`: `[batch, seq, heads, head_dim]`; `cos`, `sin`: `[seq or more, head_dim / 2]`
pub fn rotate(x: Tensor<4>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<4> {
    let [_, seq, _, head_dim] = x.dims();
    let half = head_dim / 2;
    let dtype = x.dtype();
    let table = |t: Tensor<2>| {
        t.slice([0..seq, 0..half])
            .reshape([1, seq, 1, half])
            .cast(dtype)
    };
    let (cos, sin) = (table(cos), table(sin));
    let first = x.clone().narrow(3, 0, half);
    let second = x.narrow(3, half, half);
    Tensor::cat(
        vec![
            first.clone() * cos.clone() - second.clone() * sin.clone(),
            second * cos + first * sin,
        ],
        3,
    )
}
