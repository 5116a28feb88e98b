//! Loss with both parts, schedule, throughput, machine, last evaluation, warnings.

use mlrm_events::{EmbeddingProbe, TrainStep};
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};

use super::{Page, series_panel};
use crate::axis::Scale;
use crate::describe;
use crate::format;
use crate::state::{RunState, main_metric, metric_names};
use crate::tui::app::App;
use crate::tui::chrome::Hint;
use crate::tui::pane::{Pane, columns, fitted, rows};
use crate::tui::theme::Role;
use crate::tui::widgets::{Plot, PlotLine};

const SIDE_WIDTH: u16 = 36;

pub(super) struct Overview;

impl Page for Overview {
    fn keys(&self, app: &App) -> Vec<Hint> {
        app.plot_hints()
    }

    fn draw(&self, mut pane: Pane) {
        let area = pane.area;
        if area.width >= 100 {
            let sizes = [Constraint::Min(0), Constraint::Length(SIDE_WIDTH)];
            let [main, side] = columns(area, sizes);
            charts(pane.within(main));
            side_column(pane.within(side));
            return;
        }
        let figures_rows = if area.height >= 16 { 6 } else { 4 };
        let sizes = [Constraint::Min(0), Constraint::Length(figures_rows)];
        let [top, bottom] = rows(area, sizes);
        charts(pane.within(top));
        compact_figures(pane.within(bottom));
    }
}

fn charts(mut pane: Pane) {
    let area = pane.area;
    if area.height < 18 {
        loss(pane);
        return;
    }
    let small = Constraint::Length((area.height / 4).clamp(5, 10));
    let [top, middle, bottom] = rows(area, [Constraint::Min(0), small, small]);
    loss(pane.within(top));
    let (train, scale) = (&pane.state.train, pane.scale());
    let [rate, temperature] = columns(middle, [Constraint::Fill(1); 2]);
    let [norm, speed] = columns(bottom, [Constraint::Fill(1); 2]);
    for (place, title, series, scale) in [
        (rate, "Learning rate", &train.learning_rate, Scale::Linear),
        (
            temperature,
            "Temperature",
            &train.temperature,
            Scale::Linear,
        ),
        (norm, "Gradient norm", &train.gradient_norm, scale),
        (
            speed,
            "Notes per second",
            &train.notes_per_second,
            Scale::Linear,
        ),
    ] {
        series_panel(pane.within(place), title, series, Role::Plain, scale);
    }
}

fn loss(pane: Pane) {
    let (theme, train, smoothing) = (pane.theme, &pane.state.train, pane.smoothing());
    let mut lines = Vec::new();
    if !train.loss_visual.is_empty() {
        let visual = PlotLine::series(Role::Visual, &train.loss_visual, smoothing).dotted();
        let multimodal = PlotLine::series(Role::Text, &train.loss_multimodal, smoothing).dashed();
        lines.push(("visual", visual, train.loss_visual.last()));
        lines.push(("multimodal", multimodal, train.loss_multimodal.last()));
    }
    let total = PlotLine::series(Role::Full, &train.loss, smoothing);
    lines.push(("loss", total, train.loss.last()));
    let mut legend = Vec::new();
    for (name, line, last) in lines.iter().rev() {
        let last = last.map(format::number).unwrap_or_default();
        legend.push(line.sample(theme));
        legend.push(Span::styled(format!(" {name} "), theme.muted()));
        legend.push(Span::styled(last, theme.strong()));
        legend.push(Span::raw("  "));
    }
    legend.pop();
    let lines = lines.into_iter().map(|(_, line, _)| line).collect();
    let mut plot = Plot::new(pane.step_range(), lines);
    plot.y_scale = pane.scale();
    plot.empty = "no steps yet";
    plot.render(pane.panel("Loss", legend));
}

/// Name and value.
type Figure = (&'static str, String);

/// What a step measured, its loss left out.
fn step_figures(step: &TrainStep) -> Vec<Figure> {
    let known = |value: f64| describe::is_known(step, value).then_some(value);
    let temperature = known(step.temperature_logit).map(|logit| (-logit).exp());
    let figures = [
        ("learning rate", Some(step.learning_rate)),
        ("temperature", temperature),
        ("mean gate", step.gate_mean),
        ("gradient norm", known(step.gradient_norm)),
        ("notes/s", Some(step.notes_per_second)),
    ];
    let found = figures.into_iter();
    let found = found.filter_map(|(name, value)| Some((name, format::number(value?))));
    found.collect()
}

/// What the machine does, with the share of what there is.
fn machine_figures(state: &RunState) -> Vec<(Figure, Option<f64>)> {
    let Some(system) = &state.system else {
        return Vec::new();
    };
    let host = system.host_memory_bytes as f64 / system.host_memory_total_bytes.max(1) as f64;
    let memory = |name, bytes, share| ((name, format::bytes(bytes)), share);
    let busy = |name, percent: f64| ((name, format!("{percent:.0} %")), Some(percent / 100.0));
    let mut figures = vec![
        memory("host memory", system.host_memory_bytes, Some(host)),
        busy("processor", system.host_cpu_percent),
    ];
    let device = system.device_memory_bytes;
    figures.extend(device.map(|bytes| memory("device memory", bytes, None)));
    figures.extend(
        system
            .device_use_percent
            .map(|percent| busy("device use", percent)),
    );
    figures
}

/// What the newest look at the embeddings of the fixed batch found.
fn embedding_figures(probe: &EmbeddingProbe) -> Vec<Figure> {
    let mut figures = vec![
        (
            "cosine of partners",
            format::number(probe.positive_similarity),
        ),
        (
            "cosine of others",
            format::number(probe.negative_similarity),
        ),
        ("effective rank", format::number(probe.effective_rank)),
    ];
    let share = probe.picture_share.map(format::percent);
    figures.extend(share.map(|share| ("picture share", share)));
    figures
}

fn side_column(mut pane: Pane) {
    let (state, area) = (pane.state, pane.area);
    let machine = machine_figures(state);
    let probed = state
        .last_probe
        .as_ref()
        .map_or(Vec::new(), embedding_figures);
    // On a low screen evaluation and warnings come before the phases.
    let where_high = |rows: usize| match rows > 0 && area.height >= 24 {
        true => rows as u16 + 2,
        false => 0,
    };
    let machine_rows = machine.len().max(1) as u16 + 2;
    let phase_rows = where_high(state.seconds_by_phase.len()).min(9);
    let probe_rows = where_high(probed.len());
    let others = machine_rows + phase_rows + probe_rows + 4;
    let room = area.height.saturating_sub(others).max(4);
    let metrics = metric_names(state.evaluations.last()).len() as u16;

    let mut top = 0;
    let mut next = |rows: u16| {
        let place = Rect {
            y: area.y + top,
            height: rows.min(area.height - top),
            ..area
        };
        top += place.height;
        place
    };
    evaluation(pane.within(next((metrics + 2).clamp(4, room))));
    embedding_panel(pane.within(next(probe_rows)), &probed);
    machine_panel(pane.within(next(machine_rows)), &machine);
    phase_panel(pane.within(next(phase_rows)));
    warnings(pane.within(next(area.height)));
}

fn evaluation(pane: Pane) {
    let (theme, state) = (pane.theme, pane.state);
    let newest = state.evaluations.last();
    let remark = newest.map(|newest| {
        let (split, step) = (describe::split(newest.split), format::count(newest.step));
        Span::styled(format!("{split} {step}"), theme.muted())
    });
    let mut below = pane.panel("Retrieval", remark);
    let Some(newest) = newest else {
        below.put(0, "  not evaluated yet", theme.muted());
        return;
    };
    let Some(metrics) = newest.slices.get("all") else {
        return;
    };
    let last_row = below.area.height.saturating_sub(1);
    for (name, row) in metric_names([newest]).iter().zip(0..last_row) {
        let Some(&value) = metrics.get(name) else {
            continue;
        };
        let best = state.best_evaluation(name);
        let best = best.and_then(|best| best.slices.get("all")?.get(name).copied());
        let better = best.filter(|best| *best > value).map(|best| {
            let text = format!("best {}  ", format::percent(best));
            Span::styled(text, theme.muted())
        });
        let value = Span::styled(format::percent(value), theme.strong());
        let line = Line::from_iter(better.into_iter().chain([value]));
        below.figure(row, &format::metric_title(name), line);
    }
}

fn embedding_panel(pane: Pane, figures: &[Figure]) {
    let strong = pane.theme.strong();
    let step = pane.state.last_probe.as_ref().map(|probe| probe.step);
    let remark = step.map(|step| pane.step_remark(step));
    let mut below = pane.panel("Embeddings", remark);
    for ((name, value), row) in figures.iter().zip(0..) {
        below.figure(row, name, Span::styled(value, strong));
    }
}

fn machine_panel(pane: Pane, figures: &[(Figure, Option<f64>)]) {
    let theme = pane.theme;
    let width = usize::from(pane.area.width).saturating_sub(12);
    let started = pane.state.started.as_ref();
    let device = started.map(|(_, started)| fitted(&started.device, width, theme));
    let remark = device.map(|device| Span::styled(device, theme.muted()));
    let mut below = pane.panel("Machine", remark);
    if figures.is_empty() {
        below.put(0, "  no figures yet", theme.muted());
    }
    for (((name, value), share), row) in figures.iter().zip(0..) {
        let mut spans = vec![Span::styled(format!("{value:>9}"), theme.strong())];
        if let Some(share) = share {
            // A busy processor is what one wants; full memory is not.
            let scarce = name.contains("memory") && *share > 0.92;
            let role = if scarce { Role::Warning } else { Role::Accent };
            let bar = Span::styled(theme.bar(*share, 10), theme.role(role));
            spans.splice(0..0, [bar, Span::raw(" ")]);
        }
        below.figure(row, name, spans);
    }
}

fn phase_panel(pane: Pane) {
    let (theme, phases) = (pane.theme, &pane.state.seconds_by_phase);
    let total: f64 = phases.values().sum();
    let mut below = pane.panel("Time by phase", []);
    let last_row = below.area.height.saturating_sub(1);
    for ((phase, seconds), row) in phases.iter().zip(0..last_row) {
        let share = if total > 0.0 { seconds / total } else { 0.0 };
        let spans = vec![
            Span::styled(theme.bar(share, 10), theme.role(Role::Accent)),
            Span::styled(format!(" {:>7.1} %", share * 100.0), theme.strong()),
        ];
        below.figure(row, &fitted(phase, 15, theme), spans);
    }
}

fn warnings(pane: Pane) {
    let (theme, state) = (pane.theme, pane.state);
    let style = theme.role(Role::Warning);
    let remark = match state.warnings {
        0 => Span::styled("none", theme.muted()),
        count => Span::styled(format::count(count), style),
    };
    let mut below = pane.panel("Warnings", [remark]);
    let mut row = 0;
    if state.unreadable_lines > 0 {
        let lines = format::count(state.unreadable_lines);
        let text = below.fitted(&format!("{lines} unreadable lines in the log"));
        below.put(row, &text, style);
        row += 1;
    }
    for entry in state.newest_warnings() {
        if row >= below.area.height {
            break;
        }
        let step = entry.step.map(|step| format::count(step) + " ");
        let text = entry.text();
        let text = text.strip_prefix("warning: ").unwrap_or(&text);
        let text = step.unwrap_or_default() + text;
        // Two lines a warning; the log has the rest.
        for line in two_lines(&text, usize::from(below.area.width)) {
            let line = below.fitted(&line);
            below.put(row, &line, style);
            row += 1;
        }
    }
}

/// `text` broken at spaces into at most two lines, the last of which may be too long.
fn two_lines(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let (first, last) = (lines.len() == 1, lines.len() - 1);
        let line = &mut lines[last];
        let fits = Line::from(line.as_str()).width() + 1 + Line::from(word).width() <= width;
        if line.is_empty() {
            line.push_str(word);
        } else if fits || !first {
            *line += " ";
            *line += word;
        } else {
            lines.push(format!("  {word}"));
        }
    }
    lines
}

/// All figures in rows of columns, for narrow screens; the newest warning last.
fn compact_figures(pane: Pane) {
    let (theme, state, width) = (pane.theme, pane.state, pane.area.width);
    let mut below = pane.panel("Now", []);
    let steps = state.last_step.as_ref().map_or(Vec::new(), step_figures);
    let machine = machine_figures(state).into_iter();
    let machine = machine.map(|(figure, _)| figure);
    let figures = steps.into_iter().chain(machine);
    let mut figures: Vec<(String, String)> = figures
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let newest = state.evaluations.last();
    if let Some(metrics) = newest.and_then(|newest| newest.slices.get("all")) {
        let found = main_metric(metrics);
        figures.extend(
            found.map(|(name, value)| (format::metric_title(name), format::percent(value))),
        );
    }
    if figures.is_empty() {
        below.put(0, "  no steps yet", theme.muted());
    }
    let warning = state.newest_warnings().next();
    let last_row = below.area.height - 1;
    let rows = last_row + u16::from(warning.is_none());
    let columns = if width >= 80 { 3 } else { 2 };
    let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    for ((name, value), (row, column)) in figures.into_iter().zip(places) {
        let mut place = below.cut(column * (width / columns), width / columns - 2);
        place.put(row, &name, theme.muted());
        place.put_right(row, Span::styled(value, theme.strong()));
    }
    if let Some(entry) = warning {
        let text = below.fitted(&entry.text());
        below.put(last_row, &text, theme.role(Role::Warning));
    }
}
