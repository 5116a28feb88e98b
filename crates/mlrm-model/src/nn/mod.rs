//! Building blocks shared by every family: linear maps, norms, rotary positions, attention, MLPs.

mod attention;
mod cross_attention;
mod dropout;
mod linear;
mod lora;
mod mlp;
mod norm;
mod positions;
mod rope;

pub use crate::ops::Activation;
pub use attention::{
    AttentionMask, AttentionProbe, PreparedMask, ProbeSite, attend, attend_capped,
};
pub use cross_attention::CrossAttention;
pub use dropout::{Dropout, DropoutClock, DropoutOn};
pub use linear::{Linear, embedding, linear};
pub(crate) use linear::{fixed_zeros, zeros};
pub use lora::{AdapterShape, LowRank, attach_adapters};
pub use mlp::{FusedSwiGlu, SwiGlu, TwoLayerMlp};
pub use norm::{LayerNorm, Norm, RmsNorm};
pub use positions::{Interpolation, resize_positions, sin_cos_2d};
pub use rope::{LastTables, MultimodalRope, Place, Rope, RopeScaling, RotaryCache, RotaryTable};
