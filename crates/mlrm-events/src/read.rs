//! Reading a whole log.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::line::Stamped;

/// A line that could not be read.
#[derive(Debug, Error)]
#[error("line {line}: {source}")]
pub struct LineError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, with its column.
    pub source: serde_json::Error,
}

/// A log that could not be opened or read.
#[derive(Debug, Error)]
#[error("cannot read the event log {}: {source}", path.display())]
pub struct ReadError {
    /// The log.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

/// What a log holds.
#[derive(Debug, Default)]
pub struct Log {
    /// The events, in order.
    pub events: Vec<Stamped>,
    /// Whole lines that are no events, in order.
    pub malformed: Vec<LineError>,
}

/// Reads all that can be read of the log at `path`. A torn last line (without line break) is left
/// out: it is being written, or its writer was killed.
///
/// # Errors
///
/// The file cannot be read.
pub fn read_log(path: impl AsRef<Path>) -> Result<Log, ReadError> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|source| ReadError {
        path: path.to_owned(),
        source,
    })?;
    let (whole, _torn) = split_whole_lines(&bytes);
    let mut log = Log::default();
    for parsed in parse_lines(whole, 1) {
        match parsed {
            Ok(event) => log.events.push(event),
            Err(error) => log.malformed.push(error),
        }
    }
    Ok(log)
}

/// Splits `bytes` after the last line break.
pub(crate) fn split_whole_lines(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |index| index + 1);
    bytes.split_at(end)
}

/// Parses whole lines; the first is line `first_line`. Blank lines are skipped.
pub(crate) fn parse_lines(
    whole: &[u8],
    first_line: usize,
) -> impl Iterator<Item = Result<Stamped, LineError>> {
    whole
        .split(|&byte| byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(move |(index, line)| {
            // Not UTF-8 is not JSON either: the replacement character fails in the parser, with
            // its column, unless it stands inside a string, where it may be shown.
            Stamped::from_line(&String::from_utf8_lossy(line)).map_err(|source| LineError {
                line: first_line + index,
                source,
            })
        })
}
