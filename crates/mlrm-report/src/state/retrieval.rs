//! Reading the metrics of evaluations.

use mlrm_events::{Evaluation, Metrics, means};

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
        for (name, _) in evaluation.slices.values().flat_map(means) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
    }
    names
}
