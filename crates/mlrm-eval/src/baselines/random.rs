//! What a random order would score: the expected value over all permutations, in closed form.

use std::collections::HashMap;

use crate::error::Error;
use crate::metrics::{Metric, Slice, SliceMetrics, Slices, check_slices, discount, ideal_gain};
use crate::sum::exact_mean;
use crate::task::Task;

/// Expected metrics of a uniformly random order of each query's candidates.
///
/// # Errors
/// If a cut-off is 0, two slices share a name, or a slice does not speak of the task's notes.
pub fn random_expectation(
    task: &Task,
    cutoffs: &[usize],
    slices: &[Slice],
) -> Result<Slices, Error> {
    let metrics = Metric::all(cutoffs)?;
    check_slices(slices, task.ids().len())?;
    // Queries differ only in these two numbers, of which there are few combinations.
    let mut known: HashMap<(usize, usize), Vec<f64>> = HashMap::new();
    let mut summarise = |slice: &Slice| {
        let sizes: Vec<(usize, usize)> = task
            .queries()
            .iter()
            .map(|query| {
                let counted = query
                    .relevant
                    .iter()
                    .filter(|&&row| slice.counts(query.row, row));
                (task.candidates(query.row), counted.count())
            })
            .filter(|&(_, relevant)| relevant > 0)
            .collect();
        for &(candidates, relevant) in &sizes {
            known.entry((candidates, relevant)).or_insert_with(|| {
                let expected = |&metric: &Metric| expected(metric, candidates, relevant);
                metrics.iter().map(expected).collect()
            });
        }
        let mean = |(at, metric): (usize, &Metric)| {
            let values: Vec<f64> = sizes.iter().map(|size| known[size][at]).collect();
            Some((metric.name(), exact_mean(&values)?))
        };
        SliceMetrics {
            queries: sizes.len(),
            values: metrics.iter().enumerate().filter_map(mean).collect(),
            // Expected values, not measured on a sample.
            intervals: Default::default(),
        }
    };
    Ok(slices
        .iter()
        .map(|slice| (slice.name.clone(), summarise(slice)))
        .collect())
}

/// Expected value of a metric when `relevant` notes, at least one, lie at random among
/// `candidates`.
fn expected(metric: Metric, candidates: usize, relevant: usize) -> f64 {
    let share = |k: usize| k.min(candidates) as f64 / candidates as f64;
    match metric {
        Metric::Recall(k) => share(k),
        Metric::Ndcg(k) => {
            // Every place holds a relevant note with the same probability.
            let gain: f64 = (1..=k.min(candidates)).map(discount).sum();
            gain * relevant as f64 / candidates as f64 / ideal_gain(k, relevant)
        }
        Metric::MrrAt(k) => {
            let terms = first_place(candidates, relevant).take(k);
            terms
                .map(|(place, probability)| probability / place as f64)
                .sum()
        }
        Metric::Mrr => expected(Metric::MrrAt(candidates), candidates, relevant),
        Metric::Hit(k) => first_place(candidates, relevant)
            .take(k)
            .map(|(_, probability)| probability)
            .sum(),
    }
}

/// (place, probability that the first relevant note is there), for all places it can be at.
fn first_place(candidates: usize, relevant: usize) -> impl Iterator<Item = (usize, f64)> {
    let last = candidates - relevant + 1;
    (1..=last).scan(1.0, move |none_before, place| {
        let left = (candidates - place + 1) as f64;
        let here = *none_before * relevant as f64 / left;
        *none_before *= (left - relevant as f64) / left;
        Some((place, here))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{SliceKind, all_notes};
    use crate::task::Relevance;

    /// Mean over every choice of places for the relevant notes.
    fn by_enumeration(metric: Metric, candidates: usize, relevant: usize) -> f64 {
        let subsets = (0u32..1 << candidates).filter(|set| set.count_ones() as usize == relevant);
        let values: Vec<f64> = subsets
            .map(|set| {
                let places = (0..candidates as u32).filter(|place| set & (1 << place) != 0);
                metric.value(&places.map(|place| place + 1).collect::<Vec<_>>())
            })
            .collect();
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn equals_the_mean_over_all_permutations() {
        for candidates in 1..=10 {
            for relevant in 1..=candidates {
                for metric in Metric::all(&[1, 2, 5, 10, 100]).unwrap() {
                    let exact = by_enumeration(metric, candidates, relevant);
                    let found = expected(metric, candidates, relevant);
                    assert!(
                        (found - exact).abs() < 1e-12,
                        "{} of {relevant} in {candidates}: {found} against {exact}",
                        metric.name()
                    );
                }
            }
        }
    }

    #[test]
    fn means_over_the_queries_of_each_slice() {
        let ids: Vec<String> = (0..5).map(|id| id.to_string()).collect();
        let relevance = Relevance::from_pairs(&ids, [("0", "1"), ("0", "2"), ("1", "2")]);
        let task = Task::all_pairs(&ids, &relevance).unwrap();
        let second = Slice {
            name: "target_1".into(),
            kind: SliceKind::Targets(vec![false, true, false, false, false]),
        };
        let found = random_expectation(&task, &[1], &[all_notes(), second]).unwrap();
        assert_eq!(found["all"].queries, 2);
        assert_eq!(found["all"].values["recall@1"], 0.25);
        assert_eq!(found["all"].values["hit@1"], (0.5 + 0.25) / 2.0);
        assert_eq!(found["target_1"].queries, 1);
        assert_eq!(found["target_1"].values["hit@1"], 0.25);
    }
}
