//! Medians and spreads.

use mlrm_events::Named;

/// The middle value; the mean of the two middle ones of an even number; NaN of none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// (largest − smallest) / median.
pub(super) fn spread(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
    (largest - smallest) / median(values.to_vec())
}

/// The median of each phase, in the order of the first run.
pub(super) fn phase_medians(runs: &[Named<f64>]) -> Named<f64> {
    let names = runs.first().into_iter().flat_map(Named::keys);
    names
        .map(|name| {
            let all = runs.iter().filter_map(|run| run.get(name).copied());
            (name.clone(), median(all.collect()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(median(vec![5.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
        assert_eq!(spread(&[5.0, 1.0, 2.0]), 2.0);
        assert_eq!(spread(&[3.0]), 0.0);
    }

    #[test]
    fn phases_are_judged_apart() {
        let run = |a: f64, b: f64| -> Named<f64> {
            [("a".to_owned(), a), ("b".to_owned(), b)]
                .into_iter()
                .collect()
        };
        let medians = phase_medians(&[run(1.0, 9.0), run(2.0, 8.0), run(3.0, 1.0)]);
        assert_eq!(medians, run(2.0, 8.0));
    }
}
