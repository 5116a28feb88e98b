//! Drawing blocks that the views share.

mod plot;
mod raster;
mod text;

pub(crate) use crate::axis::Scale;
pub(crate) use plot::{Plot, PlotLine, Reference};
pub(crate) use text::{fitted, panel, put, put_line, put_right, sections};
