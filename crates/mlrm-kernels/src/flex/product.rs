//! Matrix products on parts of buffers, without copies: in f32 by `gemm`, or in bf16 (`backend.matmul_precision`) where the
//! processor is faster at that.

mod over_rows;
mod part;
mod ready;
mod right;
mod strips;
#[cfg(test)]
mod tests;

use gemm::Parallelism;
#[cfg(target_arch = "x86_64")]
use mlrm_config::MatmulPrecision;

#[cfg(target_arch = "x86_64")]
use super::tiles;
#[cfg(target_arch = "x86_64")]
use crate::matmul_precision;
pub(super) use over_rows::{product_over_rows, product_over_rows_of_block};
pub(super) use part::{Factor, Part, transposed};
pub(super) use ready::{Arithmetic, Ready};
pub(super) use right::Right;
pub(super) use strips::Strips;

/// A left and a right factor, of one [`Arithmetic`].
pub(super) type Pair<'a> = (&'a Ready<'a>, &'a Ready<'a>);

/// `out = scale * left * right`, or added to `out`; the product of an `other` pair, where there is one, is added too. On the
/// calling thread.
pub(super) fn multiply_ready(
    out: (&mut [f32], Part),
    pair: Pair<'_>,
    other: Option<Pair<'_>>,
    scale: f32,
    add: bool,
) {
    let (out, part) = out;
    #[cfg(target_arch = "x86_64")]
    if let Some(pair) = panels(pair, part) {
        assert!(part.fits(out.len()), "the result does not fit its buffer");
        assert!(part.column_stride == 1 && part.row_stride >= part.columns);
        let other = other.and_then(|other| panels(other, part));
        let out = tiles::Out {
            values: out.as_mut_ptr().wrapping_add(part.start),
            rows: part.rows,
            columns: part.columns,
            stride: part.row_stride,
        };
        // SAFETY: the result lies inside its buffer, and the factors have as many rows and columns.
        return unsafe { tiles::product(out, pair, other, scale, add, false) };
    }
    multiply((&mut *out, part), pair, scale, add);
    if let Some(other) = other {
        multiply((out, part), other, scale, true);
    }
}

/// The tiles of factors of a product as large as `part`.
#[cfg(target_arch = "x86_64")]
fn panels<'a>((left, right): Pair<'a>, part: Part) -> Option<tiles::Pair<'a>> {
    let (l, r) = (left.factor.1, right.factor.1);
    assert_eq!(
        (part.rows, part.columns, l.columns),
        (l.rows, r.columns, r.rows)
    );
    let view = |ready: &'a Ready<'_>| Some(ready.panels.as_deref()?.from(ready.first_panel));
    Some((view(left)?, view(right)?))
}

/// `out = scale * left * right`, or added to `out`; in f32, on the calling thread.
fn multiply((out, part): (&mut [f32], Part), (left, right): Pair<'_>, scale: f32, add: bool) {
    assert!(part.fits(out.len()), "the result does not fit its buffer");
    assert!(part.column_stride == 1 && part.row_stride >= part.columns);
    let way = Way {
        scale,
        add,
        parallel: false,
        by_size: left.arithmetic == Arithmetic::F32BySize,
    };
    // SAFETY: the result lies inside `out`, its elements do not overlap, and all of them have
    // values.
    unsafe {
        raw(
            out.as_mut_ptr(),
            part,
            left.factor,
            right.factor.into(),
            way,
        )
    };
}

/// `left * right` in a new buffer, on all threads.
pub(super) fn product<'a>(left: Factor<'_>, right: impl Into<Right<'a>>) -> Vec<f32> {
    let right = right.into();
    let part = Part::whole(left.1.rows, right.columns());
    let elements = part.rows * part.columns;
    if left.1.columns == 0 {
        return vec![0.0; elements];
    }
    let mut out = Vec::with_capacity(elements);
    // SAFETY: the buffer has room for the result; nothing is read from it, and every element of
    // the result is written.
    unsafe {
        raw(
            out.as_mut_ptr(),
            part,
            left,
            right,
            Way::on_all_threads(false),
        );
        out.set_len(elements);
    }
    out
}

/// `out += left * right` for a whole buffer, on all threads.
pub(super) fn add_product<'a>(out: &mut [f32], left: Factor<'_>, right: impl Into<Right<'a>>) {
    let right = right.into();
    let part = Part::whole(left.1.rows, right.columns());
    assert!(part.fits(out.len()), "the result does not fit its buffer");
    // SAFETY: the result lies inside `out`, and all of its elements have values.
    unsafe {
        raw(
            out.as_mut_ptr(),
            part,
            left,
            right,
            Way::on_all_threads(true),
        )
    };
}

/// Multiplications below which one thread is faster.
const SERIAL: usize = 128 * 128 * 128;

/// Multiplications below which filling tiles takes longer than multiplying in f32.
#[cfg(target_arch = "x86_64")]
const SMALL: usize = 32 * 32 * 32;

/// Whether products are in bf16.
#[cfg(target_arch = "x86_64")]
fn in_tiles() -> bool {
    matmul_precision() == MatmulPrecision::Bf16 && tiles::available()
}

/// The rows of a factor, for tiles.
#[cfg(target_arch = "x86_64")]
fn lines(values: &[f32], part: Part) -> tiles::Lines<'_> {
    tiles::Lines {
        values,
        start: part.start,
        lines: part.rows,
        depth: part.columns,
        line_stride: part.row_stride,
        term_stride: part.column_stride,
    }
}

/// How a product is computed.
#[derive(Clone, Copy)]
struct Way {
    scale: f32,
    /// To what stands in the result already.
    add: bool,
    parallel: bool,
    /// As [`Arithmetic::F32BySize`].
    by_size: bool,
}

impl Way {
    /// As [`Arithmetic::F32`].
    fn on_all_threads(add: bool) -> Self {
        Self {
            scale: 1.0,
            add,
            parallel: true,
            by_size: false,
        }
    }
}

/// # Safety
/// `out` must be valid for writes at every element of `part`, and for reads with `add`.
unsafe fn raw(out: *mut f32, part: Part, (left, l): Factor<'_>, factor: Right<'_>, way: Way) {
    let (right, r) = factor.factor;
    assert!(
        l.fits(left.len()) && r.fits(right.len()),
        "a factor does not fit its buffer"
    );
    assert_eq!(
        (part.rows, part.columns, l.columns),
        (l.rows, r.columns, r.rows)
    );
    #[cfg(target_arch = "x86_64")]
    if in_tiles() {
        let out = tiles::Out {
            values: out.wrapping_add(part.start),
            rows: part.rows,
            columns: part.columns,
            stride: part.row_stride,
        };
        let work = part.rows * part.columns * l.columns;
        let left = lines(left, l);
        if work >= SMALL && part.column_stride == 1 && left.readable() && r.readable() {
            let parallel = way.parallel && work > SERIAL;
            let right = factor.panels(parallel);
            // SAFETY: the caller vouches for `out`; both factors lie inside their buffers.
            return unsafe {
                let left = left.pack(true, parallel);
                let pair = (left.from(0), right.from(0));
                tiles::product(out, pair, None, way.scale, way.add, parallel);
            };
        }
    }
    let terms = l.columns;
    let step = match way.by_size || part.columns > SMALL_SIDE {
        true => terms,
        false => even_step(terms),
    };
    let mut way = way;
    let mut start = 0;
    loop {
        let step = step.min(terms - start);
        let (l, r) = (l.some_columns(start, step), r.some_rows(start, step));
        // SAFETY: the caller vouches for `out`; both factors lie inside their buffers.
        unsafe { by_gemm(out, part, (left, l), (right, r), way) };
        start += step;
        if start >= terms {
            return;
        }
        way.add = true;
    }
}

/// Sides up to which `gemm` cuts sums into other parts than those of larger results.
const SMALL_SIDE: usize = 64;

/// The terms that are added up before they come to the others: `gemm`'s own parts of sums in larger results, and never
/// more than it takes at once in small ones.
fn even_step(terms: usize) -> usize {
    const MOST: usize = 512;
    terms.div_ceil(terms.div_ceil(MOST).max(1))
}

/// # Safety
/// As [`raw`].
unsafe fn by_gemm(
    out: *mut f32,
    part: Part,
    (left, l): Factor<'_>,
    (right, r): Factor<'_>,
    way: Way,
) {
    let work = part.rows * part.columns * l.columns;
    let threads = if way.parallel && work > SERIAL {
        Parallelism::Rayon(0)
    } else {
        Parallelism::None
    };
    let (rows, columns, terms) = (part.rows, part.columns, l.columns);
    let [out_row, out_column, l_row, l_column, r_row, r_column] = [
        part.row_stride,
        part.column_stride,
        l.row_stride,
        l.column_stride,
        r.row_stride,
        r.column_stride,
    ]
    .map(|stride| stride as isize);
    let left = left.as_ptr().wrapping_add(l.start);
    let right = right.as_ptr().wrapping_add(r.start);
    // SAFETY: the caller vouches for `out`; both factors lie inside their buffers.
    unsafe {
        let out = out.add(part.start);
        if way.by_size {
            return gemm::gemm(
                rows, columns, terms, out, out_column, out_row, way.add, left, l_column, l_row,
                right, r_column, r_row, 1.0, way.scale, false, false, false, threads,
            );
        }
        // For few elements, one row or one column `gemm` has other kernels, with sums in other orders, unless the result is to
        // be conjugated: which real numbers do not notice. As there, the transposed product gives rows that lie in a row.
        let multiply = gemm_f32::gemm::f32::get_gemm_fn();
        multiply(
            columns, rows, terms, out, out_row, out_column, way.add, right, r_row, r_column, left,
            l_row, l_column, 1.0, way.scale, true, false, false, threads,
        );
    }
}
