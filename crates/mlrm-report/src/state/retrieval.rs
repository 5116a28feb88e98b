//! Reading the metrics of evaluations.

use mlrm_events::{Evaluation, Metrics};

/// A metric and, where it was measured, its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The metric.
    pub value: f64,
    /// Lower and upper bound.
    pub bounds: Option<(f64, f64)>,
}

/// Reads `metric` with its bounds.
pub fn interval(metrics: &Metrics, metric: &str) -> Option<Interval> {
    let bound = |suffix: &str| metrics.get(&format!("{metric}{suffix}")).copied();
    let value = *metrics.get(metric)?;
    Some(Interval {
        value,
        bounds: bound(":low").zip(bound(":high")),
    })
}

/// Whether a metric's name is that of a bound of a confidence interval.
pub fn is_interval_bound(metric: &str) -> bool {
    metric.ends_with(":low") || metric.ends_with(":high")
}

/// The names of the metrics that the evaluations hold, without bounds, in the order of their
/// coming.
pub fn metric_names<'a>(evaluations: impl IntoIterator<Item = &'a Evaluation>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for evaluation in evaluations {
        for name in evaluation.slices.values().flat_map(Metrics::keys) {
            if !is_interval_bound(name) && !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    names
}
