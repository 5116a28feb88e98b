//! Following a log that is still being written, here or on a shared folder.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::line::Stamped;
use crate::read::{LineError, parse_lines, split_whole_lines};

/// Bytes at the start of the file that tell one log from another: the first line's name and time.
const HEAD_BYTES: usize = 256;

/// An incremental reader: each [`EventTail::poll`] returns what was appended since the last one.
///
/// Where nothing was appended a poll costs one `open` and one `stat`.
#[derive(Debug)]
pub struct EventTail {
    path: PathBuf,
    /// Bytes of the whole lines that were read.
    offset: u64,
    /// Lines among them.
    lines: usize,
    /// The file's length at the last poll; more than `offset` while a line is half written.
    seen_bytes: u64,
    head: Vec<u8>,
}

/// What one poll found.
#[derive(Debug, Default)]
pub struct TailBatch {
    /// The log was replaced by another one (or cut): forget everything; `events` start from its
    /// beginning.
    pub restarted: bool,
    /// The new events, in order.
    pub events: Vec<Stamped>,
    /// Whole lines that are no events. They do not stop the reader.
    pub malformed: Vec<LineError>,
}

impl EventTail {
    /// Follows the log at `path`, from its beginning. The file need not exist yet.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            offset: 0,
            lines: 0,
            seen_bytes: 0,
            head: Vec::new(),
        }
    }

    /// The log's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what was appended since the last poll. A log that does not exist (yet) is empty.
    ///
    /// # Errors
    ///
    /// Whatever the file system says; the next poll tries again.
    pub fn poll(&mut self) -> io::Result<TailBatch> {
        let mut batch = TailBatch::default();
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                batch.restarted = self.forget();
                return Ok(batch);
            }
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        if length == self.seen_bytes {
            return Ok(batch);
        }
        if length < self.offset || !self.head_matches(&mut file)? {
            batch.restarted = self.forget();
        }
        self.read_on(&mut file, &mut batch)?;
        Ok(batch)
    }

    /// Reads from `offset` to the last line break.
    fn read_on(&mut self, file: &mut File, batch: &mut TailBatch) -> io::Result<()> {
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (whole, torn) = split_whole_lines(&bytes);
        for parsed in parse_lines(whole, self.lines + 1) {
            match parsed {
                Ok(event) => batch.events.push(event),
                Err(error) => batch.malformed.push(error),
            }
        }
        if self.offset < HEAD_BYTES as u64 {
            let missing = HEAD_BYTES - self.head.len();
            self.head.extend(whole.iter().take(missing));
        }
        self.lines += whole.iter().filter(|&&byte| byte == b'\n').count();
        self.offset += whole.len() as u64;
        self.seen_bytes = self.offset + torn.len() as u64;
        Ok(())
    }

    /// Whether the file still begins as the one that was read so far.
    fn head_matches(&self, file: &mut File) -> io::Result<bool> {
        let mut head = Vec::with_capacity(self.head.len());
        file.seek(SeekFrom::Start(0))?;
        file.take(self.head.len() as u64).read_to_end(&mut head)?;
        Ok(head == self.head)
    }

    /// Back to the beginning; whether anything had been read.
    fn forget(&mut self) -> bool {
        let had_read = self.offset > 0;
        self.offset = 0;
        self.lines = 0;
        self.seen_bytes = 0;
        self.head.clear();
        had_read
    }
}
