//! Building blocks shared by every family: linear maps, norms, rotary positions, attention, MLPs.

mod attention;
mod linear;
mod mlp;
mod norm;
mod rope;

pub use attention::{AttentionMask, AttentionProbe, PreparedMask, ProbeSite, attend};
pub(crate) use linear::zeros;
pub use linear::{apply, embedding, linear, rows_linear};
pub use mlp::{Activation, SwiGlu, TwoLayerMlp};
pub use norm::{LayerNorm, Norm, RmsNorm};
pub use rope::{Rope, RopeScaling, RotaryCache, RotaryTable};
