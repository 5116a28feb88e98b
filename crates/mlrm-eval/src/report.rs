//! The result of an evaluation, for programs.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::metrics::Slices;

/// What `mlrm eval --json` writes. All metrics are shares between 0 and 1; numbers round-trip.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// Number of notes in the pool.
    pub pool: usize,
    /// Number of evaluated queries.
    pub queries: usize,
    /// How many queries there are, where only some were evaluated (`eval.max_queries`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub queries_sampled_from: usize,
    /// Notes that the model read by their text alone, for want of a usable picture.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub read_by_text: usize,
    /// Notes that were left out of pool and queries, for want of a usable picture.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: usize,
    /// The model: slice name → metrics.
    pub slices: Slices,
    /// Baseline name → slice name → metrics.
    pub baselines: IndexMap<String, Slices>,
    /// Baselines that were asked for and not measured → why.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub left_out: IndexMap<String, String>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}
