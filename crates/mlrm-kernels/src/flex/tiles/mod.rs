//! Matrix products in bf16 with f32 sums, where the processor is faster at them than at f32: in tile registers (AMX, Intel's
//! server processors since Sapphire Rapids), or by AVX512-BF16 (AMD's processors since Zen 4).
//!
//! Both factors are rounded to bf16 (to nearest, ties to even) on their way into tiles; a tile holds 16 rows of the left
//! factor, or 16 columns of the right one, over 32 terms of the sum. An element of the result adds its terms in one
//! fixed order, whatever the number of threads.
//!
//! Both ways read the same tiles. On Intel's processors an instruction of AVX512-BF16 takes as long as the two that it
//! stands for: 80 GFLOP/s on two threads of a Sapphire Rapids where `gemm` has 150 in f32. On AMD's it takes as long as
//! one of them.

use std::arch::x86_64::__cpuid;
use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

mod amx;
mod avx512;
mod pack;

use pack::Tile;
pub(super) use pack::{Lines, Panels, View};

/// Rows of the left factor, or columns of the right one, in a tile.
pub(super) const SIDE: usize = 16;
/// Terms of the sum in a tile: 16 pairs.
pub(super) const DEPTH: usize = 32;
/// Tiles along the sum whose products are added before the next block of the result: what both factors need fits the
/// cache beside each other.
const DEPTH_TILES: usize = 32;
/// Bytes of each of the next two panels that are fetched with every step: all of them, with the four pairs of rows of a task.
const AHEAD_BYTES: usize = 256;
/// Panels of a task's rows and columns.
const TASK: (usize, usize) = (8, 16);

/// What multiplies tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instructions {
    Amx,
    Avx512Bf16,
}

impl Instructions {
    /// Those with which products in bf16 are faster than in f32, where this processor has them and the system lets this
    /// process use them.
    pub(super) fn found() -> Option<Self> {
        static FOUND: OnceLock<Option<Instructions>> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let pays = |found: &Self| *found == Self::Amx || is_amd();
            [Self::Amx, Self::Avx512Bf16]
                .into_iter()
                .filter(Self::usable)
                .find(pays)
        })
    }

    /// As a user knows them.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Amx => "AMX",
            Self::Avx512Bf16 => "AVX512-BF16",
        }
    }

    /// Whether a product can be computed with them, be it faster or not.
    fn usable(&self) -> bool {
        // Packing takes the same whatever multiplies.
        is_x86_feature_detected!("avx512bf16")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512f")
            && (*self == Self::Avx512Bf16 || amx::allowed())
    }
}

fn is_amd() -> bool {
    let leaf = __cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes) == [*b"Auth", *b"enti", *b"cAMD"]
}

/// Whether products in bf16 are faster here than in f32.
pub(super) fn available() -> bool {
    Instructions::found().is_some()
}

/// The result of a product: element (r, c) stands at `r * stride + c`.
#[derive(Clone, Copy)]
pub(super) struct Out {
    pub(super) values: *mut f32,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) stride: usize,
}

// SAFETY: tasks write parts of the result that do not overlap.
unsafe impl Send for Out {}
unsafe impl Sync for Out {}

/// A left and a right factor.
pub(super) type Pair<'a> = (View<'a>, View<'a>);

/// `out = scale * left * right`, or added to `out`; the product of another pair, where there is one, is a part of the sums.
///
/// # Safety
/// [`available`] is true; `out` may be written at each of its elements, and read with `add`; the factors were packed from as
/// many lines as `out` has rows and columns, or more, and as the left and the right one.
pub(super) unsafe fn product(
    out: Out,
    pair: Pair<'_>,
    other: Option<Pair<'_>>,
    scale: f32,
    add: bool,
    parallel: bool,
) {
    let by = Instructions::found().expect("a processor that was asked");
    // SAFETY: the caller vouches for all of it.
    unsafe { product_by(by, out, (pair, other), scale, add, parallel) };
}

/// [`product`] by instructions that are [usable](Instructions::usable).
///
/// # Safety
/// As [`product`].
unsafe fn product_by(
    by: Instructions,
    out: Out,
    (pair, other): (Pair<'_>, Option<Pair<'_>>),
    scale: f32,
    add: bool,
    parallel: bool,
) {
    let pairs = std::iter::once(pair).chain(other);
    assert!(
        pairs.clone().all(|(left, right)| left.depth <= right.depth),
        "factors of one depth"
    );
    let (rows, columns) = (out.rows.div_ceil(SIDE), out.columns.div_ceil(SIDE));
    let across = columns.div_ceil(TASK.1);
    let task = |index: usize| {
        let (row, column) = (index / across * TASK.0, index % across * TASK.1);
        let block = Block {
            by,
            out,
            scale,
            rows: row..(row + TASK.0).min(rows),
            columns: column..(column + TASK.1).min(columns),
        };
        // SAFETY: blocks are parts of the result that do not overlap.
        unsafe { block.run(pair, other, add) };
    };
    let tasks = rows.div_ceil(TASK.0) * across;
    match parallel {
        true => (0..tasks).into_par_iter().for_each(task),
        false => (0..tasks).for_each(task),
    }
}

/// A part of the result, in panels.
struct Block {
    by: Instructions,
    out: Out,
    scale: f32,
    rows: Range<usize>,
    columns: Range<usize>,
}

/// Sums of two panels of rows by two of columns.
#[repr(C, align(64))]
struct Sums([f32; 4 * SIDE * SIDE]);

impl Block {
    unsafe fn run(&self, pair: Pair<'_>, other: Option<Pair<'_>>, add: bool) {
        let depth = pair.0.depth;
        if self.by == Instructions::Amx {
            // SAFETY: the caller vouches for the processor; what lies between the two calls keeps to their registers.
            unsafe { amx::begin() };
        }
        for start in (0..depth).step_by(DEPTH_TILES) {
            let steps = start..(start + DEPTH_TILES).min(depth);
            let other = other.filter(|_| steps.end == depth);
            let other = other.map(|pair| (pair, 0..pair.0.depth));
            for column in self.columns.clone().step_by(2) {
                // What the next columns read comes nearer, a part of it with each pair of rows.
                let next = (column + 2).min(self.columns.end - 1);
                let next = pair.1.pair(next, self.columns.end, &steps);
                for (index, row) in self.rows.clone().step_by(2).enumerate() {
                    let ahead = index * steps.len() * AHEAD_BYTES;
                    let run = |((left, right), steps): (Pair<'_>, Range<usize>)| Run {
                        left: left.pair(row, self.rows.end, &steps),
                        right: right.pair(column, self.columns.end, &steps),
                        next: next.map(|tile| tile.wrapping_byte_add(ahead)),
                        steps: steps.len(),
                    };
                    let runs = [Some(run((pair, steps.clone()))), other.clone().map(run)];
                    let add = add || start > 0;
                    // SAFETY: the panels hold the steps, and the block is a part of the result.
                    unsafe { self.multiply(&runs, [row, column], add) };
                }
            }
        }
        if self.by == Instructions::Amx {
            // SAFETY: as above.
            unsafe { amx::end() };
        }
    }

    /// Two panels by two, from panel `row` and `column` of the result on.
    unsafe fn multiply(&self, runs: &[Option<Run>; 2], [row, column]: [usize; 2], add: bool) {
        const WIDTH: usize = 2 * SIDE;
        let (row, column) = (row * SIDE, column * SIDE);
        let rows = (self.out.rows - row).min(WIDTH);
        let columns = (self.out.columns - column).min(WIDTH);
        let stride = self.out.stride;
        // SAFETY: the block is a part of the result.
        let out = unsafe { self.out.values.add(row * stride + column) };
        if rows == WIDTH && columns == WIDTH && self.scale == 1.0 {
            // SAFETY: all of the 32 rows and columns are in the result.
            return unsafe { self.whole(runs, out, stride, [rows, columns], add) };
        }
        let mut sums = Sums([0.0; WIDTH * WIDTH]);
        // SAFETY: the sums have 32 rows of 32 values.
        unsafe { self.whole(runs, sums.0.as_mut_ptr(), WIDTH, [rows, columns], false) };
        for (row, sums) in sums.0.chunks_exact(WIDTH).enumerate().take(rows) {
            // SAFETY: the row is in the result, and no other task has it.
            let line = unsafe { std::slice::from_raw_parts_mut(out.add(row * stride), columns) };
            let pairs = line.iter_mut().zip(sums);
            match add {
                true => pairs.for_each(|(out, sum)| *out += self.scale * sum),
                false => pairs.for_each(|(out, sum)| *out = self.scale * sum),
            }
        }
    }
    /// The same where all 32 rows and columns may be written, of which `wanted` ones are the result's.
    unsafe fn whole(
        &self,
        runs: &[Option<Run>; 2],
        out: *mut f32,
        stride: usize,
        wanted: [usize; 2],
        add: bool,
    ) {
        // SAFETY: the caller vouches for processor, panels and result.
        unsafe {
            match self.by {
                Instructions::Amx => amx::multiply(runs, out, stride, add),
                Instructions::Avx512Bf16 => avx512::multiply(runs, out, stride, wanted, add),
            }
        }
    }
}

/// A part of the sum: two panels of the left factor and two of the right one, `steps` tiles deep.
struct Run {
    left: [*const Tile; 2],
    right: [*const Tile; 2],
    /// What is to be fetched into the cache meanwhile, [`AHEAD_BYTES`] a step; it is not read here.
    next: [*const Tile; 2],
    steps: usize,
}

#[cfg(test)]
mod tests;
