//! An object as a file that is read here and there.

use std::io::{self, Read, Seek, SeekFrom};

use super::Object;
use super::client::Client;

/// Least bytes that are asked for at once. The headers of small pictures lie closer than this, so that the file is read
/// in one pass; large ones are leapt over.
pub(super) const LEAST: u64 = 1 << 18;
/// Most bytes that are asked for at once.
const MOST: u64 = 1 << 23;

/// Reads an object by ranges that grow while it is read on, and shrink when it is leapt.
#[derive(Debug)]
pub(crate) struct RangeReader {
    client: Client,
    object: Object,
    at: u64,
    /// What is held, and where it begins.
    held: Vec<u8>,
    start: u64,
    ask: u64,
}

impl RangeReader {
    /// Of an object as it was looked up.
    pub(super) fn new(client: Client, object: Object) -> Self {
        Self {
            client,
            object,
            at: 0,
            held: Vec::new(),
            start: 0,
            ask: LEAST,
        }
    }

    /// What is held from the place on.
    fn rest(&self) -> &[u8] {
        let skip = self.at.checked_sub(self.start);
        let skip = skip.and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| self.held.get(skip..))
            .unwrap_or_default()
    }

    fn fill(&mut self) -> io::Result<()> {
        let end = self.start + self.held.len() as u64;
        self.ask = match self.at.abs_diff(end) <= self.ask {
            true => (self.ask * 2).min(MOST),
            false => LEAST,
        };
        let end = self.at.saturating_add(self.ask).min(self.object.bytes);
        let held = self
            .client
            .read(&self.object, self.at..end)
            .map_err(|fault| {
                let problem = fault.problem();
                io::Error::other(format!("{}; {}", problem.message, problem.mend))
            })?;
        self.held = held;
        self.start = self.at;
        Ok(())
    }
}

impl Read for RangeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.at >= self.object.bytes {
            return Ok(0);
        }
        if self.rest().is_empty() {
            self.fill()?;
        }
        let rest = self.rest();
        let bytes = rest.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&rest[..bytes]);
        self.at += bytes as u64;
        Ok(bytes)
    }
}

impl Seek for RangeReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.object.bytes.checked_add_signed(by),
        };
        self.at = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
