//! Who is related to whom.

use super::Pair;

/// For each note the notes related to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partners {
    ends: Vec<usize>,
    partners: Vec<u32>,
}

impl Partners {
    pub(super) fn new(pairs: &[Pair], notes: usize) -> Self {
        let mut edges: Vec<(u32, u32)> = pairs
            .iter()
            .flat_map(|pair| [(pair.query, pair.target), (pair.target, pair.query)])
            .collect();
        edges.sort_unstable();
        edges.dedup();
        let ends = (0..notes as u32)
            .map(|note| edges.partition_point(|edge| edge.0 <= note))
            .collect();
        Self {
            ends,
            partners: edges.into_iter().map(|edge| edge.1).collect(),
        }
    }

    /// The partners of a note, ascending; none for a row outside the set.
    pub fn of(&self, note: u32) -> &[u32] {
        let note = note as usize;
        let Some(&end) = self.ends.get(note) else {
            return &[];
        };
        let start = if note == 0 { 0 } else { self.ends[note - 1] };
        &self.partners[start..end]
    }

    /// Whether two notes are partners.
    pub fn contains(&self, note: u32, other: u32) -> bool {
        self.of(note).binary_search(&other).is_ok()
    }
}
