//! Related notes from a behaviour log (method §5), and files of pairs.
//!
//! A *co-occurrence event* of a user for the ordered pair (A, B), A ≠ B, is two events of that
//! user, (A, t) and (B, t′), with 0 < t′ − t ≤ window: equal times do not count (with `ties = "both"`
//! they do, in both directions), exactly the window does, other notes in between do not matter, and
//! (B, A) is another pair.

mod files;
mod inverse_sum;
mod losses;
mod on_disk;
mod score;
mod timeline;

pub use files::{RawPair, for_each_pair, read_pairs, write_pairs, write_pairs_csv};
pub use losses::{EventLosses, Losses, PairLosses};
pub use on_disk::{DiskLog, Log, Span, folder_beside};
pub use score::{Scored, Scoring, score_pairs, score_pairs_where};

use crate::interactions::Interner;

/// A note and one related to it; both are numbers of an [`Interner`] of note ids.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredPair {
    /// The note that is seen first; the query of a retrieval.
    pub query: u32,
    /// The note that is seen after it; what the retrieval should find.
    pub target: u32,
    /// Score of the pair, as [`PairWeight`](mlrm_config::PairWeight) defines it.
    pub weight: f64,
}

/// Pairs with the ids that their numbers stand for.
#[derive(Debug, Clone, Default)]
pub struct PairList {
    /// Ids of the notes.
    pub notes: Interner,
    /// Query ascending by id, then weight descending, then target ascending by id, when they come
    /// from [`score_pairs`]; the order of the file, when they come from [`read_pairs`].
    pub pairs: Vec<ScoredPair>,
    /// What the user should know of how the file was read, when they come from [`read_pairs`].
    pub notices: Vec<String>,
}

impl PairList {
    /// Adds a pair, at the end.
    pub(crate) fn push(&mut self, pair: RawPair<'_>) {
        let pair = ScoredPair {
            query: self.notes.intern(pair.query),
            target: self.notes.intern(pair.target),
            weight: pair.weight,
        };
        self.pairs.push(pair);
    }
}

#[cfg(test)]
mod tests;
