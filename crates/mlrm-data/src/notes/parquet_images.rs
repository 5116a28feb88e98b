//! Pictures in the column `image` of a Parquet file.

use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use arrow_array::Array;
use arrow_array::cast::AsArray;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelector,
};
use parquet::file::metadata::{ColumnChunkMask, PageIndexPolicy};
use serde_json::Value;

use crate::error::{DataError, Problem, Result, shorten};
use crate::table::{Cell, PictureColumn, Source, Table, TableOptions, guarded};

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

/// Rows whose pictures lie together: those of a page, or of a row group where the file does not tell its pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    group: usize,
    /// The number of the row group's first row in the file.
    group_start: u64,
    /// The rows, by their number in the row group.
    rows: Range<u64>,
    /// Where the bytes are: a dictionary, where there is one, and the page; or the whole column of the row group.
    pub spans: Vec<Range<u64>>,
}

impl Unit {
    /// The number of its first row in the file.
    pub fn start(&self) -> u64 {
        self.group_start + self.rows.start
    }

    /// How many bytes have to be read for it.
    pub fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.end - span.start).sum()
    }
}

impl ParquetImages {
    /// Opens a file, and gives the key of every picture, by row: its path, or else the row's id.
    ///
    /// # Errors
    /// A file that is no Parquet, or has no such column.
    pub fn open(path: &Path) -> Result<(Self, Vec<String>)> {
        let table = Table::open(path, &TableOptions::default())?;
        let column = column_of(&table, path)?;
        let keys = keys_of(table, path, column)?;
        let file = File::open(path).map_err(DataError::io("read", path))?;
        Ok((Self::of(path, &Source::File(file), column)?, keys))
    }

    /// The pictures of a file at `path`, by its footer and its offset index.
    ///
    /// # Errors
    /// A file that is no Parquet.
    pub fn of(path: &Path, source: &Source, column: PictureColumn) -> Result<Self> {
        let leaf = column.leaf;
        let options = ArrowReaderOptions::new()
            .with_offset_index_policy(PageIndexPolicy::Optional)
            .with_offset_index_mask(ColumnChunkMask::columns([leaf]));
        let metadata = guarded(path, || {
            let loaded = ArrowReaderMetadata::load(source, options);
            loaded.map_err(|error| broken(path, &error.to_string()))
        })?;
        let groups = metadata.metadata().row_groups().iter();
        let ends = groups.scan(0, |end, group| {
            *end += group.num_rows() as u64;
            Some(*end)
        });
        Ok(Self {
            path: path.to_path_buf(),
            ends: ends.collect(),
            metadata,
            leaf,
        })
    }

    /// The bytes of the picture in a row. Only the page that holds it is unpacked.
    ///
    /// # Errors
    /// A file that cannot be read; a row without bytes.
    pub fn read(&self, row: u64) -> io::Result<Vec<u8>> {
        // A handle of its own: others would move its place in the file.
        let file = File::open(&self.path)?;
        let (group, group_start) = self.group(row);
        let place = row - group_start;
        let one = Unit {
            group,
            group_start,
            rows: place..place + 1,
            spans: Vec::new(),
        };
        let mut content = None;
        let unpacked = self.unpack(Source::File(file), &one, |_, bytes| content = Some(bytes));
        unpacked.map_err(|error| io::Error::other(error.to_string()))?;
        content.ok_or_else(|| no_bytes(row))
    }

    /// The row group of a row, and the number of its first row.
    fn group(&self, row: u64) -> (usize, u64) {
        let group = self.ends.partition_point(|&end| end <= row);
        (group, if group == 0 { 0 } else { self.ends[group - 1] })
    }

    /// The rows that have to be read together with a row.
    ///
    /// # Errors
    /// A footer that cannot be right.
    pub fn unit(&self, row: u64) -> Result<Unit> {
        guarded(&self.path, || {
            let (group, group_start) = self.group(row);
            let metadata = self.metadata.metadata();
            let chunk = metadata.row_group(group);
            let rows = chunk.num_rows() as u64;
            let (start, bytes) = chunk.column(self.leaf).byte_range();
            let index = metadata.page_index_for_row_group(group);
            let pages = index.page_locations(self.leaf);
            let unit = |rows, spans| Unit {
                group,
                group_start,
                rows,
                spans,
            };
            let Some(pages) = pages.filter(|pages| !pages.is_empty()) else {
                let whole = start..start.saturating_add(bytes);
                return Ok(unit(0..rows, Vec::from([whole])));
            };
            let place = (row - group_start) as i64;
            let after = pages.partition_point(|page| page.first_row_index <= place);
            let page = &pages[after - 1];
            let end = pages.get(after);
            let end = end.map_or(rows, |next| next.first_row_index as u64);
            let (from, first) = (page.offset as u64, pages[0].offset as u64);
            let page_bytes = from..from.saturating_add(page.compressed_page_size as u64);
            // What lies before the first page is the dictionary of all.
            let dictionary = Some(start..first).filter(|span| !span.is_empty());
            let spans = dictionary.into_iter().chain([page_bytes]).collect();
            Ok(unit(page.first_row_index as u64..end, spans))
        })
    }

    /// Hands the pictures of `unit` to `each`, with the numbers of their rows in the file. Rows without bytes are left out.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn unpack(
        &self,
        source: Source,
        unit: &Unit,
        mut each: impl FnMut(u64, Vec<u8>),
    ) -> Result<()> {
        guarded(&self.path, || {
            let broken = |error: &dyn std::fmt::Display| broken(&self.path, &error.to_string());
            let (skip, rows) = (unit.rows.start, unit.rows.end - unit.rows.start);
            let selected = vec![
                RowSelector::skip(skip as usize),
                RowSelector::select(rows as usize),
            ];
            let builder =
                ParquetRecordBatchReaderBuilder::new_with_metadata(source, self.metadata.clone());
            let mask = ProjectionMask::leaves(builder.parquet_schema(), [self.leaf]);
            let reader = builder
                .with_projection(mask)
                .with_row_groups(vec![unit.group])
                .with_row_selection(RowSelection::from(selected))
                // A picture at a time: those of a row group may be more than an array holds.
                .with_batch_size(1)
                .build();
            let batches = reader.map_err(|error| broken(&error))?;
            for (row, batch) in (unit.start()..).zip(batches) {
                let batch = batch.map_err(|error| broken(&error))?;
                if let Some(bytes) = bytes_of(batch.column(0).as_ref()) {
                    each(row, bytes);
                }
            }
            Ok(())
        })
    }
}

/// The column of pictures of a file, which must have one.
pub(super) fn column_of(table: &Table, path: &Path) -> Result<PictureColumn> {
    table.picture_column().ok_or_else(|| {
        DataError::file(
            path,
            "there are no pictures in it",
            "name a folder, tar files, or Parquet files with a column `image` of bytes or of \
             structs {bytes, path}",
        )
    })
}

/// The columns that have the keys.
pub(super) fn key_columns(table: &Table, column: PictureColumn) -> Vec<&'static str> {
    let has_ids = table.columns().iter().any(|column| column == ID);
    let names = [(ID, has_ids), (PictureColumn::NAME, column.has_path)];
    let there = names.into_iter().filter(|(_, there)| *there);
    there.map(|(name, _)| name).collect()
}

/// The key of every picture, by row: its path, or else the row's id.
pub(super) fn keys_of(table: Table, path: &Path, column: PictureColumn) -> Result<Vec<String>> {
    let names = key_columns(&table, column);
    let has_ids = names.contains(&ID);
    let mut keys = Vec::new();
    let mut failed = None;
    table.rows(&names, |row, cells| {
        let key = cells.and_then(|cells| {
            let path = match column.has_path.then(|| cells.cell(usize::from(has_ids))) {
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
    match failed {
        Some(error) => Err(error),
        None => Ok(keys),
    }
}

/// The key that a struct of the column holds.
pub(super) fn path_of(picture: &Value) -> Option<String> {
    let path = picture.get("path")?.as_str()?;
    (!path.is_empty()).then(|| path.to_owned())
}

/// Says of a row that it has no picture.
pub(super) fn no_bytes(row: u64) -> io::Error {
    io::Error::other(format!("row {} has no bytes", row + 1))
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

pub(super) fn broken(path: &Path, reason: &str) -> DataError {
    DataError::file(
        path,
        format!("no readable Parquet: {}", shorten(reason)),
        "write the file again",
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};

    use super::*;
    use crate::table::Spans;

    /// Ten pictures, the fifth of which is none, in row groups of four, and what the file holds.
    fn written(path: &Path, options: WriterPropertiesBuilder) -> (Vec<Vec<u8>>, Vec<u8>) {
        let content: Vec<Vec<u8>> = (0..10_u8).map(|row| vec![row / 2; 900]).collect();
        let some = |(row, bytes)| (row != 4).then_some(bytes);
        let pictures = content.iter().map(Vec::as_slice).enumerate().map(some);
        let pictures: ArrayRef = Arc::new(BinaryArray::from_iter(pictures));
        let ids = (0..10).map(|row| Some(format!("{row}.png")));
        let ids: ArrayRef = Arc::new(StringArray::from_iter(ids));
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("image", pictures, true),
            ("id", ids, true),
        ]);
        let batch = batch.unwrap();
        let options = options
            .set_max_row_group_row_count(Some(4))
            .set_data_page_row_count_limit(2)
            .set_write_batch_size(1);
        let file = File::create(path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(options.build())).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        (content, fs::read(path).unwrap())
    }

    #[test]
    fn the_parts_that_are_named_are_enough_to_read_a_row() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x.parquet");
        let builder = WriterProperties::builder;
        let plain = || builder().set_dictionary_enabled(false);
        let bare = || {
            let bare = builder().set_statistics_enabled(EnabledStatistics::None);
            bare.set_offset_index_disabled(true)
        };
        for (options, rows, spans) in [
            (plain(), 2, 1),
            (builder().set_dictionary_enabled(true), 2, 2),
            (bare().set_dictionary_enabled(false), 4, 1),
            (bare().set_dictionary_enabled(true), 4, 1),
        ] {
            let (content, file) = written(&path, options);
            let (images, keys) = ParquetImages::open(&path).unwrap();
            assert_eq!(keys[9], "9.png");
            for row in 0..10 {
                let unit = images.unit(row).unwrap();
                assert_eq!(unit.spans.len(), spans);
                assert!(unit.bytes() < file.len() as u64 / 2);
                let parts = unit.spans.iter().map(|span| {
                    let part = &file[span.start as usize..span.end as usize];
                    (span.start, part.to_vec())
                });
                let spans = Spans::new(file.len() as u64, parts);
                let mut found = Vec::new();
                let each = |row, bytes| found.push((row, bytes));
                images.unpack(Source::Spans(spans), &unit, each).unwrap();
                let first = row - row % 4 % rows;
                let last = (first + rows).min(row - row % 4 + 4).min(10);
                let there = (first..last).filter(|&row| row != 4);
                let there = there.map(|row| (row, content[row as usize].clone()));
                assert_eq!(found, there.collect::<Vec<_>>(), "{row}");
                match row {
                    4 => assert!(images.read(row).is_err()),
                    row => assert_eq!(images.read(row).unwrap(), content[row as usize]),
                }
            }
            // Without the part that is named nothing is read, and nothing panics.
            let unit = images.unit(9).unwrap();
            let none = Source::Spans(Spans::new(file.len() as u64, []));
            assert!(images.unpack(none, &unit, |_, _| {}).is_err());
        }
    }
}
