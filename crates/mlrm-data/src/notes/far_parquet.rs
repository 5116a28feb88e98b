//! Pictures in Parquet files of an object store, which are read by ranges.
//!
//! The end of a file says where its pages are. A picture is read with its page, or with its row group where a file has no
//! offset index; every picture that comes so is kept on this machine by itself, so that the next one is not fetched.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::parquet_images::{ParquetImages, Unit, broken, no_bytes};
use super::parquet_keys::{column_of, key_columns, keys_of};
use crate::error::{DataError, Problem, ProblemKind, Result, shown};
use crate::store::{Object, Store};
use crate::table::{Source, Spans, Table, guarded, joined};

/// Bytes of a file's end that are read at first. The footers of most are smaller.
const END: u64 = 1 << 16;
/// Parts of a file that lie closer than this many bytes are read at once.
const GAP: u64 = 1 << 16;
/// Bytes of pages or row groups that are in memory at the same time, if one is not larger by itself.
const TOGETHER: u64 = 1 << 28;

/// The last bytes of a Parquet file: how long its footer is, and its magic.
const LAST: usize = 8;

/// A Parquet file with pictures in an object store.
#[derive(Debug)]
pub(super) struct FarParquet {
    pub object: Object,
    pub images: ParquetImages,
}

/// A part of a file that has to be fetched, and the pictures that are wanted of it, by their places in a list.
struct Part<'a> {
    file: &'a FarParquet,
    unit: Unit,
    wanted: Vec<usize>,
}

impl FarParquet {
    /// Reads the end of a file and the columns of its keys, and gives the key of every picture, by row. What was read is kept
    /// with size and entity tag of the file.
    ///
    /// # Errors
    /// A store that does not answer; a file that is no Parquet, or has no pictures.
    pub fn open(store: &Store, object: &Object) -> Result<(Self, Vec<String>)> {
        let path = &store.address(object);
        let kept = store
            .kept_index(object)
            .and_then(|kept| unpack_index(&kept));
        let is_new = kept.is_none();
        let (end, keys) = match kept {
            Some((end, keys)) => (end, keys),
            None => read_end_and_keys(store, object, path)?,
        };
        let spans = end_spans(object, &end);
        let column = column_of(&Table::of_spans(path, spans.clone())?, path)?;
        let images = ParquetImages::of(path, &Source::Spans(spans), column)?;
        if is_new && let Some(index) = pack_index(&end, &keys) {
            store.keep_index(object, &index);
        }
        let object = object.clone();
        Ok((Self { object, images }, keys))
    }

    /// The bytes of the picture in a row, from the cache or from the store.
    ///
    /// # Errors
    /// What the store says, after all tries; a row without bytes; a damaged page.
    pub fn read(&self, store: &Store, row: u64) -> Result<Vec<u8>, Problem> {
        if let Some(content) = store.kept_row(&self.object, row) {
            return Ok(content);
        }
        let unit = self.unit(row).map_err(|error| unread(&error))?;
        let spans: Vec<_> = self.spans(&unit).collect();
        let fetched: Result<Vec<_>, Problem> = store.fetch(&spans).into_iter().collect();
        let mut content = None;
        self.unpack(store, &unit, fetched?, |place, bytes| {
            if place == row {
                content = Some(bytes);
            }
        })
        .map_err(|error| unread(&error))?;
        content.ok_or_else(|| {
            let reason = format!("`{}`: {}", shown(&self.images.path), no_bytes(row));
            unread(&reason)
        })
    }

    /// The pictures of these rows that are not in the cache, of which those that lie together are fetched once; `None` for those that are
    /// there, or that cannot be read: [`Self::read`] says why.
    pub fn read_ahead(store: &Store, wanted: &[(&Self, u64)]) -> Vec<Option<Vec<u8>>> {
        let mut parts: BTreeMap<(&str, u64), Part<'_>> = BTreeMap::new();
        for (place, &(file, row)) in wanted.iter().enumerate() {
            if store.has_row(&file.object, row) {
                continue;
            }
            let Ok(unit) = file.unit(row) else {
                continue;
            };
            let key = (file.object.key.as_str(), unit.start());
            let part = parts.entry(key).or_insert_with(|| Part {
                file,
                unit,
                wanted: Vec::new(),
            });
            part.wanted.push(place);
        }
        let parts: Vec<Part<'_>> = parts.into_values().collect();
        let mut read = vec![None; wanted.len()];
        let mut rest = parts.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest));
            for (place, content) in fetch_parts(store, now, wanted) {
                read[place] = Some(content);
            }
            rest = later;
        }
        read
    }

    /// What has to be read together with a row.
    fn unit(&self, row: u64) -> Result<Unit> {
        let unit = self.images.unit(row)?;
        let is_there = |span: &Range<u64>| span.start <= span.end && span.end <= self.object.bytes;
        match unit.spans.iter().all(is_there) {
            true => Ok(unit),
            false => Err(past_end(&self.images.path)),
        }
    }

    fn spans<'a>(&'a self, unit: &'a Unit) -> impl Iterator<Item = (&'a Object, Range<u64>)> {
        unit.spans.iter().map(|span| (&self.object, span.clone()))
    }

    /// Hands the pictures of what was fetched to `each`, by row, and keeps them.
    fn unpack(
        &self,
        store: &Store,
        unit: &Unit,
        fetched: Vec<Vec<u8>>,
        mut each: impl FnMut(u64, Vec<u8>),
    ) -> Result<()> {
        let starts = unit.spans.iter().map(|span| span.start);
        let spans = Spans::new(self.object.bytes, starts.zip(fetched));
        self.images
            .unpack(Source::Spans(spans), unit, |row, bytes| {
                store.keep_row(&self.object, row, &bytes);
                each(row, bytes);
            })
    }
}

/// How many parts from the first on are fetched at once.
fn fitting(parts: &[Part<'_>]) -> usize {
    let ends = parts.iter().scan(0_u64, |end, part| {
        *end = end.saturating_add(part.unit.bytes());
        Some(*end)
    });
    ends.take_while(|&end| end <= TOGETHER).count().max(1)
}

/// Fetches parts all at once, and gives the pictures that are wanted of them, with their places. What cannot be read is
/// left out.
fn fetch_parts(
    store: &Store,
    parts: &[Part<'_>],
    wanted: &[(&FarParquet, u64)],
) -> Vec<(usize, Vec<u8>)> {
    let spans = parts.iter().flat_map(|part| part.file.spans(&part.unit));
    let spans: Vec<_> = spans.collect();
    let mut fetched = store.fetch(&spans).into_iter();
    let mut found = Vec::new();
    for part in parts {
        let own = fetched.by_ref().take(part.unit.spans.len());
        let own: Result<Vec<_>, Problem> = own.collect::<Vec<_>>().into_iter().collect();
        let Ok(own) = own else {
            continue;
        };
        let each = |row: u64, bytes: Vec<u8>| {
            let places = part.wanted.iter().filter(|&&place| wanted[place].1 == row);
            found.extend(places.map(|&place| (place, bytes.clone())));
        };
        let _damaged = part.file.unpack(store, &part.unit, own, each).is_err();
    }
    found
}

/// The end of a file from its offset index on, and its keys.
fn read_end_and_keys(
    store: &Store,
    object: &Object,
    path: &Path,
) -> Result<(Vec<u8>, Vec<String>)> {
    let mut end = Vec::new();
    read_end(store, object, path, END, &mut end)?;
    if let Some(&[a, b, c, d, b'P', b'A', b'R', b'1']) = end.last_chunk::<LAST>() {
        let footer = u32::from_le_bytes([a, b, c, d]);
        read_end(
            store,
            object,
            path,
            u64::from(footer) + LAST as u64,
            &mut end,
        )?;
    }
    let table = Table::of_spans(path, end_spans(object, &end))?;
    let column = column_of(&table, path)?;
    let ranges = guarded(path, || Ok(table.ranges(&key_columns(&table, column))))?;
    let ranges = joined(ranges, GAP);
    if ranges.iter().any(|range| range.end > object.bytes) {
        return Err(past_end(path));
    }
    if let Some(start) = table.offset_index(column.leaf) {
        read_end(
            store,
            object,
            path,
            object.bytes.saturating_sub(start),
            &mut end,
        )?;
    }
    let wanted: Vec<_> = ranges.iter().map(|range| (object, range.clone())).collect();
    let parts: Result<Vec<_>, Problem> = store.fetch(&wanted).into_iter().collect();
    let parts = parts.map_err(|problem| of_file(path, problem))?;
    let starts = ranges.iter().map(|range| range.start);
    let spans = end_spans(object, &end).with(starts.zip(parts));
    let keys = keys_of(Table::of_spans(path, spans)?, path, column)?;
    Ok((end, keys))
}

/// Makes of the last bytes of a file, `end`, at least so many, as far as it has them.
fn read_end(
    store: &Store,
    object: &Object,
    path: &Path,
    bytes: u64,
    end: &mut Vec<u8>,
) -> Result<()> {
    let (held, bytes) = (end.len() as u64, bytes.min(object.bytes));
    if bytes <= held {
        return Ok(());
    }
    let range = object.bytes - bytes..object.bytes - held;
    for part in store.fetch(&[(object, range)]) {
        let part = part.map_err(|problem| of_file(path, problem))?;
        end.splice(..0, part);
    }
    Ok(())
}

fn end_spans(object: &Object, end: &[u8]) -> Spans {
    let start = object.bytes.saturating_sub(end.len() as u64);
    Spans::new(object.bytes, [(start, end.to_vec())])
}

/// What is kept of a file: its end, with the length of that before it, and its keys as JSON.
fn pack_index(end: &[u8], keys: &[String]) -> Option<Vec<u8>> {
    let keys = serde_json::to_vec(keys).ok()?;
    Some([&(end.len() as u64).to_le_bytes(), end, &keys].concat())
}

fn unpack_index(kept: &[u8]) -> Option<(Vec<u8>, Vec<String>)> {
    let (length, rest) = kept.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (end, keys) = rest.split_at_checked(length)?;
    Some((end.to_vec(), serde_json::from_slice(keys).ok()?))
}

fn past_end(path: &Path) -> DataError {
    broken(path, "its footer names places past its end")
}

fn of_file(path: &Path, problem: Problem) -> DataError {
    DataError::file(path, problem.message, problem.mend)
}

/// A picture that is named and cannot be had, though the store answers.
fn unread(reason: &dyn std::fmt::Display) -> Problem {
    Problem::new(
        ProblemKind::MissingImage,
        format!("cannot read {reason}"),
        super::image_store::MEND_MISSING,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_file_is_unpacked_as_it_was_and_nothing_else_is() {
        let keys = ["a".to_owned(), "ü/b.png".to_owned()];
        let kept = pack_index(b"PAR1", &keys).unwrap();
        assert_eq!(unpack_index(&kept), Some((b"PAR1".to_vec(), keys.to_vec())));
        for end in 0..kept.len() {
            assert_eq!(unpack_index(&kept[..end]), None, "{end}");
        }
    }
}
