//! Pixels kept between epochs.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::image::{ImagePreprocessor, PreprocessorConfig};

/// Pixels by row, up to a budget of bytes. What came first stays: each epoch reads every note once,
/// in another order, so the share of pixels that is found is the share that is kept, whichever they
/// are; replacing the oldest would find fewer.
///
/// All encoders of a note set share one: it serves those that preprocess as the first one does.
#[derive(Debug, Default)]
pub struct PixelCache {
    budget_bytes: usize,
    preprocessing: OnceLock<(PreprocessorConfig, usize)>,
    kept: RwLock<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    pixels: HashMap<u32, Arc<[u8]>>,
    bytes: usize,
}

impl PixelCache {
    /// A cache that keeps at most `budget_bytes` of pixels; 0 keeps none.
    pub fn new(budget_bytes: usize) -> Self {
        Self {
            budget_bytes,
            preprocessing: OnceLock::new(),
            kept: RwLock::default(),
        }
    }

    /// Whether pixels of `preprocessor` are kept here, or those of another one.
    pub(super) fn serves(&self, preprocessor: &ImagePreprocessor) -> bool {
        let of = (preprocessor.config().clone(), preprocessor.image_size());
        *self.preprocessing.get_or_init(|| of.clone()) == of
    }

    pub(super) fn get(&self, row: u32) -> Option<Arc<[u8]>> {
        // Nothing in here panics while it holds the lock.
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.pixels.get(&row).cloned()
    }

    /// Keeps `pixels` where the budget allows.
    pub(super) fn insert(&self, row: u32, pixels: &Arc<[u8]>) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + pixels.len() <= self.budget_bytes && !kept.pixels.contains_key(&row) {
            kept.bytes += pixels.len();
            kept.pixels.insert(row, Arc::clone(pixels));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pixels_stay_until_the_budget_is_spent() {
        let cache = PixelCache::new(25);
        for row in 0..4 {
            cache.insert(row, &vec![row as u8; 10].into());
        }
        cache.insert(0, &vec![9; 10].into());
        assert_eq!(cache.get(0).as_deref(), Some([0; 10].as_slice()));
        assert_eq!(cache.get(1).as_deref(), Some([1; 10].as_slice()));
        assert_eq!(cache.get(2), None);
        cache.insert(7, &vec![7; 5].into());
        assert!(cache.get(7).is_some());
    }

    #[test]
    fn pixels_are_those_of_one_preprocessing() {
        let preprocessor = |side: u32| {
            ImagePreprocessor::new(PreprocessorConfig::clip(side), side as usize).unwrap()
        };
        let cache = PixelCache::new(1);
        let served = [8, 16, 8].map(|side| cache.serves(&preprocessor(side)));
        assert_eq!(served, [true, false, true]);
    }
}
