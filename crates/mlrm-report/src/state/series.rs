//! Bounded memory for unbounded runs.

/// A stretch of steps, summarised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// The stretch's first step.
    pub first_step: u64,
    /// The stretch's last step.
    pub last_step: u64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Mean over the values.
    pub mean: f64,
    /// How many values.
    pub count: u64,
}

impl Bucket {
    /// The stretch's middle.
    pub fn middle_step(&self) -> f64 {
        (self.first_step as f64 + self.last_step as f64) / 2.0
    }

    fn merge(&mut self, other: Bucket) {
        let count = self.count + other.count;
        self.mean += (other.mean - self.mean) * (other.count as f64 / count as f64);
        self.first_step = self.first_step.min(other.first_step);
        self.last_step = self.last_step.max(other.last_step);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.count = count;
    }
}

/// One bucket of neighbours (at least one).
fn merged(neighbours: &[Bucket]) -> Bucket {
    let mut bucket = neighbours[0];
    neighbours[1..]
        .iter()
        .for_each(|&other| bucket.merge(other));
    bucket
}

/// One quantity over the steps of a run, in at most [`Series::CAPACITY`] buckets.
///
/// Every value is kept exactly until the capacity is reached; then neighbouring buckets are merged
/// in pairs, which keeps every extreme (a spike of one step stays visible) and exact means. Values
/// that are not finite are counted, not drawn.
#[derive(Debug, Clone, Default)]
pub struct Series {
    buckets: Vec<Bucket>,
    /// Values that a full bucket holds; doubles with every merge.
    values_per_bucket: u64,
    last: Option<(u64, f64)>,
    not_finite: u64,
}

impl Series {
    /// Most buckets held: four times the dots of a wide terminal's plot, so that a zoom of four
    /// still shows every dot.
    pub const CAPACITY: usize = 2048;

    /// Adds the value of a step. Steps should not go back; see [`Series::forget_after`].
    pub fn push(&mut self, step: u64, value: f64) {
        self.last = Some((step, value));
        if !value.is_finite() {
            self.not_finite += 1;
            return;
        }
        let single = Bucket {
            first_step: step,
            last_step: step,
            min: value,
            max: value,
            mean: value,
            count: 1,
        };
        match self.buckets.last_mut() {
            Some(bucket) if bucket.count < self.values_per_bucket.max(1) => bucket.merge(single),
            _ => {
                if self.buckets.len() == Self::CAPACITY {
                    self.merge_pairs();
                }
                self.buckets.push(single);
            }
        }
    }

    fn merge_pairs(&mut self) {
        self.buckets = self.buckets.chunks(2).map(merged).collect();
        self.values_per_bucket = self.values_per_bucket.max(1) * 2;
    }

    /// Forgets what came after `step` (a run that resumes computes it again). A bucket that reaches
    /// past `step` goes whole.
    pub fn forget_after(&mut self, step: u64) {
        let kept = self
            .buckets
            .partition_point(|bucket| bucket.last_step <= step);
        self.buckets.truncate(kept);
        if self.last.is_some_and(|(last, _)| last > step) {
            self.last = self
                .buckets
                .last()
                .map(|bucket| (bucket.last_step, bucket.mean));
        }
    }

    /// The buckets, in the order of their steps.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// The same in at most about `count` buckets.
    pub fn coarse(&self, count: usize) -> Vec<Bucket> {
        let size = self.buckets.len().div_ceil(count.max(1)).max(1);
        self.buckets.chunks(size).map(merged).collect()
    }

    /// The newest value, finite or not.
    pub fn last(&self) -> Option<f64> {
        self.last.map(|(_, value)| value)
    }

    /// Whether nothing can be drawn.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// How many values were not finite.
    pub fn not_finite(&self) -> u64 {
        self.not_finite
    }
}

/// The newest item and an even selection of the older ones, in bounded memory.
#[derive(Debug, Clone)]
pub struct History<T> {
    /// Items with their numbers in the order of their coming.
    items: Vec<(u64, T)>,
    capacity: usize,
    stride: u64,
    seen: u64,
}

impl<T> Default for History<T> {
    /// Holds as many probes, evaluations or checkpoints as a run's state does.
    fn default() -> Self {
        Self::new(256)
    }
}

impl<T> History<T> {
    /// Holds at most `capacity` items (at least two).
    pub fn new(capacity: usize) -> Self {
        Self {
            items: Vec::new(),
            capacity: capacity.max(2),
            stride: 1,
            seen: 0,
        }
    }

    /// Adds an item.
    pub fn push(&mut self, item: T) {
        // The newest item is kept only until the next one unless its number fits the stride.
        if let Some((number, _)) = self.items.last()
            && !number.is_multiple_of(self.stride)
        {
            self.items.pop();
        }
        self.items.push((self.seen, item));
        self.seen += 1;
        if self.items.len() > self.capacity {
            self.stride *= 2;
            let (stride, newest) = (self.stride, self.seen - 1);
            self.items
                .retain(|(number, _)| number.is_multiple_of(stride) || *number == newest);
        }
    }

    /// Forgets the items that do not pass.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.items.retain(|(_, item)| keep(item));
    }

    /// The items held, the oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> + ExactSizeIterator + Clone {
        self.items.iter().map(|(_, item)| item)
    }

    /// The newest item.
    pub fn last(&self) -> Option<&T> {
        self.items.last().map(|(_, item)| item)
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many items are held.
    pub fn len(&self) -> usize {
        self.items.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_series_is_bounded_and_keeps_extremes_and_means(
            values in proptest::collection::vec(-1e6..1e6_f64, 1..9000)
        ) {
            let mut series = Series::default();
            for (step, &value) in values.iter().enumerate() {
                series.push(step as u64, value);
            }
            prop_assert!(series.buckets().len() <= Series::CAPACITY);
            // The naive oracle: the buckets' spans, over the values themselves.
            let mut next = 0;
            for bucket in series.buckets() {
                prop_assert_eq!(bucket.first_step, next);
                let span = &values[bucket.first_step as usize..=bucket.last_step as usize];
                prop_assert_eq!(bucket.count as usize, span.len());
                prop_assert_eq!(bucket.min, span.iter().copied().fold(f64::INFINITY, f64::min));
                prop_assert_eq!(bucket.max, span.iter().copied().fold(f64::NEG_INFINITY, f64::max));
                let mean = span.iter().sum::<f64>() / span.len() as f64;
                prop_assert!((bucket.mean - mean).abs() <= 1e-9 * 1e6);
                next = bucket.last_step + 1;
            }
            prop_assert_eq!(next as usize, values.len());
            prop_assert_eq!(series.last(), values.last().copied());
        }

        #[test]
        fn a_history_keeps_first_and_newest_evenly(count in 1_u64..500, capacity in 2_usize..40) {
            let mut history = History::new(capacity);
            for item in 0..count {
                history.push(item);
                prop_assert_eq!(history.last(), Some(&item));
                prop_assert!(history.len() <= capacity);
            }
            let held: Vec<u64> = history.iter().copied().collect();
            prop_assert_eq!(held[0], 0);
            let gaps: Vec<u64> = held.windows(2).map(|pair| pair[1] - pair[0]).collect();
            if let Some((newest, even)) = gaps.split_last() {
                prop_assert!(even.windows(2).all(|pair| pair[0] == pair[1]));
                prop_assert!(even.first().is_none_or(|gap| newest <= gap));
            }
        }
    }

    #[test]
    fn values_that_are_not_finite_are_counted() {
        let mut series = Series::default();
        series.push(1, 2.0);
        series.push(2, f64::NAN);
        assert_eq!((series.buckets().len(), series.not_finite()), (1, 1));
        assert!(series.last().unwrap().is_nan());
    }

    #[test]
    fn resuming_forgets_the_lost_steps() {
        let mut series = Series::default();
        (0..10_000).for_each(|step| series.push(step, step as f64));
        series.forget_after(5000);
        let end = series.buckets().last().unwrap().last_step;
        assert!((4900..=5000).contains(&end), "{end}");
        series.push(5001, 1.0);
        assert_eq!(series.buckets().last().unwrap().last_step, 5001);
    }
}
