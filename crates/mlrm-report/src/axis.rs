//! Ranges, scales and round tick values.

/// How values are laid along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Scale {
    #[default]
    Linear,
    /// Powers of ten evenly apart; values ≤ 0 have no place.
    Log,
}

/// A range of values along an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Axis {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) scale: Scale,
}

impl Axis {
    /// The smallest axis that shows all finite `values` with a little air, or `None` where there
    /// is nothing to show.
    pub(crate) fn around(values: impl Iterator<Item = f64>, scale: Scale) -> Option<Self> {
        let shown = |value: &f64| value.is_finite() && (scale == Scale::Linear || *value > 0.0);
        let (low, high) = values
            .filter(shown)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
                (low.min(v), high.max(v))
            });
        if low > high {
            return None;
        }
        Some(match scale {
            Scale::Linear => {
                let flat = (high - low) <= 1e-9 * high.abs().max(low.abs());
                let air = match (flat, high == 0.0) {
                    (true, true) => 1.0,
                    (true, false) => 0.1 * high.abs(),
                    (false, _) => 0.04 * (high - low),
                };
                // A quantity without negative values keeps an axis without them.
                let floor = if low >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
                Self {
                    low: (low - air).max(floor),
                    high: high + air,
                    scale,
                }
            }
            Scale::Log => {
                let air = if high / low < 1.01 {
                    1.2
                } else {
                    (high / low).powf(0.04)
                };
                Self {
                    low: low / air,
                    high: high * air,
                    scale,
                }
            }
        })
    }

    /// Where `value` lies: 0 at `low`, 1 at `high`; `None` where it has no place or is outside.
    pub(crate) fn position(&self, value: f64) -> Option<f64> {
        let position = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        // The small slack keeps a value at the very end despite rounding.
        (position.is_finite() && (-1e-9..=1.0 + 1e-9).contains(&position))
            .then(|| position.clamp(0.0, 1.0))
    }

    /// [`Axis::position`], with values outside moved to the nearer end.
    pub(crate) fn clamped_position(&self, value: f64) -> Option<f64> {
        value.is_finite().then(|| match self.scale {
            Scale::Log if value <= 0.0 => 0.0,
            _ => self
                .position(value.clamp(self.low, self.high))
                .unwrap_or(0.0),
        })
    }

    /// Round values within the axis, at most about `count`.
    pub(crate) fn ticks(&self, count: usize) -> Vec<f64> {
        match self.scale {
            Scale::Linear => self.linear_ticks(count),
            Scale::Log => {
                let (low, high) = (self.low.log10(), self.high.log10());
                if high - low < 1.0 {
                    return self.linear_ticks(count);
                }
                let every = ((high - low) / count.max(1) as f64).ceil().max(1.0) as i32;
                (low.ceil() as i32..=high.floor() as i32)
                    .filter(|power| power.rem_euclid(every) == 0)
                    .map(|power| 10_f64.powi(power))
                    .collect()
            }
        }
    }

    /// [`Axis::ticks`] of a quantity that is counted, such as steps or layers.
    pub(crate) fn whole_ticks(&self, count: usize) -> Vec<f64> {
        let mut ticks = self.ticks(count);
        ticks.retain(|tick| tick.fract() == 0.0);
        ticks
    }

    fn linear_ticks(&self, count: usize) -> Vec<f64> {
        let rough = (self.high - self.low) / count.max(1) as f64;
        if !rough.is_finite() || rough <= 0.0 {
            return Vec::new();
        }
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|&step| step >= rough * (1.0 - 1e-9))
            .unwrap_or(10.0 * power);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last)
            .take(count * 2 + 2)
            .map(|index| index as f64 * step)
            .collect()
    }
}

/// Labels of `ticks`, with as few digits as tell them apart.
pub(crate) fn tick_labels(ticks: &[f64]) -> Vec<String> {
    let step = ticks
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .fold(f64::INFINITY, f64::min);
    let largest = ticks
        .iter()
        .fold(0.0_f64, |size, tick| size.max(tick.abs()));
    ticks
        .iter()
        .map(|&tick| tick_label(tick, step, largest))
        .collect()
}

fn tick_label(tick: f64, step: f64, largest: f64) -> String {
    if tick == 0.0 {
        return "0".into();
    }
    if !(1e-3..10_000.0).contains(&largest) || tick.abs() < 1e-3 {
        return short(tick);
    }
    if !step.is_finite() {
        return trimmed(tick);
    }
    let digits = (-step.log10()).ceil().clamp(0.0, 6.0) as usize;
    // A tenth of a step is enough: 0.25 with step 0.25 needs one digit more than log10 says.
    let text = format!("{tick:.digits$}");
    match text.parse::<f64>() {
        Ok(shown) if (shown - tick).abs() <= 1e-9 * largest => text,
        _ => format!("{tick:.*}", digits + 1),
    }
}

/// `20k`, `1.5M`, `3e-6`.
fn short(value: f64) -> String {
    let size = value.abs();
    for (limit, unit) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if (limit..limit * 1e3).contains(&size) {
            return format!("{}{unit}", trimmed(value / limit));
        }
    }
    if (1e-3..1e3).contains(&size) {
        return trimmed(value);
    }
    let text = format!("{value:.2e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let digits = digits.trim_end_matches('0').trim_end_matches('.');
            format!("{digits}e{exponent}")
        }
        None => text,
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(low: f64, high: f64, scale: Scale) -> Axis {
        Axis { low, high, scale }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(
            axis(0.0, 1.0, Scale::Linear).ticks(5),
            [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]
        );
        assert_eq!(axis(0.3, 4.2, Scale::Linear).ticks(4), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(
            axis(0.5, 2e4, Scale::Log).ticks(5),
            [1.0, 10.0, 100.0, 1000.0, 10000.0]
        );
        assert_eq!(axis(1.0, 1.0, Scale::Linear).ticks(5), [] as [f64; 0]);
        assert_eq!(
            axis(0.5, 3.5, Scale::Linear).whole_ticks(5),
            [1.0, 2.0, 3.0]
        );
        assert_eq!(axis(0.0, 95.0, Scale::Linear).whole_ticks(2), [0.0, 50.0]);
        for scale in [Scale::Linear, Scale::Log] {
            for exponent in -9..9 {
                let axis = axis(
                    0.37 * 10_f64.powi(exponent),
                    42.0 * 10_f64.powi(exponent),
                    scale,
                );
                let ticks = axis.ticks(6);
                assert!((2..=14).contains(&ticks.len()), "{axis:?} {ticks:?}");
                assert!(ticks.iter().all(|&tick| axis.position(tick).is_some()));
            }
        }
    }

    #[test]
    fn labels_tell_ticks_apart() {
        assert_eq!(tick_labels(&[0.0, 0.2, 0.4]), ["0", "0.2", "0.4"]);
        assert_eq!(tick_labels(&[0.25, 0.5, 0.75]), ["0.25", "0.5", "0.75"]);
        assert_eq!(tick_labels(&[0.0, 5000.0, 10_000.0]), ["0", "5k", "10k"]);
        assert_eq!(tick_labels(&[0.0, 1e-6, 2e-6]), ["0", "1e-6", "2e-6"]);
        assert_eq!(tick_labels(&[1.0, 10.0, 100.0]), ["1", "10", "100"]);
        assert_eq!(tick_labels(&[1000.0]), ["1000"]);
        assert_eq!(tick_labels(&[0.0, 1e-4, 3.0 * 1e-4]), ["0", "1e-4", "3e-4"]);
        assert_eq!(tick_labels(&[2.25, 2.5, 2.75]), ["2.25", "2.5", "2.75"]);
    }

    #[test]
    fn an_axis_holds_its_values() {
        for scale in [Scale::Linear, Scale::Log] {
            let values = [3.0, 1e-3, 250.0];
            let axis = Axis::around(values.into_iter(), scale).unwrap();
            assert!(values.iter().all(|&value| axis.position(value).is_some()));
            assert_eq!(axis.position(1e9), None);
            assert_eq!(axis.clamped_position(1e9), Some(1.0));
        }
        let none = [f64::NAN, f64::INFINITY];
        assert_eq!(Axis::around(none.into_iter(), Scale::Linear), None);
        assert_eq!(Axis::around([-1.0, 0.0].into_iter(), Scale::Log), None);
        let flat = Axis::around([0.5, 0.5].into_iter(), Scale::Linear).unwrap();
        assert!(flat.low < 0.5 && flat.high > 0.5);
    }
}
