//! Matrices inside buffers.

use burn::backend::flex::Layout;

/// A matrix inside a buffer: element (r, c) stands at `start + r * row_stride + c * column_stride`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::flex) struct Part {
    pub(super) start: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl Part {
    /// `rows` rows of `columns` values, whose first values stand `row_stride` apart.
    pub(in crate::flex) fn new(
        start: usize,
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Self {
        Self {
            start,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// A whole buffer.
    pub(in crate::flex) fn whole(rows: usize, columns: usize) -> Self {
        Self::new(0, rows, columns, columns)
    }

    /// A tensor of two axes.
    pub(in crate::flex) fn of(layout: &Layout) -> Self {
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
    pub(in crate::flex) fn readable(&self) -> bool {
        self.row_stride == 1 || self.column_stride == 1
    }

    pub(in crate::flex) fn columns(&self) -> usize {
        self.columns
    }

    pub(in crate::flex) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// `count` columns from the column `first` on.
    pub(super) fn some_columns(self, first: usize, count: usize) -> Self {
        Self {
            start: self.start + first * self.column_stride,
            columns: count,
            ..self
        }
    }

    /// The same of rows.
    pub(super) fn some_rows(self, first: usize, count: usize) -> Self {
        self.transposed().some_columns(first, count).transposed()
    }

    pub(super) fn fits(&self, length: usize) -> bool {
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
pub(in crate::flex) type Factor<'a> = (&'a [f32], Part);

/// The transpose of a factor.
pub(in crate::flex) fn transposed((values, part): Factor<'_>) -> Factor<'_> {
    (values, part.transposed())
}
