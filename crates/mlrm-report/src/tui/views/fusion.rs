//! The gate between text and picture, the temperature, and the geometry of the embeddings.

use mlrm_events::{Evaluation, GATE_BINS, GateHistogram};
use ratatui::layout::Constraint;
use ratatui::text::Span;

use super::{Page, largest, series_panel};
use crate::axis::Scale;
use crate::format;
use crate::tui::app::App;
use crate::tui::chrome::Hint;
use crate::tui::pane::{Pane, columns, rows};
use crate::tui::theme::Role;
use crate::tui::widgets::{Plot, PlotLine};

pub(super) struct Fusion;

impl Page for Fusion {
    fn keys(&self, app: &App) -> Vec<Hint> {
        app.plot_hints()
    }

    fn draw(&self, mut pane: Pane) {
        let (area, halves) = (pane.area, [Constraint::Fill(1); 2]);
        if area.height < 14 {
            let [left, right] = columns(area, halves);
            histogram(pane.within(left));
            let [top, bottom] = rows(right, halves);
            gate_mean(pane.within(top));
            temperature(pane.within(bottom));
            return;
        }
        let [top, bottom] = rows(area, halves);
        let [left, right] = columns(top, halves);
        histogram(pane.within(left));
        gate_over_training(pane.within(right));
        if area.width >= 100 {
            let [left, middle, right] = columns(bottom, [Constraint::Fill(1); 3]);
            gate_mean(pane.within(left));
            temperature(pane.within(middle));
            geometry(pane.within(right));
        } else {
            let [left, right] = columns(bottom, halves);
            temperature(pane.within(left));
            geometry(pane.within(right));
        }
    }
}

fn temperature(pane: Pane) {
    let (series, scale) = (&pane.state.train.temperature, pane.scale());
    series_panel(pane, "Temperature", series, Role::Plain, scale);
}

fn gate_mean(pane: Pane) {
    let series = &pane.state.train.gate_mean;
    series_panel(pane, "Mean gate", series, Role::Full, Scale::Linear);
}

/// Shares of the bins.
fn shares(gate: &GateHistogram) -> [f64; GATE_BINS] {
    let total = gate.counts.iter().sum::<u64>().max(1) as f64;
    gate.counts.map(|count| count as f64 / total)
}

/// The newest gate values: 0 takes the picture, 1 the language model's state.
fn histogram(pane: Pane) {
    let theme = pane.theme;
    let newest = pane.state.gates.last();
    let step = newest.map(|gate| pane.step_remark(gate.step));
    let mut below = pane.panel("Gate values", step);
    let Some(newest) = newest else {
        below.put(1, "  no gate values yet", theme.muted());
        below.put(2, "  (a model without gate has none)", theme.muted());
        return;
    };
    if below.area.height < 3 {
        return;
    }
    let shares = shares(newest);
    let largest = largest(shares.iter());
    let rows = below.area.height - 1;
    let width = usize::from(below.area.width);
    let left = |bin: usize| (bin * width).div_ceil(GATE_BINS) as u16;
    let [visual, text] = [Role::Visual, Role::Text].map(|role| theme.role(role));
    for (bin, share) in shares.iter().enumerate() {
        let bar = left(bin + 1) - left(bin);
        let style = if bin < GATE_BINS / 2 { visual } else { text };
        let height = share / largest * f64::from(rows);
        // A gap between bars where they are wide enough for one.
        let wide = usize::from(if bar > 2 { bar - 1 } else { bar });
        for row in 0..rows {
            let cells = theme.column(height, usize::from(row)).repeat(wide);
            below.cut(left(bin), bar).put(rows - 1 - row, &cells, style);
        }
    }
    below.put(rows, "0 picture", visual);
    below.put_right(rows, Span::styled("text 1", text));
}

/// The histograms side by side: one column a probe, the gate's bins upwards.
fn gate_over_training(pane: Pane) {
    let (theme, state) = (pane.theme, pane.state);
    let remark = state.train.gate_mean.last().into_iter().flat_map(|mean| {
        let value = Span::styled(format::number(mean), theme.strong());
        [Span::styled("mean ", theme.muted()), value]
    });
    let mut below = pane.panel("Gate over training", remark);
    let gates: Vec<&GateHistogram> = state.gates.iter().collect();
    let ends = gates.first().zip(gates.last());
    let Some((first, last)) = ends.filter(|_| below.area.height >= 3) else {
        below.put(1, "  no gate values yet", theme.muted());
        return;
    };
    let labels = 5;
    let rows = below.area.height - 1;
    below.put(0, "text", theme.role(Role::Text));
    below.put(rows - 1, "pic.", theme.role(Role::Visual));
    let width = below.area.width - labels;
    let mut field = below.cut(labels, width);
    for column in 0..width {
        let probe = gates[usize::from(column) * gates.len() / usize::from(width)];
        let shares = shares(probe);
        let largest = largest(shares.iter());
        for row in 0..rows {
            let bin = usize::from(rows - 1 - row) * GATE_BINS / usize::from(rows);
            field.fill(column, row, theme.heat(shares[bin] / largest));
        }
    }
    let [first, last] = [first, last].map(|gate| format::count(gate.step));
    field.put(rows, &first, theme.muted());
    field.put_right(rows, Span::styled(last, theme.muted()));
}

/// Uniformity and alignment (Wang and Isola 2020): both fall while the embeddings get better.
fn geometry(pane: Pane) {
    let (theme, evaluations) = (pane.theme, &pane.state.evaluations);
    let points = |value: fn(&Evaluation) -> Option<f64>| {
        let evaluations = evaluations.iter();
        evaluations.filter_map(move |one| Some((one.step as f64, value(one)?)))
    };
    let uniformity = PlotLine::new(Role::Full, points(|one| one.uniformity));
    let alignment = PlotLine::new(Role::Visual, points(|one| one.alignment)).dashed();
    let mut plot = Plot::new(pane.step_range(), vec![uniformity, alignment]);
    plot.empty = "measured with retrieval";
    let newest = evaluations.last();
    let figures = [
        ("uniformity", newest.and_then(|one| one.uniformity)),
        ("alignment", newest.and_then(|one| one.alignment)),
    ];
    let mut legend = Vec::new();
    for (line, (name, value)) in plot.lines.iter().zip(figures) {
        legend.push(line.sample(theme));
        let value = value.map_or(String::new(), |value| format!(" {value:.2}"));
        legend.push(Span::styled(format!(" {name}{value} "), theme.muted()));
    }
    let title = if pane.area.width >= 50 {
        "Embeddings"
    } else {
        ""
    };
    plot.render(pane.panel(title, legend));
}
