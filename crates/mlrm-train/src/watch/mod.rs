//! Whether a run learns: figures of a fixed batch of pairs, and warnings where it does not.

mod probe;
mod rules;

pub use probe::EmbeddingProbe;
pub(crate) use rules::{Watch, ignored_in_test};
