//! The saliency heat map as a picture.

use std::io;

use image::{Rgb, RgbImage};
use mlrm_events::ModalityShares;

use super::png;
use super::proto::Picture;
use crate::color::cividis;
use crate::state::normalised;

/// A cell's side, in pixels.
const CELL: u32 = 24;

/// Layers from left to right; visual, text and other from top to bottom; brighter is more. The
/// largest share of all has the brightest colour.
pub(super) fn picture(layers: &[ModalityShares]) -> io::Result<Option<Picture>> {
    if layers.is_empty() {
        return Ok(None);
    }
    let shares: Vec<ModalityShares> = layers.iter().copied().map(normalised).collect();
    let largest = shares.iter().flatten().copied().fold(1e-12, f64::max);
    let image = RgbImage::from_fn(CELL * shares.len() as u32, CELL * 3, |x, y| {
        let share = shares[(x / CELL) as usize][(y / CELL) as usize];
        let (red, green, blue) = cividis(share / largest);
        Rgb([red, green, blue])
    });
    png(&image).map(Some)
}
