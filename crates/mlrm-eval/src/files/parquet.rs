//! Parquet: one row a note.

use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Float64Type, Int8Type, Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, FixedSizeListArray, Float32Array, Int8Array, RecordBatch, StringArray,
};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::embeddings::{EmbeddingSet, Embeddings, eight_bits};
use crate::error::Error;
use crate::files::{Numbers, open, write_beside};

const ID: &str = "id";
const EMBEDDING: &str = "embedding";
const VISUAL: &str = "visual_embedding";
/// Notes turned into columns at a time.
const BATCH_NOTES: usize = 16_384;

pub(super) fn write(path: &Path, set: &EmbeddingSet, numbers: Numbers) -> Result<(), Error> {
    let failed =
        |error: &dyn std::fmt::Display| Error::file(path, format!("cannot write: {error}"));
    let columns: Vec<(&str, &Embeddings)> =
        [(EMBEDDING, Some(set.multimodal())), (VISUAL, set.visual())]
            .into_iter()
            .filter_map(|(name, embeddings)| Some((name, embeddings?)))
            .collect();
    for (_, embeddings) in &columns {
        if i32::try_from(embeddings.dim()).is_err() {
            return Err(failed(&format!(
                "{} dimensions are too many",
                embeddings.dim()
            )));
        }
    }
    let mut fields = vec![Field::new(ID, DataType::Utf8, false)];
    fields.extend(
        columns
            .iter()
            .map(|(name, e)| Field::new(*name, list_type(e, numbers), false)),
    );
    let schema = Arc::new(Schema::new(fields));
    // Embeddings neither repeat nor compress.
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .build();
    write_beside(path, |file| {
        let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties))
            .map_err(|error| failed(&error))?;
        let notes = set.multimodal().len();
        for first in (0..notes).step_by(BATCH_NOTES) {
            let rows = first..(first + BATCH_NOTES).min(notes);
            let ids = StringArray::from_iter_values(&set.multimodal().ids()[rows.clone()]);
            let mut arrays: Vec<ArrayRef> = vec![Arc::new(ids)];
            for (_, embeddings) in &columns {
                let list = list_of(embeddings, rows.clone(), numbers);
                arrays.push(list.map_err(|error| failed(&error))?);
            }
            let batch = RecordBatch::try_new(schema.clone(), arrays).map_err(|e| failed(&e))?;
            writer.write(&batch).map_err(|error| failed(&error))?;
        }
        writer.close().map_err(|error| failed(&error))?;
        Ok(())
    })
}

fn list_item(numbers: Numbers) -> Arc<Field> {
    let kind = match numbers {
        Numbers::F32 => DataType::Float32,
        Numbers::Int8 => DataType::Int8,
    };
    Arc::new(Field::new("item", kind, false))
}

fn list_type(embeddings: &Embeddings, numbers: Numbers) -> DataType {
    DataType::FixedSizeList(list_item(numbers), embeddings.dim() as i32)
}

fn list_of(
    embeddings: &Embeddings,
    rows: std::ops::Range<usize>,
    numbers: Numbers,
) -> Result<ArrayRef, ArrowError> {
    let dim = embeddings.dim();
    let values = &embeddings.values()[rows.start * dim..rows.end * dim];
    let values: ArrayRef = match numbers {
        Numbers::F32 => Arc::new(Float32Array::from(values.to_vec())),
        Numbers::Int8 => {
            let rounded = values.chunks_exact(dim).flat_map(eight_bits);
            Arc::new(Int8Array::from_iter_values(rounded))
        }
    };
    Ok(Arc::new(FixedSizeListArray::try_new(
        list_item(numbers),
        dim as i32,
        values,
        None,
    )?))
}

pub(super) fn read(path: &Path) -> Result<EmbeddingSet, Error> {
    let broken =
        |error: ParquetError| Error::file(path, format!("not a whole Parquet file: {error}"));
    let builder = ParquetRecordBatchReaderBuilder::try_new(open(path)?).map_err(broken)?;
    let names: Vec<&str> = builder
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    for needed in [ID, EMBEDDING] {
        if !names.contains(&needed) {
            return Err(Error::file(
                path,
                format!("no column {needed:?} in it; it has {names:?}"),
            ));
        }
    }
    let mask = ProjectionMask::columns(builder.parquet_schema(), [ID, EMBEDDING, VISUAL]);
    let reader = builder
        .with_projection(mask)
        .with_batch_size(BATCH_NOTES)
        .build()
        .map_err(broken)?;
    let mut ids = Vec::new();
    let mut multimodal = Column::default();
    let mut visual: Option<Column> = None;
    for batch in reader {
        let batch = batch.map_err(|error| broken(ParquetError::from(error)))?;
        let first_row = ids.len();
        let in_file = |problem: String| Error::file(path, problem);
        for (name, column) in batch
            .schema()
            .fields()
            .iter()
            .map(|f| f.name())
            .zip(batch.columns())
        {
            match name.as_str() {
                ID => read_ids(column, first_row, &mut ids).map_err(in_file)?,
                EMBEDDING => multimodal
                    .extend(column, name, first_row)
                    .map_err(in_file)?,
                _ => visual
                    .get_or_insert_default()
                    .extend(column, name, first_row)
                    .map_err(in_file)?,
            }
        }
    }
    let multimodal = multimodal.finish(ids.clone());
    let visual = visual.map(|column| column.finish(ids)).transpose();
    multimodal
        .and_then(|multimodal| EmbeddingSet::new(multimodal, visual?))
        .map_err(|error| error.in_file(path))
}

fn read_ids(column: &ArrayRef, first_row: usize, ids: &mut Vec<String>) -> Result<(), String> {
    no_nulls(column, ID, first_row)?;
    match column.data_type() {
        DataType::Utf8 => ids.extend(
            column
                .as_string::<i32>()
                .iter()
                .flatten()
                .map(str::to_owned),
        ),
        DataType::LargeUtf8 => ids.extend(
            column
                .as_string::<i64>()
                .iter()
                .flatten()
                .map(str::to_owned),
        ),
        DataType::Utf8View => {
            ids.extend(column.as_string_view().iter().flatten().map(str::to_owned))
        }
        DataType::Int64 => {
            ids.extend(
                column
                    .as_primitive::<Int64Type>()
                    .values()
                    .iter()
                    .map(i64::to_string),
            );
        }
        DataType::Int32 => {
            ids.extend(
                column
                    .as_primitive::<Int32Type>()
                    .values()
                    .iter()
                    .map(i32::to_string),
            );
        }
        other => {
            return Err(format!(
                "column \"id\" is {other}; ids are strings or integers"
            ));
        }
    }
    Ok(())
}

/// A column of lists while it is read.
#[derive(Default)]
struct Column {
    dim: usize,
    values: Vec<f32>,
}

impl Column {
    fn extend(&mut self, column: &ArrayRef, name: &str, first_row: usize) -> Result<(), String> {
        no_nulls(column, name, first_row)?;
        for row in 0..column.len() {
            let list = match column.data_type() {
                DataType::FixedSizeList(..) => column.as_fixed_size_list().value(row),
                DataType::List(_) => column.as_list::<i32>().value(row),
                DataType::LargeList(_) => column.as_list::<i64>().value(row),
                other => {
                    return Err(format!(
                        "column {name:?} is {other}; it must be a list of f32"
                    ));
                }
            };
            let row = first_row + row;
            if row == 0 {
                self.dim = list.len();
            }
            if list.len() != self.dim {
                return Err(format!(
                    "row {row}: column {name:?} has {} numbers, the rows before it {}",
                    list.len(),
                    self.dim
                ));
            }
            if list.null_count() > 0 {
                return Err(format!("row {row}: column {name:?} has a missing number"));
            }
            match list.data_type() {
                DataType::Float32 => self
                    .values
                    .extend(list.as_primitive::<Float32Type>().values()),
                DataType::Float64 => {
                    let values = list.as_primitive::<Float64Type>().values();
                    self.values.extend(values.iter().map(|&value| value as f32));
                }
                DataType::Int8 => {
                    let values = list.as_primitive::<Int8Type>().values();
                    self.values
                        .extend(values.iter().map(|&value| f32::from(value)));
                }
                DataType::Float16 => {
                    let values = list.as_primitive::<Float16Type>().values();
                    self.values
                        .extend(values.iter().map(|value| value.to_f32()));
                }
                other => return Err(format!("column {name:?} holds lists of {other}; save f32")),
            }
        }
        Ok(())
    }

    fn finish(self, ids: Vec<String>) -> Result<Embeddings, Error> {
        // A file without rows does not tell how long its lists would be.
        let dim = if ids.is_empty() { 1 } else { self.dim };
        Embeddings::new(ids, dim, self.values)
    }
}

fn no_nulls(column: &ArrayRef, name: &str, first_row: usize) -> Result<(), String> {
    match (0..column.len()).find(|&row| column.is_null(row)) {
        Some(row) => Err(format!(
            "row {}: column {name:?} is empty (null)",
            first_row + row
        )),
        None => Ok(()),
    }
}
