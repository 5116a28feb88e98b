//! Outlines of figures, and how much of a pixel they cover.

use std::f64::consts::{FRAC_PI_2, PI, TAU};

/// The outline of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Disc,
    Square,
    Triangle,
    Star,
    Ring,
    Plus,
    Crescent,
    Heart,
}

/// Where a figure stands; lengths in sides of the picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) size: f64,
    pub(super) turn: f64,
}

/// `over` on `under`, as far as it covers.
pub(super) fn mix(under: [f64; 3], over: [f64; 3], cover: f64) -> [f64; 3] {
    std::array::from_fn(|channel| under[channel] + (over[channel] - under[channel]) * cover)
}

/// How much of the pixel at (x, y) the shape covers (0 to 1, smooth at its edge), and where the
/// pixel lies within the shape (about -1 to 1 in both directions).
pub(super) fn coverage(shape: Shape, place: &Place, x: f64, y: f64, side: f64) -> (f64, f64, f64) {
    let (sin, cos) = place.turn.sin_cos();
    let (dx, dy) = ((x - place.x) / place.size, (y - place.y) / place.size);
    let (u, v) = (dx * cos + dy * sin, dy * cos - dx * sin);
    let inside = -distance(shape, u, v) * place.size * side;
    ((inside + 0.5).clamp(0.0, 1.0), u, v)
}

/// About the distance to the edge of a shape of radius 1, negative inside.
fn distance(shape: Shape, u: f64, v: f64) -> f64 {
    let radius = u.hypot(v);
    match shape {
        Shape::Disc => radius - 0.95,
        Shape::Square => u.abs().max(v.abs()) - 0.82,
        Shape::Triangle => polygon(u, v, 3, 0.55),
        Shape::Ring => (radius - 0.72).abs() - 0.27,
        Shape::Star => {
            let angle = (v.atan2(u) + FRAC_PI_2).rem_euclid(TAU / 5.0) - PI / 5.0;
            radius - (0.48 + 0.55 * (angle.abs() / (PI / 5.0)).powi(2))
        }
        Shape::Plus => {
            let bar = |along: f64, across: f64| (along.abs() - 0.95).max(across.abs() - 0.34);
            bar(u, v).min(bar(v, u))
        }
        Shape::Crescent => (radius - 0.95).max(0.78 - (u - 0.45).hypot(v)),
        Shape::Heart => {
            // Two discs, and below them the two lines that touch them.
            let disc = (u.abs() - 0.42).hypot(v + 0.32) - 0.5;
            let tip = (0.75 * u.abs() + 0.66 * v - 0.604).max(-v);
            disc.min(tip)
        }
    }
}

/// A regular polygon with one corner up and the given distance from centre to side.
fn polygon(u: f64, v: f64, corners: u32, apothem: f64) -> f64 {
    let step = TAU / f64::from(corners);
    let angle = (v.atan2(u) + FRAC_PI_2).rem_euclid(step) - step / 2.0;
    u.hypot(v) * angle.cos() - apothem
}
