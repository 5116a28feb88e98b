//! What the language model looks at: saliency (method §4) over layers and over training.

use mlrm_events::ModalityShares;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use super::percent_label;
use crate::format;
use crate::state::normalised;
use crate::tui::app::Screen;
use crate::tui::theme::Role;
use crate::tui::widgets::{Plot, PlotLine, panel, put, sections};

/// The three kinds of positions in the order of the events.
const MODALITIES: [(&str, Role); 3] = [
    ("visual", Role::Visual),
    ("text", Role::Text),
    ("other", Role::Other),
];

/// Width of the labels left of the heat map and of the plot below, so that their layers align.
const GUTTER: u16 = 8;

/// A probe: its step and its layers' shares, which sum to 1.
struct Probe {
    step: u64,
    layers: Vec<ModalityShares>,
}

pub(in crate::tui) fn draw(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let probes = probes(screen);
    let Some(newest) = probes.last().filter(|probe| !probe.layers.is_empty()) else {
        empty(screen, area, buffer);
        return;
    };
    let heat_row = match area.height {
        0..=23 => 1,
        24..=29 => 2,
        _ => 3,
    };
    let history_rows = if area.height >= 16 {
        (area.height / 3).max(7)
    } else {
        0
    };
    let sizes = [
        Constraint::Length(2 + 3 * heat_row),
        Constraint::Min(0),
        Constraint::Length(history_rows),
    ];
    let [heat, lines, history] = sections(area, false, sizes);
    let below = panel(
        buffer,
        heat,
        screen.theme,
        title(screen),
        remarks(screen, newest),
    );
    heat_map(screen, newest, below, heat_row, buffer);
    over_layers(screen, newest, lines, buffer);
    if history_rows > 0 {
        over_training(screen, &probes, history, buffer);
    }
}

fn title(screen: &Screen) -> &'static str {
    if screen.app.mass {
        "Attention mass by layer"
    } else {
        "Saliency by layer"
    }
}

fn probes(screen: &Screen) -> Vec<Probe> {
    let shares = |layers: &[ModalityShares]| layers.iter().copied().map(normalised).collect();
    if screen.app.mass {
        let probes = screen.state.attention_mass.iter();
        probes
            .map(|probe| Probe {
                step: probe.step,
                layers: shares(&probe.layers),
            })
            .collect()
    } else {
        let probes = screen.state.saliency.iter();
        probes
            .map(|probe| Probe {
                step: probe.step,
                layers: shares(&probe.layers),
            })
            .collect()
    }
}

fn remarks(screen: &Screen, newest: &Probe) -> Vec<Span<'static>> {
    let theme = screen.theme;
    let mut spans = vec![Span::styled(
        format!("step {}", format::count(newest.step)),
        Style::new(),
    )];
    if !screen.app.mass {
        if let Some(probe) = screen.state.saliency.last() {
            let text = format!(" {} {}", theme.dot(), probe.formula);
            spans.push(Span::styled(text, theme.muted()));
        }
        if let Some(share) = screen.state.probe_share() {
            let text = format!(
                " {} probes took {:.1} % of the time",
                theme.dot(),
                share * 100.0
            );
            spans.push(Span::styled(text, theme.muted()));
        }
    }
    spans
}

fn empty(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let theme = screen.theme;
    let below = panel(buffer, area, theme, title(screen), Vec::new());
    let other = if screen.app.mass {
        !screen.state.saliency.is_empty()
    } else {
        !screen.state.attention_mass.is_empty()
    };
    let lines: &[&str] = match (screen.app.mass, other) {
        (_, true) => &["No such probe yet; press a for the other kind."],
        (false, false) => &[
            "No saliency probe yet.",
            "Every train.saliency_every_steps steps, on a fixed set of",
            "notes: how much picture, text and the rest weigh in each",
            "layer.",
        ],
        (true, false) => &[
            "No attention probe yet.",
            "It runs between two saliency probes, where their share of",
            "the run time (train.saliency_max_ratio) leaves room.",
        ],
    };
    for (row, line) in lines.iter().enumerate() {
        put(
            buffer,
            below,
            row as u16 + 1,
            &format!("  {line}"),
            theme.muted(),
        );
    }
}

/// The largest share of all: the top of colours and axes.
fn largest(probes: &[Probe]) -> f64 {
    let shares = probes
        .iter()
        .flat_map(|probe| probe.layers.iter().flatten());
    shares.copied().fold(1e-12, f64::max)
}

/// First and one past the last column of a layer.
fn columns(layer: usize, layers: usize, width: u16) -> (u16, u16) {
    let at = |index: usize| (index * usize::from(width)).div_ceil(layers) as u16;
    (at(layer), at(layer + 1))
}

fn heat_map(screen: &Screen, probe: &Probe, area: Rect, heat_row: u16, buffer: &mut Buffer) {
    let theme = screen.theme;
    let layers = probe.layers.len();
    let largest = largest(std::slice::from_ref(probe));
    let field = Rect {
        x: area.x + GUTTER,
        width: area.width.saturating_sub(GUTTER),
        ..area
    };
    for (modality, (name, role)) in MODALITIES.into_iter().enumerate() {
        let top = modality as u16 * heat_row;
        let middle = top + heat_row / 2;
        put(
            buffer,
            Rect {
                width: GUTTER,
                ..area
            },
            middle,
            &format!("{name:>7}"),
            theme.role(role),
        );
        for column in 0..field.width {
            // More layers than columns: a column shows the mean of its layers.
            let first = usize::from(column) * layers / usize::from(field.width);
            let past = ((usize::from(column) + 1) * layers).div_ceil(usize::from(field.width));
            let span = &probe.layers[first..past.clamp(first + 1, layers)];
            let shown = if layers > usize::from(field.width) {
                span
            } else {
                &span[..1]
            };
            let share = shown.iter().map(|layer| layer[modality]).sum::<f64>() / shown.len() as f64;
            let (style, symbol) = theme.heat(share / largest);
            for row in top..(top + heat_row).min(area.height) {
                if let Some(cell) = buffer.cell_mut((field.x + column, field.y + row)) {
                    cell.set_symbol(symbol).set_style(style);
                }
            }
        }
        for (layer, shares) in probe.layers.iter().enumerate() {
            let (start, end) = columns(layer, layers, field.width);
            let (style, symbol) = theme.heat(shares[modality] / largest);
            let blanks = symbol != " " || style.bg.is_none();
            number(
                shares[modality],
                (style, blanks),
                field,
                (start, end),
                middle,
                buffer,
            );
        }
    }
}

/// The share in percent, centred in its layer's columns where they are wide enough.
fn number(
    share: f64,
    (style, blanks): (Style, bool),
    field: Rect,
    (start, end): (u16, u16),
    row: u16,
    buffer: &mut Buffer,
) {
    let width = end - start;
    if width < 4 || row >= field.height {
        return;
    }
    // Where shades stand for colours, the number needs blanks around it.
    let text = if blanks {
        format!(" {:.0} ", share * 100.0)
    } else {
        format!("{:.0}", share * 100.0)
    };
    let start = field.x + start + (width - (text.len() as u16).min(width)).div_ceil(2);
    let place = Rect {
        x: start,
        width: width.min(text.len() as u16),
        ..field
    };
    put(buffer, place, row, &text, style);
}

/// S_v, S_t and S_o over the layers, like the paper's figure.
fn over_layers(screen: &Screen, probe: &Probe, area: Rect, buffer: &mut Buffer) {
    let theme = screen.theme;
    let half = 0.5;
    let mut plot = Plot::new(theme, (1.0 - half, probe.layers.len() as f64 + half));
    plot.y = Some((0.0, 1.08 * largest(std::slice::from_ref(probe))));
    plot.y_label = percent_label;
    plot.gutter = Some(GUTTER);
    plot.lines = modality_lines(|modality| {
        let layers = probe.layers.iter().enumerate();
        layers
            .map(|(layer, shares)| ((layer + 1) as f64, shares[modality]))
            .collect()
    });
    let below = panel(
        buffer,
        area,
        theme,
        "Over the layers",
        legend(screen, &plot),
    );
    plot.render(below, buffer);
}

/// One line a modality, told apart without colour too.
fn modality_lines(values: impl Fn(usize) -> Vec<(f64, f64)>) -> Vec<PlotLine> {
    let line = |modality: usize| PlotLine::new(MODALITIES[modality].1, values(modality));
    vec![line(0), line(1).dashed(), line(2).dotted()]
}

fn legend(screen: &Screen, plot: &Plot) -> Vec<Span<'static>> {
    let mut spans = Vec::new();
    for (line, (name, _)) in plot.lines.iter().zip(MODALITIES) {
        spans.push(line.sample(screen.theme));
        spans.push(Span::styled(format!(" {name}  "), screen.theme.muted()));
    }
    spans
}

/// How one layer's shares moved over training.
fn over_training(screen: &Screen, probes: &[Probe], area: Rect, buffer: &mut Buffer) {
    let theme = screen.theme;
    let layers = probes.last().map_or(0, |probe| probe.layers.len());
    let layer = screen
        .app
        .layer
        .unwrap_or(usize::MAX)
        .min(layers.saturating_sub(1));
    let mut plot = Plot::new(theme, screen.step_range());
    plot.y = Some((0.0, 1.08 * largest(probes)));
    plot.y_label = percent_label;
    plot.gutter = Some(GUTTER);
    plot.lines = modality_lines(|modality| {
        let shares = |probe: &Probe| {
            let layer = probe.layers.get(layer)?;
            Some((probe.step as f64, layer[modality]))
        };
        probes.iter().filter_map(shares).collect()
    });
    let title = format!("Layer {} of {layers} over training", layer + 1);
    let keys = Span::styled(
        "[ ] another layer",
        theme.muted().add_modifier(Modifier::ITALIC),
    );
    let below = panel(buffer, area, theme, &title, vec![keys]);
    plot.render(below, buffer);
}
