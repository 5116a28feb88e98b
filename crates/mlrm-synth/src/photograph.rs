//! Pictures like photographs: an object whose outline and material are the visual theme, lit from
//! anywhere, among smaller objects on a patterned ground. Tints, light, places, sizes and turns tell
//! nothing, so that a mean colour or a coarse look at the picture does not tell the theme.

use std::f64::consts::TAU;

use image::{Rgb, RgbImage};

use super::material::{MATERIALS, Material, noise};
use super::random::Random;
use super::shape::{Place, Shape, coverage, mix};

const SHAPES: [Shape; 8] = [
    Shape::Disc,
    Shape::Square,
    Shape::Triangle,
    Shape::Star,
    Shape::Ring,
    Shape::Plus,
    Shape::Crescent,
    Shape::Heart,
];

/// How many visual themes there are.
pub(super) const VISUAL_THEMES: usize = SHAPES.len() * MATERIALS.len();

/// How far an object's shadow falls, and how dark it is.
const SHADOW_REACH: f64 = 0.14;
const SHADOW: f64 = 0.4;

/// Seeds of a surface's irregularities.
const SEEDS: usize = 1 << 30;

/// A surface of two tints.
struct Surface {
    material: Material,
    tints: [[f64; 3]; 2],
    /// Repetitions of the pattern, in those of [`Material::second`].
    scale: f64,
    seed: u64,
}

impl Surface {
    fn colour(&self, u: f64, v: f64) -> [f64; 3] {
        let second = self
            .material
            .second(u * self.scale, v * self.scale, self.seed);
        mix(self.tints[0], self.tints[1], second)
    }
}

struct Object {
    shape: Shape,
    place: Place,
    surface: Surface,
}

impl Object {
    /// An object of any outline and material that is not the theme's.
    fn clutter(random: &mut Random) -> Self {
        Self {
            shape: *random.pick(&SHAPES),
            place: Place {
                x: random.unit(),
                y: random.unit(),
                size: random.between(0.06, 0.12),
                turn: random.between(0.0, TAU),
            },
            surface: Surface {
                material: *random.pick(&MATERIALS),
                tints: far_tints(random),
                scale: random.between(0.5, 1.0),
                seed: random.below(SEEDS) as u64,
            },
        }
    }

    /// What the picture `under` becomes where the object and its shadow lie.
    fn over(&self, under: [f64; 3], x: f64, y: f64, side: f64, light: &Light) -> [f64; 3] {
        let reach = SHADOW_REACH * self.place.size;
        let [towards_x, towards_y] = light.towards;
        let behind = (x + towards_x * reach, y + towards_y * reach);
        let (shadow, ..) = coverage(self.shape, &self.place, behind.0, behind.1, side);
        let dark = under.map(|channel| channel * (1.0 - SHADOW * shadow));
        let (cover, u, v) = coverage(self.shape, &self.place, x, y, side);
        if cover == 0.0 {
            return dark;
        }
        // Bent like a cushion: brighter on the side of the light.
        let (dx, dy) = (x - self.place.x, y - self.place.y);
        let bend = (dx * towards_x + dy * towards_y) / self.place.size;
        let lit = self
            .surface
            .colour(u, v)
            .map(|channel| channel * (0.9 + 0.3 * bend));
        mix(dark, lit, cover)
    }
}

/// Light on the whole picture.
struct Light {
    /// Where it comes from, a vector of length 1.
    towards: [f64; 2],
    /// How much brighter the near side of the picture is.
    slope: f64,
    exposure: f64,
    /// Its colour.
    balance: [f64; 3],
}

impl Light {
    fn any(random: &mut Random) -> Self {
        let (sin, cos) = random.between(0.0, TAU).sin_cos();
        Self {
            towards: [cos, sin],
            slope: random.between(0.0, 0.6),
            exposure: random.between(0.65, 1.15),
            balance: [
                random.between(0.85, 1.15),
                random.between(0.92, 1.08),
                random.between(0.85, 1.15),
            ],
        }
    }

    fn on(&self, colour: [f64; 3], x: f64, y: f64) -> [f64; 3] {
        let near = (x - 0.5) * self.towards[0] + (y - 0.5) * self.towards[1];
        let level = self.exposure * (1.0 + self.slope * near);
        std::array::from_fn(|channel| colour[channel] * self.balance[channel] * level)
    }
}

/// Draws a picture of a visual theme; all else varies with `random` alone.
pub(super) fn draw(theme: usize, pixels: u32, random: &mut Random) -> RgbImage {
    let side = f64::from(pixels);
    let light = Light::any(random);
    let ground = ground(random);
    let (sin, cos) = random.between(0.0, TAU).sin_cos();
    let clutter = 4 + random.below(4);
    let mut objects: Vec<Object> = (0..clutter).map(|_| Object::clutter(random)).collect();
    objects.push(subject(theme, random));
    // One may lie on it, or beside it.
    objects.extend((0..random.below(2)).map(|_| Object::clutter(random)));
    let haze = random.below(SEEDS) as u64;
    RgbImage::from_fn(pixels, pixels, |column, row| {
        let x = (f64::from(column) + 0.5) / side;
        let y = (f64::from(row) + 0.5) / side;
        let mut colour = ground.colour(x * cos + y * sin, y * cos - x * sin);
        let uneven = 0.85 + 0.3 * noise(x * 4.0, y * 4.0, haze);
        colour = colour.map(|channel| channel * uneven);
        for object in &objects {
            colour = object.over(colour, x, y, side, &light);
        }
        let colour = light.on(colour, x, y);
        Rgb(colour.map(|channel| {
            let grain = random.between(-0.05, 0.05);
            ((channel + grain).clamp(0.0, 1.0) * 255.0).round() as u8
        }))
    })
}

/// The object that the theme is about; the picture may cut it off a little. Neighbouring themes differ
/// in outline and material, so that small sets are told apart by either.
fn subject(theme: usize, random: &mut Random) -> Object {
    let round = theme / SHAPES.len();
    Object {
        shape: SHAPES[theme % SHAPES.len()],
        place: Place {
            x: random.between(0.32, 0.68),
            y: random.between(0.32, 0.68),
            size: random.between(0.27, 0.40),
            turn: random.between(0.0, TAU),
        },
        surface: Surface {
            material: MATERIALS[(round + theme) % MATERIALS.len()],
            tints: far_tints(random),
            scale: random.between(0.8, 1.3),
            seed: random.below(SEEDS) as u64,
        },
    }
}

/// A patterned ground whose tints are near each other.
fn ground(random: &mut Random) -> Surface {
    let (hue, saturation) = (random.unit(), random.between(0.05, 0.5));
    let value = random.between(0.4, 0.8);
    let step = random.between(0.06, 0.14);
    Surface {
        material: *random.pick(&MATERIALS),
        tints: [
            rgb(hue, saturation, value),
            rgb(hue, saturation, value - step),
        ],
        scale: random.between(1.0, 3.0),
        seed: random.below(SEEDS) as u64,
    }
}

/// A light and a dark tint of any hues, in any order.
fn far_tints(random: &mut Random) -> [[f64; 3]; 2] {
    let light = rgb(
        random.unit(),
        random.between(0.2, 0.9),
        random.between(0.75, 1.0),
    );
    let dark = rgb(
        random.unit(),
        random.between(0.2, 0.9),
        random.between(0.1, 0.4),
    );
    match random.below(2) {
        0 => [light, dark],
        _ => [dark, light],
    }
}

/// From hue (round the circle in 0 to 1), saturation and value.
fn rgb(hue: f64, saturation: f64, value: f64) -> [f64; 3] {
    [0.0, 2.0, 4.0].map(|offset| {
        let distance = ((hue * 6.0 - offset + 3.0).rem_euclid(6.0) - 3.0).abs();
        let share = (2.0 - distance).clamp(0.0, 1.0);
        value * (1.0 - saturation * (1.0 - share))
    })
}
