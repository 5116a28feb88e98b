//! The writer of a run's event log.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::line::Stamped;
use crate::sink::EventSink;

/// Appends events to a JSON Lines file, one `write` a line, so that a reader sees whole lines and
/// a kill loses at most the line being written.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    file: File,
}

impl EventLog {
    /// Starts a new log.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] where there is a file at `path` (a run's history is never
    /// overwritten), and whatever the file system says.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| with_path(error, &path))?;
        Ok(Self { path, file })
    }

    /// Continues the log at `path`, or starts it. A torn last line, left by a process that was
    /// killed while writing it, is cut off.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn append(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        let open = || {
            let file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .open(&path)?;
            let whole_bytes = whole_lines_bytes(&path)?;
            if whole_bytes < file.metadata()?.len() {
                file.set_len(whole_bytes)?;
            }
            Ok(file)
        };
        let file = open().map_err(|error| with_path(error, &path))?;
        Ok(Self { path, file })
    }

    /// Where the log is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl EventSink for EventLog {
    fn emit(&mut self, event: &Stamped) -> io::Result<()> {
        let mut line = event.to_line();
        line.push('\n');
        // `File` has no buffer of its own: after `write_all` the line is the system's.
        self.file.write_all(line.as_bytes()).map_err(|error| {
            // On a full disk a part of the line may be there: the next one must not continue it.
            let whole = whole_lines_bytes(&self.path);
            let _uncut = whole.and_then(|bytes| self.file.set_len(bytes));
            with_path(error, &self.path)
        })
    }
}

/// Bytes up to and with the last line break, searched backwards block by block.
fn whole_lines_bytes(path: &Path) -> io::Result<u64> {
    const BLOCK_BYTES: u64 = 64 * 1024;
    let mut file = File::open(path)?;
    let mut end = file.metadata()?.len();
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        Read::by_ref(&mut file)
            .take(end - start)
            .read_to_end(&mut block)?;
        if let Some(index) = block.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + index as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn with_path(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("event log {}: {error}", path.display()),
    )
}
