//! The batches of Parquet files.

use std::fs::File;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow_array::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::view::is_bytes;
use crate::error::{DataError, Result};

/// A Parquet file whose schema has been read.
pub(super) struct ParquetFile {
    builder: ParquetRecordBatchReaderBuilder<File>,
    /// Names of the columns.
    pub(super) columns: Vec<String>,
}

impl ParquetFile {
    pub(super) fn open(path: &Path, file: File) -> Result<Self> {
        guarded(path, || {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file)
                .map_err(|error| broken(path, &error.to_string()))?;
            let fields = builder.schema().fields();
            let columns = fields.iter().map(|field| field.name().clone()).collect();
            Ok(Self { builder, columns })
        })
    }

    /// Names of the columns that hold bytes.
    pub(super) fn bytes_columns(&self) -> Vec<&str> {
        let fields = self.builder.schema().fields().iter();
        let bytes = fields.filter(|field| is_bytes(field.data_type()));
        bytes.map(|field| field.name().as_str()).collect()
    }

    /// Hands every batch to `each`, with the number of its first row counted from 1; `wanted`
    /// limits the columns that are read.
    pub(super) fn read(
        self,
        path: &Path,
        wanted: Option<&[&str]>,
        mut each: impl FnMut(&RecordBatch, u64) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        guarded(path, || {
            let mut builder = self.builder.with_batch_size(1 << 15);
            if let Some(names) = wanted {
                let schema = builder.parquet_schema();
                let roots = schema.root_schema().get_fields().iter().enumerate();
                let roots = roots.filter(|(_, field)| names.contains(&field.name()));
                let mask = ProjectionMask::roots(schema, roots.map(|(index, _)| index));
                builder = builder.with_projection(mask);
            }
            let reader = builder.build();
            let mut first_row = 1;
            for batch in reader.map_err(|error| broken(path, &error.to_string()))? {
                let batch = batch.map_err(|error| broken(path, &error.to_string()))?;
                if each(&batch, first_row)?.is_break() {
                    break;
                }
                first_row += batch.num_rows() as u64;
            }
            Ok(())
        })
    }
}

/// The Parquet reader panics on some corrupt files; a file of the user must not.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(broken(path, "its pages are corrupt")))
}

fn broken(path: &Path, reason: &str) -> DataError {
    DataError::file(
        path,
        format!("no readable Parquet: {}", crate::error::shorten(reason)),
        "write the file again",
    )
}
