//! Materials: two tints in a pattern, which a mean colour does not tell apart.

use std::f64::consts::TAU;

/// How the two tints of a surface are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Material {
    Stripes,
    Checks,
    Dots,
    Ripples,
    Bricks,
    Wood,
    Blotches,
    Chevrons,
}

/// All materials.
pub(super) const MATERIALS: [Material; 8] = [
    Material::Stripes,
    Material::Checks,
    Material::Dots,
    Material::Ripples,
    Material::Bricks,
    Material::Wood,
    Material::Blotches,
    Material::Chevrons,
];

impl Material {
    /// How much of the second tint is at a place of the surface (0 to 1), where a pattern repeats about
    /// twice in a unit. `seed` is that of the surface's own irregularities.
    pub(super) fn second(self, u: f64, v: f64, seed: u64) -> f64 {
        match self {
            Self::Stripes => edge((TAU * 2.2 * v).sin()),
            Self::Checks => edge(3.0 * (TAU * 1.3 * u).sin() * (TAU * 1.3 * v).sin()),
            Self::Dots => {
                let within = |at: f64| (at * 2.6).rem_euclid(1.0) - 0.5;
                edge(4.0 * (0.36 - within(u).hypot(within(v))))
            }
            Self::Ripples => edge((TAU * 2.6 * u.hypot(v)).sin()),
            Self::Bricks => {
                let row = (v * 3.2).floor();
                let course = (v * 3.2).rem_euclid(1.0);
                let along = (u * 1.6 + row * 0.5).rem_euclid(1.0);
                let joint = (course.min(1.0 - course) * 0.5).min(along.min(1.0 - along));
                edge(12.0 * (0.075 - joint))
            }
            Self::Wood => {
                let bend = noise(u * 0.9, v * 2.4, seed);
                0.5 + 0.5 * (TAU * (2.0 * v + 1.6 * bend)).sin()
            }
            Self::Blotches => edge(7.0 * (noise(u * 3.0, v * 3.0, seed) - 0.5)),
            Self::Chevrons => {
                let fold = ((u * 1.8).rem_euclid(1.0) - 0.5).abs();
                edge((TAU * (2.0 * v + 1.4 * fold)).sin())
            }
        }
    }
}

/// 0 below and 1 above 0, with a soft border.
fn edge(height: f64) -> f64 {
    (0.5 + 2.0 * height).clamp(0.0, 1.0)
}

/// Value noise: random heights (0 to 1) at whole numbers, smooth between them.
pub(super) fn noise(x: f64, y: f64, seed: u64) -> f64 {
    let (left, top) = (x.floor(), y.floor());
    let ease = |t: f64| t * t * (3.0 - 2.0 * t);
    let (across, down) = (ease(x - left), ease(y - top));
    let height = |right: i64, below: i64| height(left as i64 + right, top as i64 + below, seed);
    let between = |a: f64, b: f64, t: f64| a + (b - a) * t;
    let upper = between(height(0, 0), height(1, 0), across);
    let lower = between(height(0, 1), height(1, 1), across);
    between(upper, lower, down)
}

/// A random height for a place of the lattice (SplitMix64's last steps).
fn height(x: i64, y: i64, seed: u64) -> f64 {
    let mut bits = seed
        .wrapping_add((x as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add((y as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}
