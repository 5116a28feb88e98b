//! The gate between text and picture, the temperature, and the geometry of the embeddings.

use mlrm_events::{GATE_BINS, GateHistogram};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};

use super::series_panel;
use crate::format;
use crate::tui::app::Screen;
use crate::tui::theme::Role;
use crate::tui::widgets::{Plot, PlotLine, Scale, panel, put, put_right, sections};

pub(in crate::tui) fn draw(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let halves = [Constraint::Fill(1), Constraint::Fill(1)];
    if area.height < 14 {
        let [left, right] = sections(area, true, halves);
        histogram(screen, left, buffer);
        let [top, bottom] = sections(right, false, halves);
        gate_mean(screen, top, buffer);
        temperature(screen, bottom, buffer);
        return;
    }
    let [top, bottom] = sections(area, false, halves);
    let [left, right] = sections(top, true, halves);
    histogram(screen, left, buffer);
    gate_over_training(screen, right, buffer);
    let thirds = [
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
    ];
    if area.width >= 100 {
        let [left, middle, right] = sections(bottom, true, thirds);
        gate_mean(screen, left, buffer);
        temperature(screen, middle, buffer);
        geometry(screen, right, buffer);
    } else {
        let [left, right] = sections(bottom, true, halves);
        temperature(screen, left, buffer);
        geometry(screen, right, buffer);
    }
}

fn temperature(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let series = (&screen.state.train.temperature, Role::Plain);
    series_panel(screen, area, buffer, "Temperature", series, screen.scale());
}

fn gate_mean(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let series = (&screen.state.train.gate_mean, Role::Full);
    series_panel(screen, area, buffer, "Mean gate", series, Scale::Linear);
}

/// Shares of the bins.
fn shares(gate: &GateHistogram) -> [f64; GATE_BINS] {
    let total = gate.counts.iter().sum::<u64>().max(1) as f64;
    gate.counts.map(|count| count as f64 / total)
}

/// The newest gate values: 0 takes the picture, 1 the language model's state.
fn histogram(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let theme = screen.theme;
    let Some(newest) = screen.state.gates.last() else {
        let below = panel(buffer, area, theme, "Gate values", Vec::new());
        put(buffer, below, 1, "  no gate values yet", theme.muted());
        put(
            buffer,
            below,
            2,
            "  (a model without gate has none)",
            theme.muted(),
        );
        return;
    };
    let step = Span::styled(
        format!("step {}", format::count(newest.step)),
        theme.muted(),
    );
    let below = panel(buffer, area, theme, "Gate values", vec![step]);
    if below.height < 3 {
        return;
    }
    let shares = shares(newest);
    let largest = shares.iter().copied().fold(0.0, f64::max).max(1e-12);
    let rows = below.height - 1;
    let left = |bin: usize| (bin * usize::from(below.width)).div_ceil(GATE_BINS) as u16;
    for (bin, share) in shares.iter().enumerate() {
        let bar = left(bin + 1) - left(bin);
        let style = theme.role(if bin < GATE_BINS / 2 {
            Role::Visual
        } else {
            Role::Text
        });
        let height = share / largest * f64::from(rows);
        for row in 0..rows {
            let symbol = theme.column(height, usize::from(row));
            // A gap between bars where they are wide enough for one.
            let text = symbol.repeat(usize::from(if bar > 2 { bar - 1 } else { bar }));
            let place = Rect {
                x: below.x + left(bin),
                width: bar,
                ..below
            };
            put(buffer, place, rows - 1 - row, &text, style);
        }
    }
    put(buffer, below, rows, "0 picture", theme.role(Role::Visual));
    put_right(
        buffer,
        below,
        rows,
        &Line::styled("text 1", theme.role(Role::Text)),
    );
}

/// The histograms side by side: one column a probe, the gate's bins upwards.
fn gate_over_training(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let theme = screen.theme;
    let remark = match screen.state.train.gate_mean.last() {
        Some(mean) => vec![
            Span::styled("mean ", theme.muted()),
            Span::styled(format::number(mean), theme.strong()),
        ],
        None => Vec::new(),
    };
    let below = panel(buffer, area, theme, "Gate over training", remark);
    let gates: Vec<&GateHistogram> = screen.state.gates.iter().collect();
    if gates.is_empty() || below.height < 3 {
        put(buffer, below, 1, "  no gate values yet", theme.muted());
        return;
    }
    let labels = 5;
    let rows = below.height - 1;
    let field = Rect {
        x: below.x + labels,
        width: below.width - labels,
        height: rows,
        ..below
    };
    put(buffer, below, 0, "text", theme.role(Role::Text));
    put(buffer, below, rows - 1, "pic.", theme.role(Role::Visual));
    for column in 0..field.width {
        let probe = gates[usize::from(column) * gates.len() / usize::from(field.width)];
        let shares = shares(probe);
        let largest = shares.iter().copied().fold(0.0, f64::max).max(1e-12);
        for row in 0..rows {
            let bin = usize::from(rows - 1 - row) * GATE_BINS / usize::from(rows);
            let (style, symbol) = theme.heat(shares[bin] / largest);
            if let Some(cell) = buffer.cell_mut((field.x + column, field.y + row)) {
                cell.set_symbol(symbol).set_style(style);
            }
        }
    }
    let ends = [gates.first(), gates.last()].map(|gate| gate.map_or(0, |gate| gate.step));
    let foot = Rect {
        height: below.height,
        ..field
    };
    let foot = Rect { y: below.y, ..foot };
    put(buffer, foot, rows, &format::count(ends[0]), theme.muted());
    put_right(
        buffer,
        foot,
        rows,
        &Line::styled(format::count(ends[1]), theme.muted()),
    );
}

/// Uniformity and alignment (Wang and Isola 2020): both fall while the embeddings get better.
fn geometry(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let theme = screen.theme;
    let evaluations = || screen.state.evaluations.iter();
    let points = |value: fn(&mlrm_events::Evaluation) -> Option<f64>| {
        evaluations().filter_map(move |one| Some((one.step as f64, value(one)?)))
    };
    let mut plot = Plot::new(theme, screen.step_range());
    plot.lines
        .push(PlotLine::new(Role::Full, points(|one| one.uniformity)));
    plot.lines
        .push(PlotLine::new(Role::Visual, points(|one| one.alignment)).dashed());
    plot.empty = "measured with retrieval";
    let newest = screen.state.evaluations.last();
    let figures = newest.map_or((None, None), |one| (one.uniformity, one.alignment));
    let mut legend = Vec::new();
    for (line, (name, value)) in plot
        .lines
        .iter()
        .zip([("uniformity", figures.0), ("alignment", figures.1)])
    {
        legend.push(line.sample(theme));
        let value = value.map_or(String::new(), |value| format!(" {value:.2}"));
        legend.push(Span::styled(format!(" {name}{value} "), theme.muted()));
    }
    let title = if area.width >= 50 { "Embeddings" } else { "" };
    let below = panel(buffer, area, theme, title, legend);
    plot.render(below, buffer);
}
