//! The files that hold records, and the lock under which they grow.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use memmap2::Mmap;

use super::PictureHash;
use crate::error::ModelError;

const ENDING: &str = "features";
/// How often, and how long after each other, a lock that another process holds is tried.
const LOCK_TRIES: usize = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// A file of records.
#[derive(Debug)]
pub(super) struct Records {
    pub path: PathBuf,
    pub file: File,
    pub map: Option<Mmap>,
    /// Whole records that are listed.
    pub count: usize,
}

impl Records {
    /// Whole records in the file.
    ///
    /// # Errors
    /// A file whose length cannot be told.
    pub fn whole(&self, record_bytes: usize) -> Result<usize, ModelError> {
        let metadata = self.file.metadata();
        let metadata = metadata.map_err(|e| ModelError::io("read", &self.path, e))?;
        Ok(metadata.len() as usize / record_bytes)
    }

    /// Maps all whole records.
    ///
    /// # Errors
    /// A file that cannot be mapped.
    pub fn map(&mut self, record_bytes: usize) -> Result<(), ModelError> {
        self.count = self.whole(record_bytes)?;
        self.map = match self.count {
            0 => None,
            // SAFETY: the mapping is read-only, and these files only grow. Another process that cuts
            // one short while it is mapped would fault, as with every file of weights.
            _ => Some(
                unsafe { Mmap::map(&self.file) }
                    .map_err(|e| ModelError::io("map", &self.path, e))?,
            ),
        };
        Ok(())
    }
}

/// A file that only this process writes.
pub(super) fn own_file(folder: &Path) -> Result<Records, ModelError> {
    let process = std::process::id();
    for number in 0_u32.. {
        let path = folder.join(format!("{process}-{number}.{ENDING}"));
        let mut options = OpenOptions::new();
        match options.read(true).append(true).create_new(true).open(&path) {
            Ok(file) => {
                return Ok(Records {
                    path,
                    file,
                    map: None,
                    count: 0,
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(ModelError::io("create", &path, error)),
        }
    }
    Err(ModelError::format(folder, "every name of a file is taken"))
}

/// The lock under which processes add records.
pub(super) enum Lock {
    /// As long as the file is open.
    #[expect(dead_code, reason = "dropping it is what it is for")]
    Held(File),
    /// Another process holds it for longer than it should.
    Busy,
    /// The file system has no locks. Files of their own keep processes apart, but a picture may be
    /// kept twice.
    None,
}

pub(super) fn lock(path: &Path) -> Result<Lock, ModelError> {
    let mut options = File::options();
    options.write(true).truncate(false).create(true);
    let file = options.open(path);
    let file = file.map_err(|e| ModelError::io("lock", path, e))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(Lock::Held(file)),
            Err(TryLockError::Error(_)) => return Ok(Lock::None),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
        }
    }
    Ok(Lock::Busy)
}

pub(super) fn checksum(picture: &PictureHash, values: &[u8]) -> PictureHash {
    *blake3::Hasher::new()
        .update(picture)
        .update(values)
        .finalize()
        .as_bytes()
}

pub(super) fn record_files(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let mut files = entries(folder)?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == ENDING));
    files.sort();
    Ok(files)
}

/// Bytes of the records of all encoders below `root`.
pub(super) fn bytes_below(root: &Path) -> Result<u64, ModelError> {
    let mut sum = 0;
    for path in entries(root)?.into_iter().filter(|path| path.is_dir()) {
        let sizes = record_files(&path)?.into_iter().map(fs::metadata);
        sum += sizes.flatten().map(|metadata| metadata.len()).sum::<u64>();
    }
    Ok(sum)
}

/// What lies directly in `folder`; nothing where there is no such folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let list = match fs::read_dir(folder) {
        Ok(list) => list,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ModelError::io("list", folder, error)),
    };
    let paths = list.map(|entry| entry.map(|entry| entry.path()));
    paths
        .collect::<Result<_, _>>()
        .map_err(|e| ModelError::io("list", folder, e))
}
