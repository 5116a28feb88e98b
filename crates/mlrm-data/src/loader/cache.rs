//! Pixels kept between epochs.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::image::{ImagePreprocessor, PreprocessorConfig};

/// What is seen of a picture, as bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Pixels {
    /// Height and width.
    pub size: [usize; 2],
    /// `[height, width, 3]`
    pub bytes: Arc<[u8]>,
}

/// Pixels by row, up to a budget of bytes. What came first stays: each epoch reads every note once,
/// in another order, so the share of pixels that is found is the share that is kept, whichever they
/// are; replacing the oldest would find fewer.
///
/// All encoders of a note set share one: it serves those that preprocess as the first one does.
#[derive(Debug, Default)]
pub struct PixelCache {
    budget_bytes: usize,
    preprocessing: OnceLock<(PreprocessorConfig, Option<usize>)>,
    kept: RwLock<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    pixels: HashMap<u32, Pixels>,
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

    pub(super) fn get(&self, row: u32) -> Option<Pixels> {
        // Nothing in here panics while it holds the lock.
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.pixels.get(&row).cloned()
    }

    /// Keeps `pixels` where the budget allows.
    pub(super) fn insert(&self, row: u32, pixels: &Pixels) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let bytes = pixels.bytes.len();
        if kept.bytes + bytes <= self.budget_bytes && !kept.pixels.contains_key(&row) {
            kept.bytes += bytes;
            kept.pixels.insert(row, pixels.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pixels_stay_until_the_budget_is_spent() {
        let pixels = |value: u8, count: usize| Pixels {
            size: [1, count],
            bytes: vec![value; count].into(),
        };
        let cache = PixelCache::new(25);
        for row in 0..4 {
            cache.insert(row, &pixels(row as u8, 10));
        }
        cache.insert(0, &pixels(9, 10));
        assert_eq!(cache.get(0), Some(pixels(0, 10)));
        assert_eq!(cache.get(1), Some(pixels(1, 10)));
        assert_eq!(cache.get(2), None);
        cache.insert(7, &pixels(7, 5));
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
