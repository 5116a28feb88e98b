//! Where the bytes of pictures come from: a folder, tar shards, Parquet shards, or an object store.

mod find;
mod remote;
mod shards;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range as Span;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::UNIX_EPOCH;

use mlrm_config::is_address;

use self::find::{Folder, Place};
pub use self::remote::Fetched;
pub use self::shards::picture_shards;
use self::shards::{Entry, Shard};
use super::far_parquet::FarParquet;
use super::image_keys::FolderNames;
use super::parquet_images::ParquetImages;
use crate::batch::PictureHash;
use crate::error::{DataError, Problem, ProblemKind, Result, shorten, shown};
use crate::image::{DecodeOptions, HEAD_BYTES, TAIL_BYTES, check_ends, dimensions};
use crate::store::{Object, Store, check};

/// Pictures by key. A key is a relative path below a folder, or the name of an entry of a `.tar`
/// shard: the shards that were opened, or any `*.tar` that lies directly in the folder that was
/// opened; of a Parquet shard it is the path of the picture, or else the id of its row. A file of the folder goes before an
/// entry of a shard. A key that no file has is looked for in the other Unicode normal forms of its name. Folder and
/// shards may be in an object store, as a prefix and its objects. Any number of threads may share a store.
#[derive(Debug)]
pub struct ImageStore {
    folder: Option<Folder>,
    /// The object store that the shards are in, and the address that was opened.
    remote: Option<(PathBuf, Store)>,
    shards: Vec<Shard>,
    entries: HashMap<String, Entry>,
    /// Names of entries that are not plain ASCII, by their composed form.
    composed_entries: HashMap<String, Vec<String>>,
    /// What the pictures of these keys held when they were read last.
    hashes: RwLock<HashMap<String, PictureHash>>,
}

/// What has to be read of which file.
enum Range<'a> {
    /// File, place in it and how many bytes.
    Bytes(PathBuf, u64, u64),
    /// A row.
    Row(&'a ParquetImages, u64),
    /// Bytes of an object of a store.
    Object(&'a Store, &'a Object, Span<u64>),
    /// A row of a Parquet file in a store.
    FarRow(&'a Store, &'a FarParquet, u64),
}

/// What tells that a picture's file is still the one that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Stamp {
    /// Bytes of the picture.
    pub bytes: u64,
    /// When its file (for entries the shard) was last written, in nanoseconds since 1970; 0 where
    /// the system does not tell. Of objects of a store a number of their entity tag.
    pub modified_nanoseconds: u64,
}

/// Size and time of a file.
pub(super) fn stamp_of(metadata: &fs::Metadata) -> Stamp {
    let modified = metadata.modified().ok();
    let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Stamp {
        bytes: metadata.len(),
        modified_nanoseconds: since.map_or(0, |since| since.as_nanos() as u64),
    }
}

impl ImageStore {
    /// Opens a folder, or shards, whose entries are listed once: `.tar` files or Parquet files, one or
    /// those that fit a pattern ([`picture_shards`]).
    ///
    /// # Errors
    /// Nothing there; a shard that cannot be read; two shards with the same key.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(
            path,
            mlrm_config::DataSettings::default().image_cache_max_bytes,
        )
    }

    /// As [`Self::open`]; of what an object store holds, at most `cache_bytes` are kept on this machine.
    ///
    /// # Errors
    /// As [`Self::open`]; a store that does not answer.
    pub fn open_with(path: &Path, cache_bytes: u64) -> Result<Self> {
        check(path)?;
        if is_address(path) {
            return Self::of_store(path, Store::open(path, cache_bytes)?);
        }
        let mut store = Self::empty();
        for shard in &picture_shards(path)? {
            store.index(shard)?;
        }
        if path.is_dir() {
            store.folder = Some(Folder {
                // Without `.` in the middle, which `images = "."` would put into every message.
                path: path.components().collect(),
                real: fs::canonicalize(path).map_err(DataError::io("read", path))?,
                names: FolderNames::default(),
            });
        }
        Ok(store)
    }

    fn empty() -> Self {
        Self {
            folder: None,
            remote: None,
            shards: Vec::new(),
            entries: HashMap::new(),
            composed_entries: HashMap::new(),
            hashes: RwLock::default(),
        }
    }

    /// All bytes of a picture's file.
    pub fn read(&self, key: &str) -> Result<Vec<u8>> {
        self.read_up_to(key, |_| Ok(()))
            .map_err(|problem| image_error(key, problem))
    }

    /// Reads a picture's file for its hash alone, which [`Self::seen`] then gives.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn look(&self, key: &str) -> Result<PictureHash> {
        Ok(self.see(key, &self.read(key)?))
    }

    /// Which picture the key has, if it was read already.
    pub fn seen(&self, key: &str) -> Option<PictureHash> {
        // Nothing panics while it holds the lock.
        let hashes = self.hashes.read().unwrap_or_else(PoisonError::into_inner);
        hashes.get(key).copied()
    }

    /// Forgets which pictures were read: a corpus in parts reads those of a part once.
    pub fn forget_seen(&self) {
        let mut hashes = self.hashes.write().unwrap_or_else(PoisonError::into_inner);
        *hashes = HashMap::new();
    }

    /// Notes which picture the key has, by the bytes of its file.
    pub(crate) fn see(&self, key: &str, bytes: &[u8]) -> PictureHash {
        let hash = *blake3::hash(bytes).as_bytes();
        let mut hashes = self.hashes.write().unwrap_or_else(PoisonError::into_inner);
        hashes.insert(key.to_owned(), hash);
        hash
    }

    /// Bytes of a picture's file, without reading it.
    pub fn size(&self, key: &str) -> Result<u64> {
        match self
            .find(key)
            .map_err(|problem| image_error(key, problem))?
        {
            Place::File(_, metadata) => Ok(metadata.len()),
            Place::Entry(entry) => match &self.shards[entry.shard as usize] {
                Shard::Tar(_) | Shard::Object(_) | Shard::Listed(_) => Ok(entry.bytes),
                // What a page holds shows when it is unpacked.
                Shard::Parquet(_) | Shard::FarParquet(_) => Ok(self.read(key)?.len() as u64),
            },
        }
    }

    /// The folder or the shard that was opened, without links.
    pub(crate) fn root(&self) -> Option<PathBuf> {
        match (&self.folder, &self.remote) {
            (Some(folder), _) => Some(folder.real.clone()),
            (None, Some((path, _))) => Some(path.clone()),
            (None, None) => fs::canonicalize(self.path_of(self.shards.first()?)).ok(),
        }
    }

    /// As [`read`](Self::read), but files of more bytes than `options` allow are a problem.
    pub(crate) fn read_within(
        &self,
        key: &str,
        options: &DecodeOptions,
    ) -> Result<Vec<u8>, Problem> {
        self.read_up_to(key, |bytes| options.check_bytes(bytes))
    }

    fn read_up_to(
        &self,
        key: &str,
        allow: impl Fn(u64) -> Result<(), Problem>,
    ) -> Result<Vec<u8>, Problem> {
        match self.range(self.find(key)?) {
            Range::Bytes(path, offset, bytes) => {
                allow(bytes)?;
                read_range(&path, offset, bytes).map_err(|error| missing(&path, &error))
            }
            Range::Row(images, row) => {
                let content = images
                    .read(row)
                    .map_err(|error| missing(&images.path, &error))?;
                allow(content.len() as u64)?;
                Ok(content)
            }
            Range::Object(store, object, range) => {
                allow(range.end - range.start)?;
                store.read(object, range)
            }
            Range::FarRow(store, file, row) => {
                let content = file.read(store, row)?;
                allow(content.len() as u64)?;
                Ok(content)
            }
        }
    }

    /// Size and time of a picture's file.
    pub(crate) fn stamp(&self, key: &str) -> Result<Stamp, Problem> {
        Ok(match self.find(key)? {
            Place::File(_, metadata) => stamp_of(&metadata),
            Place::Entry(entry) => {
                let shard = &self.shards[entry.shard as usize];
                let of_file = |path: &Path| {
                    let stamp = fs::metadata(path).map(|metadata| stamp_of(&metadata));
                    stamp.map_err(|error| missing(path, &error))
                };
                let modified_nanoseconds = match shard {
                    Shard::Parquet(images) => return of_file(&images.path),
                    Shard::Tar(path) => of_file(path)?.modified_nanoseconds,
                    Shard::Object(object) => object.version(),
                    Shard::FarParquet(file) => file.object.version(),
                    Shard::Listed(objects) => objects[entry.offset as usize].version(),
                };
                Stamp {
                    bytes: entry.bytes,
                    modified_nanoseconds,
                }
            }
        })
    }

    /// Whether a picture is there, of a known format, within the limits and not cut off, by the
    /// first and last bytes of its file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check_ends(
        &self,
        key: &str,
        options: &DecodeOptions,
        ahead: &Fetched,
    ) -> Result<(), Problem> {
        let (path, offset, bytes) = match self.range(self.find(key)?) {
            Range::Bytes(path, offset, bytes) => (path, offset, bytes),
            Range::Row(..) | Range::Object(..) | Range::FarRow(..) => {
                let content = self.content(key, options, ahead)?;
                let bytes = content.len() as u64;
                let head = &content[..content.len().min(HEAD_BYTES)];
                let tail = match head.len() == content.len() {
                    true => &[],
                    false => &content[content.len() - content.len().min(TAIL_BYTES)..],
                };
                return check_ends(head, tail, bytes, options, || Ok(content.to_vec()));
            }
        };
        options.check_bytes(bytes)?;
        let part = |from: u64, length: u64| {
            read_range(&path, offset + from, length).map_err(|error| missing(&path, &error))
        };
        let head = part(0, bytes.min(HEAD_BYTES as u64))?;
        let tail_bytes = bytes.min(TAIL_BYTES as u64);
        let tail = match head.len() as u64 == bytes {
            true => Vec::new(),
            false => part(bytes - tail_bytes, tail_bytes)?,
        };
        check_ends(&head, &tail, bytes, options, || part(0, bytes))
    }

    /// Height and width of a picture as its header tells them; not as EXIF data may turn it.
    ///
    /// # Errors
    /// A picture that is not there, or whose header cannot be read.
    pub fn dimensions(&self, key: &str, options: &DecodeOptions) -> Result<[u32; 2]> {
        let of_head = || -> Result<[u32; 2], Problem> {
            if let Range::Bytes(path, offset, bytes) = self.range(self.find(key)?) {
                let head = read_range(&path, offset, bytes.min(HEAD_BYTES as u64));
                let head = head.map_err(|error| missing(&path, &error))?;
                if let Ok(found) = dimensions(&head, options) {
                    return Ok(found);
                }
            }
            dimensions(&self.read_within(key, options)?, options)
        };
        of_head().map_err(|problem| image_error(key, problem))
    }

    fn range(&self, place: Place) -> Range<'_> {
        match place {
            Place::File(path, metadata) => Range::Bytes(path, 0, metadata.len()),
            Place::Entry(entry) => match &self.shards[entry.shard as usize] {
                Shard::Tar(path) => Range::Bytes(path.clone(), entry.offset, entry.bytes),
                Shard::Parquet(images) => Range::Row(images, entry.offset),
                Shard::Object(object) => Range::Object(
                    self.store(),
                    object,
                    entry.offset..entry.offset + entry.bytes,
                ),
                Shard::Listed(objects) => {
                    let object = &objects[entry.offset as usize];
                    Range::Object(self.store(), object, 0..object.bytes)
                }
                Shard::FarParquet(file) => Range::FarRow(self.store(), file, entry.offset),
            },
        }
    }
}

pub(super) const MEND_MISSING: &str = "add the picture, or remove `image` from the note";

fn image_error(key: &str, problem: Problem) -> DataError {
    DataError::image(shorten(key), problem.message, problem.mend)
}

fn missing(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(
        ProblemKind::MissingImage,
        format!("cannot read `{}`: {error}", shown(path)),
        MEND_MISSING,
    )
}

pub(super) fn read_range(path: &Path, offset: u64, bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    // A file that shrinks while it is read must not decide how much memory is reserved.
    let mut content = Vec::with_capacity(bytes.min(1 << 24) as usize);
    file.take(bytes).read_to_end(&mut content)?;
    if (content.len() as u64) < bytes {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(content)
}
