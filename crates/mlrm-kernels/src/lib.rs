//! The chains of operations that models are made of, each written once as tensor operations that
//! every backend runs ([`generic`]), and once as kernels of the CPU backend (`flex`).
//!
//! The macro `fused!` is the one place that chooses: kernels take f32 tensors on flex, and all else runs the
//! generic body. `crates/mlrm-model/tests/ops.rs` holds each kernel against its generic body, forward and backward.
//!
//! In this order it is read best:
//!
//! | file | what is there |
//! | --- | --- |
//! | `lib.rs` | every operation as models call it |
//! | [`generic`] | the same in tensor operations |
//! | `flex/kernel.rs` | what a kernel is, and how it enters the graph of gradients |
//! | `flex/norm.rs`, `flex/activation.rs` | the simplest kernels |
//! | `flex/buffer.rs`, `flex/vector.rs` | buffers that are written over; loops compiled for newer processors |
//! | `flex/product.rs`, `flex/packed.rs`, `flex/tiles/` | matrix products; weights laid out once; AMX and AVX512-BF16 |
//! | `flex/maps.rs`, `flex/gated_mlp.rs`, `flex/attention_half/` | a block of rows through half a layer |
//! | `frozen.rs`, `attention.rs`, `optimiser.rs` | quantised weights, attention by blocks, AdamW |

pub mod generic;

#[cfg(feature = "flex")]
mod flex;

mod attention;
mod frozen;
mod memory;
mod optimiser;
mod precision;

pub use attention::{MOST_SCORE_BYTES, attention_by_blocks};
pub use frozen::{Bits, block_size, dequantise, dims, frozen_matmul, param_shape, quantise};
pub use memory::keep_freed_memory;
pub use optimiser::{AdamRule, AdamState, adamw, squared_norm};
pub use precision::{bf16_products, has_bf16_products, matmul_precision, set_matmul_precision};

use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

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

/// A linear map without bias, as a part of a larger operation: `x weight + scale (x a) b`.
#[derive(Debug, Clone)]
pub struct Map {
    /// `[inputs, outputs]`
    pub weight: Tensor<2>,
    /// A low-rank change beside it.
    pub low: Option<LowRankChange>,
}

/// See [`Map`].
#[derive(Debug, Clone)]
pub struct LowRankChange {
    /// `[inputs, rank]`, in f32.
    pub a: Tensor<2>,
    /// `[rank, outputs]`, in f32.
    pub b: Tensor<2>,
    /// What the change is multiplied with.
    pub scale: f64,
}

impl Map {
    /// The weight, and the low-rank change: one of zeros where there is none.
    fn parts(self) -> (Tensor<2>, LowRankChange) {
        let [inputs, outputs] = self.weight.dims();
        let device = self.weight.device().without_autodiff();
        let zeros = |shape: [usize; 2]| Tensor::zeros(shape, (&device, DType::F32));
        let low = self.low.unwrap_or_else(|| LowRankChange {
            a: zeros([inputs, 1]),
            b: zeros([1, outputs]),
            scale: 0.0,
        });
        (self.weight, low)
    }
}

/// `x + down(silu(gate(n)) * up(n))` with `n = rms_norm(x)`: the feed-forward half of a layer.
///
/// # Shapes
/// `x`: `[rows, hidden]`; `norm`: `[hidden]`; `maps` (gate, up, down): `[hidden, inner]` twice, `[inner, hidden]`; result
/// as `x`
pub fn gated_mlp(x: Tensor<2>, norm: Tensor<1>, epsilon: f64, maps: [Map; 3]) -> Tensor<2> {
    if maps.iter().all(|map| map.low.is_none()) {
        let [gate, up, down] = maps.map(|map| map.weight);
        return fused!(
            flex::GatedMlp::new(epsilon, [0.0; 3]),
            [x, norm, gate, up, down],
            {
                let maps = [gate, up, down].map(|weight| Map { weight, low: None });
                generic::gated_mlp(x, norm, epsilon, maps)
            }
        );
    }
    let [(gate, gate_low), (up, up_low), (down, down_low)] = maps.map(Map::parts);
    let scales = [gate_low.scale, up_low.scale, down_low.scale];
    let (gate_a, up_a, down_a) = (gate_low.a, up_low.a, down_low.a);
    let (gate_b, up_b, down_b) = (gate_low.b, up_low.b, down_low.b);
    fused!(
        flex::GatedMlp::new(epsilon, scales),
        [
            x, norm, gate, up, down, gate_a, gate_b, up_a, up_b, down_a, down_b
        ],
        {
            let maps = [
                (gate, gate_a, gate_b),
                (up, up_a, up_b),
                (down, down_a, down_b),
            ];
            let maps = maps.into_iter().zip(scales).map(|((weight, a, b), scale)| {
                let low = Some(LowRankChange { a, b, scale });
                Map { weight, low }
            });
            let maps: Vec<Map> = maps.collect();
            generic::gated_mlp(x, norm, epsilon, maps.try_into().expect("three maps"))
        }
    )
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

/// Activation functions by their Hugging Face names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The exact (erf) GELU.
    Gelu,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// GELU with the tanh approximation.
    GeluPytorchTanh,
}

impl Activation {
    /// Applies the function to every element.
    pub fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => gelu(x),
            Self::QuickGelu => quick_gelu(x),
            Self::GeluPytorchTanh => gelu_tanh(x),
        }
    }

    #[cfg(feature = "flex")]
    fn pointwise(self) -> flex::Pointwise {
        match self {
            Self::Gelu => flex::Pointwise::Gelu,
            Self::QuickGelu => flex::Pointwise::QuickGelu,
            Self::GeluPytorchTanh => flex::Pointwise::GeluTanh,
        }
    }
}

/// The weight of a map, `[inputs, outputs]`, and its bias, `[outputs]`.
pub type Layer = (Tensor<2>, Option<Tensor<1>>);

/// `activation(x w₁ + b₁) w₂ + b₂`, `[rows, inputs]` → `[rows, outputs]`: the feed-forward network of CLIP and BERT.
pub fn two_layers(x: Tensor<2>, layers: [Layer; 2], activation: Activation) -> Tensor<2> {
    #[cfg(feature = "flex")]
    {
        let of_layer =
            |(weight, bias): &Layer| flex::holds(weight) && bias.as_ref().is_none_or(flex::holds);
        if flex::holds(&x) && layers.iter().all(of_layer) {
            return flex::two_layers(x, layers, activation.pointwise());
        }
    }
    let [(first, first_bias), (second, second_bias)] = layers;
    let inner = activation.apply(linear(x, first, first_bias));
    linear(inner, second, second_bias)
}

/// Rotates the two halves of each head by the angle of its position.
///
/// # Shapes
/// `x`: `[batch, seq, heads, head_dim]`; `cos`, `sin`: `[seq or more, head_dim / 2]`
pub fn rotate(x: Tensor<4>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<4> {
    fused!(flex::Rotate, [x, cos, sin], generic::rotate(x, cos, sin))
}

/// The patches of pictures, a row each, picture by picture and row by row of it. What is left over at the right and lower
/// edges is not read.
///
/// # Shapes
/// `pixels`: `[pictures, channels, height, width]`; result `[pictures * rows * columns, channels * patch * patch]` with
/// `rows = height / patch`, `columns = width / patch`
pub fn patches(pixels: Tensor<4>, patch: usize) -> Tensor<2> {
    fused!(
        flex::Patches { patch },
        [pixels],
        generic::patches(pixels, patch)
    )
}

/// The same values for each item of a batch: `[1, …]` → `[batch, …]`.
pub fn repeat<const D: usize>(x: Tensor<D>, batch: usize) -> Tensor<D> {
    fused!(flex::Repeat { batch }, [x], generic::repeat(x, batch))
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

/// `x + output(attention(q, k, v))` with queries, keys and values that maps make of `rms_norm(x)`, the first two rotated as by
/// [`rotate`]: the attention half of a layer. `generic` makes the same of x where no kernel does.
///
/// # Shapes
/// `x`: `[batch, seq, hidden]`; `norm`: `[hidden]`; `maps` (to queries, keys and values, and to the output):
/// `[hidden, heads * head_dim]`, `[hidden, kv_heads * head_dim]` twice, `[heads * head_dim, hidden]`; `cos`, `sin`: `[seq or
/// more, head_dim / 2]`; result as `x`
pub fn attention_half(
    x: Tensor<3>,
    (norm, epsilon): (Tensor<1>, f64),
    maps: [Map; 4],
    [cos, sin]: [Tensor<2>; 2],
    readable: &Readable,
    generic: impl FnOnce(Tensor<3>) -> Tensor<3>,
) -> Tensor<3> {
    #[cfg(feature = "flex")]
    let kernel = |scales| {
        let attention = flex::Attention::new(readable, 2 * cos.dims()[1]);
        flex::AttentionHalf::new(attention, epsilon, scales)
    };
    #[cfg(not(feature = "flex"))]
    let _ = (readable, epsilon);
    if maps.iter().all(|map| map.low.is_none()) {
        let [q, k, v, o] = maps.map(|map| map.weight);
        return fused!(kernel([0.0; 4]), [x, norm, q, k, v, o, cos, sin], {
            let _unread: (Tensor<1>, [Tensor<2>; 6]) = (norm, [q, k, v, o, cos, sin]);
            generic(x)
        });
    }
    let [q, k, v, o] = maps.map(Map::parts);
    let scales = [&q, &k, &v, &o].map(|map| map.1.scale);
    let [(q, q_low), (k, k_low), (v, v_low), (o, o_low)] = [q, k, v, o];
    let (q_a, k_a, v_a, o_a) = (q_low.a, k_low.a, v_low.a, o_low.a);
    let (q_b, k_b, v_b, o_b) = (q_low.b, k_low.b, v_low.b, o_low.b);
    fused!(
        kernel(scales),
        [
            x, norm, q, k, v, o, cos, sin, q_a, q_b, k_a, k_b, v_a, v_b, o_a, o_b
        ],
        {
            let _unread: (Tensor<1>, [Tensor<2>; 6]) = (norm, [q, k, v, o, cos, sin]);
            let _unread: [Tensor<2>; 8] = [q_a, q_b, k_a, k_b, v_a, v_b, o_a, o_b];
            generic(x)
        }
    )
}
