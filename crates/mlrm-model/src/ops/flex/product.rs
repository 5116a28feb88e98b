//! Matrix products on parts of buffers, without copies: in f32 by `gemm`, or in bf16 (`backend.matmul_precision`) where the
//! processor has tiles for it.

use std::ops::Range;
#[cfg(target_arch = "x86_64")]
use std::sync::Arc;

use burn::backend::flex::{FlexTensor, Layout};
use gemm::Parallelism;
#[cfg(target_arch = "x86_64")]
use mlrm_config::MatmulPrecision;

#[cfg(target_arch = "x86_64")]
use super::{packed, tiles};
#[cfg(target_arch = "x86_64")]
use crate::ops::matmul_precision;

/// A matrix inside a buffer: element (r, c) stands at `start + r * row_stride + c * column_stride`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Part {
    start: usize,
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl Part {
    /// `rows` rows of `columns` values, whose first values stand `row_stride` apart.
    pub(super) fn new(start: usize, rows: usize, columns: usize, row_stride: usize) -> Self {
        Self {
            start,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// A whole buffer.
    pub(super) fn whole(rows: usize, columns: usize) -> Self {
        Self::new(0, rows, columns, columns)
    }

    /// A tensor of two axes.
    pub(super) fn of(layout: &Layout) -> Self {
        let (shape, strides) = (layout.shape(), layout.strides());
        Self {
            start: layout.start_offset(),
            rows: shape[0],
            columns: shape[1],
            row_stride: strides[0].unsigned_abs(),
            column_stride: strides[1].unsigned_abs(),
        }
    }

    /// Whether the values of a row, or those of a column, are neighbours.
    pub(super) fn readable(&self) -> bool {
        self.row_stride == 1 || self.column_stride == 1
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    fn fits(&self, length: usize) -> bool {
        let empty = self.rows == 0 || self.columns == 0;
        let last = |count: usize, stride: usize| count.saturating_sub(1) * stride;
        empty
            || self.start
                + last(self.rows, self.row_stride)
                + last(self.columns, self.column_stride)
                < length
    }
}

/// A matrix to be multiplied.
pub(super) type Factor<'a> = (&'a [f32], Part);

/// The transpose of a factor.
pub(super) fn transposed((values, part): Factor<'_>) -> Factor<'_> {
    (values, part.transposed())
}

/// A right factor of products.
#[derive(Debug, Clone, Copy)]
pub(super) struct Right<'a> {
    factor: Factor<'a>,
    /// Where it is a weight, what it is a part of, and whether that learns.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    weight: Option<(&'a FlexTensor, bool)>,
}

impl<'a> Right<'a> {
    /// A weight of two axes as it lies in memory, whose tiles are kept unless it `learns`.
    pub(super) fn weight(tensor: &'a FlexTensor, learns: bool) -> Self {
        Self {
            factor: (tensor.storage(), Part::of(tensor.layout())),
            weight: Some((tensor, learns)),
        }
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            factor: transposed(self.factor),
            ..self
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.factor.1.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.factor.1.columns
    }

    /// The factor alone, without what it is a part of.
    #[cfg(test)]
    pub(super) fn factor(&self) -> Factor<'a> {
        self.factor
    }

    /// The factor in tiles, made on all threads where it is `parallel` and not kept.
    #[cfg(target_arch = "x86_64")]
    fn panels(&self, parallel: bool) -> Arc<tiles::Panels> {
        let (values, part) = self.factor;
        assert!(part.fits(values.len()), "a factor does not fit its buffer");
        let lines = lines(values, part.transposed());
        assert!(lines.readable(), "a factor has neighbours along one axis");
        // SAFETY: tiles are asked for where the processor has them; the factor lies inside its buffer.
        let pack = || unsafe { lines.pack(false, parallel) };
        match self.weight {
            Some((tensor, learns)) => packed::panels(tensor, part, learns, pack),
            None => Arc::new(pack()),
        }
    }
}

impl<'a> From<Factor<'a>> for Right<'a> {
    fn from(factor: Factor<'a>) -> Self {
        Self {
            factor,
            weight: None,
        }
    }
}

/// The arithmetic of an operation's products, chosen once for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    F32,
    /// Factors rounded to bf16, in tiles.
    Tiles,
}

impl Arithmetic {
    /// That of an operation whose largest product has `work` multiplications.
    pub(super) fn of(work: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        if work >= SMALL && in_tiles() {
            return Self::Tiles;
        }
        let _ = work;
        Self::F32
    }
}

/// A factor of several products, which is rounded and laid out once for all of them.
#[derive(Debug, Clone)]
pub(super) struct Ready<'a> {
    factor: Factor<'a>,
    /// Of the factor, or of one that it is a part of.
    #[cfg(target_arch = "x86_64")]
    panels: Option<Arc<tiles::Panels>>,
    /// The first panel that is a part of it.
    #[cfg(target_arch = "x86_64")]
    first_panel: usize,
}

impl<'a> Ready<'a> {
    /// A left factor, made ready on the calling thread.
    pub(super) fn left(arithmetic: Arithmetic, (values, part): Factor<'a>) -> Self {
        assert!(part.fits(values.len()), "a factor does not fit its buffer");
        #[cfg(target_arch = "x86_64")]
        let panels = (arithmetic == Arithmetic::Tiles).then(|| {
            let lines = lines(values, part);
            assert!(lines.readable(), "a factor has neighbours along one axis");
            // SAFETY: `Arithmetic::of` asked the processor; the factor lies inside its buffer.
            Arc::new(unsafe { lines.pack(true, false) })
        });
        #[cfg(not(target_arch = "x86_64"))]
        let _ = arithmetic;
        Self {
            factor: (values, part),
            #[cfg(target_arch = "x86_64")]
            panels,
            #[cfg(target_arch = "x86_64")]
            first_panel: 0,
        }
    }

    /// A right factor, made ready on the calling thread.
    pub(super) fn right(arithmetic: Arithmetic, factor: Factor<'a>) -> Self {
        Self::of(arithmetic, factor.into(), false)
    }

    /// A right factor, made ready on all threads, or kept from earlier products.
    pub(super) fn shared(arithmetic: Arithmetic, right: Right<'a>) -> Self {
        Self::of(arithmetic, right, true)
    }

    /// Some columns of a right factor, from a multiple of 16 on.
    pub(super) fn part_of_columns(&self, columns: Range<usize>) -> Self {
        let mut part = self.clone();
        let matrix = &mut part.factor.1;
        assert!(columns.end <= matrix.columns && columns.start.is_multiple_of(PANEL));
        matrix.start += columns.start * matrix.column_stride;
        matrix.columns = columns.len();
        #[cfg(target_arch = "x86_64")]
        {
            part.first_panel += columns.start / PANEL;
        }
        part
    }

    /// The first `rows` rows of a right factor.
    pub(super) fn first_rows(&self, rows: usize) -> Self {
        assert!(rows <= self.factor.1.rows);
        let mut part = self.clone();
        part.factor.1.rows = rows;
        #[cfg(target_arch = "x86_64")]
        if self.panels.is_some() && rows != self.factor.1.rows && !rows.is_multiple_of(tiles::DEPTH)
        {
            // A tile would hold rows behind the last one.
            return Self::right(Arithmetic::Tiles, part.factor);
        }
        part
    }

    /// Columns of the factor.
    pub(super) fn columns(&self) -> usize {
        self.factor.1.columns
    }

    fn of(arithmetic: Arithmetic, right: Right<'a>, parallel: bool) -> Self {
        let (values, part) = right.factor;
        assert!(part.fits(values.len()), "a factor does not fit its buffer");
        #[cfg(target_arch = "x86_64")]
        let panels = (arithmetic == Arithmetic::Tiles).then(|| right.panels(parallel));
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (arithmetic, parallel);
        Self {
            factor: right.factor,
            #[cfg(target_arch = "x86_64")]
            panels,
            #[cfg(target_arch = "x86_64")]
            first_panel: 0,
        }
    }
}

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
    multiply((&mut *out, part), pair.0.factor, pair.1.factor, scale, add);
    if let Some((left, right)) = other {
        multiply((out, part), left.factor, right.factor, scale, true);
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

/// A left factor that is made ready a few columns at a time, so that its values need not stand beside each other.
pub(super) struct Strips {
    rows: usize,
    columns: usize,
    #[cfg(target_arch = "x86_64")]
    panels: Option<tiles::Panels>,
}

impl Strips {
    /// A factor of `rows` rows and `columns` columns.
    pub(super) fn new(arithmetic: Arithmetic, rows: usize, columns: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        let panels = (arithmetic == Arithmetic::Tiles).then(|| tiles::Panels::zeros(rows, columns));
        #[cfg(not(target_arch = "x86_64"))]
        let _ = arithmetic;
        Self {
            rows,
            columns,
            #[cfg(target_arch = "x86_64")]
            panels,
        }
    }

    /// The columns that are to be given together, in their order: in f32 all of them.
    pub(super) fn ranges(&self) -> Vec<Range<usize>> {
        #[cfg(target_arch = "x86_64")]
        if self.panels.is_some() {
            let ends = |start: usize| start..(start + STRIP).min(self.columns);
            return (0..self.columns).step_by(STRIP).map(ends).collect();
        }
        vec![0..self.columns]
    }

    /// Takes the values of some columns, row after row.
    pub(super) fn put(&mut self, columns: &Range<usize>, values: &[f32]) {
        assert_eq!(values.len(), self.rows * columns.len());
        #[cfg(target_arch = "x86_64")]
        if let Some(panels) = &mut self.panels {
            assert!(columns.end <= self.columns && columns.start.is_multiple_of(tiles::DEPTH));
            let lines = lines(values, Part::whole(self.rows, columns.len()));
            // SAFETY: the processor has tiles where there are panels; the values are as many.
            unsafe { lines.pack_into(panels, columns.start / tiles::DEPTH) };
        }
    }

    /// The factor; `values`: those of the last strip, which in f32 are all.
    pub(super) fn ready(self, values: &[f32]) -> Ready<'_> {
        Ready {
            factor: (values, Part::whole(self.rows, self.columns)),
            #[cfg(target_arch = "x86_64")]
            panels: self.panels.map(Arc::new),
            #[cfg(target_arch = "x86_64")]
            first_panel: 0,
        }
    }
}

/// Columns of a strip: what is made of them stays in the cache with the tiles that it is made of.
#[cfg(target_arch = "x86_64")]
const STRIP: usize = 128;

/// Columns that are packed together.
#[cfg(target_arch = "x86_64")]
const PANEL: usize = tiles::SIDE;
#[cfg(not(target_arch = "x86_64"))]
const PANEL: usize = 1;

/// `out = scale * left * right`, or added to `out`; on the calling thread.
pub(super) fn multiply(
    out: (&mut [f32], Part),
    left: Factor<'_>,
    right: Factor<'_>,
    scale: f32,
    add: bool,
) {
    let (out, part) = out;
    assert!(part.fits(out.len()), "the result does not fit its buffer");
    assert!(part.column_stride == 1 && part.row_stride >= part.columns);
    // SAFETY: the result lies inside `out`, its elements do not overlap, and all of them have
    // values.
    unsafe {
        raw(
            out.as_mut_ptr(),
            part,
            left,
            right.into(),
            scale,
            add,
            false,
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
        raw(out.as_mut_ptr(), part, left, right, 1.0, false, true);
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
    unsafe { raw(out.as_mut_ptr(), part, left, right, 1.0, true, true) };
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

/// # Safety
/// `out` must be valid for writes at every element of `part`, and for reads with `add`.
unsafe fn raw(
    out: *mut f32,
    part: Part,
    (left, l): Factor<'_>,
    factor: Right<'_>,
    scale: f32,
    add: bool,
    parallel: bool,
) {
    let (right, r) = factor.factor;
    assert!(
        l.fits(left.len()) && r.fits(right.len()),
        "a factor does not fit its buffer"
    );
    assert_eq!(
        (part.rows, part.columns, l.columns),
        (l.rows, r.columns, r.rows)
    );
    let work = part.rows * part.columns * l.columns;
    #[cfg(target_arch = "x86_64")]
    if in_tiles() {
        let out = tiles::Out {
            values: out.wrapping_add(part.start),
            rows: part.rows,
            columns: part.columns,
            stride: part.row_stride,
        };
        let left = lines(left, l);
        if work >= SMALL && part.column_stride == 1 && left.readable() && r.readable() {
            let parallel = parallel && work > SERIAL;
            let right = factor.panels(parallel);
            // SAFETY: the caller vouches for `out`; both factors lie inside their buffers.
            return unsafe {
                let left = left.pack(true, parallel);
                let pair = (left.from(0), right.from(0));
                tiles::product(out, pair, None, scale, add, parallel);
            };
        }
    }
    let threads = if parallel && work > SERIAL {
        Parallelism::Rayon(0)
    } else {
        Parallelism::None
    };
    let stride = |n: usize| n as isize;
    // SAFETY: the caller vouches for `out`; both factors lie inside their buffers.
    unsafe {
        gemm::gemm(
            part.rows,
            part.columns,
            l.columns,
            out.add(part.start),
            stride(part.column_stride),
            stride(part.row_stride),
            add,
            left.as_ptr().wrapping_add(l.start),
            stride(l.column_stride),
            stride(l.row_stride),
            right.as_ptr().wrapping_add(r.start),
            stride(r.column_stride),
            stride(r.row_stride),
            1.0,
            scale,
            false,
            false,
            false,
            threads,
        );
    }
}
