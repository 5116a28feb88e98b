//! What the keys of a config demand of each other.
//!
//! Ranges of single keys stand beside the keys in the settings types and are checked there
//! ([`crate::check`]); this module holds what a range cannot say.

mod data;
mod hub;
mod model;
mod training;
mod unread;

pub(crate) use data::foreign_words;
pub(crate) use unread::unread_keys;

use crate::RunConfig;
use crate::error::Finding;

/// All cross-key findings of a config.
pub(crate) fn cross_checks(config: &RunConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    hub::check(config, &mut findings);
    data::check(config, &mut findings);
    model::check(config, &mut findings);
    training::check(config, &mut findings);
    findings
}

/// `a` divides into `b` with nothing left; nothing divides by 0.
fn divides(divisor: usize, number: usize) -> bool {
    divisor != 0 && number.is_multiple_of(divisor)
}

/// The multiples of `divisor` around `number`, for a help text: `64 or 96`.
fn multiples_around(divisor: usize, number: usize) -> String {
    let below = number / divisor.max(1) * divisor;
    let above = below.saturating_add(divisor);
    if below == 0 {
        above.to_string()
    } else {
        format!("{below} or {above}")
    }
}

/// The divisors of `number` nearest to `wanted`, for a help text: `4 or 8`.
fn divisors_around(number: usize, wanted: usize) -> String {
    let below = (1..=wanted.min(number)).rev().find(|d| divides(*d, number));
    let above = (wanted.saturating_add(1)..=number).find(|d| divides(*d, number));
    match (below, above) {
        (Some(below), Some(above)) => format!("{below} or {above}"),
        (Some(one), None) | (None, Some(one)) => one.to_string(),
        (None, None) => "1".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_the_neighbours() {
        assert_eq!(multiples_around(32, 90), "64 or 96");
        assert_eq!(multiples_around(32, 5), "32");
        assert_eq!(divisors_around(12, 5), "4 or 6");
        assert_eq!(divisors_around(4, 8), "4");
        assert_eq!(divisors_around(0, 3), "1");
    }
}
