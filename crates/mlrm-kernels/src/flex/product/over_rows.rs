//! Products whose sums go over the rows of a batch: the gradients of weights.
//!
//! How such a sum rounds must not depend on how many rows there are, since the rows of a batch may come in parts of any
//! size. A long chain of f32 sums would: it rounds the more the longer it is. So rows are added up in runs, which stay in
//! registers, the runs of a block of rows in the cache, and blocks in the result: each is a short chain. So few rows that
//! they are one run, such as those of the notes behind the last layer, are added up in f64.

#[cfg(target_arch = "x86_64")]
mod blockwise;

use rayon::prelude::*;

use super::{
    Arithmetic, Factor, Part, Ready, SERIAL, add_product, multiply_ready, product, transposed,
};

/// Rows that are added up before they come to others.
const RUN: usize = 32;

/// Rows whose runs are added up before they come to the result, without AVX-512.
const BLOCK: usize = 16 * RUN;

/// `leftᵀ right`, `[rows, inputs]` and `[rows, outputs]` to `[inputs, outputs]`, on all threads.
pub(in crate::flex) fn product_over_rows(left: Factor<'_>, right: Factor<'_>) -> Vec<f32> {
    let work = left.1.rows * left.1.columns * right.1.columns;
    over_rows(left, right, work > SERIAL)
}

/// The same on the calling thread, with a right factor that other products read too.
pub(in crate::flex) fn product_over_rows_of_block(left: Factor<'_>, right: &Ready<'_>) -> Vec<f32> {
    if right.arithmetic != Arithmetic::Tiles {
        return over_rows(left, right.factor, false);
    }
    let left = transposed(left);
    let part = Part::whole(left.1.rows, right.columns());
    let mut out = vec![0.0; part.rows * part.columns];
    let left = Ready::left(right.arithmetic, left);
    multiply_ready((&mut out, part), (&left, right), None, 1.0, false);
    out
}

fn over_rows(left: Factor<'_>, right: Factor<'_>, parallel: bool) -> Vec<f32> {
    let ((from, l), (to, r)) = (left, right);
    assert_eq!(l.rows, r.rows, "factors of one batch");
    assert!(
        l.fits(from.len()) && r.fits(to.len()),
        "a factor does not fit its buffer"
    );
    #[cfg(target_arch = "x86_64")]
    {
        if super::in_tiles() && l.rows * l.columns * r.columns >= super::SMALL {
            return product(transposed(left), right);
        }
        if l.rows > RUN && is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has it.
            return unsafe { blockwise::product(left, right, parallel) };
        }
    }
    if l.rows <= RUN {
        return of_one_run(left, right, parallel);
    }
    by_gemm(left, right)
}

/// By `gemm`, which reads and writes what it adds to once a run: a block of runs by itself, then the blocks in the result.
fn by_gemm((from, l): Factor<'_>, (to, r): Factor<'_>) -> Vec<f32> {
    let mut out = vec![0.0; l.columns * r.columns];
    let mut others = Vec::new();
    for first in (0..l.rows).step_by(BLOCK) {
        let of_block = match first {
            0 => &mut out,
            _ => {
                others.clear();
                others.resize(l.columns * r.columns, 0.0);
                &mut others
            }
        };
        let last = l.rows.min(first + BLOCK);
        for start in (first..last).step_by(RUN) {
            let count = RUN.min(last - start);
            let [l, r] = [l, r].map(|part| part.some_rows(start, count));
            add_product(of_block, transposed((from, l)), (to, r));
        }
        if first > 0 {
            let pairs = out.iter_mut().zip(&others);
            pairs.for_each(|(sum, of_block)| *sum += of_block);
        }
    }
    out
}

fn of_one_run((from, l): Factor<'_>, (to, r): Factor<'_>, parallel: bool) -> Vec<f32> {
    let mut out = vec![0.0; l.columns * r.columns];
    let of_input = |(input, out): (usize, &mut [f32])| {
        let mut sums = vec![0.0_f64; r.columns];
        for row in 0..l.rows {
            let left = f64::from(from[l.start + row * l.row_stride + input * l.column_stride]);
            let right = to[r.start + row * r.row_stride..].iter();
            let pairs = sums.iter_mut().zip(right.step_by(r.column_stride));
            pairs.for_each(|(sum, right)| *sum += left * f64::from(*right));
        }
        let pairs = out.iter_mut().zip(sums);
        pairs.for_each(|(out, sum)| *out = sum as f32);
    };
    match parallel {
        _ if out.is_empty() => {}
        true => out.par_chunks_mut(r.columns).enumerate().for_each(of_input),
        false => out.chunks_mut(r.columns).enumerate().for_each(of_input),
    }
    out
}
