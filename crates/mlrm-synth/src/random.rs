//! Random numbers that are the same on every machine, whatever order things are drawn in.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What the numbers are for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    /// Which note has which themes.
    Tastes = 1,
    /// The picture of a note.
    Picture = 2,
    /// The text of a note.
    Text = 3,
    /// What a user sees.
    User = 4,
}

/// Numbers of one item (a note, a user). The distributions are written out here because those of
/// the `rand` crate may change with its version, and the sample set must not.
pub(super) struct Random(ChaCha8Rng);

impl Random {
    pub(super) fn new(seed: u64, stream: Stream, item: usize) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&(stream as u64).to_le_bytes());
        key[16..24].copy_from_slice(&(item as u64).to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// A number in 0..`end`, evenly; 0 when `end` is 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.0.next_u64()) * end as u128) >> 64) as usize
    }

    /// A number in 0.0..1.0, evenly.
    pub(super) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number in `low`..`high`, evenly.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// One of the items.
    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Some different items, in random order; all when there are fewer.
    pub(super) fn pick_some<T: Copy>(&mut self, items: &[T], count: usize) -> Vec<T> {
        let mut items = items.to_vec();
        self.shuffle(&mut items);
        items.truncate(count);
        items
    }

    /// Puts the items into random order (Fisher-Yates).
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
