//! Values of Parquet columns.

use std::borrow::Cow;
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, BooleanArray, UInt64Array};
use arrow_schema::{DataType, Field, IntervalUnit, TimeUnit};
use jiff::civil::Time;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::Cell;

/// A Parquet column, ready to be read row by row.
pub(super) struct View<'a> {
    array: &'a dyn Array,
    kind: Kind<'a>,
}

type Reader<'a, T> = Box<dyn Fn(usize) -> T + 'a>;

enum Kind<'a> {
    Text(Reader<'a, &'a str>),
    Integer(Reader<'a, i64>),
    Unsigned(&'a UInt64Array),
    Number(Reader<'a, f64>),
    Boolean(&'a BooleanArray),
    /// Days and points in time: how many units since 1970 of how many a second.
    Instant(Reader<'a, i64>, Instant),
    /// What reads as one JSON value.
    Other(Reader<'a, Value>),
    List(Box<View<'a>>, Reader<'a, Range<usize>>),
    Struct(Vec<(&'a str, View<'a>)>),
    Dictionary(Vec<usize>, Box<View<'a>>),
    /// Nothing but nulls, or bytes that no note can hold.
    Nothing,
}

#[derive(Clone, Copy)]
struct Instant {
    per_second: i64,
    is_day: bool,
    has_zone: bool,
}

macro_rules! primitive {
    ($array:expr, $kind:ident, $type:ty, $to:ty) => {{
        let array = $array.as_primitive::<$type>();
        Kind::$kind(Box::new(move |row| <$to>::from(array.value(row))))
    }};
}

macro_rules! instant {
    ($array:expr, $type:ty, $instant:expr) => {{
        let array = $array.as_primitive::<$type>();
        Kind::Instant(Box::new(move |row| i64::from(array.value(row))), $instant)
    }};
}

macro_rules! other {
    ($array:expr, $type:ty, $value:expr) => {{
        let array = $array.as_primitive::<$type>();
        Kind::Other(Box::new(move |row| $value(array.value(row))))
    }};
}

macro_rules! decimal {
    ($array:expr, $type:ty, $precision:expr) => {{
        let array = $array.as_primitive::<$type>();
        Kind::Other(Box::new(move |row| {
            decimal(array.value_as_string(row), $precision)
        }))
    }};
}

macro_rules! list {
    ($array:expr, $size:ty) => {{
        let array = $array.as_list::<$size>();
        let offsets = array.value_offsets();
        let range = move |row: usize| offsets[row] as usize..offsets[row + 1] as usize;
        Kind::List(Box::new(View::of(array.values())), Box::new(range))
    }};
}

macro_rules! list_view {
    ($array:expr, $size:ty) => {{
        let array = $array.as_list_view::<$size>();
        let (offsets, sizes) = (array.value_offsets(), array.value_sizes());
        let range = move |row: usize| {
            let start = offsets[row] as usize;
            start..start + sizes[row] as usize
        };
        Kind::List(Box::new(View::of(array.values())), Box::new(range))
    }};
}

/// Whether a column of this type holds what no note can: bytes.
pub(super) fn is_bytes(data_type: &DataType) -> bool {
    match data_type {
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _) => is_bytes(field.data_type()),
        DataType::Dictionary(_, values) => is_bytes(values),
        DataType::Struct(fields) => fields
            .iter()
            .all(|field: &std::sync::Arc<Field>| is_bytes(field.data_type())),
        _ => false,
    }
}

impl<'a> View<'a> {
    pub(super) fn of(array: &'a dyn Array) -> Self {
        let kind = match array.data_type() {
            DataType::Boolean => Kind::Boolean(array.as_boolean()),
            DataType::Utf8 => {
                let array = array.as_string::<i32>();
                Kind::Text(Box::new(move |row| array.value(row)))
            }
            DataType::LargeUtf8 => {
                let array = array.as_string::<i64>();
                Kind::Text(Box::new(move |row| array.value(row)))
            }
            DataType::Utf8View => {
                let array = array.as_string_view();
                Kind::Text(Box::new(move |row| array.value(row)))
            }
            DataType::Dictionary(_, _) => {
                let dictionary = array.as_any_dictionary();
                let keys = match dictionary.values().is_empty() {
                    true => vec![0; array.len()],
                    false => dictionary.normalized_keys(),
                };
                Kind::Dictionary(keys, Box::new(View::of(dictionary.values())))
            }
            data_type if data_type.is_numeric() => Self::number(array),
            data_type if data_type.is_temporal() => Self::temporal(array),
            _ => Self::nested(array),
        };
        Self { array, kind }
    }

    fn number(array: &'a dyn Array) -> Kind<'a> {
        match array.data_type() {
            DataType::Int8 => primitive!(array, Integer, Int8Type, i64),
            DataType::Int16 => primitive!(array, Integer, Int16Type, i64),
            DataType::Int32 => primitive!(array, Integer, Int32Type, i64),
            DataType::Int64 => primitive!(array, Integer, Int64Type, i64),
            DataType::UInt8 => primitive!(array, Integer, UInt8Type, i64),
            DataType::UInt16 => primitive!(array, Integer, UInt16Type, i64),
            DataType::UInt32 => primitive!(array, Integer, UInt32Type, i64),
            DataType::UInt64 => Kind::Unsigned(array.as_primitive()),
            DataType::Float16 => primitive!(array, Number, Float16Type, f64),
            DataType::Float32 => primitive!(array, Number, Float32Type, f64),
            DataType::Float64 => primitive!(array, Number, Float64Type, f64),
            DataType::Decimal32(precision, _) => decimal!(array, Decimal32Type, *precision),
            DataType::Decimal64(precision, _) => decimal!(array, Decimal64Type, *precision),
            DataType::Decimal128(precision, _) => decimal!(array, Decimal128Type, *precision),
            DataType::Decimal256(precision, _) => decimal!(array, Decimal256Type, *precision),
            _ => Kind::Nothing,
        }
    }

    fn temporal(array: &'a dyn Array) -> Kind<'a> {
        let instant = |per_second, zone: &Option<_>| Instant {
            per_second,
            is_day: false,
            has_zone: Option::is_some(zone),
        };
        let day = |per_second| Instant {
            per_second,
            is_day: true,
            has_zone: false,
        };
        match array.data_type() {
            DataType::Timestamp(TimeUnit::Second, zone) => {
                instant!(array, TimestampSecondType, instant(1, zone))
            }
            DataType::Timestamp(TimeUnit::Millisecond, zone) => {
                instant!(array, TimestampMillisecondType, instant(1_000, zone))
            }
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                instant!(array, TimestampMicrosecondType, instant(1_000_000, zone))
            }
            DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
                instant!(array, TimestampNanosecondType, instant(1_000_000_000, zone))
            }
            DataType::Date32 => {
                let array = array.as_primitive::<Date32Type>();
                let seconds = move |row| i64::from(array.value(row)) * 86_400;
                Kind::Instant(Box::new(seconds), day(1))
            }
            DataType::Date64 => instant!(array, Date64Type, day(1_000)),
            DataType::Time32(TimeUnit::Second) => {
                other!(array, Time32SecondType, |value| time(value, 1_000_000_000))
            }
            DataType::Time32(_) => {
                other!(array, Time32MillisecondType, |value| time(value, 1_000_000))
            }
            DataType::Time64(TimeUnit::Microsecond) => {
                other!(array, Time64MicrosecondType, |value| time(value, 1_000))
            }
            DataType::Time64(_) => other!(array, Time64NanosecondType, |value| time(value, 1)),
            DataType::Duration(TimeUnit::Second) => {
                other!(array, DurationSecondType, |value| duration(value, 1))
            }
            DataType::Duration(TimeUnit::Millisecond) => {
                other!(array, DurationMillisecondType, |value| duration(
                    value, 1_000
                ))
            }
            DataType::Duration(TimeUnit::Microsecond) => {
                other!(array, DurationMicrosecondType, |value| duration(
                    value, 1_000_000
                ))
            }
            DataType::Duration(TimeUnit::Nanosecond) => {
                other!(array, DurationNanosecondType, |value| duration(
                    value,
                    1_000_000_000
                ))
            }
            DataType::Interval(IntervalUnit::YearMonth) => {
                other!(array, IntervalYearMonthType, |months: i32| interval(
                    months, 0, 0
                ))
            }
            DataType::Interval(IntervalUnit::DayTime) => {
                other!(array, IntervalDayTimeType, |value: IntervalDayTime| {
                    interval(0, value.days, i64::from(value.milliseconds) * 1_000_000)
                })
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                other!(
                    array,
                    IntervalMonthDayNanoType,
                    |value: IntervalMonthDayNano| {
                        interval(value.months, value.days, value.nanoseconds)
                    }
                )
            }
            _ => Kind::Nothing,
        }
    }

    fn nested(array: &'a dyn Array) -> Kind<'a> {
        match array.data_type() {
            DataType::List(_) => list!(array, i32),
            DataType::LargeList(_) => list!(array, i64),
            DataType::ListView(_) => list_view!(array, i32),
            DataType::LargeListView(_) => list_view!(array, i64),
            DataType::FixedSizeList(_, size) => {
                let size = *size as usize;
                let values = View::of(array.as_fixed_size_list().values());
                Kind::List(
                    Box::new(values),
                    Box::new(move |row| row * size..(row + 1) * size),
                )
            }
            DataType::Map(_, _) => {
                let array = array.as_map();
                let (keys, values) = (View::of(array.keys()), View::of(array.values()));
                let offsets = array.value_offsets();
                Kind::Other(Box::new(move |row| {
                    let entries = offsets[row] as usize..offsets[row + 1] as usize;
                    let entry = |at| (key_text(keys.json(at)), values.json(at));
                    Value::Object(entries.map(entry).collect())
                }))
            }
            DataType::Struct(fields) => {
                let columns = fields.iter().zip(array.as_struct().columns());
                let members =
                    columns.map(|(field, array)| (field.name().as_str(), View::of(array)));
                Kind::Struct(members.collect())
            }
            _ => Kind::Nothing,
        }
    }

    /// The field of a row.
    pub(super) fn cell(&self, row: usize) -> Cell<'a> {
        if self.array.is_null(row) {
            return Cell::Null;
        }
        match &self.kind {
            Kind::Text(value) => Cell::Text(Cow::Borrowed(value(row))),
            Kind::Integer(value) => Cell::Integer(value(row)),
            // Hashed ids use all 64 bits.
            Kind::Unsigned(array) => match i64::try_from(array.value(row)) {
                Ok(value) => Cell::Integer(value),
                Err(_) => Cell::Text(Cow::Owned(array.value(row).to_string())),
            },
            Kind::Number(value) => Cell::Number(value(row)),
            Kind::Boolean(array) => Cell::Boolean(array.value(row)),
            Kind::Instant(value, instant) => Cell::Time(value(row).div_euclid(instant.per_second)),
            Kind::Dictionary(keys, values) => values.cell(keys[row]),
            Kind::Nothing => Cell::Null,
            Kind::Other(_) | Kind::List(_, _) | Kind::Struct(_) => match self.json(row) {
                Value::String(text) => Cell::Text(Cow::Owned(text)),
                Value::Number(number) => Cell::Number(number.as_f64().unwrap_or(f64::NAN)),
                value => Cell::Nested(value),
            },
        }
    }

    /// The field of a row as JSON: days and times by ISO 8601, structs and maps as objects.
    pub(super) fn json(&self, row: usize) -> Value {
        if self.array.is_null(row) {
            return Value::Null;
        }
        match &self.kind {
            Kind::Text(value) => value(row).into(),
            Kind::Integer(value) => value(row).into(),
            Kind::Unsigned(array) => array.value(row).into(),
            Kind::Number(value) => value(row).into(),
            Kind::Boolean(array) => array.value(row).into(),
            Kind::Instant(value, instant) => instant.json(value(row)),
            Kind::Other(value) => value(row),
            Kind::List(values, range) => range(row).map(|item| values.json(item)).collect(),
            Kind::Struct(members) => {
                let member = |(name, view): &(&str, View<'_>)| ((*name).to_owned(), view.json(row));
                Value::Object(members.iter().map(member).collect::<Map<_, _>>())
            }
            Kind::Dictionary(keys, values) => values.json(keys[row]),
            Kind::Nothing => Value::Null,
        }
    }
}

impl Instant {
    /// ISO 8601, in UTC where the column has a zone; the bare number where no calendar reaches.
    fn json(self, value: i64) -> Value {
        let per_second = self.per_second;
        let nanoseconds = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
        let point = Timestamp::new(value.div_euclid(per_second), nanoseconds as i32);
        let Ok(point) = point else {
            return value.into();
        };
        let local = jiff::tz::Offset::UTC.to_datetime(point);
        match self {
            Self { is_day: true, .. } => local.date().to_string().into(),
            Self { has_zone: true, .. } => point.to_string().into(),
            _ => local.to_string().into(),
        }
    }
}

/// Decimals that every double holds are numbers; longer ones stay text, digit for digit.
fn decimal(text: String, precision: u8) -> Value {
    const DIGITS_OF_A_DOUBLE: u8 = 15;
    match text.parse::<f64>() {
        Ok(number) if precision <= DIGITS_OF_A_DOUBLE => number.into(),
        _ => text.into(),
    }
}

fn time(value: impl Into<i64>, nanoseconds_per_unit: i64) -> Value {
    let value = value.into();
    let since_midnight = value
        .checked_mul(nanoseconds_per_unit)
        .map(SignedDuration::from_nanos);
    let time = since_midnight.and_then(|since| Time::midnight().checked_add(since).ok());
    time.map_or(value.into(), |time| time.to_string().into())
}

fn duration(value: i64, per_second: i64) -> Value {
    let nanoseconds = value % per_second * (1_000_000_000 / per_second);
    SignedDuration::new(value / per_second, nanoseconds as i32)
        .to_string()
        .into()
}

fn interval(months: i32, days: i32, nanoseconds: i64) -> Value {
    serde_json::json!({"months": months, "days": days, "nanoseconds": nanoseconds})
}

fn key_text(key: Value) -> String {
    match key {
        Value::String(text) => text,
        other => other.to_string(),
    }
}
