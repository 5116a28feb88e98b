//! Where the bytes of a Parquet file are: on disk, or parts of it in memory.

use std::fs::File;
use std::io::{Cursor, Read};
use std::ops::Range;

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

/// Parts of a file that is elsewhere. What lies between them is not there.
#[derive(Debug, Clone)]
pub(crate) struct Spans {
    file_bytes: u64,
    /// Where each begins, and what it holds.
    held: Vec<(u64, Bytes)>,
}

impl Spans {
    /// Parts of a file of so many bytes, each with the place where it begins.
    pub fn new<B: Into<Bytes>>(file_bytes: u64, parts: impl IntoIterator<Item = (u64, B)>) -> Self {
        let held = parts.into_iter().map(|(start, part)| (start, part.into()));
        Self {
            file_bytes,
            held: held.collect(),
        }
    }

    /// These parts and more of the same file.
    pub fn with(mut self, parts: impl IntoIterator<Item = (u64, Vec<u8>)>) -> Self {
        self.held.extend(Self::new(0, parts).held);
        self
    }

    /// What is held from a place on, if `least` bytes of it are.
    fn from(&self, start: u64, least: u64) -> Result<Bytes> {
        let end = start.saturating_add(least);
        let holds =
            |(from, content): &&(u64, Bytes)| *from <= start && end <= *from + content.len() as u64;
        match self.held.iter().find(holds) {
            Some((from, content)) => Ok(content.slice((start - from) as usize..)),
            None => Err(ParquetError::EOF(format!(
                "the footer names other bytes than {start} to {end} for a page"
            ))),
        }
    }
}

/// A Parquet file to read.
#[derive(Debug)]
pub(crate) enum Source {
    File(File),
    Spans(Spans),
}

impl Length for Source {
    fn len(&self) -> u64 {
        match self {
            Self::File(file) => Length::len(file),
            Self::Spans(spans) => spans.file_bytes,
        }
    }
}

impl ChunkReader for Source {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(match self {
            Self::File(file) => Box::new(file.get_read(start)?),
            Self::Spans(spans) => Box::new(Cursor::new(spans.from(start, 0)?)),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        match self {
            Self::File(file) => file.get_bytes(start, length),
            Self::Spans(spans) => Ok(spans.from(start, length as u64)?.slice(..length)),
        }
    }
}

/// Ranges in order, of which those that lie closer than `gap` bytes are one.
pub(crate) fn joined(mut ranges: Vec<Range<u64>>, gap: u64) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(gap) => {
                last.end = last.end.max(range.end);
            }
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_where_they_lie_and_nowhere_else() {
        let spans = Spans::new(100, [(10, vec![1, 2, 3, 4])]).with([(90, vec![9; 10])]);
        let source = Source::Spans(spans);
        assert_eq!(source.len(), 100);
        assert_eq!(&source.get_bytes(11, 2).unwrap()[..], [2, 3]);
        assert_eq!(&source.get_bytes(90, 10).unwrap()[..], [9; 10]);
        let mut rest = Vec::new();
        source.get_read(12).unwrap().read_to_end(&mut rest).unwrap();
        assert_eq!(rest, [3, 4]);
        for (start, length) in [(9, 2), (13, 2), (50, 1), (u64::MAX, 4)] {
            assert!(source.get_bytes(start, length).is_err(), "{start}");
        }
    }

    #[test]
    fn near_ranges_are_one() {
        let ranges = vec![50..60, 0..10, 12..20, 55..57];
        assert_eq!(joined(ranges.clone(), 2), [0..20, 50..60]);
        assert_eq!(joined(ranges.clone(), 1), [0..10, 12..20, 50..60]);
        assert_eq!(joined(ranges, 100), vec![0..60]);
        assert_eq!(joined(Vec::new(), 1), Vec::<Range<u64>>::new());
    }
}
