//! Modality saliency over the layers as a picture, one panel a model (NoteLLM-2, figure 2; method §4).

use std::fmt::Write;

use mlrm_events::ModalityShares;

use crate::axis::{Axis, Scale, tick_labels};
use crate::markup::escaped;
use crate::state::normalised;
use crate::svg::{Field, percent as tick_percent, points};

/// One model's panel.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The model's name.
    pub name: String,
    /// A line below the name, such as the formula and the number of notes; may be empty.
    pub note: String,
    /// `[S_v, S_t, S_o]` of each layer, the first layer first; each layer is divided by its sum.
    pub layers: Vec<ModalityShares>,
}

/// A kind of positions: name, style class and symbol.
const MODALITIES: [(&str, &str, &str); 3] = [
    ("visual", "v", "S_v"),
    ("text", "t", "S_t"),
    ("other", "o", "S_o"),
];

/// Colours of Okabe and Ito, which colour-blind people tell apart, as dark (light) as they must be
/// for a contrast of 3 on their ground. Dashes and markers tell the lines apart without colour.
const STYLE: &str = "\
svg { color-scheme: light dark; }
text { font: 12px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; fill: #4a515c; }
.name { font-size: 15px; font-weight: 600; fill: #1b1e24; }
.ground { fill: #ffffff; }
.grid { stroke: #d9dde3; }
.axis { stroke: #7a828e; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.line.t { stroke-dasharray: 8 4; }
.line.o { stroke-dasharray: 1.5 4.5; }
.v { stroke: #b97f00; } .t { stroke: #0072b2; } .o { stroke: #a8507f; }
.mark { stroke-width: 1; }
.mark.v { fill: #b97f00; } .mark.t { fill: #0072b2; } .mark.o { fill: #a8507f; }
@media (prefers-color-scheme: dark) {
text { fill: #a7b0bc; }
.name { fill: #e2e5ea; }
.ground { fill: #14171c; }
.grid { stroke: #343a44; }
.axis { stroke: #8b94a1; }
.v { stroke: #e69f00; } .t { stroke: #56b4e9; } .o { stroke: #dd92bb; }
.mark.v { fill: #e69f00; } .mark.t { fill: #56b4e9; } .mark.o { fill: #dd92bb; }
}
";

/// Of a panel with its labels.
const PANEL: (f64, f64) = (380.0, 300.0);
const PANELS_A_ROW: usize = 3;
const LEGEND: f64 = 34.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 44.0;
/// More layers than this make markers touch.
const MOST_MARKED_LAYERS: usize = 40;

/// The shares of `curves` over their layers as an SVG document, the panels side by side with one
/// scale.
///
/// The picture needs nothing beside it, follows the reader's light or dark scheme, and says in
/// words what it shows.
pub fn svg(curves: &[Curve]) -> String {
    let panels: Vec<Panel> = curves.iter().map(Panel::new).collect();
    let columns = panels.len().clamp(1, PANELS_A_ROW);
    let rows = panels.len().div_ceil(columns).max(1);
    let (width, height) = (columns as f64 * PANEL.0, LEGEND + rows as f64 * PANEL.1);
    let mut svg = String::with_capacity(1 << 14);
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\" aria-labelledby=\"title desc\">\n\
         <title id=\"title\">Modality saliency over the layers</title>\n\
         <desc id=\"desc\">{}</desc>\n<style>\n{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>\n",
        escaped(&in_words(&panels))
    );
    legend(&mut svg);
    let largest = panels
        .iter()
        .flat_map(|panel| panel.layers.iter().flatten())
        .fold(0.0_f64, |largest, share| largest.max(*share));
    let top = if largest > 0.0 { 1.06 * largest } else { 1.0 };
    for (index, panel) in panels.iter().enumerate() {
        let (row, column) = (index / columns, index % columns);
        let _ = writeln!(
            svg,
            "<g transform=\"translate({} {})\">",
            column as f64 * PANEL.0,
            LEGEND + row as f64 * PANEL.1
        );
        panel.write(top, &mut svg);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

/// One model, its layers divided by their sums.
struct Panel<'a> {
    curve: &'a Curve,
    layers: Vec<ModalityShares>,
}

impl<'a> Panel<'a> {
    fn new(curve: &'a Curve) -> Self {
        let layers = curve.layers.iter().copied().map(normalised).collect();
        Self { curve, layers }
    }

    /// The panel's plot, its y axis up to the share `top`.
    fn field(&self, top: f64) -> Field {
        // A single layer stands in the middle.
        let half = if self.layers.len() < 2 { 0.5 } else { 0.0 };
        let axis = |low, high| Axis {
            low,
            high,
            scale: Scale::Linear,
        };
        Field {
            x: axis(1.0 - half, self.layers.len().max(1) as f64 + half),
            y: axis(0.0, top),
            // Half a marker of air, so that the first one does not cover the labels.
            across: (LEFT + 6.0, PANEL.0 - RIGHT - 6.0),
            down: (TOP, PANEL.1 - BOTTOM),
        }
    }

    fn write(&self, top: f64, svg: &mut String) {
        let _ = writeln!(
            svg,
            "<text class=\"name\" x=\"{LEFT}\" y=\"18\">{}</text>\
             <text x=\"{LEFT}\" y=\"35\">{}</text>",
            escaped(&self.curve.name),
            escaped(&self.curve.note)
        );
        let field = self.field(top);
        axes(&field, svg);
        for modality in 0..MODALITIES.len() {
            self.line(modality, &field, svg);
        }
    }

    fn line(&self, modality: usize, field: &Field, svg: &mut String) {
        let (name, class, _) = MODALITIES[modality];
        let shares = || self.layers.iter().map(|shares| shares[modality]).zip(1..);
        let places = field.places(shares().map(|(share, layer)| (f64::from(layer), share)));
        let _ = writeln!(
            svg,
            "<polyline class=\"line {class}\" points=\"{}\"/>",
            points(&places)
        );
        if places.len() > MOST_MARKED_LAYERS {
            return;
        }
        for ((share, layer), (x, y)) in shares().zip(places) {
            let _ = writeln!(
                svg,
                "<g><title>layer {layer}: {name} {}</title>{}</g>",
                percent(share),
                marker(modality, x, y)
            );
        }
    }
}

fn axes(field: &Field, svg: &mut String) {
    let (right, bottom) = (PANEL.0 - RIGHT, PANEL.1 - BOTTOM);
    for tick in field.y.ticks(5) {
        let Some(at) = field.y(tick) else {
            continue;
        };
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 7.0,
            at + 4.0,
            tick_percent(tick)
        );
    }
    let _ = writeln!(
        svg,
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>"
    );
    let ticks = layer_ticks(&field.x);
    for (tick, label) in ticks.iter().zip(tick_labels(&ticks)) {
        let Some(at) = field.x(*tick) else {
            continue;
        };
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{bottom}\" y2=\"{}\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            bottom + 4.0,
            bottom + 17.0
        );
    }
    let (middle_x, middle_y) = ((LEFT + right) / 2.0, (TOP + bottom) / 2.0);
    let _ = writeln!(
        svg,
        "<text x=\"{middle_x}\" y=\"{}\" text-anchor=\"middle\">layer</text>\
         <text transform=\"translate(13 {middle_y}) rotate(-90)\" text-anchor=\"middle\">share of \
         the layer</text>",
        bottom + 35.0
    );
}

/// The first layer and round numbers after it.
fn layer_ticks(x: &Axis) -> Vec<f64> {
    let mut ticks = x.whole_ticks(8);
    if ticks.first().is_some_and(|&first| first > 1.0) {
        ticks.insert(0, 1.0);
    }
    ticks
}

fn legend(svg: &mut String) {
    for (modality, (name, class, symbol)) in MODALITIES.into_iter().enumerate() {
        let x = LEFT + 108.0 * modality as f64;
        let _ = writeln!(
            svg,
            "<line class=\"line {class}\" x1=\"{x}\" x2=\"{}\" y1=\"18\" y2=\"18\"/>{}\
             <text x=\"{}\" y=\"22\">{name} {symbol}</text>",
            x + 28.0,
            marker(modality, x + 14.0, 18.0),
            x + 35.0
        );
    }
}

/// A circle, a square or a triangle.
fn marker(modality: usize, x: f64, y: f64) -> String {
    let class = MODALITIES[modality].1;
    match modality {
        0 => format!("<circle class=\"mark {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\"/>"),
        1 => format!(
            "<rect class=\"mark {class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"5.6\" height=\"5.6\"/>",
            x - 2.8,
            y - 2.8
        ),
        _ => format!(
            "<path class=\"mark {class}\" d=\"M{x:.1} {:.1}l3.6 6.2h-7.2z\"/>",
            y - 3.8
        ),
    }
}

/// What the lines show, for people who do not see them.
fn in_words(panels: &[Panel]) -> String {
    let mut words = String::from(
        "How much each layer's final position reads the picture (visual, S_v), the text (S_t) and \
         how much the rest weighs (other, S_o), as shares of each layer.",
    );
    for Panel { curve, layers } in panels {
        let (Some(first), Some(last)) = (layers.first(), layers.last()) else {
            let _ = write!(words, " {}: no layers.", curve.name);
            continue;
        };
        let _ = write!(words, " {}, {} layers:", curve.name, layers.len());
        for (modality, (name, ..)) in MODALITIES.into_iter().enumerate() {
            let share = |layer: usize| layers[layer][modality];
            let later = |peak, layer| {
                if share(layer) > share(peak) {
                    layer
                } else {
                    peak
                }
            };
            let peak = (1..layers.len()).fold(0, later);
            let _ = write!(
                words,
                " {name} {} in the first, {} in the last, at most {} in layer {}{}",
                percent(first[modality]),
                percent(last[modality]),
                percent(layers[peak][modality]),
                peak + 1,
                if modality == 2 { "." } else { ";" }
            );
        }
    }
    words
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(name: &str, layers: Vec<ModalityShares>) -> Curve {
        Curve {
            name: name.into(),
            note: "abs_then_sum, mean over 8 notes".into(),
            layers,
        }
    }

    fn two() -> Vec<Curve> {
        vec![
            curve(
                "basic",
                vec![[1.0, 3.0, 4.0], [0.25, 0.5, 0.25], [0.0, 9.0, 1.0]],
            ),
            curve("notellm2", vec![[2.0, 1.0, 1.0], [0.5, 0.3, 0.2]]),
        ]
    }

    #[test]
    fn two_models_side_by_side() {
        insta::assert_snapshot!(svg(&two()));
    }

    #[test]
    fn points_lie_where_the_shares_are() {
        let svg = svg(&two());
        let tops: Vec<f64> = svg
            .lines()
            .filter(|line| line.starts_with("<polyline class=\"line t\""))
            .flat_map(|line| line.split('"').nth(3).unwrap_or_default().split(' '))
            .map(|point| point.split(',').nth(1).unwrap().parse().unwrap())
            .collect();
        // Shares of the text: 3/8, 1/2 and 9/10 in one model, 1/4 and 3/10 in the other; the scale
        // is that of both, 1.06 × 9/10 at the top.
        let height = PANEL.1 - TOP - BOTTOM;
        let shares: Vec<f64> = tops
            .iter()
            .map(|top| (PANEL.1 - BOTTOM - top) / height * 1.06 * 0.9)
            .collect();
        let expected = [0.375, 0.5, 0.9, 0.25, 0.3];
        assert_eq!(shares.len(), expected.len());
        for (share, expected) in shares.iter().zip(expected) {
            // A tenth of a pixel.
            assert!((share - expected).abs() < 5e-4, "{share} is not {expected}");
        }
    }

    #[test]
    fn names_are_text_and_empty_models_are_said() {
        let layers = vec![[f64::NAN, 1.0, 1.0], [0.0; 3]];
        let svg = svg(&[curve("<script>&", layers), curve("none", vec![])]);
        assert!(svg.contains("&lt;script&gt;&amp;"));
        assert!(!svg.contains("<script"));
        assert!(svg.contains("none: no layers."));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert!(super::svg(&[]).ends_with("</svg>\n"));
    }

    #[test]
    fn rows_of_three_panels() {
        let many: Vec<Curve> = (0..4)
            .map(|index| curve(&index.to_string(), vec![[1.0, 1.0, 1.0]; 60]))
            .collect();
        let svg = svg(&many);
        assert!(svg.contains("viewBox=\"0 0 1140 634\""));
        assert!(svg.contains("translate(0 334)"));
        // Sixty layers are a line without markers: those of the legend alone.
        assert_eq!(svg.matches("<circle").count(), 1);
    }
}
