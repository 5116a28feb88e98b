//! Line charts as SVG, coloured by the page's style.

use std::fmt::Write;

use crate::axis::{Axis, Scale, tick_labels};
use crate::markup::escaped;
use crate::state::Series;
use crate::svg::{Field, percent, points};

/// About the pixels of a card, so that text has about its own size.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 42.0;
const BOTTOM: f64 = 20.0;
const TOP: f64 = 8.0;
const RIGHT: f64 = 14.0;
/// Points of a line: about one a pixel of a phone.
const POINTS: usize = 300;

/// What a page's style says, for a chart that is on none.
const FILE_STYLE: &str = ":root{--c0:#009e73;--c1:#d55e00;--c2:#0072b2;--c3:#cc79a7;--c4:#b07d00;\
     --c5:#56b4e9}svg{font:11px system-ui,sans-serif}text{fill:#5f6773}\
     .gridline{stroke:#d9dde3;stroke-width:1}";

/// A line of a chart.
pub(crate) struct ChartLine {
    pub(crate) name: String,
    pub(crate) color: String,
    pub(crate) dash: &'static str,
    /// Position and value.
    points: Vec<(f64, f64)>,
    /// Position, least and greatest value around it.
    band: Vec<(f64, f64, f64)>,
}

impl ChartLine {
    pub(crate) fn new(
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

    /// The same within a pale band: position, lower and upper end.
    pub(crate) fn within(mut self, band: impl IntoIterator<Item = (f64, f64, f64)>) -> Self {
        self.band = band.into_iter().collect();
        self
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

    fn write_band(&self, field: &Field, html: &mut String) {
        let upper = self.band.iter().map(|&(x, _, high)| (x, high));
        let lower = self.band.iter().rev().map(|&(x, low, _)| (x, low));
        let places = field.places(upper.chain(lower));
        if places.len() > 3 {
            let (color, points) = (&self.color, points(&places));
            let _ = writeln!(
                html,
                "<polygon points=\"{points}\" fill=\"{color}\" fill-opacity=\".16\"/>"
            );
        }
    }

    fn write(&self, field: &Field, html: &mut String) {
        let places = field.places(self.points.iter().copied());
        let (color, dash) = (&self.color, self.dash);
        let _ = match places[..] {
            [(x, y)] => writeln!(
                html,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"/>"
            ),
            _ => writeln!(
                html,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.8\" \
                 stroke-linejoin=\"round\" stroke-dasharray=\"{dash}\"/>",
                points(&places)
            ),
        };
    }
}

/// A horizontal line with a name.
pub(crate) struct Mark {
    pub(crate) name: String,
    pub(crate) value: f64,
}

/// A chart with its caption.
#[derive(Default)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) lines: Vec<ChartLine>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) percent: bool,
    /// The x axis, where it is not to follow the points.
    pub(crate) x: Option<(f64, f64)>,
    /// Whether the y axis starts at 0.
    pub(crate) from_zero: bool,
    pub(crate) x_title: &'static str,
    /// How values lie along the x axis.
    pub(crate) x_scale: Scale,
    /// The ticks of the x axis; round whole numbers where there are none.
    pub(crate) x_ticks: Vec<f64>,
}

impl Chart {
    /// Writes the chart; nothing where it has no points.
    pub(crate) fn write(&self, html: &mut String) {
        let Some(field) = self.field() else {
            return;
        };
        let _ = write!(
            html,
            "<figure>\n<figcaption>{0}</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             role=\"img\" aria-label=\"{0}\">\n",
            escaped(&self.title)
        );
        self.draw(&field, html);
        html.push_str("</svg>\n");
        self.legend(html);
        html.push_str("</figure>\n");
    }

    /// The chart as an SVG file of its own, with the names of its lines below it; `None` where it has
    /// no points.
    pub(crate) fn file(&self) -> Option<String> {
        const LINE: f64 = 14.0;
        let field = self.field()?;
        let height = HEIGHT + LINE * (self.lines.len() as f64 + 1.5);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 {0} {WIDTH} {height}\" \
             role=\"img\">\n<title>{1}</title>\n<style>{FILE_STYLE}</style>\n\
             <rect y=\"{0}\" width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
             <text x=\"{LEFT}\" y=\"-4\">{1}</text>\n",
            -1.5 * LINE,
            escaped(&self.title)
        );
        self.draw(&field, &mut svg);
        for (line, y) in self.lines.iter().zip(1..) {
            let y = HEIGHT + LINE * f64::from(y) - 4.0;
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{}\" y2=\"{}\" stroke=\"{}\" \
                 stroke-width=\"2\" stroke-dasharray=\"{}\"/><text x=\"{}\" y=\"{y}\">{}</text>",
                LEFT + 30.0,
                y - 4.0,
                y - 4.0,
                line.color,
                line.dash,
                LEFT + 36.0,
                escaped(&line.name)
            );
        }
        svg.push_str("</svg>\n");
        Some(svg)
    }

    fn draw(&self, field: &Field, svg: &mut String) {
        self.ticks(field, svg);
        for line in &self.lines {
            line.write_band(field, svg);
        }
        self.write_marks(field, svg);
        for line in &self.lines {
            line.write(field, svg);
        }
    }

    fn field(&self) -> Option<Field> {
        let lines = || self.lines.iter();
        let points = || lines().flat_map(|line| line.points.iter().copied());
        let around = Axis::around(points().map(|(x, _)| x), self.x_scale)?;
        let (low, high) = self.x.unwrap_or_else(|| {
            let first = points().map(|(x, _)| x).fold(f64::INFINITY, f64::min);
            let last = points().map(|(x, _)| x).fold(f64::NEG_INFINITY, f64::max);
            match last > first {
                true => (first, last),
                false => (around.low, around.high),
            }
        });
        // The extremes of a few buckets may leave the chart; means and marks may not.
        let bands = lines().flat_map(|line| &line.band);
        let mut extremes: Vec<f64> = bands.flat_map(|&(_, low, high)| [low, high]).collect();
        extremes.sort_unstable_by(f64::total_cmp);
        let spikes = extremes.len() / 50;
        let extremes = extremes[spikes..extremes.len() - spikes].iter().copied();
        let marks = self.marks.iter().map(|mark| mark.value);
        let zero = self.from_zero.then_some(0.0);
        let means = points().map(|(_, value)| value);
        let values = means.chain(extremes).chain(marks).chain(zero);
        Some(Field {
            x: Axis {
                low,
                high,
                scale: self.x_scale,
            },
            y: Axis::around(values, Scale::Linear)?,
            across: (LEFT, WIDTH - RIGHT),
            down: (TOP, HEIGHT - BOTTOM),
        })
    }

    fn ticks(&self, field: &Field, html: &mut String) {
        let ticks = field.y.ticks(5);
        for (tick, label) in ticks.iter().zip(tick_labels(&ticks)) {
            let Some(y) = field.y(*tick) else {
                continue;
            };
            let label = match self.percent {
                true => percent(*tick),
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
        let (ticks, labels) = match self.x_ticks.as_slice() {
            [] => {
                let ticks = field.x.whole_ticks(5);
                let labels = tick_labels(&ticks);
                (ticks, labels)
            }
            ticks => (ticks.to_vec(), ticks.iter().map(f64::to_string).collect()),
        };
        for (tick, label) in ticks.iter().zip(labels) {
            let Some(x) = field.x(*tick) else {
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

    fn write_marks(&self, field: &Field, html: &mut String) {
        let mut marks: Vec<&Mark> = self.marks.iter().collect();
        marks.sort_by(|a, b| b.value.total_cmp(&a.value));
        let mut free_below = f64::NEG_INFINITY;
        for mark in marks {
            let Some(y) = field.y(mark.value) else {
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
