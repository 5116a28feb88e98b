//! Products over rows in AVX-512.

use std::arch::x86_64::{
    _mm512_add_ps, _mm512_fmadd_ps, _mm512_load_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_store_ps,
};
use std::ops::Range;

use rayon::prelude::*;

use super::RUN;
use crate::flex::product::Factor;

/// Rows of a block. What a task reads of it fits the nearest cache.
const BLOCK: usize = 8 * RUN;
/// Inputs of a tile of the result.
const TALL: usize = 8;
/// Outputs of a tile of the result: two registers of them.
const WIDE: usize = 32;
/// Tiles of inputs of a task.
const TILES: usize = 2;

/// A row of a tile of inputs.
type Tall = [f32; TALL];

/// A row of a tile of outputs.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Wide([f32; WIDE]);

impl AsMut<[f32]> for Wide {
    fn as_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

/// `leftᵀ right`, block by block of rows, of which both factors are laid out in panels first.
///
/// An element adds its terms in one order, whatever the number of threads.
///
/// # Safety
/// The processor has AVX-512F.
pub(super) unsafe fn product(left: Factor<'_>, right: Factor<'_>, parallel: bool) -> Vec<f32> {
    let (rows, inputs, outputs) = (left.1.rows, left.1.columns, right.1.columns);
    let mut out = vec![0.0; inputs * outputs];
    if out.is_empty() {
        return out;
    }
    let mut lefts = Panels::new([0.0; TALL], inputs, rows);
    let mut rights = Panels::new(Wide([0.0; WIDE]), outputs, rows);
    for start in (0..rows).step_by(BLOCK) {
        let block = start..(start + BLOCK).min(rows);
        lefts.lay_out(left, &block, parallel);
        rights.lay_out(right, &block, parallel);
        let task = |index: usize, out: &mut [f32]| {
            let lefts = lefts.panels(block.len()).skip(index * TILES);
            for (panel, right) in rights.panels(block.len()).enumerate() {
                let columns = panel * WIDE..outputs.min((panel + 1) * WIDE);
                let tiles = out.chunks_mut(TALL * outputs);
                for (left, tile) in lefts.clone().zip(tiles) {
                    let mut sums = [Wide([0.0; WIDE]); TALL];
                    // SAFETY: the caller vouches for the processor.
                    unsafe { add_block(&mut sums, left, right) };
                    for (out, sums) in tile.chunks_exact_mut(outputs).zip(&sums) {
                        let pairs = out[columns.clone()].iter_mut().zip(&sums.0);
                        pairs.for_each(|(out, sum)| *out += sum);
                    }
                }
            }
        };
        let tasks = out.chunks_mut(TILES * TALL * outputs).collect();
        share(tasks, parallel, task);
    }
    out
}

/// Adds the rows of a block to the sums of a tile, run by run.
#[target_feature(enable = "avx512f")]
fn add_block(total: &mut [Wide; TALL], left: &[Tall], right: &[Wide]) {
    for (left, right) in left.chunks(RUN).zip(right.chunks(RUN)) {
        let mut sums = [[_mm512_setzero_ps(); 2]; TALL];
        for (left, right) in left.iter().zip(right) {
            let right = right.0.as_ptr();
            // SAFETY: two registers of values stand there, aligned.
            let (low, high) =
                unsafe { (_mm512_load_ps(right), _mm512_load_ps(right.add(WIDE / 2))) };
            for (sums, left) in sums.iter_mut().zip(left) {
                let left = _mm512_set1_ps(*left);
                sums[0] = _mm512_fmadd_ps(left, low, sums[0]);
                sums[1] = _mm512_fmadd_ps(left, high, sums[1]);
            }
        }
        for (total, sums) in total.iter_mut().zip(&sums) {
            let low = total.0.as_mut_ptr();
            // SAFETY: two registers of values stand there, aligned.
            unsafe {
                let high = low.add(WIDE / 2);
                _mm512_store_ps(low, _mm512_add_ps(_mm512_load_ps(low), sums[0]));
                _mm512_store_ps(high, _mm512_add_ps(_mm512_load_ps(high), sums[1]));
            }
        }
    }
}

/// A block of rows of a factor: as many columns as a line has beside each other, row by row, with zeros behind the last
/// column.
struct Panels<L> {
    /// Columns of the factor.
    columns: usize,
    /// Columns of a line.
    width: usize,
    /// Rows that a panel has room for.
    room: usize,
    lines: Vec<L>,
}

impl<L: AsMut<[f32]> + Copy + Send> Panels<L> {
    /// Room for blocks of a factor of so many columns and rows; `zeros`: a line of them.
    fn new(mut zeros: L, columns: usize, rows: usize) -> Self {
        let (width, room) = (zeros.as_mut().len(), rows.min(BLOCK));
        Self {
            columns,
            width,
            room,
            lines: vec![zeros; columns.div_ceil(width) * room],
        }
    }

    /// Takes the values of some rows.
    fn lay_out(&mut self, (values, part): Factor<'_>, rows: &Range<usize>, parallel: bool) {
        let (columns, width) = (self.columns, self.width);
        let fill = |panel: usize, lines: &mut [L]| {
            let first = panel * width;
            let count = width.min(columns - first);
            for (row, line) in rows.clone().zip(lines) {
                let start = part.start + row * part.row_stride + first * part.column_stride;
                let (line, values) = (line.as_mut(), &values[start..]);
                if part.column_stride == 1 && count == line.len() {
                    line.copy_from_slice(&values[..line.len()]);
                } else {
                    let values = values.iter().step_by(part.column_stride);
                    let pairs = line[..count].iter_mut().zip(values);
                    pairs.for_each(|(to, from)| *to = *from);
                }
            }
        };
        share(self.lines.chunks_mut(self.room).collect(), parallel, fill);
    }

    /// The first `rows` rows of each panel.
    fn panels(&self, rows: usize) -> impl Iterator<Item = &[L]> + Clone {
        let panels = self.lines.chunks(self.room);
        panels.map(move |panel| &panel[..rows])
    }
}

/// Calls `work(index, part)` for each of `parts`, on all threads where it is `parallel`.
fn share<T: Send>(parts: Vec<T>, parallel: bool, work: impl Fn(usize, T) + Sync) {
    match parallel {
        true => {
            let parts = parts.into_par_iter().enumerate();
            parts.for_each(|(index, part)| work(index, part));
        }
        false => {
            let parts = parts.into_iter().enumerate();
            parts.for_each(|(index, part)| work(index, part));
        }
    }
}
