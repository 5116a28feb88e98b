//! Line charts as SVG, coloured by the page's style.

use std::fmt::Write;

use crate::axis::{Axis, Scale, tick_labels};
use crate::markup::escaped;
use crate::state::Series;

/// About the pixels of a card, so that text has about its own size.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 42.0;
const BOTTOM: f64 = 20.0;
const TOP: f64 = 8.0;
const RIGHT: f64 = 14.0;
/// Points of a line: about one a pixel of a phone.
const POINTS: usize = 300;

/// A line of a chart.
pub(super) struct ChartLine {
    pub(super) name: String,
    pub(super) color: String,
    pub(super) dash: &'static str,
    /// Position and value.
    points: Vec<(f64, f64)>,
    /// Position, least and greatest value around it.
    band: Vec<(f64, f64, f64)>,
}

impl ChartLine {
    pub(super) fn new(
        name: impl Into<String>,
        color: impl Into<String>,
        dash: &'static str,
        points: impl IntoIterator<Item = (f64, f64)>,
    ) -> Self {
        let points = points
            .into_iter()
            .filter(|(_, value)| value.is_finite())
            .collect();
        Self {
            name: name.into(),
            color: color.into(),
            dash,
            points,
            band: Vec::new(),
        }
    }

    /// A series as its mean, within a pale band of its extremes.
    pub(super) fn series(
        name: impl Into<String>,
        color: impl Into<String>,
        dash: &'static str,
        series: &Series,
    ) -> Self {
        let buckets = series.coarse(POINTS);
        let points = buckets
            .iter()
            .map(|bucket| (bucket.middle_step(), bucket.mean));
        let band = buckets
            .iter()
            .filter(|bucket| bucket.min < bucket.max)
            .map(|bucket| (bucket.middle_step(), bucket.min, bucket.max))
            .collect();
        Self {
            band,
            ..Self::new(name, color, dash, points)
        }
    }
}

/// A horizontal line with a name.
pub(super) struct Mark {
    pub(super) name: String,
    pub(super) value: f64,
}

/// A chart with its caption.
#[derive(Default)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) lines: Vec<ChartLine>,
    pub(super) marks: Vec<Mark>,
    pub(super) percent: bool,
    /// The x axis, where it is not to follow the points.
    pub(super) x: Option<(f64, f64)>,
    /// Whether the y axis starts at 0.
    pub(super) from_zero: bool,
    pub(super) x_title: &'static str,
}

impl Chart {
    /// Writes the chart; nothing where it has no points.
    pub(super) fn write(&self, html: &mut String) {
        let Some((x_axis, y_axis)) = self.axes() else {
            return;
        };
        let _ = write!(
            html,
            "<figure>\n<figcaption>{0}</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             role=\"img\" aria-label=\"{0}\">\n",
            escaped(&self.title)
        );
        self.ticks(&x_axis, &y_axis, html);
        for line in &self.lines {
            band(line, &x_axis, &y_axis, html);
        }
        self.write_marks(&y_axis, html);
        for line in &self.lines {
            polyline(line, &x_axis, &y_axis, html);
        }
        html.push_str("</svg>\n");
        self.legend(html);
        html.push_str("</figure>\n");
    }

    fn axes(&self) -> Option<(Axis, Axis)> {
        let points = || {
            self.lines
                .iter()
                .flat_map(|line| line.points.iter().copied())
        };
        let around = Axis::around(points().map(|(x, _)| x), Scale::Linear)?;
        let (low, high) = match self.x {
            Some(range) => range,
            None => {
                let first = points().map(|(x, _)| x).fold(f64::INFINITY, f64::min);
                let last = points().map(|(x, _)| x).fold(f64::NEG_INFINITY, f64::max);
                if last > first {
                    (first, last)
                } else {
                    (around.low, around.high)
                }
            }
        };
        // The extremes of a few buckets may leave the chart; means and marks may not.
        let mut extremes: Vec<f64> = self
            .lines
            .iter()
            .flat_map(|line| line.band.iter().flat_map(|&(_, low, high)| [low, high]))
            .collect();
        extremes.sort_unstable_by(f64::total_cmp);
        let spikes = extremes.len() / 50;
        let extremes = extremes[spikes..extremes.len() - spikes].iter().copied();
        let marks = self.marks.iter().map(|mark| mark.value);
        let zero = self.from_zero.then_some(0.0);
        let values = points()
            .map(|(_, value)| value)
            .chain(extremes)
            .chain(marks)
            .chain(zero);
        let y_axis = Axis::around(values, Scale::Linear)?;
        Some((
            Axis {
                low,
                high,
                scale: Scale::Linear,
            },
            y_axis,
        ))
    }

    fn ticks(&self, x_axis: &Axis, y_axis: &Axis, html: &mut String) {
        let ticks = y_axis.ticks(5);
        for (tick, label) in ticks.iter().zip(tick_labels(&ticks)) {
            let Some(y) = place_y(y_axis, *tick) else {
                continue;
            };
            let label = match self.percent {
                true => format!("{} %", (tick * 1000.0).round() / 10.0),
                false => label,
            };
            let _ = writeln!(
                html,
                "<line class=\"gridline\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            );
        }
        let ticks = x_axis.whole_ticks(5);
        for (tick, label) in ticks.iter().zip(tick_labels(&ticks)) {
            let Some(x) = place_x(x_axis, *tick) else {
                continue;
            };
            let y = HEIGHT - BOTTOM + 15.0;
            let _ = writeln!(
                html,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{label}</text>"
            );
        }
        let _ = writeln!(
            html,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 12.0,
            HEIGHT - BOTTOM + 15.0,
            self.x_title
        );
    }

    fn write_marks(&self, y_axis: &Axis, html: &mut String) {
        let mut marks: Vec<&Mark> = self.marks.iter().collect();
        marks.sort_by(|a, b| b.value.total_cmp(&a.value));
        let mut free_below = f64::NEG_INFINITY;
        for mark in marks {
            let Some(y) = place_y(y_axis, mark.value) else {
                continue;
            };
            let _ = writeln!(
                html,
                "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" \
                 stroke=\"var(--muted)\" stroke-dasharray=\"3 3\"/>",
                WIDTH - RIGHT
            );
            // Names that would cover each other move down.
            let text_y = (y - 3.0).max(free_below);
            free_below = text_y + 11.0;
            let _ = writeln!(
                html,
                "<text x=\"{:.1}\" y=\"{text_y:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                escaped(&mark.name)
            );
        }
    }

    fn legend(&self, html: &mut String) {
        if self.lines.len() < 2 {
            return;
        }
        html.push_str("<ul class=\"legend\">");
        for line in self.lines.iter().filter(|line| !line.points.is_empty()) {
            let _ = write!(
                html,
                "<li><svg viewBox=\"0 0 32 10\" aria-hidden=\"true\"><line x1=\"0\" x2=\"32\" \
                 y1=\"5\" y2=\"5\" stroke=\"{}\" stroke-width=\"3\" stroke-dasharray=\"{}\"/></svg>{}</li>",
                line.color,
                line.dash,
                escaped(&line.name)
            );
        }
        html.push_str("</ul>\n");
    }
}

fn place_x(axis: &Axis, value: f64) -> Option<f64> {
    axis.position(value)
        .map(|position| LEFT + position * (WIDTH - LEFT - RIGHT))
}

fn place_y(axis: &Axis, value: f64) -> Option<f64> {
    let position = axis.clamped_position(value)?;
    Some(TOP + (1.0 - position) * (HEIGHT - TOP - BOTTOM))
}

fn band(line: &ChartLine, x_axis: &Axis, y_axis: &Axis, html: &mut String) {
    let edge = |&(x, value): &(f64, f64)| {
        let (x, y) = (place_x(x_axis, x)?, place_y(y_axis, value)?);
        Some(format!("{x:.1},{y:.1}"))
    };
    let upper = line.band.iter().map(|&(x, _, high)| (x, high));
    let lower = line.band.iter().rev().map(|&(x, low, _)| (x, low));
    let points: Vec<String> = upper
        .chain(lower)
        .filter_map(|point| edge(&point))
        .collect();
    if points.len() > 3 {
        let color = &line.color;
        let points = points.join(" ");
        let _ = writeln!(
            html,
            "<polygon points=\"{points}\" fill=\"{color}\" fill-opacity=\".16\"/>"
        );
    }
}

fn polyline(line: &ChartLine, x_axis: &Axis, y_axis: &Axis, html: &mut String) {
    let places: Vec<(f64, f64)> = line
        .points
        .iter()
        .filter_map(|&(x, value)| Some((place_x(x_axis, x)?, place_y(y_axis, value)?)))
        .collect();
    let color = &line.color;
    if let [(x, y)] = places[..] {
        let _ = writeln!(
            html,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"/>"
        );
        return;
    }
    let points: Vec<String> = places
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let _ = writeln!(
        html,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.8\" \
         stroke-linejoin=\"round\" stroke-dasharray=\"{}\"/>",
        points.join(" "),
        line.dash
    );
}
