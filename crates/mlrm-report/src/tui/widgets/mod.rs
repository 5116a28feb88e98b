//! Drawing blocks that the views share.

mod line;
mod plot;
mod raster;
mod text;

pub(crate) use crate::axis::Scale;
pub(crate) use line::PlotLine;
pub(crate) use plot::{Plot, Reference};
pub(crate) use text::{fitted, panel, put, put_line, put_right, sections};
