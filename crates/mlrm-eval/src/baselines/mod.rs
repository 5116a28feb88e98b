//! Rankings that a trained model is compared with, on the same [`Task`](crate::Task).
//!
//! Baselines that are embeddings themselves (text only, image only, zero-shot) need nothing of
//! their own: they go through [`rank_embeddings`](crate::rank_embeddings) like the model.

mod bm25;
mod popularity;
mod random;
mod tokens;

pub use bm25::Bm25;
pub use popularity::rank_by_popularity;
pub use random::random_expectation;
pub use tokens::tokenize;
