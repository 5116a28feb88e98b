//! Numbers that JSON cannot write: NaN and the infinities as strings, for every shape of field.
//!
//! The module itself is a `#[serde(with = "number")]` for `f64`; its submodules serve the other
//! shapes.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

const NAN: &str = "NaN";
const INFINITY: &str = "Infinity";
const NEGATIVE_INFINITY: &str = "-Infinity";

/// Writes `value` as a number, or as a string where it is not finite.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        serializer.serialize_f64(*value)
    } else if value.is_nan() {
        serializer.serialize_str(NAN)
    } else if *value > 0.0 {
        serializer.serialize_str(INFINITY)
    } else {
        serializer.serialize_str(NEGATIVE_INFINITY)
    }
}

/// Reads a number, one of the three strings, or `null` as NaN.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    deserializer.deserialize_any(NumberVisitor)
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = f64;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(
            formatter,
            "a number, \"{NAN}\", \"{INFINITY}\" or \"{NEGATIVE_INFINITY}\""
        )
    }

    fn visit_f64<E>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_i64<E>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_unit<E>(self) -> Result<f64, E> {
        Ok(f64::NAN)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<f64, E> {
        match value {
            NAN => Ok(f64::NAN),
            INFINITY => Ok(f64::INFINITY),
            NEGATIVE_INFINITY => Ok(f64::NEG_INFINITY),
            _ => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
        }
    }
}

/// A number in a container.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
struct Number(#[serde(with = "self")] f64);

/// A `with` module for a container of numbers: how it looks with [`Number`]s inside, and both ways.
macro_rules! container {
    ($(#[$doc:meta])* $module:ident, $plain:ty, $wrapped:ty, $wrap:expr, $unwrap:expr) => {
        $(#[$doc])*
        pub mod $module {
            use super::*;
            #[allow(unused_imports)]
            use crate::event::{ModalityShares, Named, Slices};

            /// Writes the container.
            pub fn serialize<S: Serializer>(value: &$plain, serializer: S) -> Result<S::Ok, S::Error> {
                let wrap: fn(&$plain) -> $wrapped = $wrap;
                wrap(value).serialize(serializer)
            }

            /// Reads the container.
            pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$plain, D::Error> {
                let unwrap: fn($wrapped) -> $plain = $unwrap;
                <$wrapped>::deserialize(deserializer).map(unwrap)
            }
        }
    };
}

container!(
    /// `Option<f64>`: `null` is `None`.
    option,
    Option<f64>,
    Option<Number>,
    |value| value.map(Number),
    |value| value.map(|number| number.0)
);

container!(
    /// One value a layer and modality.
    layers,
    Vec<ModalityShares>,
    Vec<[Number; 3]>,
    |layers| layers.iter().map(|layer| layer.map(Number)).collect(),
    |layers| layers
        .into_iter()
        .map(|layer| layer.map(|number| number.0))
        .collect()
);

container!(
    /// Name → number.
    map,
    Named<f64>,
    Named<Number>,
    |map| map
        .iter()
        .map(|(name, value)| (name.clone(), Number(*value)))
        .collect(),
    |map| map
        .into_iter()
        .map(|(name, number)| (name, number.0))
        .collect()
);

/// A map of numbers in a container.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct NumberMap(#[serde(with = "map")] crate::event::Named<f64>);

container!(
    /// Slice → metric → number.
    slices,
    Slices,
    Named<NumberMap>,
    |slices| slices
        .iter()
        .map(|(name, metrics)| (name.clone(), NumberMap(metrics.clone())))
        .collect(),
    |slices| slices
        .into_iter()
        .map(|(name, metrics)| (name, metrics.0))
        .collect()
);

/// Slices in a container.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct NumberSlices(#[serde(with = "slices")] crate::event::Slices);

container!(
    /// Baseline → slice → metric → number.
    baselines,
    Named<Slices>,
    Named<NumberSlices>,
    |baselines| baselines
        .iter()
        .map(|(name, slices)| (name.clone(), NumberSlices(slices.clone())))
        .collect(),
    |baselines| baselines
        .into_iter()
        .map(|(name, slices)| (name, slices.0))
        .collect()
);
