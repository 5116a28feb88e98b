//! Lines over an axis.

use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;

use super::line::PlotLine;
use super::raster::{Dash, Raster};
use crate::axis::{Axis, Scale, tick_labels};
use crate::tui::pane::Pane;
use crate::tui::theme::{ColorDepth, Role, Theme};

/// A horizontal line with a name.
pub(in crate::tui) struct Reference {
    pub(in crate::tui) name: String,
    pub(in crate::tui) value: f64,
    pub(in crate::tui) role: Role,
}

/// Lines over an axis, with ticks.
pub(in crate::tui) struct Plot<'a> {
    pub(in crate::tui) lines: Vec<PlotLine>,
    pub(in crate::tui) references: Vec<Reference>,
    /// First and last x shown.
    pub(in crate::tui) x: (f64, f64),
    pub(in crate::tui) y_scale: Scale,
    /// The y axis, where it is not to follow the values.
    pub(in crate::tui) y: Option<(f64, f64)>,
    /// Written instead of the number at a y tick.
    pub(in crate::tui) y_label: fn(f64) -> Option<String>,
    /// Width of the y labels, where plots stand in line.
    pub(in crate::tui) gutter: Option<u16>,
    /// Written where there is nothing to draw.
    pub(in crate::tui) empty: &'a str,
}

impl Plot<'_> {
    /// Of `lines`, between the first and last `x`.
    pub(in crate::tui) fn new(x: (f64, f64), lines: Vec<PlotLine>) -> Self {
        Self {
            lines,
            references: Vec::new(),
            x,
            y_scale: Scale::Linear,
            y: None,
            y_label: |_| None,
            gutter: None,
            empty: "no values yet",
        }
    }

    pub(in crate::tui) fn render(&self, mut pane: Pane) {
        let area = pane.area;
        if area.height < 2 || area.width < 12 {
            return;
        }
        let Some(y_axis) = self.y_axis() else {
            let muted = pane.theme.muted();
            pane.put(area.height / 2, &format!("  {}", self.empty), muted);
            return;
        };
        let ticks = y_axis.ticks(usize::from(area.height.saturating_sub(1) / 3).clamp(3, 8));
        let plain = tick_labels(&ticks).into_iter().zip(&ticks);
        let labels: Vec<String> = plain
            .map(|(plain, &tick)| (self.y_label)(tick).unwrap_or(plain))
            .collect();
        let widest = labels.iter().map(|label| label.chars().count()).max();
        let gutter = self.gutter.unwrap_or(widest.unwrap_or(0) as u16 + 1);
        let gutter = gutter.min(area.width / 2);
        let field = Rect {
            x: area.x + gutter,
            width: area.width - gutter,
            height: area.height - 1,
            ..area
        };
        self.y_ticks(&mut pane, field, &y_axis, ticks.iter().zip(&labels));
        self.x_ticks(&mut pane, field);
        self.draw_references(&mut pane, field, &y_axis);
        self.draw_lines(&mut pane, field, &y_axis);
        self.name_references(pane.within(field), &y_axis);
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
        let points = line.points.iter().filter(|point| self.shows(point.x));
        let mut values: Vec<f64> = points.flat_map(|point| [point.min, point.max]).collect();
        if !line.smoothed.is_empty() {
            values = without_spikes(values);
            let smoothed = line.smoothed.iter().filter(|(x, _)| self.shows(*x));
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

    fn shows(&self, x: f64) -> bool {
        (self.x.0..=self.x.1).contains(&x)
    }

    fn y_ticks<'t>(
        &self,
        pane: &mut Pane,
        field: Rect,
        axis: &Axis,
        ticks: impl Iterator<Item = (&'t f64, &'t String)>,
    ) {
        let rows = f64::from(field.height.max(1) - 1);
        let (theme, room) = (pane.theme, field.x - pane.area.x);
        for (tick, label) in ticks {
            let Some(position) = axis.position(*tick) else {
                continue;
            };
            let row = ((1.0 - position) * rows).round() as u16;
            let pad = usize::from(room).saturating_sub(label.chars().count() + 1);
            let label = " ".repeat(pad) + label;
            pane.cut(0, room).put(row, &label, theme.muted());
            let grid = if theme.unicode { "┈" } else { "." };
            let grid = grid.repeat(usize::from(field.width));
            pane.within(field).put(row, &grid, faint(theme));
        }
    }

    fn x_ticks(&self, pane: &mut Pane, field: Rect) {
        let (axis, area) = (self.x_axis(), pane.area);
        let ticks = axis.whole_ticks(usize::from(field.width / 9).clamp(2, 16));
        let muted = pane.theme.muted();
        let mut free_from = 0;
        for (tick, label) in ticks.iter().zip(tick_labels(&ticks)) {
            let Some(position) = axis.position(*tick) else {
                continue;
            };
            let center = (position * f64::from(field.width - 1)).round() as u16;
            let width = label.chars().count() as u16;
            let start = (field.x - area.x + center).saturating_sub(width / 2);
            let start = start.min(area.width.saturating_sub(width));
            if start >= free_from {
                pane.cut(start, width).put(area.height - 1, &label, muted);
                free_from = start + width + 1;
            }
        }
    }

    fn draw_references(&self, pane: &mut Pane, field: Rect, axis: &Axis) {
        let mut raster = Raster::new(field, pane.theme.unicode);
        for reference in &self.references {
            if let Some(y) = axis.position(reference.value) {
                let style = pane.theme.role(reference.role);
                raster.line((0.0, y), (1.0, y), style, Dash::Dotted, '-');
            }
        }
        raster.render(pane.buffer);
    }

    /// The references' names at the right edge, each on a row of its own near its line.
    fn name_references(&self, mut field: Pane, axis: &Axis) {
        let height = i32::from(field.area.height);
        let mut taken = Vec::new();
        let mut references: Vec<&Reference> = self.references.iter().collect();
        references.sort_by(|a, b| b.value.total_cmp(&a.value));
        for reference in references {
            let Some(position) = axis.position(reference.value) else {
                continue;
            };
            let row = ((1.0 - position) * f64::from(height.max(1) - 1)).round() as i32;
            let near = [row, row - 1, row + 1, row - 2, row + 2];
            let free = |row: &i32| (0..height).contains(row) && !taken.contains(row);
            let Some(row) = near.into_iter().find(free) else {
                continue;
            };
            taken.push(row);
            let name = format!(" {}", reference.name);
            let style = field.theme.role(reference.role);
            field.put_right(row as u16, Line::styled(name, style));
        }
    }

    fn draw_lines(&self, pane: &mut Pane, field: Rect, axis: &Axis) {
        let theme = pane.theme;
        let mut raster = Raster::new(field, theme.unicode);
        for line in &self.lines {
            let style = theme.role(line.role);
            let pale = match line.smoothed.is_empty() {
                true => style,
                false => style.add_modifier(Modifier::DIM),
            };
            self.draw_points(&mut raster, line, axis, pale);
        }
        raster.render(pane.buffer);
        // On a sheet of its own, which covers the cells below: a line that shares its cells with the
        // values around it could not be made out.
        let mut raster = Raster::new(field, theme.unicode);
        for line in self.lines.iter().filter(|line| !line.smoothed.is_empty()) {
            let style = theme.role(line.role).add_modifier(Modifier::BOLD);
            let smoothed = line.smoothed.iter().copied();
            let visible = smoothed.filter(|(x, _)| self.shows(*x));
            self.connect(&mut raster, line, visible, axis, style);
        }
        raster.render(pane.buffer);
    }

    fn draw_points(&self, raster: &mut Raster, line: &PlotLine, axis: &Axis, style: Style) {
        let visible = || line.points.iter().filter(|point| self.shows(point.x));
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
        let values = visible().map(|point| (point.x, point.value));
        self.connect(raster, line, values, axis, style);
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
        ColorDepth::True | ColorDepth::Ansi256 => Style::new().fg(Color::Indexed(239)),
        _ => theme.muted(),
    }
}
