//! A right factor, which may be a weight.

#[cfg(target_arch = "x86_64")]
use std::sync::Arc;

use burn::backend::flex::FlexTensor;

use super::{Factor, Part, transposed};
#[cfg(target_arch = "x86_64")]
use super::{lines, tiles};
#[cfg(target_arch = "x86_64")]
use crate::flex::packed;

/// A right factor of products.
#[derive(Debug, Clone, Copy)]
pub(in crate::flex) struct Right<'a> {
    pub(super) factor: Factor<'a>,
    /// Where it is a weight, what it is a part of, and whether that learns.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    weight: Option<(&'a FlexTensor, bool)>,
}

impl<'a> Right<'a> {
    /// A weight of two axes as it lies in memory, whose tiles are kept unless it `learns`.
    pub(in crate::flex) fn weight(tensor: &'a FlexTensor, learns: bool) -> Self {
        Self {
            factor: (tensor.storage(), Part::of(tensor.layout())),
            weight: Some((tensor, learns)),
        }
    }

    pub(in crate::flex) fn transposed(self) -> Self {
        Self {
            factor: transposed(self.factor),
            ..self
        }
    }

    pub(in crate::flex) fn rows(&self) -> usize {
        self.factor.1.rows
    }

    pub(in crate::flex) fn columns(&self) -> usize {
        self.factor.1.columns
    }

    /// The factor alone, without what it is a part of.
    #[cfg(test)]
    pub(in crate::flex) fn factor(&self) -> Factor<'a> {
        self.factor
    }

    /// The factor in tiles, made on all threads where it is `parallel` and not kept.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn panels(&self, parallel: bool) -> Arc<tiles::Panels> {
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
