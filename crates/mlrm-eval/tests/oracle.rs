//! The metrics against their Python reference, on the tasks that `fixtures/make.py` wrote.

use std::collections::HashMap;

use indexmap::IndexMap;
use mlrm_eval::{
    Bm25, Embeddings, Relevance, SliceMetrics, Task, all_notes, evaluate, length_slices,
    rank_embeddings, summarise,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    k: Vec<usize>,
    tasks: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    ids: Vec<String>,
    dim: usize,
    values: Vec<f32>,
    pairs: Vec<(String, String)>,
    text_chars: Vec<usize>,
    short_chars: usize,
    documents: Vec<Vec<String>>,
    slices: IndexMap<String, IndexMap<String, f64>>,
    released: IndexMap<String, f64>,
    released_ranks: HashMap<String, u32>,
    bm25: IndexMap<String, f64>,
}

impl Case {
    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs
            .iter()
            .map(|(query, target)| (query.as_str(), target.as_str()))
    }

    fn embeddings(&self) -> Embeddings {
        Embeddings::new(self.ids.clone(), self.dim, self.values.clone()).unwrap()
    }
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixtures/metrics.json")).unwrap()
}

/// Every expected metric is there and equal; the logarithms of the two languages may round apart.
fn assert_metrics(found: &SliceMetrics, expected: &IndexMap<String, f64>, what: &str) {
    for (name, &expected) in expected {
        let found = match name.as_str() {
            "queries" => found.queries as f64,
            "pool" => continue,
            _ => found.values[name],
        };
        let tolerance = if name.starts_with("ndcg") { 1e-14 } else { 0.0 };
        assert!(
            (found - expected).abs() <= tolerance,
            "{what} {name}: {found} against {expected}"
        );
    }
}

#[test]
fn all_slices() {
    let fixture = fixture();
    for (at, case) in fixture.tasks.iter().enumerate() {
        let task =
            Task::all_pairs(&case.ids, &Relevance::from_pairs(&case.ids, case.pairs())).unwrap();
        let mut slices = vec![all_notes()];
        slices.extend(length_slices(&case.text_chars, case.short_chars));
        let found = evaluate(&task, &case.embeddings(), &fixture.k, &slices).unwrap();
        assert!(found.keys().eq(case.slices.keys()));
        for (slice, expected) in &case.slices {
            assert!(expected["queries"] > 3.0, "a fixture that shows something");
            // recall, ndcg, mrr and hit for each k, mrr, and the number of queries.
            assert_eq!(expected.len(), fixture.k.len() * 4 + 2);
            assert_metrics(&found[slice], expected, &format!("task {at}, {slice},"));
        }
    }
}

#[test]
fn released_protocol() {
    let fixture = fixture();
    for (at, case) in fixture.tasks.iter().enumerate() {
        let task = Task::released_protocol(&case.ids, case.pairs()).unwrap();
        assert_eq!(task.pool().len() as f64, case.released["pool"]);
        let ranks = rank_embeddings(&task, &case.embeddings(), None).unwrap();
        let found = summarise(&ranks, &fixture.k, &[all_notes()], None).unwrap();
        assert_metrics(
            &found["all"],
            &case.released,
            &format!("task {at}, released protocol,"),
        );
        let by_id: HashMap<String, u32> = ranks
            .queries
            .iter()
            .map(|query| (case.ids[query.row as usize].clone(), query.relevant[0].1))
            .collect();
        assert_eq!(by_id, case.released_ranks);
    }
}

#[test]
fn bm25() {
    let fixture = fixture();
    for (at, case) in fixture.tasks.iter().enumerate() {
        let task =
            Task::all_pairs(&case.ids, &Relevance::from_pairs(&case.ids, case.pairs())).unwrap();
        let ranks = Bm25::new(&case.documents).rank(&task).unwrap();
        let found = summarise(&ranks, &fixture.k, &[all_notes()], None).unwrap();
        assert_metrics(&found["all"], &case.bm25, &format!("task {at}, bm25,"));
    }
}
