//! Products of tiles by AVX512-BF16.

use std::arch::x86_64::*;

use super::{Run, SIDE};

/// The products of the runs, written or added to the first `rows` and `columns` of 32 rows of 32 values that stand `stride`
/// apart, or to some more of them.
///
/// # Safety
/// The processor has AVX512-BF16; the panels hold as many tiles as a run has steps; `out` may be written at all 32 rows, and
/// read with `add`.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn multiply(
    runs: &[Option<Run>; 2],
    out: *mut f32,
    stride: usize,
    [rows, columns]: [usize; 2],
    add: bool,
) {
    // Sixteen sums are in registers together, beside what they share of the right factor and a pair of the left one.
    let step = if columns > SIDE { 8 } else { 16 };
    for row in (0..rows).step_by(step) {
        let out = out.wrapping_add(row * stride);
        // SAFETY: the caller vouches for panels and result.
        unsafe {
            match columns > SIDE {
                true => strip::<8, 2>(runs, row, out, stride, add),
                false => strip::<16, 1>(runs, row, out, stride, add),
            }
        }
    }
}

/// `ROWS` rows of the result over `PANELS` panels of columns, from `row` on, which are at `out`.
///
/// # Safety
/// As [`multiply`]; the rows are of one panel.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn strip<const ROWS: usize, const PANELS: usize>(
    runs: &[Option<Run>; 2],
    row: usize,
    out: *mut f32,
    stride: usize,
    add: bool,
) {
    let mut sums = [[_mm512_setzero_ps(); PANELS]; ROWS];
    // SAFETY: the caller vouches for the addresses; a tile is 16 rows of 16 pairs, or 16 rows of pairs of 16 columns.
    unsafe {
        if add {
            for (row, sums) in sums.iter_mut().enumerate() {
                for (panel, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_loadu_ps(out.add(row * stride + panel * SIDE));
                }
            }
        }
        for run in runs.iter().flatten() {
            let left = run.left[row / SIDE].cast::<[i32; SIDE]>();
            let left = left.add(row % SIDE);
            for step in 0..run.steps {
                let left = left.add(step * SIDE).cast::<i32>();
                for pair in 0..SIDE {
                    let right: [__m512bh; PANELS] = std::array::from_fn(|panel| {
                        *run.right[panel].add(step).cast::<__m512bh>().add(pair)
                    });
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let left = _mm512_set1_epi32(*left.add(row * SIDE + pair));
                        let left = std::mem::transmute::<__m512i, __m512bh>(left);
                        for (sum, right) in sums.iter_mut().zip(right) {
                            *sum = _mm512_dpbf16_ps(*sum, left, right);
                        }
                    }
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (panel, sum) in sums.iter().enumerate() {
                _mm512_storeu_ps(out.add(row * stride + panel * SIDE), *sum);
            }
        }
    }
}
