//! Kernels of the CPU backend, forward and backward.
//!
//! Flex runs one tensor operation after the other, each on one thread over the whole tensor. These
//! kernels do a chain of them in one pass, on all threads, and reuse the buffers that they consume.
//! Every sum has one fixed order, so results do not depend on the number of threads.

mod activation;
mod attention;
mod attention_half;
mod buffer;
mod frozen;
mod gated_mlp;
mod kernel;
mod linear;
mod maps;
mod norm;
mod optimiser;
#[cfg(target_arch = "x86_64")]
mod packed;
mod patches;
mod product;
mod repeat;
mod rotary;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod two_layers;
mod vector;

pub(super) use activation::{Pointwise, SwiGlu};
pub(super) use attention::Attention;
pub(super) use attention_half::AttentionHalf;
pub(super) use gated_mlp::GatedMlp;
pub(super) use kernel::{holds, run};
pub(super) use linear::{AddLowRank, Linear};
pub(super) use norm::{LayerNorm, RmsNorm};
pub(super) use optimiser::{adamw, squared_norm};
pub(super) use patches::Patches;
pub(super) use repeat::Repeat;
pub(super) use rotary::Rotate;
pub(super) use two_layers::two_layers;

/// The instructions by which products in bf16 are faster here than in f32.
pub(super) fn bf16_products() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    return tiles::Instructions::found().map(tiles::Instructions::name);
    #[cfg(not(target_arch = "x86_64"))]
    None
}
