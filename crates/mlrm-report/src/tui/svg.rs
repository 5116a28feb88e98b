//! A drawn screen as a picture.

use std::fmt::Write;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use crate::color::rgb;

/// A cell's width and height, the text's size and its baseline, in pixels.
const CELL: (f64, f64) = (8.4, 18.0);
const FONT_PIXELS: f64 = 14.0;
const BASELINE: f64 = 13.5;
const MARGIN: f64 = 14.0;
const GROUND: &str = "#14171c";
const INK: &str = "#d8dce3";

/// Draws `buffer` as SVG: text as text, blocks, rules and Braille dots as shapes, so that it looks
/// the same with every font.
pub fn to_svg(buffer: &Buffer) -> String {
    let area = buffer.area;
    let width = f64::from(area.width) * CELL.0 + 2.0 * MARGIN;
    let height = f64::from(area.height) * CELL.1 + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.1} {height:.1}\" font-family=\"'DejaVu Sans Mono', Menlo, Consolas, \
         monospace\" font-size=\"{FONT_PIXELS}\" xml:space=\"preserve\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{GROUND}\"/>\n"
    );
    for y in 0..area.height {
        let cells: Vec<&Cell> = (0..area.width)
            .map(|x| &buffer[(area.x + x, area.y + y)])
            .collect();
        let top = MARGIN + f64::from(y) * CELL.1;
        grounds(&cells, top, &mut svg);
        inks(&cells, top, &mut svg);
    }
    svg.push_str("</svg>\n");
    svg
}

/// How a cell's ink looks.
#[derive(PartialEq, Clone)]
struct Ink {
    color: String,
    modifier: Modifier,
}

fn ink(cell: &Cell) -> Ink {
    let color = if cell.modifier.contains(Modifier::REVERSED) {
        css(cell.bg).unwrap_or_else(|| GROUND.to_owned())
    } else {
        css(cell.fg).unwrap_or_else(|| INK.to_owned())
    };
    let shown = Modifier::BOLD | Modifier::DIM | Modifier::ITALIC | Modifier::CROSSED_OUT;
    Ink {
        color,
        modifier: cell.modifier & shown,
    }
}

fn ground(cell: &Cell) -> Option<String> {
    if cell.modifier.contains(Modifier::REVERSED) {
        Some(css(cell.fg).unwrap_or_else(|| INK.to_owned()))
    } else {
        css(cell.bg)
    }
}

fn left(column: usize) -> f64 {
    MARGIN + column as f64 * CELL.0
}

fn grounds(cells: &[&Cell], top: f64, svg: &mut String) {
    for (start, run) in runs(cells, ground) {
        if let Some(color) = ground(run[0]) {
            // A hair more than the cells, so that no seam shows between them.
            rectangle(
                svg,
                (left(start), top),
                (run.len() as f64 * CELL.0 + 0.3, CELL.1 + 0.3),
                &color,
                1.0,
            );
        }
    }
}

fn inks(cells: &[&Cell], top: f64, svg: &mut String) {
    let kind = |cell: &Cell| (shape(cell.symbol()), ink(cell));
    for (start, run) in runs(cells, kind) {
        let ink = ink(run[0]);
        let opacity = if ink.modifier.contains(Modifier::DIM) {
            0.55
        } else {
            1.0
        };
        match shape(run[0].symbol()) {
            Shape::Blank => {}
            Shape::Text => text(svg, start, top, run, &ink, opacity),
            Shape::Braille => braille(svg, start, top, run, &ink, opacity),
            Shape::Block((x, y, width, height), shade) => {
                for column in start..start + run.len() {
                    let place = (left(column) + x * CELL.0, top + y * CELL.1);
                    let seam = if width == 1.0 { 0.3 } else { 0.0 };
                    let size = (width * CELL.0 + seam, height * CELL.1);
                    rectangle(svg, place, size, &ink.color, opacity * shade);
                }
            }
        }
    }
}

/// Neighbours that are alike, with the first one's column.
fn runs<'c, K: PartialEq>(
    cells: &'c [&'c Cell],
    kind: impl Fn(&Cell) -> K,
) -> Vec<(usize, &'c [&'c Cell])> {
    let mut start = 0;
    cells
        .chunk_by(|a, b| kind(a) == kind(b))
        .map(|run| {
            let at = start;
            start += run.len();
            (at, run)
        })
        .collect()
}

#[derive(PartialEq, Clone, Copy)]
enum Shape {
    Blank,
    Text,
    Braille,
    /// Left, top, width and height as fractions of the cell; and opacity.
    Block((f64, f64, f64, f64), f64),
}

fn shape(symbol: &str) -> Shape {
    let Some(letter) = symbol.chars().next() else {
        return Shape::Blank;
    };
    let code = u32::from(letter);
    match letter {
        ' ' => Shape::Blank,
        '\u{2800}'..='\u{28ff}' => Shape::Braille,
        '█' => Shape::Block((0.0, 0.0, 1.0, 1.0), 1.0),
        // Lower eighths 2581 to 2587, left eighths 258f to 2589.
        '▁'..='▇' => {
            let part = f64::from(code - 0x2580) / 8.0;
            Shape::Block((0.0, 1.0 - part, 1.0, part), 1.0)
        }
        '▉'..='▏' => {
            let part = f64::from(0x2590 - code) / 8.0;
            Shape::Block((0.0, 0.0, part, 1.0), 1.0)
        }
        '░' | '▒' | '▓' => {
            Shape::Block((0.0, 0.0, 1.0, 1.0), f64::from(code - 0x2590) * 0.25)
        }
        '─' => Shape::Block((0.0, 0.5, 1.0, 0.06), 1.0),
        '━' => Shape::Block((0.0, 0.44, 1.0, 0.14), 1.0),
        '┈' => Shape::Block((0.3, 0.5, 0.4, 0.06), 1.0),
        '╍' => Shape::Block((0.15, 0.44, 0.7, 0.14), 1.0),
        _ => Shape::Text,
    }
}

fn text(svg: &mut String, start: usize, top: f64, run: &[&Cell], ink: &Ink, opacity: f64) {
    let content: String = run.iter().map(|cell| cell.symbol()).collect();
    let (x, y) = (left(start), top + BASELINE);
    let length = run.len() as f64 * CELL.0;
    let _ = write!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" textLength=\"{length:.1}\" \
         lengthAdjust=\"spacingAndGlyphs\" fill=\"{}\"",
        ink.color
    );
    for (flag, attribute) in [
        (Modifier::BOLD, " font-weight=\"bold\""),
        (Modifier::ITALIC, " font-style=\"italic\""),
        (Modifier::CROSSED_OUT, " text-decoration=\"line-through\""),
    ] {
        if ink.modifier.contains(flag) {
            svg.push_str(attribute);
        }
    }
    if opacity < 1.0 {
        let _ = write!(svg, " fill-opacity=\"{opacity}\"");
    }
    let _ = writeln!(svg, ">{}</text>", crate::markup::escaped(&content));
}

/// All dots of a run as one path.
fn braille(svg: &mut String, start: usize, top: f64, run: &[&Cell], ink: &Ink, opacity: f64) {
    const BITS: [[u32; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
    let mut path = String::new();
    let (side, step) = ((CELL.0 / 2.0 * 0.62), (CELL.0 / 2.0, CELL.1 / 4.0));
    for (offset, cell) in run.iter().enumerate() {
        let dots = cell
            .symbol()
            .chars()
            .next()
            .map_or(0, |letter| u32::from(letter) - 0x2800);
        for (row, bits) in BITS.iter().enumerate() {
            for (column, bit) in bits.iter().enumerate() {
                if dots & bit != 0 {
                    let x = left(start + offset) + (column as f64 + 0.5) * step.0 - side / 2.0;
                    let y = top + (row as f64 + 0.5) * step.1 - side / 2.0;
                    let _ = write!(path, "M{x:.1} {y:.1}h{side:.1}v{side:.1}h-{side:.1}z");
                }
            }
        }
    }
    let _ = write!(svg, "<path d=\"{path}\" fill=\"{}\"", ink.color);
    if opacity < 1.0 {
        let _ = write!(svg, " fill-opacity=\"{opacity}\"");
    }
    svg.push_str("/>\n");
}

fn rectangle(
    svg: &mut String,
    (x, y): (f64, f64),
    (width, height): (f64, f64),
    color: &str,
    opacity: f64,
) {
    let _ = write!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{color}\""
    );
    if opacity < 1.0 {
        let _ = write!(svg, " fill-opacity=\"{opacity:.2}\"");
    }
    svg.push_str("/>\n");
}

/// A colour as CSS writes it; `None` for the terminal's own.
fn css(color: Color) -> Option<String> {
    let (red, green, blue) = match color {
        Color::Reset => return None,
        Color::Rgb(red, green, blue) => (red, green, blue),
        Color::Indexed(index) => palette(index),
        Color::Black => palette(0),
        Color::Red => palette(1),
        Color::Green => palette(2),
        Color::Yellow => palette(3),
        Color::Blue => palette(4),
        Color::Magenta => palette(5),
        Color::Cyan => palette(6),
        Color::Gray => palette(7),
        Color::DarkGray => palette(8),
        Color::LightRed => palette(9),
        Color::LightGreen => palette(10),
        Color::LightYellow => palette(11),
        Color::LightBlue => palette(12),
        Color::LightMagenta => palette(13),
        Color::LightCyan => palette(14),
        Color::White => palette(15),
    };
    Some(format!("#{red:02x}{green:02x}{blue:02x}"))
}

/// The 256-colour palette: 16 named colours, a 6×6×6 cube, 24 greys.
fn palette(index: u8) -> (u8, u8, u8) {
    const NAMED: [u32; 16] = [
        0x000000, 0xcd3131, 0x0dbc79, 0xe5e510, 0x2472c8, 0xbc3fbc, 0x11a8cd, 0xe5e5e5, 0x666666,
        0xf14c4c, 0x23d18b, 0xf5f543, 0x3b8eea, 0xd670d6, 0x29b8db, 0xffffff,
    ];
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    match index {
        0..=15 => rgb(NAMED[usize::from(index)]),
        16..=231 => {
            let cube = usize::from(index - 16);
            (LEVELS[cube / 36], LEVELS[cube / 6 % 6], LEVELS[cube % 6])
        }
        232..=255 => {
            let grey = 8 + 10 * (index - 232);
            (grey, grey, grey)
        }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    use super::*;

    #[test]
    fn text_is_escaped_and_shapes_are_drawn() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 2));
        buffer.set_string(0, 0, "<a & b>", Style::new().fg(Color::Indexed(196)));
        buffer.set_string(0, 1, "█▄▌⣿", Style::new().bg(Color::Rgb(1, 2, 3)));
        let svg = to_svg(&buffer);
        assert!(
            svg.contains("fill=\"#ff0000\">&lt;a </text>") || svg.contains("&lt;a"),
            "{svg}"
        );
        assert!(!svg.contains("<a"));
        assert_eq!(
            svg.matches("fill=\"#010203\"").count(),
            1,
            "one ground for the run"
        );
        assert_eq!(svg.matches("h2.6v2.6").count(), 8, "eight dots");
    }
}
