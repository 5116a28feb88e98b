//! Dot products of a few queries with many candidates, in a fixed order of operations.
//!
//! Every score is `Σ_d q[d]·c[d]`, added in the order of `d` in f32, one product rounded and one
//! sum rounded at a time. Scores therefore do not depend on tile sizes, threads or the machine, two
//! equal rows always tie, and the score of a pair computed alone ([`dot`]) equals the tiled one bit
//! for bit. The speed comes from computing eight candidates side by side (one vector register),
//! which leaves the order within each candidate alone.

use rayon::prelude::*;

use crate::embeddings::Embeddings;

/// Candidates computed side by side.
const LANES: usize = 8;
/// Queries that share one pass over a panel, held in registers.
const GROUP: usize = 4;
/// Panels of a tile: 64 × 8 candidates × 64 dimensions × 4 bytes = 128 KiB, which a core's second
/// level cache holds while all queries of a block pass over it.
const TILE_PANELS: usize = 64;
/// Queries that one task of the thread pool works on.
pub(crate) const QUERY_BLOCK: usize = 32;

/// The score of one pair.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |sum, (x, y)| sum + x * y)
}

/// Candidate rows laid out for [`Panels::score`]: panels of [`LANES`] rows, each `[dim, LANES]`.
pub(crate) struct Panels {
    rows: Vec<u32>,
    dim: usize,
    /// `[panels, dim, LANES]`; lanes past the last row are zero.
    panels: Vec<f32>,
}

impl Panels {
    /// Copies `rows` of `embeddings` into panels.
    pub(crate) fn pack(embeddings: &Embeddings, rows: Vec<u32>) -> Self {
        let dim = embeddings.dim();
        let mut panels = vec![0.0; rows.len().div_ceil(LANES) * dim * LANES];
        panels
            .par_chunks_exact_mut(dim * LANES)
            .zip(rows.par_chunks(LANES))
            .for_each(|(panel, rows)| {
                for (lane, &row) in rows.iter().enumerate() {
                    for (d, &value) in embeddings.row(row as usize).iter().enumerate() {
                        panel[d * LANES + lane] = value;
                    }
                }
            });
        Self { rows, dim, panels }
    }

    /// Calls `visit(query, candidate row, score)` for every pair; for each query the candidates come
    /// in the order of the rows given to [`Panels::pack`].
    ///
    /// `queries`: vectors `[dim]`, best [`QUERY_BLOCK`] of them.
    pub(crate) fn score(&self, queries: &[&[f32]], mut visit: impl FnMut(usize, u32, f32)) {
        let groups: Vec<Vec<f32>> = queries
            .chunks(GROUP)
            .map(|g| pack_group(g, self.dim))
            .collect();
        let panel_size = self.dim * LANES;
        let tiles = self.panels.chunks(panel_size * TILE_PANELS);
        for (tile, rows) in tiles.zip(self.rows.chunks(LANES * TILE_PANELS)) {
            for (group, packed) in groups.iter().enumerate() {
                let first = group * GROUP;
                let count = GROUP.min(queries.len() - first);
                for (panel, rows) in tile.chunks_exact(panel_size).zip(rows.chunks(LANES)) {
                    let scores = score_panel(packed, panel);
                    for (query, scores) in scores.iter().take(count).enumerate() {
                        for (&row, &score) in rows.iter().zip(scores) {
                            visit(first + query, row, score);
                        }
                    }
                }
            }
        }
    }
}

/// Up to [`GROUP`] queries as `[dim, GROUP]`, missing ones zero.
fn pack_group(queries: &[&[f32]], dim: usize) -> Vec<f32> {
    let mut packed = vec![0.0; dim * GROUP];
    for (lane, query) in queries.iter().enumerate() {
        for (d, &value) in query.iter().enumerate() {
            packed[d * GROUP + lane] = value;
        }
    }
    packed
}

/// `[dim, GROUP]` × `[dim, LANES]` → `[GROUP, LANES]`.
#[inline]
fn score_panel(queries: &[f32], panel: &[f32]) -> [[f32; LANES]; GROUP] {
    let (queries, _) = queries.as_chunks::<GROUP>();
    let (panel, _) = panel.as_chunks::<LANES>();
    let mut sums = [[0.0; LANES]; GROUP];
    for (query, candidates) in queries.iter().zip(panel) {
        for (sums, x) in sums.iter_mut().zip(query) {
            for (sum, y) in sums.iter_mut().zip(candidates) {
                *sum += x * y;
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawn::noise;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tiles_equal_the_plain_loop_bit_for_bit(
            notes in 1usize..1200, dim in 1usize..20, queries in 1usize..7, seed in any::<u32>(),
        ) {
            let embeddings = noise(notes, dim, seed, 1.0);
            let rows: Vec<u32> = (0..notes as u32).rev().collect();
            let vectors: Vec<&[f32]> = (0..queries).map(|q| embeddings.row(q % notes)).collect();
            let mut seen = vec![Vec::new(); queries];
            Panels::pack(&embeddings, rows.clone())
                .score(&vectors, |query, row, score| seen[query].push((row, score.to_bits())));
            for (vector, seen) in vectors.iter().zip(seen) {
                let plain: Vec<(u32, u32)> = rows
                    .iter()
                    .map(|&row| (row, dot(vector, embeddings.row(row as usize)).to_bits()))
                    .collect();
                prop_assert_eq!(seen, plain);
            }
        }
    }
}
