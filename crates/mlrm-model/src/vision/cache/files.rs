//! The files that hold records, and the lock under which they grow.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use memmap2::Mmap;

use super::PictureHash;
use crate::error::ModelError;
use crate::vision::Grid;

pub(super) const HASH_BYTES: usize = size_of::<PictureHash>();
/// Before a record's values: the picture's hash and a checksum.
pub(super) const HEAD_BYTES: usize = 2 * HASH_BYTES;
/// Bytes of a grid: rows and columns, as numbers of 32 bits.
pub(super) const GRID_BYTES: usize = 8;
const ENDING: &str = "features";
/// How often, and how long after each other, a lock that another process holds is tried.
const LOCK_TRIES: usize = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// How many bytes the values of a record take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueBytes {
    /// As many in every record.
    Same(usize),
    /// As many as the picture's grid of patches makes them, with which they begin.
    ByGrid {
        /// Before those of the patches, the grid included.
        fixed: usize,
        /// Of each patch.
        patch: usize,
    },
}

impl ValueBytes {
    /// Bytes of the whole record that `rest` of a file begins with; `None` where it ends before the record does.
    pub fn record(self, rest: &[u8]) -> Option<usize> {
        let values = match self {
            Self::Same(bytes) => bytes,
            Self::ByGrid { fixed, patch } => {
                let [rows, columns] = read_grid(rest.get(HEAD_BYTES..)?)?;
                let patches = rows.checked_mul(columns)?;
                patches.checked_mul(patch)?.checked_add(fixed)?
            }
        };
        let bytes = values.checked_add(HEAD_BYTES)?;
        (bytes <= rest.len()).then_some(bytes)
    }
}

/// The grid that `values` begin with.
pub(super) fn read_grid(values: &[u8]) -> Option<Grid> {
    let (rows, rest) = values.split_first_chunk::<4>()?;
    let columns = rest.first_chunk::<4>()?;
    Some([rows, columns].map(|side| u32::from_le_bytes(*side) as usize))
}

/// The bytes that [`read_grid`] reads.
pub(super) fn grid_bytes(grid: Grid) -> Vec<u8> {
    let sides = grid.map(|side| (side as u32).to_le_bytes());
    sides.concat()
}

/// A file of records.
#[derive(Debug)]
pub(super) struct Records {
    pub path: PathBuf,
    pub file: File,
    pub map: Option<Mmap>,
    /// Bytes of the whole records that are listed.
    pub end: usize,
}

impl Records {
    /// Bytes of the file.
    ///
    /// # Errors
    /// A file whose length cannot be told.
    pub fn bytes(&self) -> Result<usize, ModelError> {
        let metadata = self.file.metadata();
        let metadata = metadata.map_err(|e| ModelError::io("read", &self.path, e))?;
        Ok(metadata.len() as usize)
    }

    /// Maps all of it.
    ///
    /// # Errors
    /// A file that cannot be mapped.
    pub fn map(&mut self) -> Result<(), ModelError> {
        self.map = match self.bytes()? {
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
                    end: 0,
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
