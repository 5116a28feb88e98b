//! What the layers look at, and the gate between text and picture.

use std::fmt::Write;

use mlrm_events::{GATE_BINS, GateHistogram, ModalityShares};

use super::chart::{Chart, ChartLine};
use crate::color::cividis;
use crate::format;
use crate::markup::escaped;
use crate::run::Run;
use crate::state::normalised;

const MODALITIES: [(&str, &str, &str); 3] = [
    ("visual", "var(--visual)", ""),
    ("text", "var(--text)", "7 3"),
    ("other", "var(--other)", "2 3"),
];

pub(super) fn section(runs: &[Run], html: &mut String) {
    let shown =
        |run: &&Run| run.state.saliency.last().is_some() || run.state.gates.last().is_some();
    if !runs.iter().any(|run| shown(&run)) {
        return;
    }
    html.push_str("<section>\n<h2>What the model looks at</h2>\n");
    for run in runs.iter().filter(shown) {
        if runs.len() > 1 {
            let _ = writeln!(html, "<h3>{}</h3>", escaped(&run.name));
        }
        html.push_str("<div class=\"grid\">\n");
        if let Some(newest) = run.state.saliency.last() {
            let layers: Vec<ModalityShares> =
                newest.layers.iter().copied().map(normalised).collect();
            let caption = format!(
                "Saliency by layer at step {} ({}), percent of each layer",
                format::count(newest.step),
                newest.formula
            );
            heat_map(&caption, &layers, html);
            let numbers = (1..).map(f64::from);
            let over_layers = numbers.zip(layers.iter().copied());
            shares_chart("Saliency over the layers", "layer", over_layers, html);
            let probes = &run.state.saliency;
            if probes.len() > 1 {
                let last = probes.iter().filter_map(|probe| {
                    Some((probe.step as f64, normalised(*probe.layers.last()?)))
                });
                shares_chart("The last layer over training", "step", last, html);
            }
        }
        if let Some(gate) = run.state.gates.last() {
            histogram(gate, html);
        }
        html.push_str("</div>\n");
    }
    html.push_str("</section>\n");
}

fn heat_map(caption: &str, layers: &[ModalityShares], html: &mut String) {
    if layers.is_empty() {
        return;
    }
    let (left, row, width) = (52.0, 34.0, 1100.0);
    let cell = (width - left) / layers.len() as f64;
    let largest = layers.iter().flatten().copied().fold(1e-12, f64::max);
    let height = 3.0 * row + 20.0;
    let _ = write!(
        html,
        "<figure class=\"wide\">\n<figcaption>{0}</figcaption>\n\
         <svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{0}\">\n",
        escaped(caption)
    );
    for (modality, (name, _, _)) in MODALITIES.into_iter().enumerate() {
        let y = modality as f64 * row;
        let _ = writeln!(
            html,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            left - 8.0,
            y + row / 2.0 + 4.0
        );
        for (layer, shares) in layers.iter().enumerate() {
            let share = shares[modality];
            let (red, green, blue) = cividis(share / largest);
            let x = left + layer as f64 * cell;
            let percent = share * 100.0;
            let _ = write!(
                html,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
                 fill=\"rgb({red},{green},{blue})\"><title>layer {}, {name}: {percent:.1} %</title></rect>",
                cell - 1.0,
                row - 1.0,
                layer + 1
            );
            if cell >= 26.0 {
                let ink = if share / largest > 0.5 {
                    "#000"
                } else {
                    "#fff"
                };
                let _ = write!(
                    html,
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" style=\"fill:{ink}\">{percent:.0}</text>",
                    x + cell / 2.0,
                    y + row / 2.0 + 4.0
                );
            }
            html.push('\n');
        }
    }
    for layer in layer_labels(layers.len(), cell) {
        let x = left + (layer as f64 + 0.5) * cell;
        let _ = writeln!(
            html,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            3.0 * row + 14.0,
            layer + 1
        );
    }
    html.push_str("</svg>\n</figure>\n");
}

/// As many layer numbers as have room.
fn layer_labels(layers: usize, cell: f64) -> impl Iterator<Item = usize> {
    (0..layers).step_by((22.0 / cell).ceil().max(1.0) as usize)
}

/// The three shares over `x_title`: a point for each of `points`.
fn shares_chart(
    title: &str,
    x_title: &'static str,
    points: impl Iterator<Item = (f64, ModalityShares)> + Clone,
    html: &mut String,
) {
    let modalities = MODALITIES.into_iter().enumerate();
    let lines = modalities.map(|(modality, (name, color, dash))| {
        let points = points.clone().map(|(x, shares)| (x, shares[modality]));
        ChartLine::new(name, color, dash, points)
    });
    let chart = Chart {
        title: title.into(),
        lines: lines.collect(),
        percent: true,
        from_zero: true,
        x_title,
        ..Chart::default()
    };
    chart.write(html);
}

fn histogram(gate: &GateHistogram, html: &mut String) {
    let (width, height, left, bottom) = (400.0, 200.0, 6.0, 20.0);
    let largest = gate.counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let bar = (width - 2.0 * left) / GATE_BINS as f64;
    let caption = format!("Gate values at step {}", format::count(gate.step));
    let _ = write!(
        html,
        "<figure>\n<figcaption>{caption}</figcaption>\n\
         <svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{caption}\">\n"
    );
    for (bin, count) in gate.counts.iter().enumerate() {
        let tall = *count as f64 / largest * (height - bottom - 8.0);
        let color = if bin < GATE_BINS / 2 {
            "var(--visual)"
        } else {
            "var(--text)"
        };
        let (low, high) = (
            bin as f64 / GATE_BINS as f64,
            (bin + 1) as f64 / GATE_BINS as f64,
        );
        let _ = writeln!(
            html,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"{color}\">\
             <title>{low:.2} to {high:.2}: {}</title></rect>",
            left + bin as f64 * bar,
            height - bottom - tall,
            bar - 2.0,
            format::count(*count)
        );
    }
    let y = height - 5.0;
    let _ = writeln!(
        html,
        "<text x=\"{left}\" y=\"{y}\">0 picture</text>\
         <text x=\"{:.1}\" y=\"{y}\" text-anchor=\"end\">1 text</text>\n</svg>\n</figure>",
        width - left
    );
}
