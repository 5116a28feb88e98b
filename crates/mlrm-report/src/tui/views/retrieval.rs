//! Retrieval metrics over training, by slice, against the baselines.

use mlrm_events::{Evaluation, Metrics, Slices, Split};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::percent_label;
use crate::describe;
use crate::format;
use crate::state::{interval, metric_names};
use crate::tui::app::Screen;
use crate::tui::theme::Role;
use crate::tui::widgets::{Plot, PlotLine, Reference, fitted, panel, put, put_right, sections};

/// Width of a metric's column in the tables.
const COLUMN: u16 = 11;

/// What is shown: one metric of one slice.
struct Choice {
    metrics: Vec<String>,
    metric: String,
    slice: String,
}

pub(in crate::tui) fn draw(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let Some((newest, choice)) = choose(screen) else {
        let below = panel(buffer, area, screen.theme, "Retrieval", Vec::new());
        let text = "  not evaluated yet: every train.eval_every_steps steps, and at the end";
        put(buffer, below, 1, text, screen.theme.muted());
        return;
    };
    let rows = 1 + newest.baselines.len() as u16;
    if area.width >= 100 && area.height >= 18 {
        let table_rows = (rows + 3)
            .max(newest.slices.len() as u16 + 3)
            .min(area.height / 2);
        let sizes = [Constraint::Min(0), Constraint::Length(table_rows)];
        let [top, bottom] = sections(area, false, sizes);
        let [chart, gauge] = sections(top, true, [Constraint::Min(0), Constraint::Length(40)]);
        curve(screen, newest, &choice, chart, buffer);
        neglect(screen, newest, &choice, gauge, buffer);
        let [left, right] = sections(bottom, true, [Constraint::Fill(1), Constraint::Fill(1)]);
        models_table(screen, newest, &choice, left, buffer);
        slices_table(screen, newest, &choice, right, buffer);
        return;
    }
    let gauge_rows = if area.height >= 16 { 6 } else { 5 };
    let table_rows = if area.height >= 20 {
        (rows + 2).min(area.height / 3)
    } else {
        0
    };
    let sizes = [
        Constraint::Min(0),
        Constraint::Length(gauge_rows),
        Constraint::Length(table_rows),
    ];
    let [chart, gauge, table] = sections(area, false, sizes);
    curve(screen, newest, &choice, chart, buffer);
    neglect(screen, newest, &choice, gauge, buffer);
    models_table(screen, newest, &choice, table, buffer);
}

fn choose<'a>(screen: &Screen<'a>) -> Option<(&'a Evaluation, Choice)> {
    let newest = screen.state.evaluations.last()?;
    let metrics = metric_names(screen.state.evaluations.iter());
    // Recall@10 first, where nothing was chosen: the paper's main figure.
    let preferred = metrics
        .iter()
        .position(|name| name == "recall@10")
        .unwrap_or(0);
    let metric = metrics
        .get((screen.app.metric + preferred) % metrics.len().max(1))?
        .clone();
    let slices: Vec<&String> = newest.slices.keys().collect();
    let first = slices.iter().position(|name| *name == "all").unwrap_or(0);
    let slice = slices
        .get((screen.app.slice + first) % slices.len().max(1))?
        .to_string();
    Some((
        newest,
        Choice {
            metrics,
            metric,
            slice,
        },
    ))
}

/// The split of the evaluations before the newest one's, where it is another.
fn earlier_split(screen: &Screen, newest: &Evaluation) -> Option<Split> {
    let mut splits = screen.state.evaluations.iter().map(|one| one.split);
    splits.rfind(|split| *split != newest.split)
}

fn value(slices: &Slices, choice: &Choice) -> Option<f64> {
    slices.get(&choice.slice)?.get(&choice.metric).copied()
}

fn baseline_role(name: &str) -> Role {
    match name {
        "text_only" => Role::Text,
        "image_only" => Role::Visual,
        _ => Role::Other,
    }
}

fn curve(screen: &Screen, newest: &Evaluation, choice: &Choice, area: Rect, buffer: &mut Buffer) {
    let theme = screen.theme;
    let mut title = format::metric_title(&choice.metric);
    if choice.slice != "all" {
        title += &format!(", {}", format::name_title(&choice.slice).to_lowercase());
    }
    let shown = value(&newest.slices, choice)
        .map(format::percent)
        .unwrap_or_default();
    let remark = format!(
        " {} {}, {} queries in {} notes",
        theme.dot(),
        describe::split(newest.split),
        format::count(newest.queries),
        format::count(newest.pool)
    );
    let mut remarks = vec![
        Span::styled(shown, theme.role(Role::Full)),
        Span::styled(remark, theme.muted()),
    ];
    // At the end the test notes are measured once; what led there is of other notes.
    let earlier = earlier_split(screen, newest);
    let course = |split: Split| {
        let evaluations = screen.state.evaluations.iter();
        let points = evaluations
            .filter(|one| one.split == split)
            .filter_map(|one| Some((one.step as f64, value(&one.slices, choice)?)));
        PlotLine::new(Role::Full, points)
    };
    if let Some(split) = earlier {
        let line = course(split).dashed();
        remarks.push(Span::raw("  "));
        remarks.push(line.sample(theme));
        let name = format!(" {}", describe::split(split));
        remarks.push(Span::styled(name, theme.muted()));
    }
    let below = panel(buffer, area, theme, &title, remarks);
    let mut plot = Plot::new(theme, screen.step_range());
    plot.y_scale = screen.scale();
    plot.y_label = percent_label;
    plot.lines
        .extend(earlier.map(|split| course(split).dashed()));
    plot.lines.push(course(newest.split));
    plot.references = newest
        .baselines
        .iter()
        .filter_map(|(name, slices)| {
            let value = value(slices, choice)?;
            let name = format::name_title(name);
            Some(Reference {
                value,
                role: baseline_role(&name.to_lowercase().replace(' ', "_")),
                name,
            })
        })
        .collect();
    plot.render(below, buffer);
}

/// Whether the picture helps: the whole model against itself without text or without picture.
fn neglect(screen: &Screen, newest: &Evaluation, choice: &Choice, area: Rect, buffer: &mut Buffer) {
    let theme = screen.theme;
    let below = panel(buffer, area, theme, "Does the picture count?", Vec::new());
    let of = |name: &str| {
        newest
            .baselines
            .get(name)
            .and_then(|slices| value(slices, choice))
    };
    let (full, text, image) = (
        value(&newest.slices, choice),
        of("text_only"),
        of("image_only"),
    );
    let bars = [
        ("full", full, Role::Full),
        ("text only", text, Role::Text),
        ("image only", image, Role::Visual),
    ];
    let largest = bars
        .iter()
        .filter_map(|(_, value, _)| *value)
        .fold(0.0, f64::max);
    let width = usize::from(below.width).saturating_sub(21);
    let mut row = u16::from(below.height >= 8);
    for (name, value, role) in bars {
        put(buffer, below, row, name, Style::new());
        let place = Rect {
            x: below.x + 11,
            width: below.width.saturating_sub(11),
            ..below
        };
        match value {
            Some(value) => {
                let share = if largest > 0.0 { value / largest } else { 0.0 };
                put(
                    buffer,
                    place,
                    row,
                    &theme.bar(share, width),
                    theme.role(role),
                );
                let shown = Line::styled(format::percent(value), theme.strong());
                put_right(buffer, below, row, &shown);
            }
            None => {
                put(buffer, place, row, "not measured", theme.muted());
            }
        }
        row += 1 + u16::from(below.height >= 12);
    }
    if let (Some(full), Some(text)) = (full, text) {
        let (verdict, role) = verdict(full, text);
        put(
            buffer,
            below,
            row,
            &fitted(&verdict, usize::from(below.width), theme),
            theme.role(role),
        );
    }
}

fn verdict(full: f64, text: f64) -> (String, Role) {
    let points = (full - text) * 100.0;
    if points > 0.0 {
        (format!("The picture adds {points:.2} points."), Role::Good)
    } else {
        (
            format!("Visual neglect: {points:.2} points to text."),
            Role::Warning,
        )
    }
}

/// A row of a table: its name, values, and whether it is the model itself.
type Row<'a> = (String, Option<&'a Metrics>, Style);

fn models_table(
    screen: &Screen,
    newest: &Evaluation,
    choice: &Choice,
    area: Rect,
    buffer: &mut Buffer,
) {
    let theme = screen.theme;
    let full = theme.role(Role::Full);
    let mut rows: Vec<Row> = vec![("this model".into(), newest.slices.get(&choice.slice), full)];
    for (name, slices) in &newest.baselines {
        rows.push((
            format::name_title(name),
            slices.get(&choice.slice),
            Style::new(),
        ));
    }
    let title = format!(
        "Against the baselines, {}",
        format::name_title(&choice.slice).to_lowercase()
    );
    table(screen, &title, &rows, choice, area, buffer);
}

fn slices_table(
    screen: &Screen,
    newest: &Evaluation,
    choice: &Choice,
    area: Rect,
    buffer: &mut Buffer,
) {
    let chosen = screen.theme.role(Role::Full);
    let row = |(name, metrics): (&String, _)| {
        let style = if *name == choice.slice {
            chosen
        } else {
            Style::new()
        };
        (format::name_title(name), Some(metrics), style)
    };
    let rows: Vec<Row> = newest.slices.iter().map(row).collect();
    table(screen, "By slice", &rows, choice, area, buffer);
}

fn table(
    screen: &Screen,
    title: &str,
    rows: &[Row],
    choice: &Choice,
    area: Rect,
    buffer: &mut Buffer,
) {
    if area.height < 3 {
        return;
    }
    let theme = screen.theme;
    let below = panel(buffer, area, theme, title, Vec::new());
    let names = rows
        .iter()
        .map(|(name, ..)| name.chars().count())
        .max()
        .unwrap_or(0)
        .clamp(10, 20);
    let room = below.width.saturating_sub(names as u16 + 1);
    // The chosen metric is always among the columns.
    let count = usize::from(room / COLUMN).max(1);
    let chosen = choice
        .metrics
        .iter()
        .position(|name| *name == choice.metric)
        .unwrap_or(0);
    let first = (chosen + 1).saturating_sub(count);
    let shown = choice.metrics.iter().skip(first).take(count);
    for (index, metric) in shown.enumerate() {
        let place = Rect {
            x: below.x + names as u16 + 1 + index as u16 * COLUMN,
            width: COLUMN,
            ..below
        };
        let head = if *metric == choice.metric {
            theme.strong()
        } else {
            theme.muted()
        };
        put_right(
            buffer,
            place,
            0,
            &Line::styled(format::metric_title(metric), head),
        );
        for (row, (_, metrics, style)) in rows.iter().enumerate() {
            let found = metrics.and_then(|metrics| interval(metrics, metric));
            let text = found.map_or("-".to_owned(), |found| format::percent(found.value));
            put_right(buffer, place, row as u16 + 1, &Line::styled(text, *style));
        }
    }
    for (row, (name, _, style)) in rows.iter().enumerate() {
        put(
            buffer,
            below,
            row as u16 + 1,
            &fitted(name, names, theme),
            *style,
        );
    }
}
