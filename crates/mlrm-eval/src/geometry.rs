//! How embeddings lie on the sphere: alignment and uniformity (Wang and Isola, ICML 2020).

use rayon::prelude::*;

use crate::embeddings::Embeddings;
use crate::error::Error;
use crate::score::{Panels, QUERY_BLOCK, dot};
use crate::task::Task;

/// Notes whose distances to each other are all computed. Of a larger pool, so many notes evenly
/// spaced by row: 8 million distances, a fraction of a second.
const MOST_NOTES: usize = 4096;

/// The two figures; both fall while embeddings get better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// `log E exp(−2‖x − y‖²)` over pairs of different notes of the pool: 0 where all notes lie on
    /// one point, about −4 where they are spread evenly. NaN for a pool of fewer than two notes.
    pub uniformity: f64,
    /// `E ‖x − y‖²` over queries and their relevant notes: 0 where they coincide, 2 where they are
    /// orthogonal. NaN for a task without queries.
    pub alignment: f64,
}

/// Alignment of the related pairs of `task`, uniformity of its pool.
///
/// # Errors
/// If `embeddings` are not those of the task's notes.
pub fn geometry(task: &Task, embeddings: &Embeddings) -> Result<Geometry, Error> {
    embeddings.check_same_notes(task.ids(), "task and embeddings")?;
    let pool = spread(task.pool(), MOST_NOTES);
    Ok(Geometry {
        uniformity: uniformity(embeddings, &pool),
        alignment: alignment(task, embeddings),
    })
}

/// At most `most` of `rows`, evenly spaced.
fn spread(rows: &[u32], most: usize) -> Vec<u32> {
    if rows.len() <= most {
        return rows.to_vec();
    }
    (0..most).map(|at| rows[at * rows.len() / most]).collect()
}

/// `‖x − y‖²` from lengths and dot product.
fn squared_distance(x: f32, y: f32, product: f32) -> f64 {
    (f64::from(x) + f64::from(y) - 2.0 * f64::from(product)).max(0.0)
}

fn alignment(task: &Task, embeddings: &Embeddings) -> f64 {
    let vector = |row: u32| embeddings.row(row as usize);
    let (mut sum, mut pairs) = (0.0, 0_usize);
    for query in task.queries() {
        let x = vector(query.row);
        for y in query.relevant.iter().map(|&row| vector(row)) {
            sum += squared_distance(dot(x, x), dot(y, y), dot(x, y));
            pairs += 1;
        }
    }
    sum / pairs as f64
}

/// Blocks are added in the order of the rows, so that the figure does not depend on threads.
fn uniformity(embeddings: &Embeddings, rows: &[u32]) -> f64 {
    let vector = |row: u32| embeddings.row(row as usize);
    let lengths: Vec<f32> = rows.iter().map(|&r| dot(vector(r), vector(r))).collect();
    let candidates = Panels::pack(embeddings, rows.to_vec());
    let blocks: Vec<f64> = rows
        .par_chunks(QUERY_BLOCK)
        .zip(lengths.par_chunks(QUERY_BLOCK))
        .map(|(queries, query_lengths)| {
            let vectors: Vec<&[f32]> = queries.iter().map(|&row| vector(row)).collect();
            // For each query the candidates come in the order of `rows`.
            let mut at = vec![0_usize; queries.len()];
            let mut sum = 0.0;
            candidates.score(&vectors, |query, row, product| {
                let length = lengths[at[query]];
                at[query] += 1;
                if row != queries[query] {
                    sum += (-2.0 * squared_distance(query_lengths[query], length, product)).exp();
                }
            });
            sum
        })
        .collect();
    let pairs = rows.len() as f64 * (rows.len() as f64 - 1.0);
    (blocks.iter().sum::<f64>() / pairs).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Query, Relevance};

    fn noise(notes: usize, dim: usize) -> Embeddings {
        let all = crate::drawn::noise(notes, dim, 7, 1.0);
        all.into_normalised().unwrap()
    }

    fn task(all: &Embeddings, in_pool: impl Fn(usize) -> bool) -> Task {
        let queries = vec![
            Query {
                row: 0,
                relevant: vec![2, 3],
            },
            Query {
                row: 5,
                relevant: vec![1],
            },
        ];
        let relevance = Relevance {
            queries,
            unknown_pairs: 0,
        };
        Task::new(all.ids(), &relevance, (0..all.len()).map(in_pool).collect()).unwrap()
    }

    fn naive_distance(a: &[f32], b: &[f32]) -> f64 {
        let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
        a.iter().zip(b).map(square).sum()
    }

    #[test]
    fn both_equal_the_plain_definition() {
        let all = noise(83, 7);
        let found = geometry(&task(&all, |row| row != 0), &all).unwrap();
        let pairs = [(0, 2), (0, 3), (5, 1)];
        let distances = pairs.map(|(a, b)| naive_distance(all.row(a), all.row(b)));
        let alignment = distances.iter().sum::<f64>() / 3.0;
        let (mut sum, mut count) = (0.0, 0);
        for a in 1..83 {
            for b in (1..83).filter(|b| *b != a) {
                sum += (-2.0 * naive_distance(all.row(a), all.row(b))).exp();
                count += 1;
            }
        }
        let uniformity = (sum / f64::from(count)).ln();
        assert!((found.alignment - alignment).abs() < 1e-6, "{found:?}");
        assert!((found.uniformity - uniformity).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn one_point_is_perfectly_aligned_and_not_uniform() {
        let ids = (0..9).map(|id| id.to_string()).collect();
        let all = Embeddings::new(ids, 2, [0.6, 0.8].repeat(9)).unwrap();
        let found = geometry(&task(&all, |_| true), &all).unwrap();
        assert!(found.alignment.abs() < 1e-6 && found.uniformity.abs() < 1e-6);
    }

    #[test]
    fn a_large_pool_is_thinned_evenly() {
        let rows: Vec<u32> = (0..10).collect();
        assert_eq!(spread(&rows, 4), [0, 2, 5, 7]);
        assert_eq!(spread(&rows, 10), rows);
    }

    #[test]
    fn other_notes_are_refused() {
        let all = noise(20, 3);
        assert!(geometry(&task(&all, |_| true), &noise(21, 3)).is_err());
    }
}
