//! Loss with both parts, schedule, throughput, machine, last evaluation, warnings.

use mlrm_events::TrainStep;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::series_panel;
use crate::describe;
use crate::format;
use crate::state::{interval, metric_names};
use crate::tui::app::Screen;
use crate::tui::theme::Role;
use crate::tui::widgets::{
    Plot, PlotLine, Scale, fitted, panel, put, put_line, put_right, sections,
};

const SIDE_WIDTH: u16 = 36;

pub(in crate::tui) fn draw(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    if area.width >= 100 {
        let [main, side] = sections(
            area,
            true,
            [Constraint::Min(0), Constraint::Length(SIDE_WIDTH)],
        );
        charts(screen, main, buffer);
        side_column(screen, side, buffer);
        return;
    }
    let figures_rows = if area.height >= 16 { 6 } else { 4 };
    let [top, bottom] = sections(
        area,
        false,
        [Constraint::Min(0), Constraint::Length(figures_rows)],
    );
    charts(screen, top, buffer);
    compact_figures(screen, bottom, buffer);
}

fn charts(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    if area.height < 18 {
        loss(screen, area, buffer);
        return;
    }
    let small_rows = (area.height / 4).clamp(5, 10);
    let sizes = [
        Constraint::Min(0),
        Constraint::Length(small_rows),
        Constraint::Length(small_rows),
    ];
    let [top, middle, bottom] = sections(area, false, sizes);
    loss(screen, top, buffer);
    let halves = [Constraint::Fill(1), Constraint::Fill(1)];
    let train = &screen.state.train;
    let [left, right] = sections(middle, true, halves);
    let rate = (&train.learning_rate, Role::Plain);
    series_panel(screen, left, buffer, "Learning rate", rate, Scale::Linear);
    let temperature = (&train.temperature, Role::Plain);
    series_panel(
        screen,
        right,
        buffer,
        "Temperature",
        temperature,
        Scale::Linear,
    );
    let [left, right] = sections(bottom, true, halves);
    let norm = (&train.gradient_norm, Role::Plain);
    series_panel(screen, left, buffer, "Gradient norm", norm, screen.scale());
    let speed = (&train.notes_per_second, Role::Plain);
    series_panel(
        screen,
        right,
        buffer,
        "Notes per second",
        speed,
        Scale::Linear,
    );
}

fn loss(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let (theme, train) = (screen.theme, &screen.state.train);
    let smoothing = screen.smoothing();
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
        legend.push(line.sample(theme));
        legend.push(Span::styled(format!(" {name} "), theme.muted()));
        legend.push(Span::styled(
            last.map(format::number).unwrap_or_default(),
            theme.strong(),
        ));
        legend.push(Span::raw("  "));
    }
    legend.pop();
    let below = panel(buffer, area, theme, "Loss", legend);
    let mut plot = Plot::new(theme, screen.step_range());
    plot.y_scale = screen.scale();
    plot.empty = "no steps yet";
    plot.lines = lines.into_iter().map(|(_, line, _)| line).collect();
    plot.render(below, buffer);
}

/// Name and value of what a step measured.
fn step_figures(step: &TrainStep) -> Vec<(&'static str, String)> {
    let mut figures = vec![("loss", format::number(step.loss))];
    if let Some(visual) = step.loss_visual {
        figures.push(("multimodal", format::number(step.loss_multimodal)));
        figures.push(("visual", format::number(visual)));
    }
    figures.push(("learning rate", format::number(step.learning_rate)));
    if describe::is_known(step, step.temperature_logit) {
        let temperature = (-step.temperature_logit).exp();
        figures.push(("temperature", format::number(temperature)));
    }
    if let Some(gate) = step.gate_mean {
        figures.push(("mean gate", format::number(gate)));
    }
    if describe::is_known(step, step.gradient_norm) {
        figures.push(("gradient norm", format::number(step.gradient_norm)));
    }
    figures.push(("notes/s", format::number(step.notes_per_second)));
    figures
}

/// Figures of the machine: name, value, share of what there is.
fn machine_figures(screen: &Screen) -> Vec<(&'static str, String, Option<f64>)> {
    let Some(system) = &screen.state.system else {
        return Vec::new();
    };
    let host = system.host_memory_bytes as f64 / system.host_memory_total_bytes.max(1) as f64;
    let mut figures = vec![
        (
            "host memory",
            format::bytes(system.host_memory_bytes),
            Some(host),
        ),
        (
            "processor",
            format!("{:.0} %", system.host_cpu_percent),
            Some(system.host_cpu_percent / 100.0),
        ),
    ];
    if let Some(bytes) = system.device_memory_bytes {
        figures.push(("device memory", format::bytes(bytes), None));
    }
    if let Some(percent) = system.device_use_percent {
        figures.push((
            "device use",
            format!("{percent:.0} %"),
            Some(percent / 100.0),
        ));
    }
    figures
}

fn side_column(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let state = screen.state;
    let machine = machine_figures(screen);
    let phases = state.seconds_by_phase.len() as u16;
    let mut rest = area;
    let mut take = |rows: u16| {
        let rows = rows.min(rest.height);
        let taken = Rect {
            height: rows,
            ..rest
        };
        rest = Rect {
            y: rest.y + rows,
            height: rest.height - rows,
            ..rest
        };
        taken
    };
    // On a low screen evaluation and warnings come before the phases.
    let machine_rows = (machine.len().max(1) as u16) + 2;
    let phase_rows = if area.height >= 24 && phases > 0 {
        (phases + 2).min(9)
    } else {
        0
    };
    let metrics = metric_names(state.evaluations.last()).len() as u16;
    let probed = embedding_figures(screen);
    let probe_rows = match probed.is_empty() || area.height < 24 {
        true => 0,
        false => probed.len() as u16 + 2,
    };
    let room = area
        .height
        .saturating_sub(machine_rows + phase_rows + probe_rows + 4);
    evaluation(screen, take((metrics + 2).clamp(4, room.max(4))), buffer);
    embedding_panel(screen, &probed, take(probe_rows), buffer);
    machine_panel(screen, &machine, take(machine_rows), buffer);
    phase_panel(screen, take(phase_rows), buffer);
    warnings(screen, rest, buffer);
}

fn evaluation(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let (theme, state) = (screen.theme, screen.state);
    let remark = match state.evaluations.last() {
        Some(newest) => vec![Span::styled(
            format!(
                "{} {}",
                describe::split(newest.split),
                format::count(newest.step)
            ),
            theme.muted(),
        )],
        None => Vec::new(),
    };
    let area = panel(buffer, area, theme, "Retrieval", remark);
    let Some(newest) = state.evaluations.last() else {
        put(buffer, area, 0, "  not evaluated yet", theme.muted());
        return;
    };
    let Some(metrics) = newest.slices.get("all") else {
        return;
    };
    for (row, name) in metric_names([newest]).iter().enumerate() {
        let row = row as u16;
        if row + 1 >= area.height {
            break;
        }
        let Some(found) = interval(metrics, name) else {
            continue;
        };
        put(buffer, area, row, &format::metric_title(name), Style::new());
        let best = state
            .best_evaluation(name)
            .and_then(|best| best.slices.get("all")?.get(name).copied())
            .filter(|best| *best > found.value);
        let mut spans = vec![Span::styled(format::percent(found.value), theme.strong())];
        if let Some(best) = best {
            let text = format!("best {}  ", format::percent(best));
            spans.insert(0, Span::styled(text, theme.muted()));
        }
        put_right(buffer, area, row, &Line::from(spans));
    }
}

/// Name and value of what the newest look at the embeddings of the fixed batch found.
fn embedding_figures(screen: &Screen) -> Vec<(&'static str, String)> {
    let Some(probe) = &screen.state.last_probe else {
        return Vec::new();
    };
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

fn embedding_panel(
    screen: &Screen,
    figures: &[(&'static str, String)],
    area: Rect,
    buffer: &mut Buffer,
) {
    if area.height == 0 {
        return;
    }
    let theme = screen.theme;
    let step = screen.state.last_probe.as_ref().map(|probe| probe.step);
    let remark =
        step.map(|step| Span::styled(format!("step {}", format::count(step)), theme.muted()));
    let area = panel(
        buffer,
        area,
        theme,
        "Embeddings",
        remark.into_iter().collect(),
    );
    for (row, (name, value)) in figures.iter().enumerate() {
        put(buffer, area, row as u16, name, Style::new());
        let value = Line::styled(value.clone(), theme.strong());
        put_right(buffer, area, row as u16, &value);
    }
}

fn machine_panel(
    screen: &Screen,
    figures: &[(&'static str, String, Option<f64>)],
    area: Rect,
    buffer: &mut Buffer,
) {
    let theme = screen.theme;
    let device = screen
        .state
        .started
        .as_ref()
        .map(|(_, started)| started.device.clone());
    let width = usize::from(area.width).saturating_sub(12);
    let remark = device.map(|device| Span::styled(fitted(&device, width, theme), theme.muted()));
    let area = panel(buffer, area, theme, "Machine", remark.into_iter().collect());
    if figures.is_empty() {
        put(buffer, area, 0, "  no figures yet", theme.muted());
    }
    for (row, (name, value, share)) in figures.iter().enumerate() {
        let row = row as u16;
        put(buffer, area, row, name, Style::new());
        let mut spans = vec![Span::styled(format!("{value:>9}"), theme.strong())];
        if let Some(share) = share {
            // A busy processor is what one wants; full memory is not.
            let scarce = name.contains("memory") && *share > 0.92;
            let role = if scarce { Role::Warning } else { Role::Accent };
            let bar = Span::styled(theme.bar(*share, 10), theme.role(role));
            spans.splice(0..0, [bar, Span::raw(" ")]);
        }
        put_right(buffer, area, row, &Line::from(spans));
    }
}

fn phase_panel(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let theme = screen.theme;
    let total: f64 = screen.state.seconds_by_phase.values().sum();
    let area = panel(buffer, area, theme, "Time by phase", Vec::new());
    let rows = usize::from(area.height.saturating_sub(1));
    for (row, (phase, seconds)) in screen.state.seconds_by_phase.iter().take(rows).enumerate() {
        let share = if total > 0.0 { seconds / total } else { 0.0 };
        put(
            buffer,
            area,
            row as u16,
            &fitted(phase, 15, theme),
            Style::new(),
        );
        let line = Line::from(vec![
            Span::styled(theme.bar(share, 10), theme.role(Role::Accent)),
            Span::styled(format!(" {:>7.1} %", share * 100.0), theme.strong()),
        ]);
        put_right(buffer, area, row as u16, &line);
    }
}

fn warnings(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let (theme, state) = (screen.theme, screen.state);
    let count = format::count(state.warnings);
    let remark = match state.warnings {
        0 => Span::styled("none", theme.muted()),
        _ => Span::styled(count, theme.role(Role::Warning)),
    };
    let area = panel(buffer, area, theme, "Warnings", vec![remark]);
    let mut row = 0;
    if state.unreadable_lines > 0 {
        let lines = format::count(state.unreadable_lines);
        let text = format!("{lines} unreadable lines in the log");
        let text = fitted(&text, usize::from(area.width), theme);
        put(buffer, area, row, &text, theme.role(Role::Warning));
        row += 1;
    }
    for entry in state.newest_warnings() {
        if row >= area.height {
            break;
        }
        let step = entry
            .step
            .map_or(String::new(), |step| format!("{} ", format::count(step)));
        let text = entry.text();
        let text = text.strip_prefix("warning: ").unwrap_or(&text);
        // Two lines a warning; the log has the rest.
        for line in wrapped(&format!("{step}{text}"), usize::from(area.width), 2, screen) {
            put(buffer, area, row, &line, theme.role(Role::Warning));
            row += 1;
        }
    }
}

/// `text` broken at spaces into at most `limit` lines, the last one cut.
fn wrapped(text: &str, width: usize, limit: usize, screen: &Screen) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let fits = Line::from(lines[last].as_str()).width() + 1 + Line::from(word).width() <= width;
        if lines[last].is_empty() {
            lines[last].push_str(word);
        } else if fits || lines.len() == limit {
            lines[last].push(' ');
            lines[last].push_str(word);
        } else {
            lines.push(format!("  {word}"));
        }
    }
    lines
        .iter()
        .map(|line| fitted(line, width, screen.theme))
        .collect()
}

/// All figures in rows of columns, for narrow screens; the newest warning last.
fn compact_figures(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let (theme, state) = (screen.theme, screen.state);
    let below = panel(buffer, area, theme, "Now", Vec::new());
    let steps = state
        .last_step
        .as_ref()
        .map(step_figures)
        .into_iter()
        .flatten();
    let steps = steps.filter(|(name, _)| !["loss", "multimodal", "visual"].contains(name));
    let machine = machine_figures(screen).into_iter();
    let machine = machine.map(|(name, value, _)| (name, value));
    let mut figures: Vec<(String, String)> = steps
        .chain(machine)
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    if let Some(newest) = state.evaluations.last()
        && let Some(metrics) = newest.slices.get("all")
    {
        // Recall@10 is what runs are compared by; where it was not measured, what was.
        if let Some((name, value)) = metrics
            .get_key_value("recall@10")
            .or_else(|| metrics.first())
        {
            figures.push((format::metric_title(name), format::percent(*value)));
        }
    }
    if figures.is_empty() {
        put(buffer, below, 0, "  no steps yet", theme.muted());
    }
    let warning = state.newest_warnings().next();
    let rows = below.height - u16::from(warning.is_some());
    let columns = if area.width >= 80 { 3 } else { 2 };
    let width = area.width / columns;
    for (index, (name, value)) in figures.iter().enumerate() {
        let (row, column) = (index as u16 / columns, index as u16 % columns);
        if row >= rows {
            break;
        }
        let place = Rect {
            x: below.x + column * width,
            width: width - 2,
            ..below
        };
        put(buffer, place, row, name, theme.muted());
        put_right(
            buffer,
            place,
            row,
            &Line::styled(value.clone(), theme.strong()),
        );
    }
    if let Some(entry) = warning {
        let line = Line::styled(
            fitted(&entry.text(), usize::from(area.width), theme),
            theme.role(Role::Warning),
        );
        put_line(buffer, below, below.height - 1, &line);
    }
}
