//! Building blocks shared by every family: linear maps, norms, rotary positions, attention, MLPs.

mod attention;
mod dropout;
mod linear;
mod lora;
mod mlp;
mod norm;
mod rope;

pub use attention::{AttentionMask, AttentionProbe, PreparedMask, ProbeSite, attend};
pub use dropout::{Dropout, DropoutClock, DropoutOn};
pub(crate) use linear::zeros;
pub use linear::{Linear, apply, embedding, linear, rows_linear};
pub use lora::{AdapterShape, LowRank, attach_adapters};
pub use mlp::{Activation, SwiGlu, TwoLayerMlp};
pub use norm::{LayerNorm, Norm, RmsNorm};
pub use rope::{Rope, RopeScaling, RotaryCache, RotaryTable};
