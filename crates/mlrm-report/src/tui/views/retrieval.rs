//! Retrieval metrics over training, by slice, against the baselines.

use mlrm_events::{Evaluation, Metrics, Slices, Split};
use ratatui::layout::Constraint;
use ratatui::style::Style;
use ratatui::text::Span;

use super::{Page, percent_label};
use crate::describe;
use crate::format;
use crate::state::{RunState, metric_names};
use crate::tui::app::App;
use crate::tui::chrome::{Hint, hint};
use crate::tui::input::wrapped;
use crate::tui::pane::{Pane, columns, fitted, rows};
use crate::tui::theme::Role;
use crate::tui::widgets::{Plot, PlotLine, Reference};

/// Width of a metric's column in the tables.
const COLUMN: u16 = 11;

pub(super) struct Retrieval;

impl Page for Retrieval {
    fn keys(&self, app: &App) -> Vec<Hint> {
        let (metric, slice) = (hint("m", "metric"), hint("[ ]", "slice"));
        vec![metric, slice, app.axis_hint(), app.zoom_hint()]
    }

    fn choose(&self, app: &mut App, state: &RunState, by: i64) {
        let newest = state.evaluations.last();
        let count = newest.map_or(0, |newest| newest.slices.len());
        app.slice = wrapped(app.slice, by, count);
    }

    fn draw(&self, mut pane: Pane) {
        let Some(shown) = Shown::of(pane.app, pane.state) else {
            let muted = pane.theme.muted();
            let text = "  not evaluated yet: every train.eval_every_steps steps, and at the end";
            pane.panel("Retrieval", []).put(1, text, muted);
            return;
        };
        let area = pane.area;
        let models = 1 + shown.newest.baselines.len() as u16;
        if area.width >= 100 && area.height >= 18 {
            let slices = shown.newest.slices.len() as u16;
            let table_rows = (models.max(slices) + 3).min(area.height / 2);
            let sizes = [Constraint::Min(0), Constraint::Length(table_rows)];
            let [top, bottom] = rows(area, sizes);
            let [chart, gauge] = columns(top, [Constraint::Min(0), Constraint::Length(40)]);
            shown.curve(pane.within(chart));
            shown.neglect(pane.within(gauge));
            let [left, right] = columns(bottom, [Constraint::Fill(1); 2]);
            shown.models_table(pane.within(left));
            shown.slices_table(pane.within(right));
            return;
        }
        let gauge_rows = if area.height >= 16 { 6 } else { 5 };
        let table_rows = match area.height >= 20 {
            true => (models + 2).min(area.height / 3),
            false => 0,
        };
        let sizes = [
            Constraint::Min(0),
            Constraint::Length(gauge_rows),
            Constraint::Length(table_rows),
        ];
        let [chart, gauge, table] = rows(area, sizes);
        shown.curve(pane.within(chart));
        shown.neglect(pane.within(gauge));
        shown.models_table(pane.within(table));
    }
}

/// What is shown: one metric of one slice.
struct Shown<'a> {
    newest: &'a Evaluation,
    metrics: Vec<String>,
    metric: String,
    slice: &'a str,
}

/// A row of a table: its name, its metrics, and how it is written.
type Row<'a> = (String, Option<&'a Metrics>, Style);

impl<'a> Shown<'a> {
    fn of(app: &App, state: &'a RunState) -> Option<Self> {
        let newest = state.evaluations.last()?;
        let metrics = metric_names(state.evaluations.iter());
        // Recall@10 first, where nothing was chosen: the paper's main figure.
        let first = metrics.iter().position(|name| name == "recall@10");
        let metric = app.metric + first.unwrap_or(0);
        let metric = metrics.get(metric % metrics.len().max(1))?.clone();
        let slices: Vec<&String> = newest.slices.keys().collect();
        let first = slices.iter().position(|name| *name == "all");
        let slice = *slices.get((app.slice + first.unwrap_or(0)) % slices.len().max(1))?;
        Some(Self {
            newest,
            metrics,
            metric,
            slice,
        })
    }

    fn value(&self, slices: &Slices) -> Option<f64> {
        slices.get(self.slice)?.get(&self.metric).copied()
    }

    /// The chosen metric of one split's evaluations.
    fn course(&self, state: &RunState, split: Split) -> PlotLine {
        let evaluations = state.evaluations.iter();
        let same = evaluations.filter(|one| one.split == split);
        let points = same.filter_map(|one| Some((one.step as f64, self.value(&one.slices)?)));
        PlotLine::new(Role::Full, points)
    }

    fn curve(&self, pane: Pane) {
        let (theme, state, newest) = (pane.theme, pane.state, self.newest);
        let mut title = format::metric_title(&self.metric);
        if self.slice != "all" {
            title += &format!(", {}", format::name_title(self.slice).to_lowercase());
        }
        let value = self.value(&newest.slices).map(format::percent);
        let remark = format!(
            " {} {}, {} queries in {} notes",
            theme.dot(),
            describe::split(newest.split),
            format::count(newest.queries),
            format::count(newest.pool)
        );
        let mut remarks = vec![
            Span::styled(value.unwrap_or_default(), theme.role(Role::Full)),
            Span::styled(remark, theme.muted()),
        ];
        let mut lines = Vec::new();
        // At the end the test notes are measured once; what led there is of other notes.
        let mut splits = state.evaluations.iter().map(|one| one.split);
        if let Some(split) = splits.rfind(|split| *split != newest.split) {
            let line = self.course(state, split).dashed();
            remarks.push(Span::raw("  "));
            remarks.push(line.sample(theme));
            let name = format!(" {}", describe::split(split));
            remarks.push(Span::styled(name, theme.muted()));
            lines.push(line);
        }
        lines.push(self.course(state, newest.split));
        let mut plot = Plot::new(pane.step_range(), lines);
        plot.y_scale = pane.scale();
        plot.y_label = percent_label;
        let references = newest.baselines.iter().filter_map(|(name, slices)| {
            Some(Reference {
                value: self.value(slices)?,
                role: match name.as_str() {
                    "text_only" => Role::Text,
                    "image_only" => Role::Visual,
                    _ => Role::Other,
                },
                name: format::name_title(name),
            })
        });
        plot.references = references.collect();
        plot.render(pane.panel(&title, remarks));
    }

    /// Whether the picture helps: the whole model against itself without text or without picture.
    fn neglect(&self, pane: Pane) {
        let theme = pane.theme;
        let mut below = pane.panel("Does the picture count?", []);
        let baselines = &self.newest.baselines;
        let of = |name: &str| baselines.get(name).and_then(|slices| self.value(slices));
        let (full, text) = (self.value(&self.newest.slices), of("text_only"));
        let bars = [
            ("full", full, Role::Full),
            ("text only", text, Role::Text),
            ("image only", of("image_only"), Role::Visual),
        ];
        let values = bars.iter().filter_map(|(_, value, _)| *value);
        let largest = values.fold(0.0, f64::max);
        let (width, height) = (below.area.width, below.area.height);
        let mut row = u16::from(height >= 8);
        for (name, value, role) in bars {
            below.put(row, name, Style::new());
            let mut place = below.cut(11, width.saturating_sub(11));
            if let Some(value) = value {
                let share = if largest > 0.0 { value / largest } else { 0.0 };
                let bar = theme.bar(share, usize::from(width).saturating_sub(21));
                place.put(row, &bar, theme.role(role));
                let shown = format::percent(value);
                below.put_right(row, Span::styled(shown, theme.strong()));
            } else {
                place.put(row, "not measured", theme.muted());
            }
            row += 1 + u16::from(height >= 12);
        }
        if let (Some(full), Some(text)) = (full, text) {
            let (verdict, role) = verdict(full, text);
            let verdict = below.fitted(&verdict);
            below.put(row, &verdict, theme.role(role));
        }
    }

    fn models_table(&self, pane: Pane) {
        let full = pane.theme.role(Role::Full);
        let this = self.newest.slices.get(self.slice);
        let mut rows: Vec<Row> = vec![("this model".into(), this, full)];
        rows.extend(self.newest.baselines.iter().map(|(name, slices)| {
            let metrics = slices.get(self.slice);
            (format::name_title(name), metrics, Style::new())
        }));
        let slice = format::name_title(self.slice).to_lowercase();
        self.table(pane, &format!("Against the baselines, {slice}"), &rows);
    }

    fn slices_table(&self, pane: Pane) {
        let chosen = pane.theme.role(Role::Full);
        let row = |(name, metrics): (&String, _)| {
            let style = match name == self.slice {
                true => chosen,
                false => Style::new(),
            };
            (format::name_title(name), Some(metrics), style)
        };
        let rows: Vec<Row> = self.newest.slices.iter().map(row).collect();
        self.table(pane, "By slice", &rows);
    }

    fn table(&self, pane: Pane, title: &str, rows: &[Row]) {
        if pane.area.height < 3 {
            return;
        }
        let theme = pane.theme;
        let mut below = pane.panel(title, []);
        let names = rows.iter().map(|(name, ..)| name.chars().count());
        let names = names.max().unwrap_or(0).clamp(10, 20);
        let left = names as u16 + 1;
        // The chosen metric is always among the columns.
        let count = usize::from(below.area.width.saturating_sub(left) / COLUMN).max(1);
        let chosen = self.metrics.iter().position(|name| *name == self.metric);
        let first = (chosen.unwrap_or(0) + 1).saturating_sub(count);
        let shown = self.metrics.iter().skip(first).take(count);
        for (metric, index) in shown.zip(0..) {
            let mut column = below.cut(left + index * COLUMN, COLUMN);
            let head = match *metric == self.metric {
                true => theme.strong(),
                false => theme.muted(),
            };
            column.put_right(0, Span::styled(format::metric_title(metric), head));
            for ((_, metrics, style), row) in rows.iter().zip(1..) {
                let value = metrics.and_then(|metrics| metrics.get(metric).copied());
                let text = value.map_or("-".to_owned(), format::percent);
                column.put_right(row, Span::styled(text, *style));
            }
        }
        for ((name, _, style), row) in rows.iter().zip(1..) {
            below.put(row, &fitted(name, names, theme), *style);
        }
    }
}

fn verdict(full: f64, text: f64) -> (String, Role) {
    let points = (full - text) * 100.0;
    if points > 0.0 {
        (format!("The picture adds {points:.2} points."), Role::Good)
    } else {
        let text = format!("Visual neglect: {points:.2} points to text.");
        (text, Role::Warning)
    }
}
