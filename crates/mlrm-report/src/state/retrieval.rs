//! Reading the metrics of evaluations.

use mlrm_events::{Evaluation, Metrics};

/// What the log adds to a metric's name for the bounds of its interval.
const LOW: &str = ":low";
const HIGH: &str = ":high";

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
        bounds: bound(LOW).zip(bound(HIGH)),
    })
}

/// The metrics by name, each with its bounds.
pub fn intervals(metrics: &Metrics) -> impl Iterator<Item = (&str, Interval)> {
    let names = metrics.keys().map(String::as_str);
    let named = names.filter(|name| !name.ends_with(LOW) && !name.ends_with(HIGH));
    named.filter_map(|name| Some((name, interval(metrics, name)?)))
}

/// The metric that runs are compared by: Recall@10, or where it was not measured, what was first.
pub fn main_metric(metrics: &Metrics) -> Option<(&str, f64)> {
    let found = metrics.get_key_value("recall@10");
    let (name, value) = found.or_else(|| metrics.first())?;
    Some((name, *value))
}

/// The names of the metrics that the evaluations hold, without bounds, in the order of their
/// coming.
pub fn metric_names<'a>(evaluations: impl IntoIterator<Item = &'a Evaluation>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for evaluation in evaluations {
        for (name, _) in evaluation.slices.values().flat_map(intervals) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
    }
    names
}
