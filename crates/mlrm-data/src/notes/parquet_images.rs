//! Pictures in the column `image` of a Parquet file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow_array::Array;
use arrow_array::cast::AsArray;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelector,
};
use parquet::file::metadata::{ColumnChunkMask, PageIndexPolicy};

use super::image_store::read_range;
use super::parquet_keys::{column_of, keys_of};
use super::parquet_places::{Finder, KnownPlaces, Places};
use crate::error::{DataError, Result, shorten};
use crate::table::{PictureColumn, Source, Spans, Table, TableOptions, guarded};

/// Bytes of a page, or of a row group, that are read at once to learn where its pictures lie.
const LEARNED: u64 = 1 << 28;

/// A Parquet file with pictures: a column `image` of bytes, or of structs `{bytes, path}`.
#[derive(Debug)]
pub(super) struct ParquetImages {
    pub path: PathBuf,
    metadata: ArrowReaderMetadata,
    /// Number of the leaf column that has the bytes.
    leaf: usize,
    /// Rows up to the end of each row group.
    ends: Vec<u64>,
    places: KnownPlaces,
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
            places: KnownPlaces::default(),
        })
    }

    /// The bytes of the picture in a row. Where pictures lie as they are, those of a page are looked at once, and then each is read
    /// by itself; otherwise the page that holds it is unpacked.
    ///
    /// # Errors
    /// A file that cannot be read; a row without bytes.
    pub fn read(&self, row: u64) -> io::Result<Vec<u8>> {
        let unit = self.unit(row);
        let unit = unit.map_err(|error| io::Error::other(error.to_string()))?;
        let start = unit.start();
        let places = self
            .places
            .of(start, || self.learn(&unit).unwrap_or_default());
        match places.get((row - start) as usize) {
            Some(place) if !place.is_empty() => {
                read_range(&self.path, place.start, place.end - place.start)
            }
            _ => self.read_packed(row),
        }
    }

    /// Where the pictures of a unit lie, if all that it has lie there as they are.
    fn learn(&self, unit: &Unit) -> Option<Places> {
        if unit.bytes() > LEARNED {
            return None;
        }
        let read = |span: &Range<u64>| {
            let part = read_range(&self.path, span.start, span.end - span.start);
            Some((span.start, bytes::Bytes::from(part.ok()?)))
        };
        let parts: Vec<_> = unit.spans.iter().map(read).collect::<Option<_>>()?;
        let file_bytes = std::fs::metadata(&self.path).ok()?.len();
        let spans = Spans::new(file_bytes, parts.iter().cloned());
        let mut finder = Finder::new(parts.iter().map(|(start, part)| (*start, part.as_ref())));
        let (mut places, mut all) = (Vec::new(), true);
        let each = |row: u64, picture: Vec<u8>| {
            // What does not lie in one place is not looked for again and again.
            let place = all.then(|| finder.find(&picture)).flatten();
            all = place.is_some();
            // Rows without bytes are left out before it.
            places.resize((row - unit.start()) as usize, 0..0);
            places.extend(place);
        };
        self.unpack(Source::Spans(spans), unit, each).ok()?;
        all.then(|| places.into())
    }

    /// The bytes of the picture in a row, of which the page is unpacked.
    fn read_packed(&self, row: u64) -> io::Result<Vec<u8>> {
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
    use parquet::basic::{Compression, ZstdLevel};
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
        let packed = || plain().set_compression(Compression::ZSTD(ZstdLevel::default()));
        for (options, rows, spans, lie_there) in [
            (plain(), 2, 1, true),
            (packed(), 2, 1, false),
            (builder().set_dictionary_enabled(true), 2, 2, true),
            (bare().set_dictionary_enabled(false), 4, 1, true),
            (bare().set_dictionary_enabled(true), 4, 1, true),
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
                for _ in 0..2 {
                    match row {
                        4 => assert!(images.read(row).is_err()),
                        row => assert_eq!(images.read(row).unwrap(), content[row as usize]),
                    }
                }
                let known = || unreachable!("the first read has shown where pictures lie");
                let places = images.places.of(unit.start(), known);
                assert_eq!(!places.is_empty(), lie_there);
            }
            // Without the part that is named nothing is read, and nothing panics.
            let unit = images.unit(9).unwrap();
            let none: [(u64, Vec<u8>); 0] = [];
            let none = Source::Spans(Spans::new(file.len() as u64, none));
            assert!(images.unpack(none, &unit, |_, _| {}).is_err());
        }
    }
}
