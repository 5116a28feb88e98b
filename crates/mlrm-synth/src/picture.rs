//! Pictures: one large figure whose colour, shape and pattern are the visual theme, on a ground
//! that tells nothing.

use image::{Rgb, RgbImage};

use super::random::Random;
use super::shape::{Place, Shape, coverage, mix};

/// Figure colours, far apart in hue.
const COLOURS: [[f64; 3]; 8] = [
    [0.86, 0.16, 0.14],
    [0.16, 0.36, 0.88],
    [0.98, 0.80, 0.12],
    [0.12, 0.62, 0.24],
    [0.56, 0.22, 0.74],
    [0.98, 0.50, 0.08],
    [0.10, 0.70, 0.74],
    [0.96, 0.46, 0.70],
];

const SHAPES: [Shape; 5] = [
    Shape::Disc,
    Shape::Square,
    Shape::Triangle,
    Shape::Star,
    Shape::Ring,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    Plain,
    Stripes,
    Dots,
    Checks,
}

const PATTERNS: [Pattern; 4] = [
    Pattern::Plain,
    Pattern::Stripes,
    Pattern::Dots,
    Pattern::Checks,
];

/// How many visual themes there are.
pub(super) const VISUAL_THEMES: usize = COLOURS.len() * SHAPES.len() * PATTERNS.len();

#[derive(Debug, Clone, Copy, PartialEq)]
struct Look {
    colour: usize,
    shape: Shape,
    pattern: Pattern,
}

impl Look {
    /// The look of a theme. Neighbours differ in all three, so small sets are told apart by any.
    fn of(theme: usize) -> Self {
        let round = theme / COLOURS.len();
        Self {
            colour: theme % COLOURS.len(),
            shape: SHAPES[(round + theme) % SHAPES.len()],
            pattern: PATTERNS[(round / SHAPES.len() + theme) % PATTERNS.len()],
        }
    }
}

/// Draws a picture of a visual theme. Position, size, turn, brightness, ground, specks and grain
/// vary with `random` alone.
pub(super) fn draw(theme: usize, pixels: u32, random: &mut Random) -> RgbImage {
    let look = Look::of(theme);
    let side = f64::from(pixels);
    let ground = [
        random.between(0.25, 0.9),
        random.between(-0.04, 0.04),
        random.between(-0.04, 0.04),
    ];
    let slope = random.between(-0.15, 0.15);
    let shade = random.between(0.85, 1.1);
    let main = Place {
        x: random.between(0.4, 0.6),
        y: random.between(0.4, 0.6),
        size: random.between(0.30, 0.40),
        turn: random.between(-0.4, 0.4),
    };
    let specks: Vec<(Place, usize)> = (0..2)
        .map(|_| {
            let place = Place {
                x: random.unit(),
                y: random.unit(),
                size: random.between(0.03, 0.06),
                turn: 0.0,
            };
            (place, random.below(COLOURS.len()))
        })
        .collect();
    RgbImage::from_fn(pixels, pixels, |column, row| {
        let x = (f64::from(column) + 0.5) / side;
        let y = (f64::from(row) + 0.5) / side;
        let level = ground[0] + slope * (y - 0.5);
        let mut colour = [level + ground[1], level, level + ground[2]];
        for (place, hue) in &specks {
            let cover = coverage(Shape::Disc, place, x, y, side).0;
            colour = mix(colour, COLOURS[*hue], cover);
        }
        let (cover, across, along) = coverage(look.shape, &main, x, y, side);
        let tint = COLOURS[look.colour].map(|channel| channel * shade);
        let second = tint.map(|channel| channel * 0.45 + 0.5);
        let figure = if fills(look.pattern, across, along) {
            tint
        } else {
            second
        };
        colour = mix(colour, figure, cover);
        let grain = random.between(-0.02, 0.02);
        Rgb(colour.map(|channel| ((channel + grain).clamp(0.0, 1.0) * 255.0).round() as u8))
    })
}

/// Whether the pattern has the first of its two tints here.
fn fills(pattern: Pattern, u: f64, v: f64) -> bool {
    let cell = |at: f64| (at * 2.5).floor() as i64;
    match pattern {
        Pattern::Plain => true,
        Pattern::Stripes => cell(v).rem_euclid(2) == 0,
        Pattern::Checks => (cell(u) + cell(v)).rem_euclid(2) == 0,
        Pattern::Dots => {
            let within = |at: f64| (at * 2.0).rem_euclid(1.0) - 0.5;
            within(u).hypot(within(v)) > 0.3
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn every_theme_looks_different() {
        let looks: Vec<_> = (0..VISUAL_THEMES).map(Look::of).collect();
        for (theme, look) in looks.iter().enumerate() {
            assert!(!looks[..theme].contains(look), "theme {theme}");
        }
        for pair in looks.windows(2) {
            assert_ne!(pair[0].colour, pair[1].colour);
            assert_ne!(pair[0].pattern, pair[1].pattern);
        }
    }

    #[test]
    fn pictures_of_a_theme_are_alike_and_of_others_are_not() {
        // The mean colour of the middle is nearest to that of another picture of the same theme.
        let middle = |theme: usize, item: usize| -> [f64; 3] {
            let picture = draw(theme, 32, &mut Random::new(1, Stream::Picture, item));
            let mut sum = [0.0; 3];
            for (_, _, pixel) in picture
                .enumerate_pixels()
                .filter(|(x, y, _)| (10..22).contains(x) && (10..22).contains(y))
            {
                for channel in 0..3 {
                    sum[channel] += f64::from(pixel[channel]);
                }
            }
            sum
        };
        let far = |a: [f64; 3], b: [f64; 3]| -> f64 {
            a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
        };
        let mut right = 0;
        for item in 0..80 {
            let query = middle(item % 8, item);
            let nearest = (80..160)
                .min_by(|&a, &b| {
                    far(query, middle(a % 8, a)).total_cmp(&far(query, middle(b % 8, b)))
                })
                .unwrap();
            right += usize::from(nearest % 8 == item % 8);
        }
        assert!((60..=80).contains(&right), "{right} of 80");
    }
}
