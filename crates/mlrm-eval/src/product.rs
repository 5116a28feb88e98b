//! Scores of many queries with many candidates by matrix products, and how far they may be wrong.
//!
//! A product adds in an order of its own choice, which differs between machines; the scores that
//! order and figures speak of are those of [`dot`](crate::score::dot), which adds in the order of
//! the dimensions. Of both the distance to the exact sum is known: with u = 2⁻²⁴ and d dimensions, a sum of d
//! products in any order, fused or not, is within γ·‖q‖‖c‖ of it, γ = d·u / (1 − d·u) (Higham,
//! Accuracy and Stability of Numerical Algorithms, §3.1, and Cauchy-Schwarz). So the two scores
//! are within 2γ·‖q‖‖c‖ of each other. Whoever ranks takes the product's score where that decides, and
//! computes [`dot`](crate::score::dot) where it does not: results are those of `dot` for every pair,
//! bit for bit, on every machine and with any number of threads.

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

use crate::embeddings::Embeddings;

/// Queries of a block: each candidate that is loaded is multiplied with so many.
const QUERIES: usize = 128;
/// Candidates of a block: with [`QUERIES`] queries 512 KiB of scores, which a core's second level
/// cache holds.
const CANDIDATES: usize = 1024;
/// Blocks of candidates that one thread takes at a time, so that few of them begin with nothing to
/// compare with.
const BLOCKS_AT_A_TIME: usize = 32;

/// Which notes are compared with every query.
pub(crate) enum Candidates<'a> {
    /// All of them: no copy is made.
    All,
    /// These rows.
    Rows(&'a [u32]),
}

impl Candidates<'_> {
    fn len(&self, embeddings: &Embeddings) -> usize {
        match self {
            Self::All => embeddings.len(),
            Self::Rows(rows) => rows.len(),
        }
    }

    /// The row of the candidate at a place.
    fn row(&self, at: usize) -> u32 {
        match self {
            Self::All => at as u32,
            Self::Rows(rows) => rows[at],
        }
    }
}

/// Approximate scores of one query with a run of candidates.
pub(crate) struct Scores<'a> {
    candidates: &'a Candidates<'a>,
    /// Place of the first one.
    first: usize,
    /// One a candidate.
    pub(crate) values: &'a [f32],
    /// How far each may be from [`dot`](crate::score::dot).
    pub(crate) error: f64,
}

impl Scores<'_> {
    /// The row of a candidate of the run.
    #[inline]
    pub(crate) fn row(&self, at: usize) -> u32 {
        self.candidates.row(self.first + at)
    }
}

/// Compares `queries` (rows) with all `candidates`: `see(accumulator, scores)` for an accumulator
/// `begin(place)` of each query; those that several threads began for one query are put together by
/// `join`. The results are in the order of the queries.
///
/// The order in which an accumulator sees the candidates is open: what it holds must not depend on
/// it. Memory: a block of scores, and one of candidates that are not all, for each thread.
pub(crate) fn compare<A: Send>(
    embeddings: &Embeddings,
    queries: &[u32],
    candidates: &Candidates,
    begin: impl Fn(usize) -> A + Sync,
    see: impl Fn(&mut A, &Scores) + Sync,
    join: impl Fn(A, A) -> A + Sync,
) -> Vec<A> {
    let (dim, count) = (embeddings.dim(), candidates.len(embeddings));
    let vector = |row: u32| embeddings.row(row as usize);
    let run_of = |block: usize| block * CANDIDATES..count.min((block + 1) * CANDIDATES);
    let longest: Vec<f64> = (0..count.div_ceil(CANDIDATES))
        .into_par_iter()
        .map(|block| {
            let lengths = run_of(block).map(|at| length(vector(candidates.row(at))));
            lengths.fold(0.0, f64::max)
        })
        .collect();
    let of_block = |(block, queries): (usize, &[u32])| {
        let places = block * QUERIES..block * QUERIES + queries.len();
        let vectors: Vec<f32> = queries
            .iter()
            .flat_map(|&row| vector(row))
            .copied()
            .collect();
        let lengths: Vec<f64> = queries.iter().map(|&row| length(vector(row))).collect();
        let fresh = || places.clone().map(&begin).collect::<Vec<A>>();
        let seen = longest
            .par_iter()
            .enumerate()
            .with_min_len(BLOCKS_AT_A_TIME)
            .fold(
                || (fresh(), Vec::new(), Vec::new()),
                |(mut accumulators, mut gathered, mut values), (block, longest)| {
                    let run = run_of(block);
                    let (first, width) = (run.start, run.len());
                    let block = rows_of(embeddings, candidates, run, &mut gathered);
                    values.resize(queries.len() * width, 0.0);
                    multiply(&vectors, block, dim, &mut values);
                    let by_query = accumulators.iter_mut().zip(values.chunks_exact(width));
                    for ((accumulator, values), length) in by_query.zip(&lengths) {
                        let scores = Scores {
                            candidates,
                            first,
                            values,
                            error: largest_error(dim, length * longest),
                        };
                        see(accumulator, &scores);
                    }
                    (accumulators, gathered, values)
                },
            )
            .map(|(accumulators, ..)| accumulators)
            .reduce_with(|a, b| a.into_iter().zip(b).map(|(a, b)| join(a, b)).collect());
        seen.unwrap_or_else(fresh)
    };
    let blocks = queries.par_chunks(QUERIES).enumerate().map(of_block);
    blocks.flatten_iter().collect()
}

/// The vectors of a run of candidates, `[run, dim]`, copied only where they do not lie together.
fn rows_of<'a>(
    embeddings: &'a Embeddings,
    candidates: &Candidates,
    run: Range<usize>,
    gathered: &'a mut Vec<f32>,
) -> &'a [f32] {
    let dim = embeddings.dim();
    match candidates {
        Candidates::All => &embeddings.values()[run.start * dim..run.end * dim],
        Candidates::Rows(rows) => {
            gathered.clear();
            for &row in &rows[run] {
                gathered.extend_from_slice(embeddings.row(row as usize));
            }
            gathered
        }
    }
}

/// `[queries, dim]` × `[candidates, dim]`ᵀ → `[queries, candidates]`.
fn multiply(queries: &[f32], candidates: &[f32], dim: usize, scores: &mut [f32]) {
    let (rows, columns) = (queries.len() / dim, candidates.len() / dim);
    assert!(
        queries.len() == rows * dim
            && candidates.len() == columns * dim
            && scores.len() == rows * columns,
        "factors and scores do not fit each other"
    );
    // SAFETY: all three are row-major and dense, of just the sizes that are given.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            dim,
            scores.as_mut_ptr(),
            1,
            columns as isize,
            false,
            queries.as_ptr(),
            1,
            dim as isize,
            candidates.as_ptr(),
            dim as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// A bound of the Euclidean length, greater by less than a millionth. Eight sums side by side.
fn length(vector: &[f32]) -> f64 {
    let (eights, rest) = vector.as_chunks::<8>();
    let mut sums = [0.0_f64; 8];
    for eight in eights {
        for (sum, &value) in sums.iter_mut().zip(eight) {
            *sum += f64::from(value) * f64::from(value);
        }
    }
    let rest: f64 = rest.iter().map(|&value| f64::from(value).powi(2)).sum();
    (sums.iter().sum::<f64>() + rest).sqrt() * (1.0 + 1e-7)
}

/// How far two ways of adding `dim` products may be apart, for vectors whose lengths multiply to
/// `lengths`. A thousandth more covers the roundings of this computation and of its use in f64; the
/// last term, products too small for a normal number.
fn largest_error(dim: usize, lengths: f64) -> f64 {
    let rounding = dim as f64 * f64::from(f32::EPSILON) / 2.0;
    let gamma = rounding / (1.0 - rounding).max(f64::MIN_POSITIVE);
    2.001 * gamma * lengths + dim as f64 * 4.0 * f64::from(f32::from_bits(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawn::{noise, numbers};
    use crate::score::dot;
    use proptest::prelude::*;

    proptest! {
        // Some hundred thousand pairs each.
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_pair_is_seen_once_and_no_further_off_than_said(
            notes in 1_usize..3000, dim in 1_usize..80, queries in 1_usize..200, some in any::<bool>(),
            exponent in -30_i32..12, seed in any::<u32>(),
        ) {
            let embeddings = noise(notes, dim, seed, 10_f32.powi(exponent));
            let mut next = numbers(seed.into());
            let queries: Vec<u32> = (0..queries).map(|_| next() % notes as u32).collect();
            let rows: Vec<u32> = (0..notes as u32).rev().filter(|row| row % 3 != 1).collect();
            let candidates = if some { Candidates::Rows(&rows) } else { Candidates::All };
            let expected: Vec<u32> =
                if some { rows.clone() } else { (0..notes as u32).collect() };
            let far = std::sync::atomic::AtomicUsize::new(0);
            let seen = compare(
                &embeddings,
                &queries,
                &candidates,
                |place| (queries[place], Vec::new()),
                |(query, seen), scores| {
                    for (at, &value) in scores.values.iter().enumerate() {
                        let row = scores.row(at);
                        let exact = dot(embeddings.row(*query as usize), embeddings.row(row as usize));
                        let off = (f64::from(value) - f64::from(exact)).abs();
                        if off > scores.error {
                            far.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                        seen.push(row);
                    }
                },
                |mut a, b| {
                    a.1.extend(b.1);
                    a
                },
            );
            prop_assert_eq!(far.into_inner(), 0);
            prop_assert_eq!(seen.len(), queries.len());
            for (query, (row, seen)) in queries.iter().zip(seen) {
                prop_assert_eq!(*query, row);
                prop_assert_eq!(&seen, &expected);
            }
        }
    }

    #[test]
    fn the_bound_is_of_the_size_of_what_it_bounds() {
        // Unit vectors of 64 dimensions: some 64 roundings of numbers below 1.
        let bound = largest_error(64, 1.0);
        assert!((7e-6..8e-6).contains(&bound), "{bound}");
        assert!(largest_error(1 << 25, 1.0) > 1.0);
    }
}
