//! The lines of a plot.

use ratatui::text::Span;

use super::raster::Dash;
use crate::state::Series;
use crate::tui::theme::{Role, Theme};

/// A point of a line: where, its value, and the extremes that it stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) value: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// One line of a plot.
pub(in crate::tui) struct PlotLine {
    pub(super) role: Role,
    pub(super) dash: Dash,
    pub(super) symbol: char,
    pub(super) points: Vec<Point>,
    pub(super) smoothed: Vec<(f64, f64)>,
}

impl PlotLine {
    /// A line through `values`.
    pub(in crate::tui) fn new(role: Role, values: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let points = values
            .into_iter()
            .filter(|(_, value)| value.is_finite())
            .map(|(x, value)| Point {
                x,
                value,
                min: value,
                max: value,
            })
            .collect();
        Self {
            role,
            dash: Dash::Solid,
            symbol: '*',
            points,
            smoothed: Vec::new(),
        }
    }

    /// A series with its extremes; with `smoothing` > 0 (the share of the past in an exponential
    /// mean, per value) the mean is drawn over the pale values.
    pub(in crate::tui) fn series(role: Role, series: &Series, smoothing: f64) -> Self {
        let points = series.buckets().iter().map(|bucket| Point {
            x: bucket.middle_step(),
            value: bucket.mean,
            min: bucket.min,
            max: bucket.max,
        });
        let points = points.collect();
        let smoothed = match smoothing > 0.0 {
            true => smooth(series, smoothing),
            false => Vec::new(),
        };
        Self {
            points,
            smoothed,
            ..Self::new(role, [])
        }
    }

    /// Drawn in long dashes (`+` in ASCII).
    pub(in crate::tui) fn dashed(self) -> Self {
        Self {
            dash: Dash::Dashed,
            symbol: '+',
            ..self
        }
    }

    /// Drawn in dots (`o` in ASCII).
    pub(in crate::tui) fn dotted(self) -> Self {
        Self {
            dash: Dash::Dotted,
            symbol: 'o',
            ..self
        }
    }

    /// How the line looks, for a legend.
    pub(in crate::tui) fn sample(&self, theme: &Theme) -> Span<'static> {
        let text = match (theme.unicode, self.dash) {
            (false, _) => self.symbol.to_string(),
            (true, Dash::Solid) => "━".into(),
            (true, Dash::Dashed) => "╍".into(),
            (true, Dash::Dotted) => "┈".into(),
        };
        Span::styled(text, theme.role(self.role))
    }
}

/// The exponential mean of TensorBoard: with the weight of the missing past taken out. A bucket of
/// n values counts as n equal values, so that down-sampling does not change the curve's shape.
fn smooth(series: &Series, smoothing: f64) -> Vec<(f64, f64)> {
    let (mut mean, mut weight) = (0.0, 0.0);
    // All buckets but the newest hold as many values: one power serves them.
    let mut power = (1, smoothing);
    series
        .buckets()
        .iter()
        .map(|bucket| {
            if power.0 != bucket.count {
                power = (bucket.count, smoothing.powf(bucket.count as f64));
            }
            let past = power.1;
            mean = mean * past + bucket.mean * (1.0 - past);
            weight = weight * past + (1.0 - past);
            (bucket.middle_step(), mean / weight)
        })
        .collect()
}
