//! Recall, NDCG, MRR and hit rate over queries and slices of them (method §6).

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::bootstrap::Bootstrap;
use crate::error::Error;
use crate::rank::Ranks;
use crate::sum::exact_mean;

/// A retrieval metric of one query, with R its relevant notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Share of R within the first k.
    Recall(usize),
    /// Discounted gain `Σ 1/log2(1 + rank)` of R within the first k, over the best possible one.
    Ndcg(usize),
    /// 1 / rank of the first of R, 0 if it is past k.
    MrrAt(usize),
    /// 1 if any of R is within the first k, else 0 (hit rate).
    Hit(usize),
    /// 1 / rank of the first of R, without cut-off.
    Mrr,
}

impl Metric {
    /// All metrics for the cut-offs `cutoffs`, in the order in which they are reported.
    ///
    /// # Errors
    /// If a cut-off is 0.
    pub fn all(cutoffs: &[usize]) -> Result<Vec<Self>, Error> {
        if cutoffs.contains(&0) {
            return Err(Error::ZeroCutoff);
        }
        let mut metrics = Vec::with_capacity(cutoffs.len() * 4 + 1);
        for kind in [Self::Recall, Self::Ndcg, Self::MrrAt, Self::Hit] {
            metrics.extend(cutoffs.iter().map(|&k| kind(k)));
        }
        metrics.push(Self::Mrr);
        Ok(metrics)
    }

    /// Name in tables and JSON: `recall@10`, `ndcg@10`, `mrr@10`, `hit@10`, `mrr`.
    pub fn name(self) -> String {
        match self {
            Self::Recall(k) => format!("recall@{k}"),
            Self::Ndcg(k) => format!("ndcg@{k}"),
            Self::MrrAt(k) => format!("mrr@{k}"),
            Self::Hit(k) => format!("hit@{k}"),
            Self::Mrr => "mrr".into(),
        }
    }

    /// The value for relevant notes at `ranks`, ascending from 1 and not empty.
    pub(crate) fn value(self, ranks: &[u32]) -> f64 {
        let within = |k: usize| ranks.iter().filter(move |&&rank| rank as usize <= k);
        let first = ranks.first().map_or(0.0, |&rank| 1.0 / f64::from(rank));
        match self {
            Self::Recall(k) => within(k).count() as f64 / ranks.len() as f64,
            Self::Ndcg(k) => {
                // From 0: the empty sum of floats is -0.
                let gain = within(k).fold(0.0, |sum, &rank| sum + discount(rank as usize));
                gain / ideal_gain(k, ranks.len())
            }
            Self::MrrAt(k) => {
                if within(k).next().is_some() {
                    first
                } else {
                    0.0
                }
            }
            Self::Hit(k) => f64::from(u8::from(within(k).next().is_some())),
            Self::Mrr => first,
        }
    }
}

/// Discount of a rank: `1 / log2(1 + rank)`.
pub(crate) fn discount(rank: usize) -> f64 {
    1.0 / (1.0 + rank as f64).log2()
}

/// Gain of a perfect ranking of `relevant` notes within the first k.
pub(crate) fn ideal_gain(k: usize, relevant: usize) -> f64 {
    (1..=k.min(relevant)).map(discount).sum()
}

/// A named part of the evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Name in tables and JSON.
    pub name: String,
    /// What belongs to it.
    pub kind: SliceKind,
}

/// What belongs to a slice. The lists have one entry for each note of the corpus, in row order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SliceKind {
    /// Every query with all of its relevant notes.
    All,
    /// The queries marked.
    Queries(Vec<bool>),
    /// All queries, but only the relevant notes marked count as relevant (unmarked ones remain
    /// candidates); queries left without any are not part of the slice.
    Targets(Vec<bool>),
}

/// The slice `all`.
pub fn all_notes() -> Slice {
    Slice {
        name: "all".into(),
        kind: SliceKind::All,
    }
}

/// The slices `short_query`, `long_query`, `short_target` and `long_target`: texts of at most
/// `short_chars` characters are short. `text_chars` has one entry for each note.
pub fn length_slices(text_chars: &[usize], short_chars: usize) -> Vec<Slice> {
    let short: Vec<bool> = text_chars
        .iter()
        .map(|&chars| chars <= short_chars)
        .collect();
    let long: Vec<bool> = short.iter().map(|short| !short).collect();
    [
        ("short_query", SliceKind::Queries(short.clone())),
        ("long_query", SliceKind::Queries(long.clone())),
        ("short_target", SliceKind::Targets(short)),
        ("long_target", SliceKind::Targets(long)),
    ]
    .into_iter()
    .map(|(name, kind)| Slice {
        name: name.into(),
        kind,
    })
    .collect()
}

impl Slice {
    /// Whether `row`, relevant to `query`, counts as such in this slice.
    pub(crate) fn counts(&self, query: u32, row: u32) -> bool {
        match &self.kind {
            SliceKind::All => true,
            SliceKind::Queries(marked) => marked[query as usize],
            SliceKind::Targets(marked) => marked[row as usize],
        }
    }
}

/// Means over the queries of a slice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SliceMetrics {
    /// Queries that the means are over.
    pub queries: usize,
    /// Metric name → lower and upper end of its confidence interval, where it was asked for.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub intervals: IndexMap<String, [f64; 2]>,
    /// Metric name → mean; empty if there is no query.
    #[serde(flatten)]
    pub values: IndexMap<String, f64>,
}

/// Slice name → its metrics, in the order in which the slices were given.
pub type Slices = IndexMap<String, SliceMetrics>;

/// Means of all metrics over the queries of each slice, with confidence intervals where
/// `bootstrap` is given.
///
/// # Errors
/// If a cut-off is 0, two slices share a name, or a slice does not speak of the ranked notes.
pub fn summarise(
    ranks: &Ranks,
    cutoffs: &[usize],
    slices: &[Slice],
    bootstrap: Option<&Bootstrap>,
) -> Result<Slices, Error> {
    let metrics = Metric::all(cutoffs)?;
    check_slices(slices, ranks.notes)?;
    let summary = slices.iter().map(|slice| {
        let ranks = slice_ranks(ranks, slice);
        let values = |metric: &Metric| ranks.iter().map(|ranks| metric.value(ranks)).collect();
        let columns: Vec<Vec<f64>> = metrics.iter().map(values).collect();
        let names = || metrics.iter().map(|metric| metric.name());
        let means = names().zip(&columns);
        let intervals = bootstrap.and_then(|bootstrap| bootstrap.intervals(&columns));
        let bounds = names().zip(intervals.unwrap_or_default());
        let metrics = SliceMetrics {
            queries: ranks.len(),
            values: means
                .filter_map(|(name, values)| Some((name, exact_mean(values)?)))
                .collect(),
            intervals: bounds
                .map(|(name, interval)| (name, [interval.low, interval.high]))
                .collect(),
        };
        (slice.name.clone(), metrics)
    });
    Ok(summary.collect())
}

/// A metric for every query of a slice (those without a relevant note left out), for confidence
/// intervals and comparisons query by query.
///
/// # Errors
/// If the slice does not speak of the ranked notes.
pub fn per_query(ranks: &Ranks, slice: &Slice, metric: Metric) -> Result<Vec<f64>, Error> {
    check_slices(std::slice::from_ref(slice), ranks.notes)?;
    let ranks = slice_ranks(ranks, slice);
    Ok(ranks.iter().map(|ranks| metric.value(ranks)).collect())
}

/// Refuses slices that share a name or mark another number of notes.
pub(crate) fn check_slices(slices: &[Slice], notes: usize) -> Result<(), Error> {
    for (at, slice) in slices.iter().enumerate() {
        if slices[..at].iter().any(|other| other.name == slice.name) {
            return Err(Error::DuplicateSlice {
                name: slice.name.clone(),
            });
        }
        if let SliceKind::Queries(marked) | SliceKind::Targets(marked) = &slice.kind
            && marked.len() != notes
        {
            return Err(Error::Mismatch {
                what: "slice and notes",
                problem: format!(
                    "slice {:?} marks {} notes, but there are {notes}",
                    slice.name,
                    marked.len()
                ),
            });
        }
    }
    Ok(())
}

/// Ranks of the relevant notes that count, for each query that has any.
fn slice_ranks(ranks: &Ranks, slice: &Slice) -> Vec<Vec<u32>> {
    ranks
        .queries
        .iter()
        .map(|query| {
            let counted = query
                .relevant
                .iter()
                .filter(|(row, _)| slice.counts(query.row, *row));
            counted.map(|&(_, rank)| rank).collect::<Vec<u32>>()
        })
        .filter(|ranks| !ranks.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rank::QueryRanks;

    fn ranks(queries: &[(u32, &[(u32, u32)])]) -> Ranks {
        Ranks {
            queries: queries
                .iter()
                .map(|&(row, relevant)| QueryRanks {
                    row,
                    candidates: 9,
                    relevant: relevant.to_vec(),
                })
                .collect(),
            notes: 10,
        }
    }

    #[test]
    fn one_query_by_hand() {
        let found = [2, 5];
        let ideal = 1.0 + 1.0 / 3f64.log2();
        for (metric, expected) in [
            (Metric::Recall(1), 0.0),
            (Metric::Recall(2), 0.5),
            (Metric::Recall(5), 1.0),
            (Metric::Ndcg(1), 0.0),
            (Metric::Ndcg(2), (1.0 / 3f64.log2()) / ideal),
            (
                Metric::Ndcg(9),
                (1.0 / 3f64.log2() + 1.0 / 6f64.log2()) / ideal,
            ),
            (Metric::MrrAt(1), 0.0),
            (Metric::MrrAt(2), 0.5),
            (Metric::Hit(1), 0.0),
            (Metric::Hit(2), 1.0),
            (Metric::Mrr, 0.5),
        ] {
            assert_eq!(metric.value(&found), expected, "{}", metric.name());
        }
        assert_eq!(Metric::Ndcg(1).value(&[1, 7]), 1.0);
    }

    #[test]
    fn slices_choose_queries_or_targets() {
        let ranks = ranks(&[(0, &[(3, 1), (4, 4)]), (1, &[(4, 2)])]);
        let mut chars = vec![50; 10];
        chars[1] = 51;
        chars[4] = 60;
        let mut slices = vec![all_notes()];
        slices.extend(length_slices(&chars, 50));
        let found = summarise(&ranks, &[1, 3], &slices, None).unwrap();
        let recall = |slice: &str, k| found[slice].values[&format!("recall@{k}")];
        assert_eq!(found["all"].queries, 2);
        assert_eq!(recall("all", 1), 0.25);
        assert_eq!(recall("all", 3), 0.75);
        assert_eq!(
            (found["short_query"].queries, recall("short_query", 3)),
            (1, 0.5)
        );
        assert_eq!(
            (found["long_query"].queries, recall("long_query", 3)),
            (1, 1.0)
        );
        // Only note 3 is a short target; query 1 has none and is left out.
        assert_eq!(
            (found["short_target"].queries, recall("short_target", 1)),
            (1, 1.0)
        );
        // Note 3 keeps its place above note 4: the pool does not change.
        assert_eq!(found["long_target"].values["mrr"], (0.25 + 0.5) / 2.0);
        assert_eq!(
            per_query(&ranks, &slices[4], Metric::Mrr).unwrap(),
            [0.25, 0.5]
        );
    }

    #[test]
    fn intervals_hold_their_means() {
        let ranks = ranks(&[(0, &[(3, 1)]), (1, &[(4, 2)]), (2, &[(4, 9)])]);
        let bootstrap = Bootstrap::new(3);
        let found = summarise(&ranks, &[1, 3], &[all_notes()], Some(&bootstrap)).unwrap();
        let all = &found["all"];
        assert!(all.intervals.keys().eq(all.values.keys()));
        for (name, [low, high]) in &all.intervals {
            let mean = all.values[name];
            assert!(*low < mean && mean < *high, "{name}: {low} {mean} {high}");
        }
        let json = serde_json::to_value(all).unwrap();
        assert!(json["intervals"]["recall@1"][1].is_f64() && json["recall@1"].is_f64());
        assert_eq!(serde_json::from_value::<SliceMetrics>(json).unwrap(), *all);
    }

    #[test]
    fn an_empty_slice_has_no_values() {
        let none = Slice {
            name: "none".into(),
            kind: SliceKind::Queries(vec![false; 10]),
        };
        let found = summarise(&ranks(&[(0, &[(3, 1)])]), &[1], &[none], None).unwrap();
        assert_eq!(found["none"], SliceMetrics::default());
    }

    #[test]
    fn refuses_impossible_requests() {
        let ranks = ranks(&[]);
        assert!(matches!(
            summarise(&ranks, &[0], &[], None),
            Err(Error::ZeroCutoff)
        ));
        let twice = [all_notes(), all_notes()];
        assert!(matches!(
            summarise(&ranks, &[1], &twice, None),
            Err(Error::DuplicateSlice { .. })
        ));
        let short = length_slices(&[1; 9], 5);
        assert!(matches!(
            summarise(&ranks, &[1], &short, None),
            Err(Error::Mismatch { .. })
        ));
    }
}
