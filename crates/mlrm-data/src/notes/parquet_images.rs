//! Pictures in the column `image` of a Parquet file.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelector,
};
use parquet::file::metadata::PageIndexPolicy;
use serde_json::Value;

use crate::error::{DataError, Problem, Result, shorten};
use crate::table::{Cell, PictureColumn, Table, TableOptions, guarded};

/// The column of keys, where the pictures have none of their own.
const ID: &str = "id";

/// A Parquet file with pictures: a column `image` of bytes, or of structs `{bytes, path}`.
#[derive(Debug)]
pub(super) struct ParquetImages {
    pub path: PathBuf,
    metadata: ArrowReaderMetadata,
    /// Number of the leaf column that has the bytes.
    leaf: usize,
    /// Rows up to the end of each row group.
    ends: Vec<u64>,
}

impl ParquetImages {
    /// Opens a file, and gives the key of every picture, by row: its path, or else the row's id.
    ///
    /// # Errors
    /// A file that is no Parquet, or has no such column.
    pub fn open(path: &Path) -> Result<(Self, Vec<String>)> {
        let table = Table::open(path, &TableOptions::default())?;
        let Some(PictureColumn { leaf, has_path }) = table.picture_column() else {
            return Err(DataError::file(
                path,
                "there are no pictures in it",
                "name a folder, tar files, or Parquet files with a column `image` of bytes or of \
                 structs {bytes, path}",
            ));
        };
        let has_ids = table.columns().iter().any(|column| column == ID);
        let names: Vec<&str> = [(ID, has_ids), (PictureColumn::NAME, has_path)]
            .into_iter()
            .filter_map(|(name, there)| there.then_some(name))
            .collect();
        let mut keys = Vec::new();
        let mut failed = None;
        table.rows(&names, |row, cells| {
            let key = cells.and_then(|cells| {
                let path = match has_path.then(|| cells.cell(usize::from(has_ids))) {
                    Some(Ok(Cell::Nested(picture))) => path_of(&picture),
                    Some(Err(problem)) => return Err(problem),
                    _ => None,
                };
                match path {
                    Some(path) => Ok(path),
                    None if has_ids => Ok(cells.cell(0)?.id(ID)?.into_owned()),
                    None => Err(no_key()),
                }
            });
            match key {
                Ok(key) => {
                    keys.push(key);
                    ControlFlow::Continue(())
                }
                Err(problem) => {
                    failed = Some(problem.at(path, row));
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let metadata = guarded(path, || {
            let file = File::open(path).map_err(DataError::io("read", path))?;
            let options =
                ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
            ArrowReaderMetadata::load(&file, options)
                .map_err(|error| broken(path, &error.to_string()))
        })?;
        let groups = metadata.metadata().row_groups().iter();
        let ends = groups.scan(0, |end, group| {
            *end += group.num_rows() as u64;
            Some(*end)
        });
        let ends = ends.collect();
        let images = Self {
            path: path.to_path_buf(),
            metadata,
            leaf,
            ends,
        };
        Ok((images, keys))
    }

    /// The bytes of the picture in a row. Only the page that holds it is unpacked.
    ///
    /// # Errors
    /// A file that cannot be read; a row without bytes.
    pub fn read(&self, row: u64) -> io::Result<Vec<u8>> {
        let group = self.ends.partition_point(|&end| end <= row);
        let first = if group == 0 { 0 } else { self.ends[group - 1] };
        let batch = guarded(&self.path, || self.batch(group, (row - first) as usize));
        let batch = batch.map_err(|error| io::Error::other(error.to_string()))?;
        let bytes = batch
            .as_ref()
            .and_then(|batch| bytes_of(batch.column(0).as_ref()));
        bytes.ok_or_else(|| io::Error::other(format!("row {} has no bytes", row + 1)))
    }

    fn batch(&self, group: usize, row: usize) -> Result<Option<RecordBatch>> {
        // A handle of its own: others would move its place in the file.
        let file = File::open(&self.path).map_err(DataError::io("read", &self.path))?;
        let rows = vec![RowSelector::skip(row), RowSelector::select(1)];
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let mask = ProjectionMask::leaves(builder.parquet_schema(), [self.leaf]);
        let reader = builder
            .with_projection(mask)
            .with_row_groups(vec![group])
            .with_row_selection(RowSelection::from(rows))
            .with_batch_size(1)
            .build();
        let broken = |error: &dyn std::fmt::Display| broken(&self.path, &error.to_string());
        let mut reader = reader.map_err(|error| broken(&error))?;
        reader.next().transpose().map_err(|error| broken(&error))
    }
}

/// The key that a struct of the column holds.
pub(super) fn path_of(picture: &Value) -> Option<String> {
    let path = picture.get("path")?.as_str()?;
    (!path.is_empty()).then(|| path.to_owned())
}

fn bytes_of(array: &dyn Array) -> Option<Vec<u8>> {
    if let Some(pictures) = array.as_struct_opt() {
        return match pictures.is_null(0) {
            true => None,
            false => bytes_of(pictures.column(0).as_ref()),
        };
    }
    if array.is_empty() || array.is_null(0) {
        return None;
    }
    let small = array.as_binary_opt::<i32>().map(|array| array.value(0));
    let large = || array.as_binary_opt::<i64>().map(|array| array.value(0));
    let view = || array.as_binary_view_opt().map(|array| array.value(0));
    small.or_else(large).or_else(view).map(<[u8]>::to_vec)
}

fn no_key() -> Problem {
    Problem::new(
        crate::error::ProblemKind::BadField,
        "the picture has no path, and the file no column `id`",
        "give every picture a path, or every row an id",
    )
}

fn broken(path: &Path, reason: &str) -> DataError {
    DataError::file(
        path,
        format!("no readable Parquet: {}", shorten(reason)),
        "write the file again",
    )
}
