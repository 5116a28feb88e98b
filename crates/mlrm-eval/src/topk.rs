//! Exact nearest neighbours.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rayon::prelude::*;

use crate::embeddings::Embeddings;
use crate::error::Error;
use crate::order::IdOrder;
use crate::score::{Candidates, QUERY_BLOCK};

/// A note near a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// The note.
    pub row: u32,
    /// Dot product with the query; the cosine if the embeddings are normalised.
    pub score: f32,
}

/// The `k` best notes for each query row, best first, the query itself left out; ties by id. All
/// other notes are compared, so the result is exact.
///
/// # Errors
///
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
    let candidates = Candidates::pack(embeddings, (0..notes as u32).collect());
    let blocks: Vec<Vec<Vec<Neighbour>>> = queries
        .par_chunks(QUERY_BLOCK)
        .map(|queries| {
            let mut best: Vec<Best> = queries.iter().map(|_| Best::new(k)).collect();
            let vectors: Vec<&[f32]> = queries
                .iter()
                .map(|&row| embeddings.row(row as usize))
                .collect();
            candidates.score(&vectors, |query, row, score| {
                if row != queries[query] {
                    best[query].observe(row, score, &order);
                }
            });
            best.into_iter().map(Best::finish).collect()
        })
        .collect();
    Ok(blocks.into_iter().flatten().collect())
}

/// The `k` nearest notes of one note: [`top_k`] for a single row.
///
/// # Errors
///
/// If the row does not exist.
pub fn nearest(embeddings: &Embeddings, row: u32, k: usize) -> Result<Vec<Neighbour>, Error> {
    let mut all = top_k(embeddings, &[row], k)?;
    Ok(all.pop().unwrap_or_default())
}

/// The best `k` notes seen so far, the worst of them on top of the heap.
struct Best {
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
    fn new(k: usize) -> Self {
        Self {
            k,
            heap: BinaryHeap::new(),
        }
    }

    #[inline]
    fn observe(&mut self, row: u32, score: f32, order: &IdOrder) {
        if self.heap.len() == self.k && self.heap.peek().is_none_or(|worst| score < worst.score) {
            return;
        }
        let position = order.position(row);
        let entry = Entry {
            score,
            position,
            row,
        };
        if self.heap.len() < self.k {
            self.heap.push(entry);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && entry < *worst
        {
            *worst = entry;
        }
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
                prop_assert_eq!(&nearest(&embeddings, query, k).unwrap(), &expected);
            }
        }
    }

    #[test]
    fn rows_must_exist() {
        let one = Embeddings::new(vec!["a".into()], 1, vec![1.0]).unwrap();
        assert!(nearest(&one, 1, 3).is_err());
        assert_eq!(nearest(&one, 0, 3).unwrap(), []);
    }
}
