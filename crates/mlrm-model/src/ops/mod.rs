//! The chains of operations that models are made of, each written once as tensor operations that
//! every backend runs ([`generic`]), and once as kernels of the CPU backend (`flex`).
//!
//! The macro `fused!` is the one place that chooses: kernels take f32 tensors on flex, and all else runs the
//! generic body. `tests/ops.rs` holds each kernel against its generic body, forward and backward.

pub mod generic;

#[cfg(feature = "flex")]
mod flex;

mod frozen;
mod optimiser;
mod precision;

pub use frozen::{Bits, block_size, dequantise, dims, frozen_matmul, param_shape, quantise};
pub use optimiser::{AdamRule, AdamState, adamw, squared_norm};
pub use precision::{has_bf16_products, matmul_precision, set_matmul_precision};

use std::sync::Arc;

use burn::tensor::Tensor;

/// `fused!(kernel, [inputs], body)`: what `kernel` makes of `inputs` if it takes them, else `body`.
macro_rules! fused {
    ($kernel:expr, [$($input:ident),+], $body:expr) => {{
        #[cfg(feature = "flex")]
        match flex::run($kernel, [$($input.into_dispatch()),+]) {
            Ok(output) => burn::tensor::Tensor::from_dispatch(output),
            Err([$($input),+]) => {
                $(let $input = burn::tensor::Tensor::from_dispatch($input);)+
                $body
            }
        }
        #[cfg(not(feature = "flex"))]
        $body
    }};
}

/// `x / sqrt(mean(x²) + epsilon) * weight` over the last axis, the mean in f32.
///
/// # Shapes
/// `x`: `[..., width]`; `weight`: `[width]`
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, epsilon: f64) -> Tensor<D> {
    fused!(
        flex::RmsNorm { epsilon },
        [x, weight],
        generic::rms_norm(x, weight, epsilon)
    )
}

/// `(x - mean) / sqrt(var + epsilon) * weight + bias` over the last axis, statistics in f32.
///
/// # Shapes
/// `x`: `[..., width]`; `weight`, `bias`: `[width]`
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    fused!(
        flex::LayerNorm { epsilon },
        [x, weight, bias],
        generic::layer_norm(x, weight, bias, epsilon)
    )
}

/// `silu(gate) * up`, `[rows, width]` each.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    fused!(flex::SwiGlu, [gate, up], generic::swiglu(gate, up))
}

/// The exact (erf) GELU of every element.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    fused!(flex::Pointwise::Gelu, [x], generic::gelu(x))
}

/// `x * sigmoid(1.702 x)` of every element.
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    fused!(flex::Pointwise::QuickGelu, [x], generic::quick_gelu(x))
}

/// GELU of every element by its tanh approximation, `x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2`.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    fused!(flex::Pointwise::GeluTanh, [x], generic::gelu_tanh(x))
}

/// Rotates the two halves of each head by the angle of its position.
///
/// # Shapes
/// `x`: `[batch, seq, heads, head_dim]`; `cos`, `sin`: `[seq or more, head_dim / 2]`
pub fn rotate(x: Tensor<4>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<4> {
    fused!(flex::Rotate, [x, cos, sin], generic::rotate(x, cos, sin))
}

/// `x weight + bias`.
///
/// # Shapes
/// `x`: `[rows, inputs]`; `weight`: `[inputs, outputs]`; `bias`: `[outputs]`; result
/// `[rows, outputs]`
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    match bias {
        None => fused!(flex::Linear, [x, weight], generic::linear(x, weight, None)),
        Some(bias) => fused!(
            flex::Linear,
            [x, weight, bias],
            generic::linear(x, weight, Some(bias))
        ),
    }
}

/// `y + scale (x a) b`, a low-rank change of a linear map's output.
///
/// # Shapes
/// `y`: `[rows, outputs]`; `x`: `[rows, inputs]`; `a`: `[inputs, rank]`; `b`: `[rank, outputs]`;
/// result as `y`, also in its number format; `x`, `a` and `b` share one
pub fn add_low_rank(
    y: Tensor<2>,
    x: Tensor<2>,
    a: Tensor<2>,
    b: Tensor<2>,
    scale: f64,
) -> Tensor<2> {
    fused!(
        flex::AddLowRank {
            scale: scale as f32
        },
        [y, x, a, b],
        generic::add_low_rank(y, x, a, b, scale)
    )
}

/// The keys that each query may read.
#[derive(Debug, Clone)]
pub enum Readable {
    /// Every key.
    All,
    /// The last `window` keys up to a query's own limit.
    UpTo {
        /// Last key of each query: `[queries]` for all items alike, or `[batch, queries]`.
        last: Arc<[usize]>,
        /// Keys that a query reads at most, at least 1.
        window: usize,
    },
}

/// `softmax(q kᵀ / sqrt(head_dim)) v` over the readable keys; query heads h·g…h·g+g−1 share key
/// head h. `generic` is what runs where no kernel does.
///
/// # Shapes
/// `q`: `[batch, queries, heads, head_dim]`; `k`, `v`: `[batch, keys, kv_heads, head_dim]`;
/// result: `[batch, queries, heads * head_dim]`
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    readable: &Readable,
    generic: impl FnOnce(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<3>,
) -> Tensor<3> {
    fused!(
        flex::Attention::new(readable, q.dims()[3]),
        [q, k, v],
        generic(q, k, v)
    )
}
