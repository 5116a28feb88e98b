//! Drawing blocks that the views share.

mod line;
mod plot;
mod raster;

pub(super) use line::PlotLine;
pub(super) use plot::{Plot, Reference};
