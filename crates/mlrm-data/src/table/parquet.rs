//! The batches of Parquet files.

use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::source::Source;
use super::view::is_bytes;
use crate::error::{DataError, Result};

/// The column of a Parquet file that holds pictures, as bytes or as structs of bytes and a path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PictureColumn {
    /// Number of the leaf column that has the bytes.
    pub leaf: usize,
    /// Whether there is a path beside them.
    pub has_path: bool,
}

impl PictureColumn {
    /// Its name.
    pub const NAME: &str = "image";
    const BYTES: &str = "bytes";
}

/// A Parquet file whose schema has been read.
pub(super) struct ParquetFile {
    builder: ParquetRecordBatchReaderBuilder<Source>,
    /// Names of the columns.
    pub(super) columns: Vec<String>,
}

impl ParquetFile {
    pub(super) fn open(path: &Path, source: Source) -> Result<Self> {
        guarded(path, || {
            let builder = ParquetRecordBatchReaderBuilder::try_new(source)
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

    /// The column of pictures.
    pub(super) fn picture_column(&self) -> Option<PictureColumn> {
        let field = self
            .builder
            .schema()
            .field_with_name(PictureColumn::NAME)
            .ok()?;
        let has = |name: &str| match field.data_type() {
            DataType::Struct(fields) => fields.iter().any(|field| field.name() == name),
            _ => false,
        };
        let schema = self.builder.parquet_schema();
        let parts = match field.data_type() {
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                vec![PictureColumn::NAME]
            }
            DataType::Struct(_) if has(PictureColumn::BYTES) => {
                vec![PictureColumn::NAME, PictureColumn::BYTES]
            }
            _ => return None,
        };
        let leaf =
            (0..schema.num_columns()).find(|&leaf| schema.column(leaf).path().parts() == parts)?;
        Some(PictureColumn {
            leaf,
            has_path: has("path"),
        })
    }

    /// The leaf columns that [`Self::read`] reads. Pictures are read when they are asked for.
    fn leaves(&self, wanted: Option<&[&str]>) -> Vec<usize> {
        let bytes = self.bytes_columns();
        let schema = self.builder.parquet_schema();
        let is_wanted = |leaf: &usize| {
            let column = schema.column(*leaf);
            let parts = column.path().parts();
            let root = parts.first().map_or("", String::as_str);
            let wanted = match wanted {
                Some(names) => names.contains(&root),
                None => !bytes.contains(&root),
            };
            wanted && parts != [PictureColumn::NAME, PictureColumn::BYTES]
        };
        (0..schema.num_columns()).filter(is_wanted).collect()
    }

    /// Which bytes of the file [`Self::read`] reads beside its footer.
    pub(super) fn ranges(&self, wanted: &[&str]) -> Vec<Range<u64>> {
        let leaves = self.leaves(Some(wanted));
        let groups = self.builder.metadata().row_groups().iter();
        let ranges = groups.flat_map(|group| {
            leaves.iter().map(|&leaf| {
                let (start, bytes) = group.column(leaf).byte_range();
                start..start.saturating_add(bytes)
            })
        });
        ranges.collect()
    }

    /// Where the offset index of a leaf column begins, in the files that have one.
    pub(super) fn offset_index(&self, leaf: usize) -> Option<u64> {
        let groups = self.builder.metadata().row_groups().iter();
        let starts = groups.filter_map(|group| group.column(leaf).offset_index_range());
        starts.map(|range| range.start).min()
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
            let leaves = self.leaves(wanted);
            let builder = self.builder.with_batch_size(1 << 15);
            let mask = ProjectionMask::leaves(builder.parquet_schema(), leaves);
            let reader = builder.with_projection(mask).build();
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
pub(crate) fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
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
