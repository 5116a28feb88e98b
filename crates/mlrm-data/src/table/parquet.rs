//! Rows and values of Parquet files.

use std::borrow::Cow;
use std::fs::File;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::{Cell, Columns, Row, wrong_columns};
use crate::error::{DataError, Result};

/// Reads the batches of a Parquet file; `roots` limits the columns that are read. `each` is given
/// the number of the batch's first row, counted from 1.
pub(crate) fn read_parquet(
    path: &Path,
    roots: Option<&[&str]>,
    mut each: impl FnMut(&RecordBatch, u64) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let broken = |reason: String| {
        DataError::file(
            path,
            format!("no readable Parquet: {}", crate::error::shorten(&reason)),
            "write the file again",
        )
    };
    let file = File::open(path).map_err(DataError::io("read", path))?;
    // The Parquet reader panics on some corrupt files; a file of the user must not.
    catch_unwind(AssertUnwindSafe(|| {
        let mut builder = ParquetRecordBatchReaderBuilder::try_new(file)
            .map_err(|error| broken(error.to_string()))?
            .with_batch_size(1 << 15);
        if let Some(names) = roots {
            let schema = builder.parquet_schema();
            let wanted = schema.root_schema().get_fields().iter().enumerate();
            let wanted = wanted.filter(|(_, field)| names.contains(&field.name()));
            let mask = ProjectionMask::roots(schema, wanted.map(|(index, _)| index));
            builder = builder.with_projection(mask);
        }
        let mut first_row = 1;
        for batch in builder.build().map_err(|error| broken(error.to_string()))? {
            let batch = batch.map_err(|error| broken(error.to_string()))?;
            if each(&batch, first_row)?.is_break() {
                break;
            }
            first_row += batch.num_rows() as u64;
        }
        Ok(())
    }))
    .unwrap_or_else(|_| Err(broken("its pages are corrupt".into())))
}

pub(super) fn parquet_rows<const N: usize>(
    path: &Path,
    columns: &Columns<N>,
    batch: &RecordBatch,
    first_row: u64,
    each: &mut impl FnMut(u64, Row<'_, N>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let mut views: [Option<View<'_>>; N] = std::array::from_fn(|_| None);
    for (index, name) in columns.names.iter().enumerate() {
        match batch.column_by_name(name) {
            Some(array) => views[index] = Some(View::of(path, name, array)?),
            None if index < columns.required => {
                let schema = batch.schema();
                let found: Vec<_> = schema.fields().iter().map(|field| field.name()).collect();
                return Err(wrong_columns(path, columns, &format!("found {found:?}")));
            }
            None => {}
        }
    }
    for row in 0..batch.num_rows() {
        let cells = std::array::from_fn(|index| match &views[index] {
            Some(view) => view.cell(row),
            None => Cell::Null,
        });
        if each(first_row + row as u64, Ok(cells)).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// A Parquet column, ready to be read row by row.
pub(crate) struct View<'a> {
    array: &'a dyn Array,
    kind: ViewKind<'a>,
}

enum ViewKind<'a> {
    Text(Box<dyn Fn(usize) -> &'a str + 'a>),
    Integer(Box<dyn Fn(usize) -> i64 + 'a>),
    Unsigned(&'a arrow_array::UInt64Array),
    Number(Box<dyn Fn(usize) -> f64 + 'a>),
    Boolean(&'a arrow_array::BooleanArray),
    List(
        Box<View<'a>>,
        Box<dyn Fn(usize) -> std::ops::Range<usize> + 'a>,
    ),
    Dictionary(Vec<usize>, Box<View<'a>>),
    Null,
}

macro_rules! primitive {
    ($array:expr, $kind:ident, $type:ty, $to:ty) => {{
        let array = $array.as_primitive::<$type>();
        ViewKind::$kind(Box::new(move |row| array.value(row) as $to))
    }};
}

macro_rules! timestamp {
    ($array:expr, $type:ty, $units_per_second:expr) => {{
        let array = $array.as_primitive::<$type>();
        ViewKind::Integer(Box::new(move |row| {
            array.value(row).div_euclid($units_per_second)
        }))
    }};
}

impl<'a> View<'a> {
    /// A view of `array`, or an error that names the column and its type.
    pub(crate) fn of(path: &Path, name: &str, array: &'a dyn Array) -> Result<Self> {
        let kind = match array.data_type() {
            DataType::Null => ViewKind::Null,
            DataType::Boolean => ViewKind::Boolean(array.as_boolean()),
            DataType::Utf8 => {
                let array = array.as_string::<i32>();
                ViewKind::Text(Box::new(move |row| array.value(row)))
            }
            DataType::LargeUtf8 => {
                let array = array.as_string::<i64>();
                ViewKind::Text(Box::new(move |row| array.value(row)))
            }
            DataType::Utf8View => {
                let array = array.as_string_view();
                ViewKind::Text(Box::new(move |row| array.value(row)))
            }
            DataType::Int8 => primitive!(array, Integer, Int8Type, i64),
            DataType::Int16 => primitive!(array, Integer, Int16Type, i64),
            DataType::Int32 => primitive!(array, Integer, Int32Type, i64),
            DataType::Int64 => primitive!(array, Integer, Int64Type, i64),
            DataType::UInt8 => primitive!(array, Integer, UInt8Type, i64),
            DataType::UInt16 => primitive!(array, Integer, UInt16Type, i64),
            DataType::UInt32 => primitive!(array, Integer, UInt32Type, i64),
            DataType::UInt64 => ViewKind::Unsigned(array.as_primitive()),
            DataType::Float32 => primitive!(array, Number, Float32Type, f64),
            DataType::Float64 => primitive!(array, Number, Float64Type, f64),
            DataType::Timestamp(unit, _) => match unit {
                TimeUnit::Second => timestamp!(array, TimestampSecondType, 1),
                TimeUnit::Millisecond => timestamp!(array, TimestampMillisecondType, 1_000),
                TimeUnit::Microsecond => timestamp!(array, TimestampMicrosecondType, 1_000_000),
                TimeUnit::Nanosecond => timestamp!(array, TimestampNanosecondType, 1_000_000_000),
            },
            DataType::List(_) => {
                let array = array.as_list::<i32>();
                let offsets = array.value_offsets();
                ViewKind::List(
                    Box::new(View::of(path, name, array.values())?),
                    Box::new(move |row| offsets[row] as usize..offsets[row + 1] as usize),
                )
            }
            DataType::LargeList(_) => {
                let array = array.as_list::<i64>();
                let offsets = array.value_offsets();
                ViewKind::List(
                    Box::new(View::of(path, name, array.values())?),
                    Box::new(move |row| offsets[row] as usize..offsets[row + 1] as usize),
                )
            }
            DataType::Dictionary(_, _) => {
                let dictionary = array.as_any_dictionary();
                let keys = match dictionary.values().is_empty() {
                    true => vec![0; array.len()],
                    false => dictionary.normalized_keys(),
                };
                let values = View::of(path, name, dictionary.values())?;
                ViewKind::Dictionary(keys, Box::new(values))
            }
            other => {
                return Err(DataError::file(
                    path,
                    format!("column `{name}` has the type {other}, which cannot be read"),
                    "write it as text, a number or a list of these, or drop the column",
                ));
            }
        };
        Ok(Self { array, kind })
    }

    /// The field of a row; lists and truth values have none and read as null.
    pub(crate) fn cell(&self, row: usize) -> Cell<'a> {
        if self.array.is_null(row) {
            return Cell::Null;
        }
        match &self.kind {
            ViewKind::Text(value) => Cell::Text(Cow::Borrowed(value(row))),
            ViewKind::Integer(value) => Cell::Integer(value(row)),
            // Hashed ids use all 64 bits.
            ViewKind::Unsigned(array) => match i64::try_from(array.value(row)) {
                Ok(value) => Cell::Integer(value),
                Err(_) => Cell::Text(Cow::Owned(array.value(row).to_string())),
            },
            ViewKind::Number(value) => Cell::Number(value(row)),
            ViewKind::Dictionary(keys, values) => values.cell(keys[row]),
            ViewKind::Boolean(_) | ViewKind::List(_, _) | ViewKind::Null => Cell::Null,
        }
    }

    /// The field of a row as JSON.
    pub(crate) fn json(&self, row: usize) -> Value {
        if self.array.is_null(row) {
            return Value::Null;
        }
        match &self.kind {
            ViewKind::Text(value) => value(row).into(),
            ViewKind::Integer(value) => value(row).into(),
            ViewKind::Unsigned(array) => array.value(row).into(),
            ViewKind::Number(value) => value(row).into(),
            ViewKind::Boolean(array) => array.value(row).into(),
            ViewKind::List(values, range) => range(row).map(|item| values.json(item)).collect(),
            ViewKind::Dictionary(keys, values) => values.json(keys[row]),
            ViewKind::Null => Value::Null,
        }
    }
}
