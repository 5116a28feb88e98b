//! One file a view. Each draws the run's state into the area between header and footer.

pub(super) mod attention;
pub(super) mod config;
pub(super) mod fusion;
pub(super) mod log;
pub(super) mod overview;
pub(super) mod retrieval;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::app::Screen;
use super::theme::Role;
use super::widgets::{Plot, PlotLine, Scale, panel};
use crate::format;
use crate::state::Series;

/// A panel with one series over the steps and its newest value.
fn series_panel(
    screen: &Screen,
    area: Rect,
    buffer: &mut Buffer,
    title: &str,
    (series, role): (&Series, Role),
    scale: Scale,
) {
    let newest = match series.last() {
        Some(value) => vec![Span::styled(format::number(value), screen.theme.role(role))],
        None => Vec::new(),
    };
    let area = panel(buffer, area, screen.theme, title, newest);
    let mut plot = Plot::new(screen.theme, screen.step_range());
    plot.lines
        .push(PlotLine::series(role, series, screen.smoothing()));
    plot.y_scale = scale;
    plot.render(area, buffer);
}

/// A share as a tick label.
fn percent_label(value: f64) -> Option<String> {
    Some(format!("{}%", (value * 1000.0).round() / 10.0))
}
