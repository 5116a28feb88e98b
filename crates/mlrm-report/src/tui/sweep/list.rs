//! The runs of a sweep, a row each.

use std::ops::Range;

use ratatui::style::Style;
use ratatui::text::Span;

use crate::follow::FollowedRun;
use crate::format;
use crate::state::{Series, Status, main_metric};
use crate::tui::chrome;
use crate::tui::pane::{Pane, fitted};
use crate::tui::theme::{Role, Theme};

/// A column of the list: its heading, its width, and the width of the screen from which on it is there.
struct Column {
    title: String,
    width: u16,
    from: u16,
}

/// What stands in the columns after the name, in their order.
const STATE: usize = 0;
const STEPS: usize = 1;
const LOSS: usize = 2;
const COURSE: usize = 3;
const METRIC: usize = 4;
const RATE: usize = 5;
const LEFT: usize = 6;

fn columns(metric: Option<&str>) -> [Column; 7] {
    let column = |title: &str, width, from| Column {
        title: title.into(),
        width,
        from,
    };
    let metric = metric.map(format::metric_title).unwrap_or_default();
    [
        column("", 13, 0),
        column("step", 16, 0),
        column("loss", 8, 0),
        column("its course", 18, 108),
        column(&metric, 11, 72),
        column("notes/s", 8, 120),
        column("left", 11, 86),
    ]
}

/// The runs that fit, the chosen one among them.
fn shown(runs: usize, selected: usize, room: usize) -> Range<usize> {
    let first = selected.saturating_sub(room / 2);
    let first = first.min(runs.saturating_sub(room));
    first..(first + room).min(runs)
}

/// Draws those of `runs` that fit, the selected one among them.
pub(super) fn draw(pane: Pane, runs: &[FollowedRun], selected: usize) {
    let (theme, width) = (pane.theme, pane.area.width);
    let newest = |run: &FollowedRun| {
        let metrics = run.state.evaluations.last()?.slices.get("all")?;
        main_metric(metrics).map(|(name, _)| name.to_owned())
    };
    let metric = runs.iter().find_map(newest);
    let columns = columns(metric.as_deref());
    let used: u16 = columns
        .iter()
        .filter(|column| column.from <= width)
        .map(|column| column.width + 1)
        .sum();
    let name_width = width.saturating_sub(used + 2);
    let mut below = pane.panel("Runs", []);
    let mut column = name_width + 2;
    for Column { title, width, .. } in columns.iter().filter(|column| column.from <= width) {
        let heading = Span::styled(title.clone(), theme.muted());
        below.cut(column + 1, *width).put_right(0, heading);
        column += width + 1;
    }
    let room = usize::from(below.area.height.saturating_sub(1));
    for (at, row) in shown(runs.len(), selected, room).zip(1..) {
        let run = &runs[at];
        let (mark, style) = match at == selected {
            true => (theme.either("▸ ", "> "), theme.role(Role::Accent)),
            false => ("  ", Style::new()),
        };
        let name = fitted(&run.name, usize::from(name_width), theme);
        below.put(row, &format!("{mark}{name}"), style);
        let mut column = name_width + 2;
        let all = columns.iter().enumerate();
        for (index, Column { width: own, .. }) in all.filter(|(_, column)| column.from <= width) {
            let cell = cell(&below, run, index, metric.as_deref());
            let mut place = below.cut(column + 1, *own);
            match index {
                STATE => drop(place.put_line(row, cell)),
                _ => place.put_right(row, cell),
            }
            column += own + 1;
        }
    }
}

/// What stands in a column of a run.
fn cell(pane: &Pane, run: &FollowedRun, column: usize, metric: Option<&str>) -> Span<'static> {
    let (state, theme) = (&run.state, pane.theme);
    let text = match column {
        STATE => return stand(pane, run),
        STEPS if state.events > 0 => Some(state.steps()),
        LOSS => state.train.loss.last().map(format::number),
        COURSE => Some(course(&state.train.loss, 16, theme)),
        METRIC => metric.and_then(|metric| {
            let metrics = state.evaluations.last()?.slices.get("all")?;
            Some(format::percent(*metrics.get(metric)?))
        }),
        RATE => state
            .last_step
            .as_ref()
            .map(|step| format::number(step.notes_per_second)),
        LEFT => state.seconds_left().map(format::duration),
        _ => None,
    };
    let style = match column {
        COURSE => theme.role(Role::Full),
        METRIC => theme.strong(),
        _ => Style::new(),
    };
    Span::styled(text.unwrap_or_default(), style)
}

/// `● running`.
fn stand(pane: &Pane, run: &FollowedRun) -> Span<'static> {
    let theme = pane.theme;
    if run.refusal.is_some() {
        let text = format!("{} failed", theme.either("✗", "!"));
        return Span::styled(text, theme.role(Role::Warning));
    }
    let (glyph, text, style) = chrome::status(&run.state, theme, pane.now);
    let text = match run.state.status() {
        Status::Waiting => "waiting".to_owned(),
        _ => text,
    };
    Span::styled(fitted(&format!("{glyph} {text}"), 13, theme), style)
}

/// A series as a line of `width` cells, each the mean of its share of the steps.
fn course(series: &Series, width: usize, theme: &Theme) -> String {
    let means = series.buckets().iter().map(|bucket| bucket.mean);
    let means: Vec<f64> = means.filter(|mean| mean.is_finite()).collect();
    let cells = width.min(means.len());
    let mean = |cell: usize| {
        let of = &means[cell * means.len() / cells..(cell + 1) * means.len() / cells];
        of.iter().sum::<f64>() / of.len() as f64
    };
    let values: Vec<f64> = (0..cells).map(mean).collect();
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let spread = (highest - lowest).max(f64::MIN_POSITIVE);
    let share = |value: &f64| (value - lowest) / spread;
    let cells = values.iter().map(|value| theme.spark(share(value)));
    cells.collect()
}
