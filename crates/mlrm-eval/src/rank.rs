//! Exact ranks of the relevant notes, without sorting and without a notes × notes matrix.
//!
//! All metrics of method §6 follow from the ranks of the relevant notes. A note's rank is 1 + the
//! number of candidates that beat it, so one pass over the scores counts them.

use crate::embeddings::Embeddings;
use crate::error::Error;
use crate::order::IdOrder;
use crate::product::{Candidates, Scores, compare};
use crate::score::dot;
use crate::task::{Query, Task};

/// Where one query's relevant notes rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryRanks {
    /// The query note.
    pub row: u32,
    /// Number of notes ranked for it.
    pub candidates: usize,
    /// (relevant row, rank from 1), by rank ascending.
    pub relevant: Vec<(u32, u32)>,
}

/// Where the relevant notes of every query rank, in the order of [`Task::queries`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranks {
    /// One entry for each query.
    pub queries: Vec<QueryRanks>,
    /// Number of notes in the corpus, the length of every per-note list.
    pub notes: usize,
}

/// Ranks by the dot product of embeddings, which is the cosine if they are normalised, plus each
/// candidate's `prior` (one finite value a note) where it is given.
///
/// # Errors
/// If `embeddings` does not list the task's notes in the task's order, or `prior` has not one entry
/// for each note.
pub fn rank_embeddings(
    task: &Task,
    embeddings: &Embeddings,
    prior: Option<&[f64]>,
) -> Result<Ranks, Error> {
    embeddings.check_same_notes(task.ids(), "embeddings and the notes to rank")?;
    if let Some(prior) = prior.filter(|prior| prior.len() != embeddings.len()) {
        return Err(Error::Mismatch {
            what: "notes and their priors",
            problem: format!("{} notes against {} priors", embeddings.len(), prior.len()),
        });
    }
    let prior = |row: u32| prior.map_or(0.0, |prior| prior[row as usize]);
    let vector = |row: u32| embeddings.row(row as usize);
    let score = |query: u32, row: u32| f64::from(dot(vector(query), vector(row))) + prior(row);
    let rows: Vec<u32> = task.queries().iter().map(|query| query.row).collect();
    let counters = compare(
        embeddings,
        &rows,
        &Candidates::Rows(task.pool()),
        |place| {
            let query = &task.queries()[place];
            RankCounter::new(query, task.order(), |row| score(query.row, row))
        },
        |counter, scores| counter.observe_all(scores, prior, score),
        RankCounter::join,
    );
    Ok(Ranks {
        queries: counters
            .into_iter()
            .map(|counter| counter.finish(task))
            .collect(),
        notes: task.ids().len(),
    })
}

/// Ranks one query by any scores: `score(row)` is the score of a note, never NaN.
pub fn rank_scores(task: &Task, query: &Query, score: impl Fn(u32) -> f64) -> QueryRanks {
    let mut counter = RankCounter::new(query, task.order(), &score);
    for &row in task.pool() {
        counter.observe(row, score(row));
    }
    counter.finish(task)
}

/// Counts, in one pass over a query's candidates, how many beat each relevant note.
struct RankCounter<'a> {
    query: u32,
    order: &'a IdOrder,
    /// Scores of the relevant notes, best first.
    scores: Vec<f64>,
    /// (position of the id, row) of the relevant notes, best first.
    relevant: Vec<(u32, u32)>,
    /// `beaten[j]`: candidates that rank before relevant note j, but not before j − 1, plus the note
    /// j itself. The rank of note j is the sum of `beaten[..=j]`.
    beaten: Vec<u32>,
    /// Score of the worst relevant note: most candidates end here.
    worst: f64,
}

impl<'a> RankCounter<'a> {
    fn new(query: &Query, order: &'a IdOrder, score: impl Fn(u32) -> f64) -> Self {
        let mut relevant: Vec<(f64, u32, u32)> = query
            .relevant
            .iter()
            .map(|&row| (score(row), order.position(row), row))
            .collect();
        // `partial_cmp` and not `total_cmp`: 0.0 and -0.0 are equal scores.
        relevant.sort_by(|a, b| {
            let by_score = b.0.partial_cmp(&a.0).unwrap_or(std::cmp::Ordering::Equal);
            by_score.then(a.1.cmp(&b.1))
        });
        Self {
            query: query.row,
            order,
            beaten: vec![0; relevant.len()],
            worst: relevant.last().map_or(f64::INFINITY, |last| last.0),
            scores: relevant.iter().map(|&(score, _, _)| score).collect(),
            relevant: relevant
                .into_iter()
                .map(|(_, position, row)| (position, row))
                .collect(),
        }
    }

    /// Counts candidates by approximate scores where these decide, else by `score(query, row)`.
    fn observe_all(
        &mut self,
        scores: &Scores,
        prior: impl Fn(u32) -> f64,
        score: impl Fn(u32, u32) -> f64,
    ) {
        for (at, &value) in scores.values.iter().enumerate() {
            let row = scores.row(at);
            let (value, prior) = (f64::from(value), prior(row));
            let highest = value + scores.error + prior;
            if highest < self.worst || row == self.query {
                continue;
            }
            let lowest = value - scores.error + prior;
            let first_beaten = self.scores.partition_point(|&other| other > highest);
            match self.scores.get(first_beaten) {
                // A relevant note may be before or behind it, or tie.
                Some(&other) if other >= lowest => self.observe(row, score(self.query, row)),
                Some(_) => self.beaten[first_beaten] += 1,
                None => {}
            }
        }
    }

    /// What two counters of one query have counted.
    fn join(mut self, other: Self) -> Self {
        for (count, more) in self.beaten.iter_mut().zip(other.beaten) {
            *count += more;
        }
        self
    }

    #[inline]
    fn observe(&mut self, row: u32, score: f64) {
        if score < self.worst || row == self.query {
            return;
        }
        let mut first_beaten = self.scores.partition_point(|&other| other > score);
        if self.scores.get(first_beaten) == Some(&score) {
            let position = self.order.position(row);
            let ties = self.scores[first_beaten..]
                .iter()
                .zip(&self.relevant[first_beaten..]);
            first_beaten += ties
                .take_while(|&(&other, &(other_position, _))| {
                    other == score && other_position < position
                })
                .count();
        }
        if let Some(count) = self.beaten.get_mut(first_beaten) {
            *count += 1;
        }
    }

    fn finish(self, task: &Task) -> QueryRanks {
        let mut rank = 0;
        let relevant = self.relevant.iter().zip(&self.beaten);
        QueryRanks {
            row: self.query,
            candidates: task.candidates(self.query),
            relevant: relevant
                .map(|(&(_, row), beaten)| {
                    rank += beaten;
                    (row, rank)
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawn::{near_copies, numbers};
    use crate::task::Relevance;
    use proptest::prelude::*;

    /// A full sort of all candidates, as the definition says.
    fn ranks_by_sorting(task: &Task, query: &Query, score: impl Fn(u32) -> f64) -> Vec<(u32, u32)> {
        let mut ranked: Vec<u32> = task
            .pool()
            .iter()
            .copied()
            .filter(|&row| row != query.row)
            .collect();
        ranked.sort_by(|&a, &b| {
            let numbers = |row: u32| task.ids()[row as usize].parse::<i64>();
            let ids = match (numbers(a), numbers(b)) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                _ => task.ids()[a as usize].cmp(&task.ids()[b as usize]),
            };
            score(b).partial_cmp(&score(a)).unwrap().then(ids)
        });
        let ranked = (1..).zip(ranked).map(|(rank, row)| (row, rank));
        ranked
            .filter(|(row, _)| query.relevant.contains(row))
            .collect()
    }

    /// Notes with few distinct values, so that most scores tie; ids in random order.
    fn ties() -> impl Strategy<Value = (Embeddings, Relevance, Vec<bool>)> {
        (2usize..60, 1usize..4, any::<bool>()).prop_flat_map(|(notes, dim, numeric)| {
            let ids = Just((0..notes).collect::<Vec<_>>())
                .prop_shuffle()
                .prop_map(move |order| {
                    let name = |id: usize| {
                        if numeric {
                            id.to_string()
                        } else {
                            format!("n{id}")
                        }
                    };
                    order.into_iter().map(name).collect::<Vec<_>>()
                });
            let values = prop::collection::vec((-1i8..=1).prop_map(f32::from), notes * dim);
            let query = (
                0..notes as u32,
                prop::collection::vec(0..notes as u32, 1..8),
            )
                .prop_map(|(row, relevant)| Query { row, relevant });
            let queries = prop::collection::vec(query, 1..50);
            (
                ids,
                values,
                queries,
                prop::collection::vec(any::<bool>(), notes),
            )
                .prop_map(move |(ids, values, queries, pool)| {
                    let embeddings = Embeddings::new(ids, dim, values).unwrap();
                    (
                        embeddings,
                        Relevance {
                            queries,
                            unknown_pairs: 0,
                        },
                        pool,
                    )
                })
        })
    }

    proptest! {
        #[test]
        fn counting_equals_sorting((embeddings, relevance, pool) in ties(), favoured in 0u32..60) {
            let task = Task::new(embeddings.ids(), &relevance, pool).unwrap();
            let prior: Vec<f64> = (0..embeddings.len() as u32)
                .map(|row| f64::from(u8::from(row % 7 == favoured % 7)))
                .collect();
            let ranks = rank_embeddings(&task, &embeddings, Some(&prior)).unwrap();
            prop_assert_eq!(ranks.queries.len(), task.queries().len());
            for (query, found) in task.queries().iter().zip(&ranks.queries) {
                let vector = embeddings.row(query.row as usize);
                let score = |row: u32| {
                    f64::from(dot(vector, embeddings.row(row as usize))) + prior[row as usize]
                };
                let sorted = ranks_by_sorting(&task, query, score);
                prop_assert_eq!(&found.relevant, &sorted);
                prop_assert_eq!(&rank_scores(&task, query, score), found);
                prop_assert!(sorted.iter().all(|&(_, rank)| rank as usize <= found.candidates));
            }
        }
    }

    /// The first notes as queries, with drawn ones that are related to each.
    fn drawn_task(
        embeddings: &Embeddings,
        queries: u32,
        related: usize,
        mut next: impl FnMut() -> u32,
    ) -> Task {
        let notes = embeddings.len() as u32;
        let mut query = |row| Query {
            row,
            relevant: (0..related).map(|_| next() % notes).collect(),
        };
        let relevance = Relevance {
            queries: (0..queries).map(&mut query).collect(),
            unknown_pairs: 0,
        };
        Task::all_pairs(embeddings.ids(), &relevance).unwrap()
    }

    /// As `counting_equals_sorting`, with more notes than a block and values whose sums round: copies
    /// tie exactly, near copies by the last bits.
    #[test]
    fn counting_equals_sorting_where_products_round() {
        let (notes, mut next) = (2500, numbers(3));
        let embeddings = near_copies(notes, 12, 7, &mut next);
        let task = drawn_task(&embeddings, 140, 6, next);
        let prior: Vec<f64> = (0..notes)
            .map(|row| f64::from(row as u8 % 3) * 1e-7)
            .collect();
        for prior in [None, Some(prior.as_slice())] {
            let ranks = rank_embeddings(&task, &embeddings, prior).unwrap();
            for (query, found) in task.queries().iter().zip(&ranks.queries).step_by(7) {
                let score = |row: u32| {
                    let product = dot(
                        embeddings.row(query.row as usize),
                        embeddings.row(row as usize),
                    );
                    f64::from(product) + prior.map_or(0.0, |prior| prior[row as usize])
                };
                assert_eq!(found.relevant, ranks_by_sorting(&task, query, score));
            }
        }
    }

    #[test]
    fn threads_change_nothing() {
        let (notes, mut next) = (700, numbers(1));
        let values = (0..notes * 16).map(|_| next() as f32 / 8e6 - 1.0).collect();
        let ids: Vec<String> = (0..notes).map(|id| id.to_string()).collect();
        let embeddings = Embeddings::new(ids, 16, values).unwrap();
        let task = drawn_task(&embeddings, 300, 5, next);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| rank_embeddings(&task, &embeddings, None).unwrap())
        };
        assert_eq!(with(1), with(3));
    }

    #[test]
    fn embeddings_of_other_notes_are_refused() {
        let of = |names: [&str; 2]| {
            Embeddings::new(names.map(str::to_owned).to_vec(), 1, vec![1.0; 2]).unwrap()
        };
        let task = Task::all_pairs(of(["a", "b"]).ids(), &Relevance::default()).unwrap();
        assert!(rank_embeddings(&task, &of(["a", "b"]), None).is_ok());
        assert!(rank_embeddings(&task, &of(["b", "a"]), None).is_err());
        assert!(rank_embeddings(&task, &of(["a", "b"]), Some(&[0.0; 3])).is_err());
    }
}
