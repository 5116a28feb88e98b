//! Pixels kept between epochs.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Pixels by row, up to a budget of bytes. What came first stays: each epoch reads every note once,
/// in another order, so the share of pixels that is found is the share that is kept, whichever they
/// are; replacing the oldest would find fewer.
#[derive(Debug)]
pub(super) struct PixelCache {
    budget_bytes: usize,
    kept: RwLock<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    pixels: HashMap<u32, Arc<[u8]>>,
    bytes: usize,
}

impl PixelCache {
    pub fn new(budget_bytes: usize) -> Self {
        Self {
            budget_bytes,
            kept: RwLock::default(),
        }
    }

    pub fn get(&self, row: u32) -> Option<Arc<[u8]>> {
        // Nothing in here panics while it holds the lock.
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.pixels.get(&row).cloned()
    }

    /// Keeps `pixels` where the budget allows, and gives them back.
    pub fn insert(&self, row: u32, pixels: Arc<[u8]>) -> Arc<[u8]> {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + pixels.len() <= self.budget_bytes && !kept.pixels.contains_key(&row) {
            kept.bytes += pixels.len();
            kept.pixels.insert(row, Arc::clone(&pixels));
        }
        pixels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pixels_stay_until_the_budget_is_spent() {
        let cache = PixelCache::new(25);
        for row in 0..4 {
            assert_eq!(cache.insert(row, vec![row as u8; 10].into())[0], row as u8);
        }
        cache.insert(0, vec![9; 10].into());
        assert_eq!(cache.get(0).as_deref(), Some([0; 10].as_slice()));
        assert_eq!(cache.get(1).as_deref(), Some([1; 10].as_slice()));
        assert_eq!(cache.get(2), None);
        cache.insert(7, vec![7; 5].into());
        assert!(cache.get(7).is_some());
    }
}
