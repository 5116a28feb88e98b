//! Exact nearest neighbours.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::embeddings::Embeddings;
use crate::error::Error;
use crate::order::IdOrder;
use crate::product::{Candidates, Scores, compare};
use crate::score::dot;

/// Candidates that are passed over by one look where none of them can be among the best.
const LOOK: usize = 16;

/// A note near a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// The note.
    pub row: u32,
    /// Dot product with the query; the cosine if the embeddings are normalised.
    pub score: f32,
}

/// The `k` best notes for each query row, best first, the query itself left out; ties by id. All
/// other notes are compared by matrix products, and those that may be among the best by their scores
/// as they are given, so the result is exact.
///
/// # Errors
/// If a query row does not exist.
pub fn top_k(
    embeddings: &Embeddings,
    queries: &[u32],
    k: usize,
) -> Result<Vec<Vec<Neighbour>>, Error> {
    let notes = embeddings.len();
    if let Some(&row) = queries.iter().find(|&&row| row as usize >= notes) {
        let row = row as usize;
        return Err(Error::NoSuchRow { row, notes });
    }
    let order = IdOrder::new(embeddings.ids());
    let best = compare(
        embeddings,
        queries,
        &Candidates::All,
        |place| Best::new(queries[place], k),
        |best, scores| best.observe_all(scores, embeddings, &order),
        Best::join,
    );
    Ok(best.into_iter().map(Best::finish).collect())
}

/// The best `k` notes seen so far, the worst of them on top of the heap.
struct Best {
    query: u32,
    k: usize,
    heap: BinaryHeap<Entry>,
}

/// Ordered by rank: the greater entry is the worse note.
#[derive(PartialEq)]
struct Entry {
    score: f32,
    position: u32,
    row: u32,
}

impl Eq for Entry {}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        // Scores are never NaN (the embeddings are checked); 0.0 and -0.0 tie.
        let by_score = other
            .score
            .partial_cmp(&self.score)
            .unwrap_or(Ordering::Equal);
        by_score.then(self.position.cmp(&other.position))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Best {
    fn new(query: u32, k: usize) -> Self {
        Self {
            query,
            k,
            heap: BinaryHeap::new(),
        }
    }

    /// Sees approximate scores; those that may be good enough are computed as they are defined.
    fn observe_all(&mut self, scores: &Scores, embeddings: &Embeddings, order: &IdOrder) {
        if self.k == 0 {
            return;
        }
        let vector = |row: u32| embeddings.row(row as usize);
        let mut least = self.least(scores.error);
        for (look, values) in scores.values.chunks(LOOK).enumerate() {
            // All of them, so that the comparisons are made side by side.
            if values
                .iter()
                .fold(true, |below, &value| below & (value < least))
            {
                continue;
            }
            for (at, &value) in values.iter().enumerate() {
                let row = scores.row(look * LOOK + at);
                if value < least || row == self.query {
                    continue;
                }
                self.push(Entry {
                    score: dot(vector(self.query), vector(row)),
                    position: order.position(row),
                    row,
                });
                least = self.least(scores.error);
            }
        }
    }

    /// Approximate scores below this, which may be off by `error`, are not among the best.
    fn least(&self, error: f64) -> f32 {
        match self.heap.peek() {
            Some(worst) if self.heap.len() == self.k => {
                // The conversion may round up.
                ((f64::from(worst.score) - error) as f32).next_down()
            }
            _ => f32::NEG_INFINITY,
        }
    }

    fn push(&mut self, entry: Entry) {
        if self.heap.len() < self.k {
            self.heap.push(entry);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && entry < *worst
        {
            *worst = entry;
        }
    }

    fn join(mut self, other: Self) -> Self {
        other.heap.into_iter().for_each(|entry| self.push(entry));
        self
    }

    fn finish(self) -> Vec<Neighbour> {
        let sorted = self.heap.into_sorted_vec().into_iter();
        sorted
            .map(|Entry { row, score, .. }| Neighbour { row, score })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawn::{near_copies, numbers};
    use crate::score::dot;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_a_full_sort(
            (notes, dim, values) in (1usize..50, 1usize..4).prop_flat_map(|(notes, dim)| {
                let values = prop::collection::vec((-1i8..=1).prop_map(f32::from), notes * dim);
                (Just(notes), Just(dim), values)
            }),
            k in 0usize..60,
        ) {
            // Descending ids, so that id order and row order differ.
            let ids = (0..notes).rev().map(|id| id.to_string()).collect();
            let embeddings = Embeddings::new(ids, dim, values).unwrap();
            let queries: Vec<u32> = (0..notes as u32).collect();
            let found = top_k(&embeddings, &queries, k).unwrap();
            for (&query, found) in queries.iter().zip(&found) {
                let score = |row: u32| dot(embeddings.row(query as usize), embeddings.row(row as usize));
                let mut sorted: Vec<u32> = queries.iter().copied().filter(|&row| row != query).collect();
                sorted.sort_by(|&a, &b| {
                    score(b).partial_cmp(&score(a)).unwrap().then(b.cmp(&a))
                });
                sorted.truncate(k);
                let expected: Vec<Neighbour> =
                    sorted.iter().map(|&row| Neighbour { row, score: score(row) }).collect();
                prop_assert_eq!(found, &expected);
                prop_assert_eq!(&top_k(&embeddings, &[query], k).unwrap()[0], &expected);
            }
        }
    }

    /// Notes of several blocks, most of them copies of a few with a last bit changed, so that the
    /// order hangs on what a matrix product rounds away.
    #[test]
    fn near_ties_are_decided_by_the_scores_that_are_given_on_any_number_of_threads() {
        let (notes, mut next) = (70_000_usize, numbers(1));
        let embeddings = near_copies(notes, 24, 5, &mut next);
        let queries: Vec<u32> = (0..150).map(|_| next() % notes as u32).collect();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.build().unwrap();
            pool.install(|| top_k(&embeddings, &queries, 20).unwrap())
        };
        let found = with(1);
        assert_eq!(found, with(3));
        for (&query, found) in queries.iter().zip(&found).step_by(30) {
            let score =
                |row: u32| dot(embeddings.row(query as usize), embeddings.row(row as usize));
            let mut sorted: Vec<u32> = (0..notes as u32).filter(|&row| row != query).collect();
            let scores: Vec<f32> = (0..notes as u32).map(score).collect();
            sorted.sort_by(|&a, &b| {
                let by_score = scores[b as usize].partial_cmp(&scores[a as usize]).unwrap();
                by_score.then(b.cmp(&a))
            });
            let expected: Vec<Neighbour> = sorted[..20]
                .iter()
                .map(|&row| Neighbour {
                    row,
                    score: scores[row as usize],
                })
                .collect();
            assert_eq!(found, &expected);
        }
    }

    #[test]
    fn rows_must_exist() {
        let one = Embeddings::new(vec!["a".into()], 1, vec![1.0]).unwrap();
        assert!(top_k(&one, &[0, 1], 3).is_err());
        assert_eq!(top_k(&one, &[0], 3).unwrap(), [vec![]]);
        assert!(top_k(&one, &[], 3).unwrap().is_empty());
    }
}
