//! A number and how sure it is.

use serde::{Deserialize, Serialize};

use crate::event::Metrics;

/// What a metric's name is followed by for the bounds of its interval.
const BOUNDS: [&str; 2] = [":low", ":high"];

/// A mean with its 95 % confidence interval; of a share, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// A metric with its interval, where that was measured.
    pub fn of(metrics: &Metrics, metric: &str) -> Option<Self> {
        let [low, high] = Self::bound_names(metric).map(|name| metrics.get(&name).copied());
        Some(Self {
            mean: *metrics.get(metric)?,
            low: low?,
            high: high?,
        })
    }

    /// The names of the lower and the upper end of a metric's interval, as [`Metrics`] have them.
    pub fn bound_names(metric: &str) -> [String; 2] {
        BOUNDS.map(|bound| format!("{metric}{bound}"))
    }

    /// Whether the interval leaves out 0.
    pub fn differs(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// The metrics by name, without the ends of their intervals.
pub fn means(metrics: &Metrics) -> impl Iterator<Item = (&str, f64)> {
    let named = metrics.iter().map(|(name, mean)| (name.as_str(), *mean));
    named.filter(|(name, _)| !BOUNDS.iter().any(|bound| name.ends_with(bound)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_read_with_its_bounds_where_there_are_any() {
        let [low, high] = Interval::bound_names("mrr");
        let metrics = [
            ("mrr", 0.3),
            (low.as_str(), 0.2),
            (high.as_str(), 0.4),
            ("hit@10", 0.5),
        ];
        let metrics: Metrics = metrics.map(|(name, value)| (name.to_owned(), value)).into();
        let found = Interval::of(&metrics, "mrr").unwrap();
        assert_eq!([found.mean, found.low, found.high], [0.3, 0.2, 0.4]);
        assert_eq!(Interval::of(&metrics, "hit@10"), None);
        assert!(means(&metrics).eq([("mrr", 0.3), ("hit@10", 0.5)]));
    }
}
