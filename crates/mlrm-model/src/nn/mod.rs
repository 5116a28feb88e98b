//! Building blocks shared by every family: linear maps, norms, rotary positions, attention, MLPs.

mod attention;
mod cross_attention;
mod linear;
mod mlp;
mod norm;
mod positions;
mod rope;

pub use attention::{AttentionMask, AttentionProbe, PreparedMask, ProbeSite, attend};
pub use cross_attention::CrossAttention;
pub(crate) use linear::zeros;
pub use linear::{embedding, linear, rows_linear};
pub use mlp::{Activation, SwiGlu, TwoLayerMlp};
pub use norm::{LayerNorm, Norm, RmsNorm};
pub use positions::{resize_positions, sin_cos_2d};
pub use rope::{Rope, RopeScaling, RotaryTable};
