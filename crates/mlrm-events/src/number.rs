//! Numbers that JSON cannot write: NaN and the infinities as strings, for every shape of field.
//!
//! The module is a `#[serde(with = "number")]` for `f64`, and for options, lists and maps of them.

use std::fmt;

use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::event::Named;

const NAN: &str = "NaN";
const INFINITY: &str = "Infinity";
const NEGATIVE_INFINITY: &str = "-Infinity";

/// Writes numbers as numbers, or as strings where they are not finite.
pub fn serialize<T: Numbers, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.written().serialize(serializer)
}

/// Reads numbers, the three strings, and `null` as NaN (where an option is read, as none).
pub fn deserialize<'de, T: Numbers, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::Written::deserialize(deserializer).map(T::read)
}

/// What holds numbers.
pub trait Numbers: Sized {
    /// The same with [`Number`]s in their place.
    type Written: Serialize + DeserializeOwned;

    /// To what is written.
    fn written(&self) -> Self::Written;

    /// From what was read.
    fn read(written: Self::Written) -> Self;
}

impl Numbers for f64 {
    type Written = Number;

    fn written(&self) -> Number {
        Number(*self)
    }

    fn read(Number(value): Number) -> Self {
        value
    }
}

impl<T: Numbers> Numbers for Option<T> {
    type Written = Option<T::Written>;

    fn written(&self) -> Self::Written {
        self.as_ref().map(T::written)
    }

    fn read(written: Self::Written) -> Self {
        written.map(T::read)
    }
}

impl<T: Numbers> Numbers for Vec<T> {
    type Written = Vec<T::Written>;

    fn written(&self) -> Self::Written {
        self.iter().map(T::written).collect()
    }

    fn read(written: Self::Written) -> Self {
        written.into_iter().map(T::read).collect()
    }
}

impl Numbers for [f64; 3] {
    type Written = [Number; 3];

    fn written(&self) -> Self::Written {
        self.map(Number)
    }

    fn read(written: Self::Written) -> Self {
        written.map(f64::read)
    }
}

impl<T: Numbers> Numbers for Named<T> {
    type Written = Named<T::Written>;

    fn written(&self) -> Self::Written {
        let entries = self.iter();
        entries
            .map(|(name, value)| (name.clone(), value.written()))
            .collect()
    }

    fn read(written: Self::Written) -> Self {
        let entries = written.into_iter();
        entries
            .map(|(name, value)| (name, T::read(value)))
            .collect()
    }
}

/// A number, as JSON has it.
pub struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            value if value.is_finite() => serializer.serialize_f64(value),
            value if value.is_nan() => serializer.serialize_str(NAN),
            value if value > 0.0 => serializer.serialize_str(INFINITY),
            _ => serializer.serialize_str(NEGATIVE_INFINITY),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor).map(Self)
    }
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
