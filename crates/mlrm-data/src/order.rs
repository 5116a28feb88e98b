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

/// Batches of pairs of like length, so that little of them is padding.
///
/// The whole batches of an epoch's permutation are cut into windows of so many. In each window pairs are
/// sorted by length (those of one length stay as the permutation has them), cut into batches, and the
/// batches are shuffled. The permutation decides which pairs a window holds, so every pair may still
/// meet every other; and what a window holds depends on the seed and the epoch's number alone.
#[derive(Debug, Clone, PartialEq)]
pub struct LengthWindows {
    /// How long each pair is, in whatever unit. `[pairs]`
    pub lengths: Vec<usize>,
    /// Pairs of a batch.
    pub batch_pairs: usize,
    /// Batches of a window.
    pub window_batches: usize,
}

impl LengthWindows {
    /// Orders the windows of `permutation`, whose epoch is `epoch`. A batch that the epoch before
    /// began, or that the next one completes, stays as it is.
    fn arrange(&self, permutation: &mut [u32], epoch: u64, random: &mut impl Rng) {
        let batch = self.batch_pairs.max(1);
        let drawn = u128::from(epoch) * permutation.len() as u128;
        let begun = (drawn % batch as u128) as usize;
        let first = ((batch - begun) % batch).min(permutation.len());
        let whole = (permutation.len() - first) / batch * batch;
        let window = batch.saturating_mul(self.window_batches.max(1));
        for window in permutation[first..][..whole].chunks_mut(window) {
            window.sort_by_key(|&pair| self.lengths[pair as usize]);
            for last in (1..window.len() / batch).rev() {
                let other = below(random, last as u32 + 1) as usize;
                if other != last {
                    let (front, back) = window.split_at_mut(last * batch);
                    front[other * batch..][..batch].swap_with_slice(&mut back[..batch]);
                }
            }
        }
    }
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
    windows: Option<LengthWindows>,
}

impl PairOrder {
    /// The order over `pairs` pairs, from `cursor` on. A cursor past the end of its epoch, from a
    /// set with more pairs, goes on with the next epoch. Without pairs the order is empty.
    pub fn new(pairs: u32, seed: u64, cursor: Cursor) -> Self {
        let mut order = Self {
            seed,
            permutation: (0..pairs).collect(),
            cursor,
            windows: None,
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

    /// The same order in windows.
    ///
    /// # Panics
    /// Later, where `windows` does not tell the length of every pair.
    pub fn in_windows(mut self, windows: LengthWindows) -> Self {
        self.windows = Some(windows);
        self.shuffle();
        self
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
        if let Some(windows) = &self.windows {
            windows.arrange(&mut self.permutation, self.cursor.epoch, &mut random);
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

    /// 41 pairs of lengths 0 to 40, in batches of 4 and windows of 3: of like length within a batch,
    /// each pair once an epoch, and the batches of a window in any order.
    #[test]
    fn windows_sort_pairs_by_length_and_shuffle_their_batches() {
        let windows = || LengthWindows {
            lengths: (0..41).collect(),
            batch_pairs: 4,
            window_batches: 3,
        };
        let plain = || PairOrder::new(41, 3, Cursor::default());
        let epochs = |mut order: PairOrder| indices(order.next_batch(41 * 8));
        let (drawn, expected) = (epochs(plain().in_windows(windows())), epochs(plain()));
        let (mut falls, mut spread, mut plain_spread) = (0, 0, 0);
        for batch in 0..41 * 2 {
            let pairs = &drawn[batch * 4..][..4];
            let crosses = batch * 4 / 41 != (batch * 4 + 3) / 41;
            if crosses {
                assert_eq!(pairs, &expected[batch * 4..][..4], "across two epochs");
                continue;
            }
            assert!(pairs.is_sorted(), "{pairs:?}");
            spread += pairs[3] - pairs[0];
            let plain = &expected[batch * 4..][..4];
            plain_spread += plain.iter().max().unwrap() - plain.iter().min().unwrap();
            falls += usize::from(batch > 0 && drawn[batch * 4 - 1] > pairs[0]);
        }
        assert!(3 * spread < 2 * plain_spread, "{spread} of {plain_spread}");
        assert!((20..70).contains(&falls), "{falls}");
        for (found, plain) in drawn.chunks(41).zip(expected.chunks(41)) {
            let mut sorted = found.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..41).collect::<Vec<_>>());
            assert_ne!(found, plain);
        }
        // A window holds the pairs that the permutation gave it: the first twelve of the first epoch.
        let window = |order: &[usize]| {
            let mut window = order[..12].to_vec();
            window.sort_unstable();
            window
        };
        assert_eq!(window(&drawn), window(&expected));
        // From the middle of a window, and of a later epoch, it goes on as it would have.
        for taken in [1, 2, 9, 10, 11, 25, 62] {
            let mut order = plain().in_windows(windows());
            order.next_batch(taken * 4);
            let mut resumed = PairOrder::new(41, 3, order.cursor()).in_windows(windows());
            assert_eq!(resumed.next_batch(80), order.next_batch(80), "{taken}");
        }
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
