//! A part of the screen: what a view draws into, and what it draws.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::app::{App, SMOOTHING};
use super::theme::Theme;
use crate::axis::Scale;
use crate::state::RunState;

/// An area of the screen, with all that drawing depends on.
pub(super) struct Pane<'a> {
    pub(super) app: &'a App,
    pub(super) state: &'a RunState,
    pub(super) theme: &'a Theme,
    /// Unix seconds.
    pub(super) now: f64,
    pub(super) area: Rect,
    pub(super) buffer: &'a mut Buffer,
}

impl<'a> Pane<'a> {
    /// Another part of the screen.
    pub(super) fn within(&mut self, area: Rect) -> Pane<'_> {
        Pane {
            app: self.app,
            state: self.state,
            theme: self.theme,
            now: self.now,
            area,
            buffer: self.buffer,
        }
    }

    /// `width` columns from `column` on.
    pub(super) fn cut(&mut self, column: u16, width: u16) -> Pane<'_> {
        self.within(Rect {
            x: self.area.x + column,
            width,
            ..self.area
        })
    }

    /// Writes `text` from the left edge of `row`, cut at the right edge; returns the column after it.
    pub(super) fn put(&mut self, row: u16, text: &str, style: Style) -> u16 {
        self.put_line(row, Span::styled(text, style))
    }

    /// [`Pane::put`] for styled spans.
    pub(super) fn put_line<'l>(&mut self, row: u16, line: impl Into<Line<'l>>) -> u16 {
        let (area, line) = (self.area, line.into());
        if row >= area.height {
            return area.x;
        }
        // Styles are laid over what is there; text is to look the same wherever it lands.
        let place = Rect {
            y: area.y + row,
            width: (line.width() as u16).min(area.width),
            height: 1,
            ..area
        };
        self.buffer.set_style(place, Style::reset());
        let end = self.buffer.set_line(area.x, place.y, &line, area.width);
        end.0
    }

    /// Writes `line` to the right edge of `row`, cut at the left edge.
    pub(super) fn put_right<'l>(&mut self, row: u16, line: impl Into<Line<'l>>) {
        let line = line.into();
        let width = (line.width() as u16).min(self.area.width);
        self.cut(self.area.width - width, width).put_line(row, line);
    }

    /// A name at the left edge of `row`, and its value at the right one.
    pub(super) fn figure<'l>(&mut self, row: u16, name: &str, value: impl Into<Line<'l>>) {
        self.put(row, name, Style::new());
        self.put_right(row, value);
    }

    /// Fills the cell at `column` and `row` of the screen, for heat maps.
    pub(super) fn fill(&mut self, column: u16, row: u16, (style, symbol): (Style, &str)) {
        let place = (self.area.x + column, self.area.y + row);
        if let Some(cell) = self.buffer.cell_mut(place) {
            cell.set_symbol(symbol).set_style(style);
        }
    }

    /// A heading with a rule behind it, and remarks at its end; what is left lies below.
    pub(super) fn panel(
        mut self,
        title: &str,
        remarks: impl IntoIterator<Item = Span<'static>>,
    ) -> Self {
        let (area, theme) = (self.area, self.theme);
        if area.height == 0 || area.width == 0 {
            return self;
        }
        let end = match title {
            "" => area.x,
            title => self.put(0, &format!("{title} "), theme.strong()),
        };
        let width = (area.x + area.width).saturating_sub(end);
        let mut room = self.cut(end - area.x, width);
        room.put(0, &theme.rule().repeat(usize::from(width)), theme.muted());
        let mut line = Line::from_iter(remarks);
        if !line.spans.is_empty() && width > 2 {
            line.spans.insert(0, Span::raw(" "));
            // What does not fit whole is left out from the end, never cut within a word.
            while line.width() > usize::from(width) && line.spans.len() > 1 {
                line.spans.pop();
            }
            if line.spans.len() > 1 {
                room.put_right(0, line);
            }
        }
        self.area = Rect {
            y: area.y + 1,
            height: area.height - 1,
            ..area
        };
        self
    }

    /// `text` in at most the area's width, the cut marked.
    pub(super) fn fitted(&self, text: &str) -> String {
        fitted(text, usize::from(self.area.width), self.theme)
    }

    /// `step 1,240`, as a remark.
    pub(super) fn step_remark(&self, step: u64) -> Span<'static> {
        let text = format!("step {}", crate::format::count(step));
        Span::styled(text, self.theme.muted())
    }

    /// The steps that the plots show.
    pub(super) fn step_range(&self) -> (f64, f64) {
        let oldest = self.state.train.loss.buckets().first();
        let first = oldest.map_or(0, |bucket| bucket.first_step) as f64;
        let last = self.state.step.max(1) as f64;
        let span = (last - first).max(1.0) / f64::from(1_u32 << self.app.zoom);
        (last - span, last)
    }

    /// The share of the past in the exponential mean of the plots.
    pub(super) fn smoothing(&self) -> f64 {
        SMOOTHING[self.app.smoothing.min(SMOOTHING.len() - 1)]
    }

    /// How values lie along the axes that may be logarithmic.
    pub(super) fn scale(&self) -> Scale {
        if self.app.log_axis {
            Scale::Log
        } else {
            Scale::Linear
        }
    }
}

/// `text` in at most `width` cells, the cut marked.
pub(super) fn fitted(text: &str, width: usize, theme: &Theme) -> String {
    if Line::from(text).width() <= width {
        return text.to_owned();
    }
    if width == 0 {
        return String::new();
    }
    let mut cut = String::new();
    for letter in text.chars() {
        cut.push(letter);
        if Line::from(cut.as_str()).width() + 1 > width {
            cut.pop();
            break;
        }
    }
    cut + if theme.unicode { "…" } else { "~" }
}

/// `area` in rows.
pub(super) fn rows<const N: usize>(area: Rect, sizes: [Constraint; N]) -> [Rect; N] {
    Layout::vertical(sizes).areas(area)
}

/// `area` in columns, with air between them.
pub(super) fn columns<const N: usize>(area: Rect, sizes: [Constraint; N]) -> [Rect; N] {
    Layout::horizontal(sizes).spacing(2).areas(area)
}
