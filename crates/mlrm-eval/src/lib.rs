//! Item-to-item retrieval: how well embeddings find the notes that users see together.
//!
//! The crate knows nothing of models. It takes embeddings (computed here or anywhere else), the
//! truth as (query, relevant note) pairs, and gives the tables of method §6:
//!
//! ```text
//! ids, truth ──▶ Task ──▶ rank_embeddings │ Bm25::rank │ rank_by_popularity ──▶ Ranks ──▶ summarise
//!                  └────▶ random_expectation (computed, nothing to rank) ────────────────────┤
//!                                                                              EvalReport ◀──┘
//! ```
//!
//! [`Task`] fixes queries, relevant notes and pool; every ranking (the model's and each baseline's)
//! goes through the same task, so that all rows of a table speak of the same queries. A ranking is
//! reduced to the ranks of the relevant notes; all metrics and slices follow from these.

mod baselines;
mod bootstrap;
#[cfg(test)]
mod drawn;
mod embeddings;
mod error;
mod files;
mod geometry;
#[cfg(feature = "index")]
mod index;
mod metrics;
mod order;
mod product;
mod query_record;
mod rank;
mod report;
mod score;
mod spread;
mod sum;
mod table;
mod task;
mod topk;

pub use baselines::{Bm25, random_expectation, rank_by_popularity, tokenize};
pub use bootstrap::{Bootstrap, Interval};
pub use embeddings::{EmbeddingSet, Embeddings};
pub use error::Error;
pub use files::{
    Format, Joined, Numbers, PartFile, clear_unfinished, embedding_files, join_embeddings,
    read_embeddings, write_companion, write_embeddings,
};
pub use geometry::{Geometry, geometry};
#[cfg(feature = "index")]
pub use index::{Index, IndexNumbers, IndexOptions, IndexRecall, IndexReport};
pub use metrics::{
    Metric, Slice, SliceKind, SliceMetrics, Slices, all_notes, length_slices, per_query, summarise,
};
pub use order::IdOrder;
pub use query_record::{QueryMetrics, QueryRecord};
pub use rank::{QueryRanks, Ranks, rank_embeddings, rank_scores};
pub use report::EvalReport;
pub use spread::{Spread, spread};
pub use sum::exact_sum;
pub use task::{Query, Relevance, Task};
pub use topk::{Neighbour, top_k};

/// Ranks one set of embeddings and measures it: [`rank_embeddings`] without priors, then
/// [`summarise`] without intervals.
///
/// # Errors
/// See the two functions.
pub fn evaluate(
    task: &Task,
    embeddings: &Embeddings,
    cutoffs: &[usize],
    slices: &[Slice],
) -> Result<Slices, Error> {
    summarise(
        &rank_embeddings(task, embeddings, None)?,
        cutoffs,
        slices,
        None,
    )
}
