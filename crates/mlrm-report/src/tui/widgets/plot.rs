//! Lines over an axis.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;

use super::line::PlotLine;
use super::raster::{Dash, Raster};
use super::text::{put, put_right};
use crate::axis::{Axis, Scale, tick_labels};
use crate::tui::theme::{Role, Theme};

/// A horizontal line with a name.
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) role: Role,
}

/// Lines over an axis, with ticks.
pub(crate) struct Plot<'a> {
    pub(crate) theme: &'a Theme,
    pub(crate) lines: Vec<PlotLine>,
    pub(crate) references: Vec<Reference>,
    /// First and last x shown.
    pub(crate) x: (f64, f64),
    pub(crate) y_scale: Scale,
    /// The y axis, where it is not to follow the values.
    pub(crate) y: Option<(f64, f64)>,
    /// Written instead of the number at a y tick.
    pub(crate) y_label: fn(f64) -> Option<String>,
    /// Width of the y labels, where plots stand in line.
    pub(crate) gutter: Option<u16>,
    /// Written where there is nothing to draw.
    pub(crate) empty: &'a str,
}

impl<'a> Plot<'a> {
    pub(crate) fn new(theme: &'a Theme, x: (f64, f64)) -> Self {
        Self {
            theme,
            lines: Vec::new(),
            references: Vec::new(),
            x,
            y_scale: Scale::Linear,
            y: None,
            y_label: |_| None,
            gutter: None,
            empty: "no values yet",
        }
    }

    pub(crate) fn render(&self, area: Rect, buffer: &mut Buffer) {
        if area.height < 2 || area.width < 12 {
            return;
        }
        let Some(y_axis) = self.y_axis() else {
            put(
                buffer,
                area,
                area.height / 2,
                &format!("  {}", self.empty),
                self.theme.muted(),
            );
            return;
        };
        let ticks = y_axis.ticks(usize::from(area.height.saturating_sub(1) / 3).clamp(3, 8));
        let plain = tick_labels(&ticks);
        let labels: Vec<String> = ticks
            .iter()
            .zip(plain)
            .map(|(&tick, plain)| (self.y_label)(tick).unwrap_or(plain))
            .collect();
        let widest = labels
            .iter()
            .map(|label| label.chars().count())
            .max()
            .unwrap_or(0) as u16;
        let gutter = self.gutter.unwrap_or(widest + 1).min(area.width / 2);
        let field = Rect {
            x: area.x + gutter,
            y: area.y,
            width: area.width - gutter,
            height: area.height - 1,
        };
        self.y_ticks(
            buffer,
            area,
            field,
            &y_axis,
            ticks.iter().copied().zip(&labels),
        );
        self.x_ticks(buffer, area, field);
        self.draw_references(buffer, field, &y_axis);
        self.draw_lines(buffer, field, &y_axis);
        self.name_references(buffer, field, &y_axis);
    }

    fn y_axis(&self) -> Option<Axis> {
        let lines = self.lines.iter().flat_map(|line| self.extent(line));
        let references = self.references.iter().map(|reference| reference.value);
        let around = Axis::around(lines.chain(references), self.y_scale)?;
        Some(match self.y {
            Some((low, high)) => Axis {
                low,
                high,
                ..around
            },
            None => around,
        })
    }

    /// Values that the y axis must hold for a line's sake. Where the line is smoothed, a few spikes
    /// may leave the axis, so that they do not flatten everything else.
    fn extent(&self, line: &PlotLine) -> Vec<f64> {
        let visible = |x: f64| x >= self.x.0 && x <= self.x.1;
        let points = line.points.iter().filter(|point| visible(point.x));
        let mut values: Vec<f64> = points.flat_map(|point| [point.min, point.max]).collect();
        if !line.smoothed.is_empty() {
            values = without_spikes(values);
            let smoothed = line.smoothed.iter().filter(|(x, _)| visible(*x));
            values.extend(smoothed.map(|(_, value)| value));
        }
        values
    }

    fn x_axis(&self) -> Axis {
        let (low, high) = self.x;
        let high = if high > low { high } else { low + 1.0 };
        Axis {
            low,
            high,
            scale: Scale::Linear,
        }
    }

    fn y_ticks<'t>(
        &self,
        buffer: &mut Buffer,
        area: Rect,
        field: Rect,
        axis: &Axis,
        ticks: impl Iterator<Item = (f64, &'t String)>,
    ) {
        let rows = f64::from(field.height.max(1) - 1);
        for (tick, label) in ticks {
            let Some(position) = axis.position(tick) else {
                continue;
            };
            let row = ((1.0 - position) * rows).round() as u16;
            let room = field.x - area.x;
            let pad = usize::from(room).saturating_sub(label.chars().count() + 1);
            put(
                buffer,
                Rect {
                    width: room,
                    ..area
                },
                row,
                &(" ".repeat(pad) + label),
                self.theme.muted(),
            );
            let grid = if self.theme.unicode { "┈" } else { "." };
            let grid = grid.repeat(usize::from(field.width));
            put(buffer, field, row, &grid, faint(self.theme));
        }
    }

    fn x_ticks(&self, buffer: &mut Buffer, area: Rect, field: Rect) {
        let axis = self.x_axis();
        let ticks = axis.whole_ticks(usize::from(field.width / 9).clamp(2, 16));
        let labels = tick_labels(&ticks);
        let mut free_from = area.x;
        for (tick, label) in ticks.iter().zip(labels) {
            let Some(position) = axis.position(*tick) else {
                continue;
            };
            let center = field.x + (position * f64::from(field.width - 1)).round() as u16;
            let width = label.chars().count() as u16;
            let start = center
                .saturating_sub(width / 2)
                .max(area.x)
                .min((area.x + area.width).saturating_sub(width));
            if start < free_from {
                continue;
            }
            let place = Rect {
                x: start,
                width,
                ..area
            };
            put(buffer, place, area.height - 1, &label, self.theme.muted());
            free_from = start + width + 1;
        }
    }

    fn draw_references(&self, buffer: &mut Buffer, field: Rect, axis: &Axis) {
        let mut raster = Raster::new(field, self.theme.unicode);
        for reference in &self.references {
            if let Some(y) = axis.position(reference.value) {
                let style = self.theme.role(reference.role);
                raster.line((0.0, y), (1.0, y), style, Dash::Dotted, '-');
            }
        }
        raster.render(buffer);
    }

    /// The references' names at the right edge, each on a row of its own near its line.
    fn name_references(&self, buffer: &mut Buffer, field: Rect, axis: &Axis) {
        let rows = f64::from(field.height.max(1) - 1);
        let mut taken = Vec::new();
        let mut references: Vec<&Reference> = self.references.iter().collect();
        references.sort_by(|a, b| b.value.total_cmp(&a.value));
        for reference in references {
            let Some(position) = axis.position(reference.value) else {
                continue;
            };
            let row = ((1.0 - position) * rows).round() as i32;
            let free =
                |row: &i32| (0..i32::from(field.height)).contains(row) && !taken.contains(row);
            let Some(row) = [row, row - 1, row + 1, row - 2, row + 2]
                .into_iter()
                .find(free)
            else {
                continue;
            };
            taken.push(row);
            let style = self.theme.role(reference.role);
            let name = Line::styled(format!(" {}", reference.name), style);
            put_right(buffer, field, row as u16, &name);
        }
    }

    fn draw_lines(&self, buffer: &mut Buffer, field: Rect, axis: &Axis) {
        let mut raster = Raster::new(field, self.theme.unicode);
        let pale = |line: &PlotLine| {
            let style = self.theme.role(line.role);
            if line.smoothed.is_empty() {
                style
            } else {
                style.add_modifier(Modifier::DIM)
            }
        };
        for line in &self.lines {
            self.draw_points(&mut raster, line, axis, pale(line));
        }
        raster.render(buffer);
        // On a sheet of its own, which covers the cells below: a line that shares its cells with the
        // values around it could not be made out.
        let mut raster = Raster::new(field, self.theme.unicode);
        for line in self.lines.iter().filter(|line| !line.smoothed.is_empty()) {
            let style = self.theme.role(line.role).add_modifier(Modifier::BOLD);
            let visible = line
                .smoothed
                .iter()
                .filter(|(x, _)| *x >= self.x.0 && *x <= self.x.1);
            self.connect(&mut raster, line, visible.copied(), axis, style);
        }
        raster.render(buffer);
    }

    fn draw_points(&self, raster: &mut Raster, line: &PlotLine, axis: &Axis, style: Style) {
        let visible = || {
            line.points
                .iter()
                .filter(|p| p.x >= self.x.0 && p.x <= self.x.1)
        };
        let x_axis = self.x_axis();
        for point in visible().filter(|point| point.min < point.max) {
            let outside = point.max < axis.low || point.min > axis.high;
            let (false, Some(x), Some(low), Some(high)) = (
                outside,
                x_axis.position(point.x),
                axis.clamped_position(point.min),
                axis.clamped_position(point.max),
            ) else {
                continue;
            };
            raster.line((x, low), (x, high), style, Dash::Solid, line.symbol);
        }
        self.connect(
            raster,
            line,
            visible().map(|point| (point.x, point.value)),
            axis,
            style,
        );
    }

    fn connect(
        &self,
        raster: &mut Raster,
        line: &PlotLine,
        values: impl Iterator<Item = (f64, f64)>,
        axis: &Axis,
        style: Style,
    ) {
        let x_axis = self.x_axis();
        let mut before: Option<(f64, f64)> = None;
        for (x, value) in values {
            let place = x_axis.position(x).zip(axis.clamped_position(value));
            if let Some(to) = place {
                raster.line(before.unwrap_or(to), to, style, line.dash, line.symbol);
            }
            before = place;
        }
    }
}

/// The smallest and the largest of `values`, a fiftieth left out at either end.
fn without_spikes(mut values: Vec<f64>) -> Vec<f64> {
    let spikes = values.len() / 50;
    if values.is_empty() {
        return values;
    }
    let last = values.len() - 1 - spikes;
    // Selection, not sorting: this runs for every line of every frame.
    let (_, low, _) = values.select_nth_unstable_by(spikes, f64::total_cmp);
    let low = *low;
    let (_, high, _) = values.select_nth_unstable_by(last, f64::total_cmp);
    vec![low, *high]
}

/// The grid: fainter than any text.
fn faint(theme: &Theme) -> Style {
    match theme.colors {
        crate::tui::ColorDepth::True | crate::tui::ColorDepth::Ansi256 => {
            Style::new().fg(ratatui::style::Color::Indexed(239))
        }
        _ => theme.muted(),
    }
}
