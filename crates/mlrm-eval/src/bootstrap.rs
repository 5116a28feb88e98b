//! Confidence intervals of means over queries.

pub use mlrm_events::Interval;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::sum::exact_mean;

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
    /// If a column is shorter than the first.
    pub fn intervals(&self, columns: &[Vec<f64>]) -> Option<Vec<Interval>> {
        self.grouped_intervals(&[columns])
    }

    /// As [`Bootstrap::intervals`] for runs of several seeds: each group holds the columns of one
    /// seed, over its own queries. Seeds are drawn with replacement, and queries within each; a mean
    /// is that of the seeds' means. The draws depend on the numbers of seeds and queries only, so
    /// that calls for other columns of the same queries see the same samples.
    ///
    /// None if a group has no queries or there are no groups or resamples.
    ///
    /// # Panics
    /// If a group has fewer columns than the first, or a column is shorter than the first of its
    /// group.
    pub fn grouped_intervals(&self, groups: &[&[Vec<f64>]]) -> Option<Vec<Interval>> {
        let queries = |columns: &[Vec<f64>]| columns.first().map_or(0, Vec::len);
        let empty = groups.is_empty() || groups.iter().any(|columns| queries(columns) == 0);
        if empty || self.resamples == 0 || !(0.0..=1.0).contains(&self.confidence) {
            return None;
        }
        let samples: Vec<Vec<f64>> = (0..self.resamples as u64)
            .into_par_iter()
            .map(|sample| self.sample_means(groups, sample))
            .collect();
        let tail = (1.0 - self.confidence) / 2.0;
        let interval = |at: usize| {
            let mut means: Vec<f64> = samples.iter().map(|means| means[at]).collect();
            means.sort_unstable_by(f64::total_cmp);
            let of_groups = groups.iter().map(|columns| exact_mean(&columns[at]));
            Some(Interval {
                mean: exact_mean(&of_groups.collect::<Option<Vec<f64>>>()?)?,
                low: quantile(&means, tail),
                high: quantile(&means, 1.0 - tail),
            })
        };
        (0..groups[0].len()).map(interval).collect()
    }

    /// The means of one sample; each has a random stream of its own, so that threads do not matter.
    fn sample_means(&self, groups: &[&[Vec<f64>]], sample: u64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(sample);
        let mut means = vec![0.0; groups[0].len()];
        for _ in groups {
            let columns = match groups {
                [only] => only,
                _ => groups[rng.random_range(0..groups.len())],
            };
            let queries = columns[0].len();
            let mut sums = vec![0.0; columns.len()];
            for _ in 0..queries {
                let query = rng.random_range(0..queries);
                for (sum, values) in sums.iter_mut().zip(columns) {
                    *sum += values[query];
                }
            }
            for (mean, sum) in means.iter_mut().zip(sums) {
                *mean += sum / queries as f64;
            }
        }
        means
            .into_iter()
            .map(|sum| sum / groups.len() as f64)
            .collect()
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
    fn seeds_that_differ_widen_the_interval_and_pairing_narrows_it() {
        let spread =
            |mean: f64| -> Vec<f64> { (0..100).map(|at| mean + f64::from(at % 5) * 0.1).collect() };
        // The second row is better than the first by 0.01 for every query of every seed.
        let group = |mean: f64| {
            let (row, other) = (spread(mean), spread(mean + 0.01));
            let gain = other
                .iter()
                .zip(&row)
                .map(|(other, row)| other - row)
                .collect();
            [row, other, gain]
        };
        let alike = [group(0.1), group(0.1), group(0.1)];
        let apart = [group(0.0), group(0.1), group(0.2)];
        let of = |groups: &[[Vec<f64>; 3]; 3]| {
            let groups: Vec<&[Vec<f64>]> = groups.iter().map(|group| group.as_slice()).collect();
            Bootstrap::new(1).grouped_intervals(&groups).unwrap()
        };
        let (alike, apart) = (of(&alike), of(&apart));
        let width = |interval: &Interval| interval.high - interval.low;
        assert!((alike[0].mean - 0.3).abs() < 1e-12 && (apart[0].mean - 0.3).abs() < 1e-12);
        assert!(
            width(&apart[0]) > 3.0 * width(&alike[0]),
            "{alike:?} {apart:?}"
        );
        assert!(
            apart[1].low < apart[0].high,
            "the rows' own intervals overlap"
        );
        assert!(
            apart[2].low > 0.0 && (apart[2].mean - 0.01).abs() < 1e-12,
            "{apart:?}"
        );
        assert_eq!(Bootstrap::new(1).grouped_intervals(&[]), None);
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
