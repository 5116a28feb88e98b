//! Factors made ready for several products, in the arithmetic chosen for them.

use std::ops::Range;
#[cfg(target_arch = "x86_64")]
use std::sync::Arc;

#[cfg(target_arch = "x86_64")]
use super::super::tiles;
use super::{Factor, Right};
#[cfg(target_arch = "x86_64")]
use super::{SMALL, in_tiles, lines};

/// Columns that are packed together.
#[cfg(target_arch = "x86_64")]
const PANEL: usize = tiles::SIDE;
#[cfg(not(target_arch = "x86_64"))]
const PANEL: usize = 1;

/// The arithmetic of an operation's products, chosen once for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::flex) enum Arithmetic {
    /// In f32. How the terms of an element are added up depends on their number alone: a row is the same bit for bit
    /// whatever rows are computed with it.
    F32,
    /// In f32, in the way that is fastest for the size of a product.
    F32BySize,
    /// Factors rounded to bf16, in tiles.
    Tiles,
}

impl Arithmetic {
    /// That of an operation whose largest product has `work` multiplications.
    pub(in crate::flex) fn of(work: usize) -> Self {
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
pub(in crate::flex) struct Ready<'a> {
    pub(super) factor: Factor<'a>,
    pub(super) arithmetic: Arithmetic,
    /// Of the factor, or of one that it is a part of.
    #[cfg(target_arch = "x86_64")]
    pub(super) panels: Option<Arc<tiles::Panels>>,
    /// The first panel that is a part of it.
    #[cfg(target_arch = "x86_64")]
    pub(super) first_panel: usize,
}

impl<'a> Ready<'a> {
    /// A left factor, made ready on the calling thread.
    pub(in crate::flex) fn left(arithmetic: Arithmetic, (values, part): Factor<'a>) -> Self {
        assert!(part.fits(values.len()), "a factor does not fit its buffer");
        #[cfg(target_arch = "x86_64")]
        let panels = (arithmetic == Arithmetic::Tiles).then(|| {
            let lines = lines(values, part);
            assert!(lines.readable(), "a factor has neighbours along one axis");
            // SAFETY: `Arithmetic::of` asked the processor; the factor lies inside its buffer.
            Arc::new(unsafe { lines.pack(true, false) })
        });
        Self {
            factor: (values, part),
            arithmetic,
            #[cfg(target_arch = "x86_64")]
            panels,
            #[cfg(target_arch = "x86_64")]
            first_panel: 0,
        }
    }

    /// A right factor, made ready on the calling thread.
    pub(in crate::flex) fn right(arithmetic: Arithmetic, factor: Factor<'a>) -> Self {
        Self::of(arithmetic, factor.into(), false)
    }

    /// A right factor, made ready on all threads, or kept from earlier products.
    pub(in crate::flex) fn shared(arithmetic: Arithmetic, right: Right<'a>) -> Self {
        Self::of(arithmetic, right, true)
    }

    /// Some columns of a right factor, from a multiple of 16 on.
    pub(in crate::flex) fn part_of_columns(&self, columns: Range<usize>) -> Self {
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
    pub(in crate::flex) fn first_rows(&self, rows: usize) -> Self {
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
    pub(in crate::flex) fn columns(&self) -> usize {
        self.factor.1.columns
    }

    fn of(arithmetic: Arithmetic, right: Right<'a>, parallel: bool) -> Self {
        let (values, part) = right.factor;
        assert!(part.fits(values.len()), "a factor does not fit its buffer");
        #[cfg(target_arch = "x86_64")]
        let panels = (arithmetic == Arithmetic::Tiles).then(|| right.panels(parallel));
        #[cfg(not(target_arch = "x86_64"))]
        let _ = parallel;
        Self {
            factor: right.factor,
            arithmetic,
            #[cfg(target_arch = "x86_64")]
            panels,
            #[cfg(target_arch = "x86_64")]
            first_panel: 0,
        }
    }
}
