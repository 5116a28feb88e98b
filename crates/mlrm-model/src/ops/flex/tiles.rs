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
use std::mem::{MaybeUninit, transmute};
use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

/// Rows of the left factor, or columns of the right one, in a tile.
const SIDE: usize = 16;
/// Terms of the sum in a tile: 16 pairs.
const DEPTH: usize = 32;
/// Tiles along the sum whose products are added before the next block of the result: what both factors need fits the
/// cache beside each other.
const DEPTH_TILES: usize = 32;
/// Panels of a task's rows and columns.
const TASK: (usize, usize) = (8, 16);

/// Sixteen rows of sixteen pairs of bf16 values (left factor), or sixteen pairs of sixteen columns (right factor):
/// the form that the products read.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Tile([__m512i; SIDE]);

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

/// A factor: `lines` rows of the left one (columns of the right one), each of `depth` terms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines<'a> {
    pub(super) values: &'a [f32],
    pub(super) start: usize,
    pub(super) lines: usize,
    pub(super) depth: usize,
    /// Between the first terms of two lines.
    pub(super) line_stride: usize,
    /// Between two terms of a line.
    pub(super) term_stride: usize,
}

impl Lines<'_> {
    /// Whether the values stand so that vectors can read them.
    pub(super) fn readable(&self) -> bool {
        self.line_stride == 1 || self.term_stride == 1
    }

    /// The lines in tiles of the left or of the right factor.
    ///
    /// # Safety
    /// [`available`] is true, and all values of the lines lie in `values`.
    unsafe fn pack(&self, left: bool, parallel: bool) -> Panels {
        let (panels, depth) = (self.lines.div_ceil(SIDE), self.depth.div_ceil(DEPTH));
        let mut tiles = Vec::with_capacity(panels * depth);
        let room = &mut tiles.spare_capacity_mut()[..panels * depth];
        let work = |(panel, tiles): (usize, &mut [MaybeUninit<Tile>])| {
            for (index, tile) in tiles.iter_mut().enumerate() {
                // SAFETY: the caller vouches for processor and values.
                tile.write(unsafe { self.tile(panel * SIDE, index * DEPTH, left) });
            }
        };
        match parallel {
            true => room.par_chunks_mut(depth).enumerate().for_each(work),
            false => room.chunks_mut(depth).enumerate().for_each(work),
        }
        // SAFETY: every tile was written.
        unsafe { tiles.set_len(panels * depth) };
        Panels { tiles, depth }
    }

    /// The tile from `line` and `term` on, zeros where the factor ends.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn tile(&self, line: usize, term: usize, left: bool) -> Tile {
        let lines = (self.lines - line).min(SIDE);
        let terms = (self.depth - term).min(DEPTH);
        let start = self.start + line * self.line_stride + term * self.term_stride;
        let along_terms = self.term_stride == 1;
        // SAFETY: the caller vouches for the values; masks keep to `lines` and `terms`.
        let rows = unsafe {
            let start = self.values.as_ptr().add(start);
            match along_terms {
                true => pairs_along_terms(start, self.line_stride, lines, terms),
                false => pairs_along_lines(start, self.term_stride, lines, terms),
            }
        };
        Tile(if along_terms == left {
            rows
        } else {
            transpose(rows)
        })
    }
}

/// A factor in tiles: one panel of 16 lines after the other, each `depth` tiles long.
struct Panels {
    tiles: Vec<Tile>,
    depth: usize,
}

impl Panels {
    /// Where `steps` of `panel` and of the next one begin. A panel that has no next one before `end` is multiplied twice,
    /// and the double thrown away.
    fn pair(&self, panel: usize, end: usize, steps: &Range<usize>) -> [*const Tile; 2] {
        [panel, (panel + 1).min(end - 1)].map(|panel| {
            let tiles = &self.tiles[panel * self.depth..][steps.clone()];
            tiles.as_ptr()
        })
    }
}

/// The first `count` lanes.
fn lanes(count: usize) -> u16 {
    if count >= 16 {
        u16::MAX
    } else {
        (1 << count) - 1
    }
}

/// A row of pairs for each line, whose terms are neighbours.
///
/// # Safety
/// Lines start `stride` values apart from `start` on, and each has `terms` values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pairs_along_terms(
    start: *const f32,
    stride: usize,
    lines: usize,
    terms: usize,
) -> [__m512i; SIDE] {
    let mut rows = [_mm512_setzero_si512(); SIDE];
    let (low, high) = (lanes(terms), lanes(terms.saturating_sub(16)));
    for (line, row) in rows.iter_mut().enumerate().take(lines) {
        // SAFETY: the caller vouches for the values; masked lanes are not read.
        unsafe {
            let at = start.add(line * stride);
            let first = _mm512_maskz_loadu_ps(low, at);
            let second = _mm512_maskz_loadu_ps(high, at.wrapping_add(16));
            *row = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
        }
    }
    rows
}

/// A row of lines for each pair of terms; lines are neighbours.
///
/// # Safety
/// Terms start `stride` values apart from `start` on, and each has `lines` values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pairs_along_lines(
    start: *const f32,
    stride: usize,
    lines: usize,
    terms: usize,
) -> [__m512i; SIDE] {
    // The lower half of the lanes holds first terms, the upper half second ones: they are to alternate.
    let mut order = [0u16; 32];
    for (lane, from) in order.iter_mut().enumerate() {
        *from = (lane / 2 + lane % 2 * 16) as u16;
    }
    // SAFETY: the order is 64 bytes.
    let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
    let mask = lanes(lines);
    let mut rows = [_mm512_setzero_si512(); SIDE];
    for (pair, row) in rows.iter_mut().enumerate().take(terms.div_ceil(2)) {
        // SAFETY: the caller vouches for the values; masked lanes are not read.
        unsafe {
            let at = start.add(2 * pair * stride);
            let first = _mm512_maskz_loadu_ps(mask, at);
            let second = match 2 * pair + 1 < terms {
                true => _mm512_maskz_loadu_ps(mask, at.add(stride)),
                false => _mm512_setzero_ps(),
            };
            let halves = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
            *row = _mm512_permutexvar_epi16(order, halves);
        }
    }
    rows
}

/// The transpose of a 16 by 16 matrix of pairs.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; SIDE]) -> [__m512i; SIDE] {
    let zero = _mm512_setzero_si512();
    let (mut r, mut t) = (rows, [zero; SIDE]);
    for i in (0..SIDE).step_by(2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for i in (0..SIDE).step_by(4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for i in (0..SIDE).step_by(8) {
        for j in i..i + 4 {
            t[j] = _mm512_shuffle_i32x4::<0x88>(r[j], r[j + 4]);
            t[j + 4] = _mm512_shuffle_i32x4::<0xdd>(r[j], r[j + 4]);
        }
    }
    for i in 0..8 {
        r[i] = _mm512_shuffle_i32x4::<0x88>(t[i], t[i + 8]);
        r[i + 8] = _mm512_shuffle_i32x4::<0xdd>(t[i], t[i + 8]);
    }
    r
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

/// `out = scale * left * right`, or added to `out`.
///
/// # Safety
/// [`available`] is true; `out` may be written at each of its elements, and read with `add`; the lines lie in their
/// buffers and are [readable](Lines::readable).
pub(super) unsafe fn product(
    out: Out,
    left: Lines<'_>,
    right: Lines<'_>,
    scale: f32,
    add: bool,
    parallel: bool,
) {
    // SAFETY: the caller vouches for the processor and the lines.
    let (left, right) = unsafe { (left.pack(true, parallel), right.pack(false, parallel)) };
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
        unsafe { block.run(&left, &right, add) };
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
    unsafe fn run(&self, left: &Panels, right: &Panels, add: bool) {
        // SAFETY: the caller vouches for the processor; what lies between the two calls keeps to their registers.
        unsafe { begin() };
        for start in (0..left.depth).step_by(DEPTH_TILES) {
            let steps = start..(start + DEPTH_TILES).min(left.depth);
            for column in self.columns.clone().step_by(2) {
                let right = right.pair(column, self.columns.end, &steps);
                for row in self.rows.clone().step_by(2) {
                    let left = left.pair(row, self.rows.end, &steps);
                    let add = add || start > 0;
                    // SAFETY: the panels hold the steps, and the block is a part of the result.
                    unsafe { self.multiply([left, right], steps.len(), [row, column], add) };
                }
            }
        }
        // SAFETY: as above.
        unsafe { end() };
    }

    /// Two panels by two, `steps` tiles deep, from panel `row` and `column` of the result on.
    unsafe fn multiply(
        &self,
        factors: [[*const Tile; 2]; 2],
        steps: usize,
        [row, column]: [usize; 2],
        add: bool,
    ) {
        const WIDTH: usize = 2 * SIDE;
        let (row, column) = (row * SIDE, column * SIDE);
        let rows = (self.out.rows - row).min(WIDTH);
        let columns = (self.out.columns - column).min(WIDTH);
        let stride = self.out.stride;
        // SAFETY: the block is a part of the result.
        let out = unsafe { self.out.values.add(row * stride + column) };
        if rows == WIDTH && columns == WIDTH && self.scale == 1.0 {
            // SAFETY: all of the 32 rows and columns are in the result.
            return unsafe { multiply(factors, steps, out, stride, add) };
        }
        let mut sums = Sums([0.0; WIDTH * WIDTH]);
        // SAFETY: the sums have 32 rows of 32 values.
        unsafe { multiply(factors, steps, sums.0.as_mut_ptr(), WIDTH, false) };
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

/// The product of two panels of the left factor and two of the right one, `steps` tiles deep, written or added to 32 rows of
/// 32 values that stand `stride` apart.
///
/// # Safety
/// Between [`begin`] and [`end`]; the panels hold `steps` tiles; `out` may be written, and read with `add`.
#[inline]
unsafe fn multiply(
    [left, right]: [[*const Tile; 2]; 2],
    steps: usize,
    out: *mut f32,
    stride: usize,
    add: bool,
) {
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
            "add {a0}, 1024", "add {a1}, 1024", "add {b0}, 1024", "add {b1}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{upper} + {stride}], tmm0",
            "tilestored [{upper} + {stride} + 64], tmm1",
            "tilestored [{lower} + {stride}], tmm2",
            "tilestored [{lower} + {stride} + 64], tmm3",
            a0 = inout(reg) left[0] => _, a1 = inout(reg) left[1] => _,
            b0 = inout(reg) right[0] => _, b1 = inout(reg) right[1] => _,
            steps = inout(reg) steps => _, row = in(reg) 64usize,
            upper = in(reg) upper, lower = in(reg) lower, stride = in(reg) stride,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To the nearest bf16, ties to even.
    fn rounded(value: f32) -> f32 {
        let bits = value.to_bits();
        f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
    }

    fn random(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// `lines` of `depth` terms that stand side by side, or one below the other.
    fn factor(values: &[f32], lines: usize, depth: usize, across: bool) -> Lines<'_> {
        let (line_stride, term_stride) = if across { (1, lines) } else { (depth, 1) };
        Lines {
            values,
            start: 0,
            lines,
            depth,
            line_stride,
            term_stride,
        }
    }

    fn at(factor: &Lines<'_>, line: usize, term: usize) -> f64 {
        let index = line * factor.line_stride + term * factor.term_stride;
        f64::from(rounded(factor.values[index]))
    }

    fn check([rows, columns, depth]: [usize; 3], across: [bool; 2], scale: f32, add: bool) {
        let (left, right) = (random(rows * depth, 1), random(columns * depth, 2));
        let left = factor(&left, rows, depth, across[0]);
        let right = factor(&right, columns, depth, across[1]);
        // Rows of the result stand three values apart, which must stay as they are.
        let stride = columns + 3;
        let before = random(rows * stride, 3);
        let mut after = before.clone();
        let out = Out {
            values: after.as_mut_ptr(),
            rows,
            columns,
            stride,
        };
        // SAFETY: `available` was asked; all sizes are those of the buffers.
        unsafe { product(out, left, right, scale, add, depth % 2 == 0) };
        for (index, (found, old)) in after.iter().zip(&before).enumerate() {
            let (row, column) = (index / stride, index % stride);
            if column >= columns {
                assert_eq!(found, old, "the gap behind row {row}");
                continue;
            }
            let terms = (0..depth).map(|term| at(&left, row, term) * at(&right, column, term));
            let start = if add { f64::from(*old) } else { 0.0 };
            let exact = start + f64::from(scale) * terms.sum::<f64>();
            let error = (exact - f64::from(*found)).abs();
            let allowed = 1e-6 * (depth as f64).sqrt() + 1e-6;
            let case = (rows, columns, depth, across, scale, add);
            assert!(
                error < allowed,
                "{case:?} at {row}, {column}: off by {error}"
            );
        }
    }

    #[test]
    fn products_are_those_of_rounded_factors() {
        if !available() {
            eprintln!("SKIPPED products_are_those_of_rounded_factors: the processor has no AMX");
            return;
        }
        let sizes = [
            [1, 1, 1],
            [16, 16, 32],
            [33, 47, 65],
            [100, 31, 7],
            [32, 64, 1100],
            [257, 290, 64],
        ];
        for size in sizes {
            for across in [[false, false], [false, true], [true, false], [true, true]] {
                for (scale, add) in [(1.0, false), (1.0, true), (0.3, false), (0.3, true)] {
                    check(size, across, scale, add);
                }
            }
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        if !available() {
            eprintln!(
                "SKIPPED results_do_not_depend_on_the_number_of_threads: the processor has no AMX"
            );
            return;
        }
        let (rows, columns, depth) = (300, 280, 1500);
        let (left, right) = (random(rows * depth, 4), random(columns * depth, 5));
        let run = |parallel: bool| {
            let mut sums = vec![0.0_f32; rows * columns];
            let out = Out {
                values: sums.as_mut_ptr(),
                rows,
                columns,
                stride: columns,
            };
            let left = factor(&left, rows, depth, false);
            let right = factor(&right, columns, depth, true);
            // SAFETY: as above.
            unsafe { product(out, left, right, 1.0, false, parallel) };
            sums
        };
        assert_eq!(run(true), run(false));
    }
}
