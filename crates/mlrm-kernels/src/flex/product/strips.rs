//! A left factor that comes in parts.

use std::ops::Range;
#[cfg(target_arch = "x86_64")]
use std::sync::Arc;

use super::{Arithmetic, Part, Ready};
#[cfg(target_arch = "x86_64")]
use super::{lines, tiles};

/// A left factor that is made ready a few columns at a time, so that its values need not stand beside each other.
pub(in crate::flex) struct Strips {
    arithmetic: Arithmetic,
    rows: usize,
    columns: usize,
    #[cfg(target_arch = "x86_64")]
    panels: Option<tiles::Panels>,
}

impl Strips {
    /// A factor of `rows` rows and `columns` columns.
    pub(in crate::flex) fn new(arithmetic: Arithmetic, rows: usize, columns: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        let panels = (arithmetic == Arithmetic::Tiles).then(|| tiles::Panels::zeros(rows, columns));
        Self {
            arithmetic,
            rows,
            columns,
            #[cfg(target_arch = "x86_64")]
            panels,
        }
    }

    /// The columns that are to be given together, in their order: in f32 all of them.
    pub(in crate::flex) fn ranges(&self) -> Vec<Range<usize>> {
        #[cfg(target_arch = "x86_64")]
        if self.panels.is_some() {
            let ends = |start: usize| start..(start + STRIP).min(self.columns);
            return (0..self.columns).step_by(STRIP).map(ends).collect();
        }
        std::iter::once(0..self.columns).collect()
    }

    /// Takes the values of some columns, row after row.
    pub(in crate::flex) fn put(&mut self, columns: &Range<usize>, values: &[f32]) {
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
    pub(in crate::flex) fn ready(self, values: &[f32]) -> Ready<'_> {
        Ready {
            factor: (values, Part::whole(self.rows, self.columns)),
            arithmetic: self.arithmetic,
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
