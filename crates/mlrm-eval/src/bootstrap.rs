//! Confidence intervals of means over queries.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
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

/// Percentile bootstrap over queries (Efron 1979).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Samples drawn with replacement.
    pub resamples: usize,
    /// Share of their means that an interval holds (0.95, say).
    pub confidence: f64,
    /// Same seed, same intervals.
    pub seed: u64,
}

impl Bootstrap {
    /// 95 % intervals from 1,000 samples.
    pub fn new(seed: u64) -> Self {
        Self {
            resamples: 1000,
            confidence: 0.95,
            seed,
        }
    }

    /// The intervals of several metrics of the same queries: `columns` hold one metric each, query
    /// by query. All metrics see the same samples. Given the differences of two rankings query by
    /// query, an interval tells whether one is better: it then leaves out 0.
    ///
    /// None if there are no queries or no resamples, or `confidence` is not within 0 and 1.
    ///
    /// # Panics
    ///
    /// If a column is shorter than the first.
    pub fn intervals(&self, columns: &[Vec<f64>]) -> Option<Vec<Interval>> {
        let queries = columns.first().map_or(0, Vec::len);
        if queries == 0 || self.resamples == 0 || !(0.0..=1.0).contains(&self.confidence) {
            return None;
        }
        let samples: Vec<Vec<f64>> = (0..self.resamples as u64)
            .into_par_iter()
            .map(|sample| self.sample_means(columns, queries, sample))
            .collect();
        let tail = (1.0 - self.confidence) / 2.0;
        let interval = |(at, values): (usize, &Vec<f64>)| {
            let mut means: Vec<f64> = samples.iter().map(|means| means[at]).collect();
            means.sort_unstable_by(f64::total_cmp);
            Some(Interval {
                mean: exact_mean(values)?,
                low: quantile(&means, tail),
                high: quantile(&means, 1.0 - tail),
            })
        };
        columns.iter().enumerate().map(interval).collect()
    }

    /// The means of one sample; each has a random stream of its own, so that threads do not matter.
    fn sample_means(&self, columns: &[Vec<f64>], queries: usize, sample: u64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(sample);
        let mut sums = vec![0.0; columns.len()];
        for _ in 0..queries {
            let query = rng.random_range(0..queries);
            for (sum, values) in sums.iter_mut().zip(columns) {
                *sum += values[query];
            }
        }
        sums.into_iter().map(|sum| sum / queries as f64).collect()
    }
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

    fn bootstrap(resamples: usize, confidence: f64, seed: u64) -> Bootstrap {
        Bootstrap {
            resamples,
            confidence,
            seed,
        }
    }

    #[test]
    fn covers_the_normal_interval_of_a_proportion() {
        // 400 queries, 30 % hits: the mean's standard error is sqrt(0.3 · 0.7 / 400) = 0.0229.
        let hits: Vec<f64> = (0..400)
            .map(|at| f64::from(u8::from(at % 10 < 3)))
            .collect();
        let misses: Vec<f64> = hits.iter().map(|hit| 1.0 - hit).collect();
        let columns = [hits, misses];
        let both = bootstrap(4000, 0.95, 1).intervals(&columns).unwrap();
        let found = both[0];
        assert_eq!(found.mean, 0.3);
        assert!(
            (found.low - (0.3 - 1.96 * 0.0229)).abs() < 0.004,
            "{found:?}"
        );
        assert!(
            (found.high - (0.3 + 1.96 * 0.0229)).abs() < 0.004,
            "{found:?}"
        );
        // The same samples: what one gains the other loses.
        assert!((both[1].low - (1.0 - found.high)).abs() < 1e-12, "{both:?}");
        let again = |seed| bootstrap(4000, 0.95, seed).intervals(&columns);
        assert_eq!(again(1), Some(both.clone()));
        assert_ne!(again(2), Some(both));
    }

    #[test]
    fn degenerate_input() {
        assert_eq!(bootstrap(10, 0.9, 0).intervals(&[]), None);
        assert_eq!(bootstrap(10, 0.9, 0).intervals(&[vec![]]), None);
        assert_eq!(bootstrap(0, 0.9, 0).intervals(&[vec![1.0]]), None);
        assert_eq!(bootstrap(10, f64::NAN, 0).intervals(&[vec![1.0]]), None);
        let one = bootstrap(10, 0.9, 0).intervals(&[vec![0.5]]).unwrap()[0];
        assert_eq!((one.low, one.high), (0.5, 0.5));
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.0), 1.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 1.0), 4.0);
    }
}
