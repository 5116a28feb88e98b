//! What the language model looks at: saliency (method §4) over layers and over training.

use mlrm_events::ModalityShares;
use ratatui::layout::Constraint;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use super::{Page, largest, percent_label};
use crate::format;
use crate::state::{RunState, normalised};
use crate::tui::app::App;
use crate::tui::chrome::{Hint, hint};
use crate::tui::input::wrapped;
use crate::tui::pane::{Pane, rows};
use crate::tui::theme::{Role, Theme};
use crate::tui::widgets::{Plot, PlotLine};

/// The three kinds of positions in the order of the events.
const MODALITIES: [(&str, Role); 3] = [
    ("visual", Role::Visual),
    ("text", Role::Text),
    ("other", Role::Other),
];

/// Width of the labels left of the heat map and of the plot below, so that their layers align.
const GUTTER: u16 = 8;

pub(super) struct Attention;

impl Page for Attention {
    fn keys(&self, app: &App) -> Vec<Hint> {
        let other = match app.mass {
            true => "saliency",
            false => "attention mass",
        };
        vec![hint("a", other), hint("[ ]", "layer"), app.zoom_hint()]
    }

    fn choose(&self, app: &mut App, state: &RunState, by: i64) {
        let count = probes(app, state).last().map_or(0, |one| one.layers.len());
        let now = app.layer.unwrap_or(count.saturating_sub(1));
        app.layer = Some(wrapped(now, by, count));
    }

    fn draw(&self, mut pane: Pane) {
        let probes = probes(pane.app, pane.state);
        let Some(newest) = probes.last().filter(|probe| !probe.layers.is_empty()) else {
            empty(pane);
            return;
        };
        let area = pane.area;
        let heat_row = match area.height {
            0..=23 => 1,
            24..=29 => 2,
            _ => 3,
        };
        let history_rows = match area.height >= 16 {
            true => (area.height / 3).max(7),
            false => 0,
        };
        let sizes = [
            Constraint::Length(2 + 3 * heat_row),
            Constraint::Min(0),
            Constraint::Length(history_rows),
        ];
        let [heat, lines, history] = rows(area, sizes);
        heat_map(pane.within(heat), newest, heat_row);
        over_layers(pane.within(lines), newest);
        if history_rows > 0 {
            over_training(pane.within(history), &probes);
        }
    }
}

/// A probe: its step and its layers' shares, which sum to 1.
struct Probe {
    step: u64,
    layers: Vec<ModalityShares>,
}

impl Probe {
    fn new(step: u64, layers: &[ModalityShares]) -> Self {
        let layers = layers.iter().copied().map(normalised).collect();
        Self { step, layers }
    }

    fn largest(&self) -> f64 {
        largest(self.layers.iter().flatten())
    }
}

fn probes(app: &App, state: &RunState) -> Vec<Probe> {
    if app.mass {
        let probes = state.attention_mass.iter();
        probes
            .map(|one| Probe::new(one.step, &one.layers))
            .collect()
    } else {
        let probes = state.saliency.iter();
        probes
            .map(|one| Probe::new(one.step, &one.layers))
            .collect()
    }
}

fn title(app: &App) -> &'static str {
    match app.mass {
        true => "Attention mass by layer",
        false => "Saliency by layer",
    }
}

fn remarks(pane: &Pane, newest: &Probe) -> Vec<Span<'static>> {
    let (theme, state) = (pane.theme, pane.state);
    let step = format!("step {}", format::count(newest.step));
    let mut spans = vec![Span::styled(step, Style::new())];
    if pane.app.mass {
        return spans;
    }
    if let Some(probe) = state.saliency.last() {
        let text = format!(" {} {}", theme.dot(), probe.formula);
        spans.push(Span::styled(text, theme.muted()));
    }
    if let Some(share) = state.probe_share() {
        let percent = share * 100.0;
        let text = format!(" {} probes took {percent:.1} % of the time", theme.dot());
        spans.push(Span::styled(text, theme.muted()));
    }
    spans
}

fn empty(pane: Pane) {
    let (app, state, muted) = (pane.app, pane.state, pane.theme.muted());
    let other = match app.mass {
        true => !state.saliency.is_empty(),
        false => !state.attention_mass.is_empty(),
    };
    let lines: &[&str] = match (app.mass, other) {
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
    let mut below = pane.panel(title(app), []);
    for (line, row) in lines.iter().zip(1..) {
        below.put(row, &format!("  {line}"), muted);
    }
}

/// First and one past the last column of a layer.
fn columns(layer: usize, layers: usize, width: u16) -> (u16, u16) {
    let at = |index: usize| (index * usize::from(width)).div_ceil(layers) as u16;
    (at(layer), at(layer + 1))
}

fn heat_map(pane: Pane, probe: &Probe, heat_row: u16) {
    let remarks = remarks(&pane, probe);
    let (theme, title) = (pane.theme, title(pane.app));
    let mut below = pane.panel(title, remarks);
    let (layers, largest) = (probe.layers.len(), probe.largest());
    let width = below.area.width.saturating_sub(GUTTER);
    for (modality, (name, role)) in MODALITIES.into_iter().enumerate() {
        let top = modality as u16 * heat_row;
        let middle = top + heat_row / 2;
        let name = format!("{name:>7}");
        below.cut(0, GUTTER).put(middle, &name, theme.role(role));
        let mut field = below.cut(GUTTER, width);
        for column in 0..width {
            // More layers than columns: a column shows the mean of its layers.
            let first = usize::from(column) * layers / usize::from(width);
            let past = ((usize::from(column) + 1) * layers).div_ceil(usize::from(width));
            let past = match layers > usize::from(width) {
                true => past.clamp(first + 1, layers),
                false => first + 1,
            };
            let shown = &probe.layers[first..past];
            let share = shown.iter().map(|layer| layer[modality]).sum::<f64>() / shown.len() as f64;
            for row in top..(top + heat_row).min(field.area.height) {
                field.fill(column, row, theme.heat(share / largest));
            }
        }
        for (layer, shares) in probe.layers.iter().enumerate() {
            let (start, end) = columns(layer, layers, width);
            let place = field.cut(start, end - start);
            let colour = theme.heat(shares[modality] / largest);
            number(place, middle, shares[modality], colour);
        }
    }
}

/// The share in percent, centred in its layer's columns where they are wide enough.
fn number(mut place: Pane, row: u16, share: f64, (style, symbol): (Style, &str)) {
    let width = place.area.width;
    if width < 4 || row >= place.area.height {
        return;
    }
    // Where shades stand for colours, the number needs blanks around it.
    let text = match symbol != " " || style.bg.is_none() {
        true => format!(" {:.0} ", share * 100.0),
        false => format!("{:.0}", share * 100.0),
    };
    let used = width.min(text.len() as u16);
    let start = (width - used).div_ceil(2);
    place.cut(start, used).put(row, &text, style);
}

/// S_v, S_t and S_o over the layers, like the paper's figure.
fn over_layers(pane: Pane, probe: &Probe) {
    let last = probe.layers.len() as f64 + 0.5;
    let plot = share_plot((0.5, last), probe.largest(), |modality| {
        let layers = probe.layers.iter().zip(1..);
        let points = layers.map(|(shares, layer)| (f64::from(layer), shares[modality]));
        points.collect()
    });
    let legend = legend(pane.theme, &plot);
    plot.render(pane.panel("Over the layers", legend));
}

/// One line a modality, told apart without colour too.
fn share_plot(
    x: (f64, f64),
    largest: f64,
    values: impl Fn(usize) -> Vec<(f64, f64)>,
) -> Plot<'static> {
    let line = |modality: usize| PlotLine::new(MODALITIES[modality].1, values(modality));
    let mut plot = Plot::new(x, vec![line(0), line(1).dashed(), line(2).dotted()]);
    plot.y = Some((0.0, 1.08 * largest));
    plot.y_label = percent_label;
    plot.gutter = Some(GUTTER);
    plot
}

fn legend(theme: &Theme, plot: &Plot) -> Vec<Span<'static>> {
    let lines = plot.lines.iter().zip(MODALITIES);
    let named = lines.flat_map(|(line, (name, _))| {
        let name = Span::styled(format!(" {name}  "), theme.muted());
        [line.sample(theme), name]
    });
    named.collect()
}

/// How one layer's shares moved over training.
fn over_training(pane: Pane, probes: &[Probe]) {
    let layers = probes.last().map_or(0, |probe| probe.layers.len());
    let layer = pane.app.layer.unwrap_or(usize::MAX);
    let layer = layer.min(layers.saturating_sub(1));
    let largest = largest(
        probes
            .iter()
            .flat_map(|probe| probe.layers.iter().flatten()),
    );
    let plot = share_plot(pane.step_range(), largest, |modality| {
        let shares = |probe: &Probe| Some((probe.step as f64, probe.layers.get(layer)?[modality]));
        probes.iter().filter_map(shares).collect()
    });
    let title = format!("Layer {} of {layers} over training", layer + 1);
    let italic = pane.theme.muted().add_modifier(Modifier::ITALIC);
    let keys = Span::styled("[ ] another layer", italic);
    plot.render(pane.panel(&title, [keys]));
}
