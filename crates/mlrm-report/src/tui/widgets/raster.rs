//! Dots finer than cells: Braille patterns, or one character a cell in ASCII.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Which dots of a line are drawn, so that lines are told apart without colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::tui) enum Dash {
    #[default]
    Solid,
    Dashed,
    Dotted,
}

impl Dash {
    fn draws(self, along: usize) -> bool {
        match self {
            Dash::Solid => true,
            Dash::Dashed => along % 7 < 4,
            Dash::Dotted => along.is_multiple_of(3),
        }
    }
}

/// A drawing over a rectangle of cells. Positions are fractions of 1 from its lower left corner.
pub(in crate::tui) struct Raster {
    area: Rect,
    unicode: bool,
    /// Dots across and down.
    size: (usize, usize),
    cells: Vec<Cell>,
}

#[derive(Clone, Copy, Default)]
struct Cell {
    dots: u8,
    style: Style,
    symbol: Option<char>,
}

/// Bits of the dots in a Braille cell, by row and column (Unicode block 2800).
const BRAILLE: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

impl Raster {
    pub(in crate::tui) fn new(area: Rect, unicode: bool) -> Self {
        let (width, height) = (usize::from(area.width), usize::from(area.height));
        let size = if unicode {
            (width * 2, height * 4)
        } else {
            (width, height)
        };
        Self {
            area,
            unicode,
            size,
            cells: vec![Cell::default(); width * height],
        }
    }

    fn dot(&mut self, x: usize, y: usize, style: Style, symbol: char) {
        let (across, down) = if self.unicode { (2, 4) } else { (1, 1) };
        let index = y / down * usize::from(self.area.width) + x / across;
        let Some(cell) = self.cells.get_mut(index) else {
            return;
        };
        cell.dots |= BRAILLE[y % down][x % across];
        cell.style = style;
        cell.symbol = Some(symbol);
    }

    fn place(&self, (x, y): (f64, f64)) -> (i64, i64) {
        let (width, height) = (self.size.0 as f64 - 1.0, self.size.1 as f64 - 1.0);
        (
            (x * width).round() as i64,
            ((1.0 - y) * height).round() as i64,
        )
    }

    /// A straight line from `from` to `to` (Bresenham).
    pub(in crate::tui) fn line(
        &mut self,
        from: (f64, f64),
        to: (f64, f64),
        style: Style,
        dash: Dash,
        symbol: char,
    ) {
        if self.size.0 == 0 || self.size.1 == 0 {
            return;
        }
        let ((mut x, mut y), (end_x, end_y)) = (self.place(from), self.place(to));
        let (run, rise) = ((end_x - x).abs(), -(end_y - y).abs());
        let (right, down) = ((end_x - x).signum(), (end_y - y).signum());
        let mut error = run + rise;
        loop {
            // The pattern goes with the column, so that it does not start anew with each segment;
            // steep lines are drawn whole.
            if dash.draws(x as usize) || run <= -rise {
                self.dot(x as usize, y as usize, style, symbol);
            }
            if (x, y) == (end_x, end_y) {
                break;
            }
            let doubled = 2 * error;
            if doubled >= rise {
                error += rise;
                x += right;
            }
            if doubled <= run {
                error += run;
                y += down;
            }
        }
    }

    /// Writes the dots over `buffer`; cells without dots stay as they are.
    pub(in crate::tui) fn render(&self, buffer: &mut Buffer) {
        for (index, cell) in self.cells.iter().enumerate() {
            let width = usize::from(self.area.width);
            let x = self.area.x + (index % width) as u16;
            let y = self.area.y + (index / width) as u16;
            let symbol = match (cell.symbol, self.unicode) {
                (None, _) => continue,
                (Some(_), true) => char::from_u32(0x2800 + u32::from(cell.dots)).unwrap_or('•'),
                (Some(symbol), false) => symbol,
            };
            if let Some(target) = buffer.cell_mut((x, y)) {
                target.reset();
                target.set_char(symbol).set_style(cell.style);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(unicode: bool) -> Vec<String> {
        let area = Rect::new(0, 0, 4, 2);
        let mut buffer = Buffer::empty(area);
        let mut raster = Raster::new(area, unicode);
        raster.line((0.0, 0.0), (1.0, 1.0), Style::new(), Dash::Solid, '*');
        raster.render(&mut buffer);
        (0..2)
            .map(|y| (0..4).map(|x| buffer[(x, y)].symbol()).collect())
            .collect()
    }

    #[test]
    fn a_diagonal_goes_from_corner_to_corner() {
        assert_eq!(drawn(true), ["  ⡠⠊", "⡠⠊  "]);
        assert_eq!(drawn(false), ["  **", "**  "]);
    }

    #[test]
    fn an_empty_area_is_no_error() {
        let area = Rect::new(0, 0, 0, 0);
        let mut raster = Raster::new(area, true);
        raster.line((0.0, 0.0), (1.0, 1.0), Style::new(), Dash::Dotted, '*');
        raster.render(&mut Buffer::empty(area));
    }
}
