//! Matrix products in bf16 with f32 sums, in the tile registers (AMX) that Intel's server processors have since Sapphire
//! Rapids.
//!
//! Both factors are rounded to bf16 (to nearest, ties to even) on their way into tiles; a tile holds 16 rows of the left
//! factor, or 16 columns of the right one, over 32 terms of the sum. An element of the result adds its terms in one
//! fixed order, whatever the number of threads.
//!
//! AVX512-BF16, which more processors have, was tried on the same tiles: 80 GFLOP/s on two threads of a Sapphire Rapids
//! where `gemm` has 150 in f32, since such an instruction takes as long as the two that it stands for.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

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

/// Whether the processor has tiles of bf16, and the system lets this process use them.
pub(super) fn available() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        is_x86_feature_detected!("avx512bf16")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512f")
            && tiles_allowed()
    })
}

/// Linux wants to be asked before a process uses tiles: their registers are 8 KiB of state a thread.
fn tiles_allowed() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    let leaves = __cpuid(0).eax;
    if leaves < 7 || __cpuid_count(7, 0).edx & (AMX_BF16 | AMX_TILE) != AMX_BF16 | AMX_TILE {
        return false;
    }
    #[cfg(target_os = "linux")]
    {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        // SAFETY: the call asks for permission and touches no memory of ours.
        unsafe {
            libc::syscall(
                libc::SYS_arch_prctl,
                ARCH_REQ_XCOMP_PERM,
                XFEATURE_XTILEDATA,
            ) == 0
        }
    }
    #[cfg(not(target_os = "linux"))]
    false
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
        // SAFETY: the caller vouches for the processor; what lies between the two calls keeps to their registers.
        unsafe { begin() };
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
        // SAFETY: as above.
        unsafe { end() };
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
            return unsafe { multiply(runs, out, stride, add) };
        }
        let mut sums = Sums([0.0; WIDTH * WIDTH]);
        // SAFETY: the sums have 32 rows of 32 values.
        unsafe { multiply(runs, sums.0.as_mut_ptr(), WIDTH, false) };
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
}

/// A part of the sum: two panels of the left factor and two of the right one, `steps` tiles deep.
struct Run {
    left: [*const Tile; 2],
    right: [*const Tile; 2],
    /// What is to be fetched into the cache meanwhile, [`AHEAD_BYTES`] a step; it is not read here.
    next: [*const Tile; 2],
    steps: usize,
}

/// Makes eight tile registers of 16 rows of 64 bytes on this thread.
///
/// # Safety
/// [`available`] is true.
unsafe fn begin() {
    #[repr(C, align(64))]
    struct Config([u8; 64]);
    let mut config = Config([0; 64]);
    config.0[0] = 1;
    for tile in 0..8 {
        config.0[16 + 2 * tile] = 64;
        config.0[48 + tile] = SIDE as u8;
    }
    // SAFETY: the configuration is 64 bytes, as the instruction reads.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly)) };
}

/// Gives the tile registers back, so that the system need not save them.
///
/// # Safety
/// As [`begin`].
unsafe fn end() {
    // SAFETY: no memory is touched.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// The products of the runs, written or added to 32 rows of 32 values that stand `stride` apart.
///
/// # Safety
/// Between [`begin`] and [`end`]; the panels hold as many tiles as a run has steps, at least one; `out` may be written, and
/// read with `add`.
#[inline]
unsafe fn multiply(runs: &[Option<Run>; 2], out: *mut f32, stride: usize, add: bool) {
    let stride = stride * size_of::<f32>();
    let (upper, lower) = (out, out.wrapping_byte_add(SIDE * stride));
    // SAFETY: the caller vouches for the addresses; the assembly names every register that it changes.
    unsafe {
        if add {
            asm!(
                "tileloadd tmm0, [{upper} + {stride}]",
                "tileloadd tmm1, [{upper} + {stride} + 64]",
                "tileloadd tmm2, [{lower} + {stride}]",
                "tileloadd tmm3, [{lower} + {stride} + 64]",
                upper = in(reg) upper, lower = in(reg) lower, stride = in(reg) stride,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, readonly),
            );
        } else {
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, nomem),
            );
        }
        for run in runs.iter().flatten() {
            let (left, right, next) = (run.left, run.right, run.next);
            asm!(
                "2:",
                "tileloadd tmm4, [{a0} + {row}]",
                "tileloadd tmm6, [{b0} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b1} + {row}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a1} + {row}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{n0}]", "prefetcht1 [{n0} + 64]",
                "prefetcht1 [{n0} + 128]", "prefetcht1 [{n0} + 192]",
                "prefetcht1 [{n1}]", "prefetcht1 [{n1} + 64]",
                "prefetcht1 [{n1} + 128]", "prefetcht1 [{n1} + 192]",
                "add {a0}, 1024", "add {a1}, 1024", "add {b0}, 1024", "add {b1}, 1024",
                "add {n0}, 256", "add {n1}, 256",
                "dec {steps}",
                "jnz 2b",
                a0 = inout(reg) left[0] => _, a1 = inout(reg) left[1] => _,
                b0 = inout(reg) right[0] => _, b1 = inout(reg) right[1] => _,
                n0 = inout(reg) next[0] => _, n1 = inout(reg) next[1] => _,
                steps = inout(reg) run.steps => _, row = in(reg) 64usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly),
            );
        }
        asm!(
            "tilestored [{upper} + {stride}], tmm0",
            "tilestored [{upper} + {stride} + 64], tmm1",
            "tilestored [{lower} + {stride}], tmm2",
            "tilestored [{lower} + {stride} + 64], tmm3",
            upper = in(reg) upper, lower = in(reg) lower, stride = in(reg) stride,
            options(nostack),
        );
    }
}

#[cfg(test)]
mod tests;
