//! Where values lie in a picture. Colours and sizes are those of the charts that ask.

use crate::axis::Axis;

/// A rectangle of a picture in which values lie along two axes.
pub(crate) struct Field {
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    /// Left and right end, in pixels.
    pub(crate) across: (f64, f64),
    /// Upper and lower end.
    pub(crate) down: (f64, f64),
}

impl Field {
    /// Where `value` lies along the x axis; `None` outside.
    pub(crate) fn x(&self, value: f64) -> Option<f64> {
        let (left, right) = self.across;
        let position = self.x.position(value)?;
        Some(left + position * (right - left))
    }

    /// Where `value` lies along the y axis, what is outside at the nearer end; `None` of no number.
    pub(crate) fn y(&self, value: f64) -> Option<f64> {
        let (top, bottom) = self.down;
        let position = self.y.clamped_position(value)?;
        Some(top + (1.0 - position) * (bottom - top))
    }

    /// Where points lie, those outside left out.
    pub(crate) fn places(&self, points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
        let place = |(x, y)| Some((self.x(x)?, self.y(y)?));
        points.filter_map(place).collect()
    }
}

/// Places as the `points` of a line or polygon.
pub(crate) fn points(places: &[(f64, f64)]) -> String {
    let places = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}"));
    places.collect::<Vec<_>>().join(" ")
}

/// A share as the label of a tick.
pub(crate) fn percent(share: f64) -> String {
    format!("{} %", (share * 1000.0).round() / 10.0)
}
