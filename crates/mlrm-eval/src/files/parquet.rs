//! Parquet: one row a note.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Float64Type, Int8Type, Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, FixedSizeListArray, Float32Array, Int8Array, RecordBatch, StringArray,
};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use mlrm_files::PendingFile;
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::embeddings::{EmbeddingSet, Embeddings, eight_bits};
use crate::error::Error;
use crate::files::{EachBlock, Numbers, Shape, Writer, begin, open, place};

const ID: &str = "id";
const EMBEDDING: &str = "embedding";
const VISUAL: &str = "visual_embedding";
/// Notes turned into columns at a time.
const BATCH_NOTES: usize = 16_384;
/// Bytes of numbers in a row group, which is in memory until it is written, if a batch of notes is not larger.
const GROUP_BYTES: usize = 1 << 27;

/// Columns that are being written.
pub(super) struct Columns {
    path: PathBuf,
    shape: Shape,
    schema: Arc<Schema>,
    writer: ArrowWriter<PendingFile>,
    /// Notes that are not enough for a batch yet, so that batches do not depend on who appends how many.
    ids: Vec<String>,
    values: Vec<f32>,
    visual: Vec<f32>,
}

impl Columns {
    pub(super) fn begin(path: &Path, shape: Shape) -> Result<Self, Error> {
        let columns = [(EMBEDDING, Some(shape.dim)), (VISUAL, shape.visual)];
        let mut fields = vec![Field::new(ID, DataType::Utf8, false)];
        for (name, dim) in columns {
            let Some(dim) = dim else { continue };
            let dim = i32::try_from(dim)
                .map_err(|_| failed(path, &format!("{dim} dimensions are too many")))?;
            let list = DataType::FixedSizeList(list_item(shape.numbers), dim);
            fields.push(Field::new(name, list, false));
        }
        let schema = Arc::new(Schema::new(fields));
        // Embeddings neither repeat nor compress.
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_max_row_group_row_count(Some(group_notes(&shape)))
            .build();
        let writer = ArrowWriter::try_new(begin(path)?, schema.clone(), Some(properties));
        Ok(Self {
            path: path.to_owned(),
            shape,
            schema,
            writer: writer.map_err(|error| failed(path, &error))?,
            ids: Vec::new(),
            values: Vec::new(),
            visual: Vec::new(),
        })
    }

    /// Writes the first notes that wait.
    fn write(&mut self, notes: usize) -> Result<(), Error> {
        let Shape {
            dim,
            visual,
            numbers,
            ..
        } = self.shape;
        let mut write = || -> Result<(), ParquetError> {
            let ids = StringArray::from_iter_values(self.ids.drain(..notes));
            let values = self.values.drain(..notes * dim).collect();
            let mut arrays: Vec<ArrayRef> = vec![Arc::new(ids), list_of(values, dim, numbers)?];
            if let Some(dim) = visual {
                let values = self.visual.drain(..notes * dim).collect();
                arrays.push(list_of(values, dim, numbers)?);
            }
            let batch = RecordBatch::try_new(self.schema.clone(), arrays)?;
            self.writer.write(&batch)
        };
        write().map_err(|error| failed(&self.path, &error))
    }
}

impl Writer for Columns {
    fn append(&mut self, set: &EmbeddingSet) -> Result<(), Error> {
        let all = set.multimodal();
        let mut first = 0;
        while first < all.len() {
            let end = all.len().min(first + BATCH_NOTES - self.ids.len());
            let rows = |of: &Embeddings| first * of.dim()..end * of.dim();
            self.ids.extend_from_slice(&all.ids()[first..end]);
            self.values.extend_from_slice(&all.values()[rows(all)]);
            if let Some(visual) = set.visual() {
                self.visual
                    .extend_from_slice(&visual.values()[rows(visual)]);
            }
            first = end;
            if self.ids.len() == BATCH_NOTES {
                self.write(BATCH_NOTES)?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), Error> {
        if !self.ids.is_empty() {
            self.write(self.ids.len())?;
        }
        let Self { path, writer, .. } = *self;
        place(writer.into_inner().map_err(|error| failed(&path, &error))?)
    }
}

/// Notes of a row group: whole batches of them.
fn group_notes(shape: &Shape) -> usize {
    let width = match shape.numbers {
        Numbers::F32 => size_of::<f32>(),
        Numbers::Int8 => size_of::<i8>(),
    };
    let note = (shape.dim + shape.visual.unwrap_or(0)).max(1) * width;
    (GROUP_BYTES / note / BATCH_NOTES).clamp(1, 64) * BATCH_NOTES
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::file(path, format!("cannot write: {error}"))
}

fn list_item(numbers: Numbers) -> Arc<Field> {
    let kind = match numbers {
        Numbers::F32 => DataType::Float32,
        Numbers::Int8 => DataType::Int8,
    };
    Arc::new(Field::new("item", kind, false))
}

fn list_of(values: Vec<f32>, dim: usize, numbers: Numbers) -> Result<ArrayRef, ArrowError> {
    let values: ArrayRef = match numbers {
        Numbers::F32 => Arc::new(Float32Array::from(values)),
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

/// The ids of the file.
pub(super) fn ids(path: &Path, each: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let builder = opened(path)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), [ID]);
    let reader = builder.with_projection(mask).with_batch_size(BATCH_NOTES);
    let mut first_row = 0;
    for batch in reader.build().map_err(|error| broken(path, &error))? {
        let batch = batch.map_err(|error| broken(path, &ParquetError::from(error)))?;
        for column in batch.columns() {
            let mut ids = Vec::new();
            read_ids(column, first_row, &mut ids).map_err(|problem| Error::file(path, problem))?;
            ids.iter().for_each(|id| each(id));
        }
        first_row += batch.num_rows();
    }
    Ok(())
}

fn opened(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, Error> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(open(path)?);
    builder.map_err(|error| broken(path, &error))
}

fn broken(path: &Path, error: &ParquetError) -> Error {
    Error::file(path, format!("not a whole Parquet file: {error}"))
}

pub(super) fn blocks(path: &Path, most: usize, each: &mut EachBlock<'_>) -> Result<(), Error> {
    let builder = opened(path)?;
    let fields = builder.schema().fields().iter();
    let names: Vec<&str> = fields.map(|field| field.name().as_str()).collect();
    for needed in [ID, EMBEDDING] {
        if !names.contains(&needed) {
            return Err(Error::file(
                path,
                format!("no column {needed:?} in it; it has {names:?}"),
            ));
        }
    }
    let mask = ProjectionMask::columns(builder.parquet_schema(), [ID, EMBEDDING, VISUAL]);
    let at_once = most.min(BATCH_NOTES);
    let reader = builder
        .with_projection(mask)
        .with_batch_size(at_once)
        .build()
        .map_err(|error| broken(path, &error))?;
    let mut rows = Rows::default();
    for batch in reader {
        let batch = batch.map_err(|error| broken(path, &ParquetError::from(error)))?;
        let extended = rows.extend(&batch);
        extended.map_err(|problem| Error::file(path, problem))?;
        if rows.ids.len() > most - at_once {
            each(rows.take(path)?)?;
        }
    }
    if !rows.ids.is_empty() || rows.first == 0 {
        each(rows.take(path)?)?;
    }
    Ok(())
}

/// Neighbouring rows while they are read.
#[derive(Default)]
struct Rows {
    /// The number of the first.
    first: usize,
    ids: Vec<String>,
    multimodal: Column,
    visual: Option<Column>,
}

impl Rows {
    fn extend(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let row = self.first + self.ids.len();
        let schema = batch.schema();
        for (field, column) in schema.fields().iter().zip(batch.columns()) {
            let name = field.name();
            match name.as_str() {
                ID => read_ids(column, row, &mut self.ids)?,
                EMBEDDING => self.multimodal.extend(column, name, row)?,
                _ => {
                    let visual = self.visual.get_or_insert_default();
                    visual.extend(column, name, row)?;
                }
            }
        }
        Ok(())
    }

    /// Those that were read since the last time.
    fn take(&mut self, path: &Path) -> Result<EmbeddingSet, Error> {
        let (first, ids) = (self.first, std::mem::take(&mut self.ids));
        self.first += ids.len();
        let visual = self.visual.as_mut();
        let visual = visual.map(|column| column.take(first, ids.clone()));
        let visual = visual.transpose();
        let multimodal = self.multimodal.take(first, ids);
        multimodal
            .and_then(|multimodal| EmbeddingSet::new(multimodal, visual?))
            .map_err(|error| error.in_file(path))
    }
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

    fn take(&mut self, first: usize, ids: Vec<String>) -> Result<Embeddings, Error> {
        // A file without rows does not tell how long its lists would be.
        let dim = if ids.is_empty() { 1 } else { self.dim };
        Embeddings::from_row(first, ids, dim, std::mem::take(&mut self.values))
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
