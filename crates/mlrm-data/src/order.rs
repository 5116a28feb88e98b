//! The order in which training sees its pairs: seeded, and resumable from a cursor.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

/// A place in the order: everything that resuming needs besides the seed and the pairs.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Passes over all pairs that are complete.
    pub epoch: u64,
    /// Pairs drawn in the current pass; always fewer than there are pairs.
    pub position: u64,
}

/// An endless seeded order over the indices 0…pairs − 1: epoch after epoch, each a permutation that
/// depends on the seed and the epoch's number alone.
///
/// A batch that an epoch has too few pairs left for continues into the next one, so every batch has
/// the same size, no pair is left out, and each epoch still holds each pair exactly once. (A batch
/// across the seam may hold a pair twice.)
#[derive(Debug, Clone)]
pub struct PairOrder {
    seed: u64,
    permutation: Vec<u32>,
    cursor: Cursor,
}

impl PairOrder {
    /// The order over `pairs` pairs, from `cursor` on. A cursor past the end of its epoch, from a
    /// set with more pairs, goes on with the next epoch. Without pairs the order is empty.
    pub fn new(pairs: u32, seed: u64, cursor: Cursor) -> Self {
        let mut order = Self {
            seed,
            permutation: (0..pairs).collect(),
            cursor,
        };
        if cursor.position >= u64::from(pairs) {
            order.cursor = Cursor {
                epoch: cursor.epoch.saturating_add(1),
                position: 0,
            };
        }
        order.shuffle();
        order
    }

    /// The place behind the last pair drawn.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Draws the indices of the next `batch_pairs` pairs, each with the place that it was drawn at,
    /// which no other draw of the order has.
    pub fn next_batch(&mut self, batch_pairs: usize) -> Vec<(Cursor, usize)> {
        let mut batch = Vec::with_capacity(batch_pairs);
        while batch.len() < batch_pairs && !self.permutation.is_empty() {
            let Cursor { epoch, position } = self.cursor;
            let rest = &self.permutation[position as usize..];
            let take = rest.len().min(batch_pairs - batch.len());
            let drawn = (position..).zip(&rest[..take]);
            batch.extend(
                drawn.map(|(position, &index)| (Cursor { epoch, position }, index as usize)),
            );
            self.cursor.position += take as u64;
            if self.cursor.position == self.permutation.len() as u64 {
                self.cursor = Cursor {
                    epoch: self.cursor.epoch.saturating_add(1),
                    position: 0,
                };
                self.shuffle();
            }
        }
        batch
    }

    /// The permutation of the current epoch: Fisher-Yates from the identity, with a stream of the
    /// generator that no other epoch uses.
    fn shuffle(&mut self) {
        let mut key = *b"mlrm pair order\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        key[24..].copy_from_slice(&self.seed.to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        random.set_stream(self.cursor.epoch);
        for (index, value) in (0u32..).zip(&mut self.permutation) {
            *value = index;
        }
        for last in (1..self.permutation.len()).rev() {
            let other = below(&mut random, last as u32 + 1);
            self.permutation.swap(last, other as usize);
        }
    }
}

/// A uniform number below `bound` (Lemire 2019). Written out, because the order of a run must not
/// change with a random number library's version.
pub(crate) fn below(random: &mut impl Rng, bound: u32) -> u32 {
    let threshold = bound.wrapping_neg() % bound;
    loop {
        let product = u64::from(random.next_u32()) * u64::from(bound);
        if product as u32 >= threshold {
            return (product >> 32) as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn indices(drawn: Vec<(Cursor, usize)>) -> Vec<usize> {
        drawn.into_iter().map(|(_, index)| index).collect()
    }

    #[test]
    fn the_order_of_a_seed_is_fixed_for_all_time() {
        let mut order = PairOrder::new(8, 7, Cursor::default());
        let drawn = [(); 2].map(|()| indices(order.next_batch(8)));
        assert_eq!(drawn, [[0, 4, 3, 6, 1, 2, 5, 7], [3, 1, 2, 0, 7, 4, 6, 5]]);
    }

    #[test]
    fn an_epoch_holds_each_pair_once_and_batches_cross_its_end() {
        let mut order = PairOrder::new(10, 3, Cursor::default());
        let drawn: Vec<_> = (0..5).flat_map(|_| order.next_batch(4)).collect();
        for (at, (place, _)) in (0u64..).zip(&drawn) {
            assert_eq!((place.epoch, place.position), (at / 10, at % 10));
        }
        let drawn = indices(drawn);
        assert_eq!(drawn.len(), 20);
        for epoch in drawn.chunks(10) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(drawn[..10], drawn[10..]);
        let cursor = order.cursor();
        assert_eq!((cursor.epoch, cursor.position), (2, 0));
        assert_eq!(order.next_batch(25).len(), 25);
        assert_eq!(order.cursor().position, 5);
    }

    #[test]
    fn no_pairs_give_no_batch() {
        assert!(
            PairOrder::new(0, 1, Cursor::default())
                .next_batch(4)
                .is_empty()
        );
    }

    /// All 24 permutations of 4 pairs come equally often: chi-squared with 23 degrees of freedom
    /// is below 50 with probability 0.9991, and the seeds are fixed.
    #[test]
    fn permutations_are_uniform() {
        let mut counts = std::collections::HashMap::new();
        for seed in 0..4800 {
            let drawn = indices(PairOrder::new(4, seed, Cursor::default()).next_batch(4));
            *counts.entry(drawn).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 24);
        let deviation = |count: &u32| (f64::from(*count) - 200.0).powi(2) / 200.0;
        let chi_squared: f64 = counts.values().map(deviation).sum();
        assert!(chi_squared < 50.0, "{chi_squared}");
    }

    proptest! {
        /// Resuming from any cursor, through its serialised form, gives what an uninterrupted
        /// order gives.
        #[test]
        fn resuming_gives_the_same_sequence(
            pairs in 1u32..60,
            seed: u64,
            before in proptest::collection::vec(1usize..40, 0..8),
            after in proptest::collection::vec(1usize..40, 1..8),
        ) {
            let mut whole = PairOrder::new(pairs, seed, Cursor::default());
            for &batch in &before {
                whole.next_batch(batch);
            }
            let written = serde_json::to_string(&whole.cursor()).unwrap();
            let cursor: Cursor = serde_json::from_str(&written).unwrap();
            prop_assert!(cursor.position < u64::from(pairs));
            let mut resumed = PairOrder::new(pairs, seed, cursor);
            for &batch in &after {
                prop_assert_eq!(resumed.next_batch(batch), whole.next_batch(batch));
                prop_assert_eq!(resumed.cursor(), whole.cursor());
            }
        }
    }
}
