//! Confidence intervals of means over queries.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::sum::exact_mean;

/// A mean with a confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Percentile bootstrap over queries (Efron 1979): the mean of `values` and the interval that holds
/// the share `confidence` (0.95, say) of the means of `resamples` samples drawn with replacement.
/// Same seed, same interval. Given the differences of two rankings query by query, it tells whether
/// one is better: the interval then leaves out 0.
///
/// None if there are no values or no resamples, or `confidence` is not within 0 and 1.
pub fn bootstrap_ci(
    values: &[f64],
    resamples: usize,
    confidence: f64,
    seed: u64,
) -> Option<Interval> {
    let mean = exact_mean(values)?;
    if resamples == 0 || !(0.0..=1.0).contains(&confidence) {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut means: Vec<f64> = (0..resamples)
        .map(|_| {
            let sample = (0..values.len()).map(|_| values[rng.random_range(0..values.len())]);
            sample.sum::<f64>() / values.len() as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    Some(Interval {
        mean,
        low: quantile(&means, tail),
        high: quantile(&means, 1.0 - tail),
    })
}

/// Quantile of sorted values, linear between neighbours.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_the_normal_interval_of_a_proportion() {
        // 400 queries, 30 % hits: the mean's standard error is sqrt(0.3 · 0.7 / 400) = 0.0229.
        let values: Vec<f64> = (0..400)
            .map(|at| f64::from(u8::from(at % 10 < 3)))
            .collect();
        let found = bootstrap_ci(&values, 4000, 0.95, 1).unwrap();
        assert_eq!(found.mean, 0.3);
        assert!(
            (found.low - (0.3 - 1.96 * 0.0229)).abs() < 0.004,
            "{found:?}"
        );
        assert!(
            (found.high - (0.3 + 1.96 * 0.0229)).abs() < 0.004,
            "{found:?}"
        );
        assert_eq!(bootstrap_ci(&values, 4000, 0.95, 1), Some(found));
        assert_ne!(bootstrap_ci(&values, 4000, 0.95, 2), Some(found));
    }

    #[test]
    fn degenerate_input() {
        assert_eq!(bootstrap_ci(&[], 10, 0.9, 0), None);
        assert_eq!(bootstrap_ci(&[1.0], 0, 0.9, 0), None);
        assert_eq!(bootstrap_ci(&[1.0], 10, f64::NAN, 0), None);
        let one = bootstrap_ci(&[0.5], 10, 0.9, 0).unwrap();
        assert_eq!((one.low, one.high), (0.5, 0.5));
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.0), 1.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 1.0), 4.0);
    }
}
