//! Whether a run learns: figures of a fixed batch of pairs, and warnings where it does not.

mod probe;
mod rules;
mod watched;

pub use probe::EmbeddingProbe;
pub(crate) use rules::{Watch, ignored_in_test};
pub use watched::Watched;
