//! Where the bytes of pictures come from: a folder, tar shards, or Parquet shards.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::UNIX_EPOCH;

use super::image_keys::{FolderNames, check_key, composed};
use super::parquet_images::ParquetImages;
use super::tar_index::{self, TarEntry};
use crate::batch::PictureHash;
use crate::error::{DataError, Problem, ProblemKind, Result, shorten, shown};
use crate::files::{files_in, pattern_files};
use crate::image::{DecodeOptions, HEAD_BYTES, TAIL_BYTES, check_ends};

/// Pictures by key. A key is a relative path below a folder, or the name of an entry of a `.tar`
/// shard: the shards that were opened, or any `*.tar` that lies directly in the folder that was
/// opened; of a Parquet shard it is the path of the picture, or else the id of its row. A file of the folder goes before an entry of a shard. A key that no file has is looked for
/// in the other Unicode normal forms of its name. Any number of threads may share a store.
#[derive(Debug)]
pub struct ImageStore {
    folder: Option<Folder>,
    shards: Vec<Shard>,
    entries: HashMap<String, Entry>,
    /// Names of entries that are not plain ASCII, by their composed form.
    composed_entries: HashMap<String, Vec<String>>,
    /// What the pictures of these keys held when they were read last.
    hashes: RwLock<HashMap<String, PictureHash>>,
}

/// The folder of a store.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// The same without links: what pictures must lie below.
    real: PathBuf,
    names: FolderNames,
}

/// A file of many pictures.
#[derive(Debug)]
enum Shard {
    Tar(PathBuf),
    Parquet(ParquetImages),
}

impl Shard {
    fn path(&self) -> &Path {
        match self {
            Self::Tar(path) => path,
            Self::Parquet(images) => &images.path,
        }
    }
}

/// A picture in a shard: of a tar file its bytes, of a Parquet file its row.
#[derive(Debug, Clone, Copy)]
struct Entry {
    shard: u32,
    offset: u64,
    bytes: u64,
}

/// The shards that a store at `path` has: those in a folder, the file itself, or the files that fit a
/// pattern in its last part, by their names.
///
/// # Errors
/// Nothing there.
pub fn picture_shards(path: &Path) -> Result<Vec<PathBuf>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => files_in(path, is_shard),
        Ok(_) => Ok(vec![path.to_path_buf()]),
        Err(error) => match pattern_files(path)? {
            Some(files) => Ok(files),
            None => Err(DataError::io("read", path)(error)),
        },
    }
}

/// Whether a file of a folder is a shard of it. Parquet files are shards where they are named only: a
/// folder of data has others.
fn is_shard(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(stem, ending)| ending == "tar" && !stem.is_empty())
}

fn is_parquet(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default();
    ending.eq_ignore_ascii_case("parquet")
}

/// Where one picture is.
enum Place {
    File(PathBuf, fs::Metadata),
    Entry(Entry),
}

/// What has to be read of which file.
enum Range<'a> {
    /// File, place in it and how many bytes.
    Bytes(PathBuf, u64, u64),
    /// A row.
    Row(&'a ParquetImages, u64),
}

/// What tells that a picture's file is still the one that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Stamp {
    /// Bytes of the picture.
    pub bytes: u64,
    /// When its file (for entries the shard) was last written, in nanoseconds since 1970; 0 where
    /// the system does not tell.
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
        let shards = picture_shards(path)?;
        let mut store = Self {
            folder: None,
            shards: Vec::new(),
            entries: HashMap::new(),
            composed_entries: HashMap::new(),
            hashes: RwLock::default(),
        };
        for shard in &shards {
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

    /// Lists the pictures of a shard. As in any tar file, a later entry replaces an earlier one of its
    /// name; two shards must not have the same name.
    fn index(&mut self, path: &Path) -> Result<()> {
        let (shard, entries) = match is_parquet(path) {
            true => {
                let (images, keys) = ParquetImages::open(path)?;
                let entry = |(row, name)| TarEntry {
                    name,
                    offset: row,
                    bytes: 0,
                };
                let entries = (0..).zip(keys).map(entry).collect();
                (Shard::Parquet(images), entries)
            }
            false => (Shard::Tar(path.to_path_buf()), tar_index::entries(path)?),
        };
        let number = self.shards.len() as u32;
        for TarEntry {
            name,
            offset,
            bytes,
        } in entries
        {
            let place = Entry {
                shard: number,
                offset,
                bytes,
            };
            if !name.is_ascii() && !self.entries.contains_key(&name) {
                let same = self.composed_entries.entry(composed(&name)).or_default();
                same.push(name.clone());
            }
            let earlier = self.entries.insert(name.clone(), place);
            let Some(earlier) = earlier else {
                continue;
            };
            if earlier.shard != number {
                let other = self.shards[earlier.shard as usize].path();
                return Err(DataError::file(
                    path,
                    format!("`{}` is in `{}` too", shorten(&name), other.display()),
                    "keep every key in one shard",
                ));
            }
            if let Shard::Parquet(_) = shard {
                return Err(DataError::row(
                    path,
                    offset + 1,
                    format!(
                        "the picture `{}` is in row {} already",
                        shorten(&name),
                        earlier.offset + 1
                    ),
                    "give every picture a path of its own, or none, so that its row's id counts",
                ));
            }
        }
        self.shards.push(shard);
        Ok(())
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
                Shard::Tar(_) => Ok(entry.bytes),
                // What a page holds shows when it is unpacked.
                Shard::Parquet(_) => Ok(self.read(key)?.len() as u64),
            },
        }
    }

    /// The folder or the shard that was opened, without links.
    pub(crate) fn root(&self) -> Option<PathBuf> {
        match &self.folder {
            Some(folder) => Some(folder.real.clone()),
            None => fs::canonicalize(self.shards.first()?.path()).ok(),
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
        }
    }

    /// Size and time of a picture's file.
    pub(crate) fn stamp(&self, key: &str) -> Result<Stamp, Problem> {
        Ok(match self.find(key)? {
            Place::File(_, metadata) => stamp_of(&metadata),
            Place::Entry(entry) => {
                let shard = &self.shards[entry.shard as usize];
                let of_shard = fs::metadata(shard.path()).map(|metadata| stamp_of(&metadata));
                let of_shard = of_shard.map_err(|error| missing(shard.path(), &error))?;
                match shard {
                    Shard::Parquet(_) => of_shard,
                    Shard::Tar(_) => Stamp {
                        bytes: entry.bytes,
                        ..of_shard
                    },
                }
            }
        })
    }

    /// Whether a picture is there, of a known format, within the limits and not cut off, by the
    /// first and last bytes of its file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check_ends(&self, key: &str, options: &DecodeOptions) -> Result<(), Problem> {
        let (path, offset, bytes) = match self.range(self.find(key)?) {
            Range::Bytes(path, offset, bytes) => (path, offset, bytes),
            Range::Row(images, row) => {
                let content = images
                    .read(row)
                    .map_err(|error| missing(&images.path, &error))?;
                let bytes = content.len() as u64;
                options.check_bytes(bytes)?;
                let head = &content[..content.len().min(HEAD_BYTES)];
                let tail = match head.len() == content.len() {
                    true => &[],
                    false => &content[content.len() - content.len().min(TAIL_BYTES)..],
                };
                return check_ends(head, tail, bytes, options, || Ok(content.clone()));
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

    /// Keys that differ from `key` by their Unicode normal form only and have a picture of their
    /// own.
    pub(crate) fn twins(&self, key: &str) -> Vec<String> {
        let key = key.strip_prefix("./").unwrap_or(key);
        if key.is_ascii() || check_key(key).is_err() {
            return Vec::new();
        }
        let mut names = match &self.folder {
            Some(folder) => folder.names.same(&folder.path, key),
            None => Vec::new(),
        };
        names.extend(
            self.composed_entries
                .get(&composed(key))
                .into_iter()
                .flatten()
                .cloned(),
        );
        names.sort();
        names.dedup();
        names.retain(|name| name != key);
        names
    }

    fn range(&self, place: Place) -> Range<'_> {
        match place {
            Place::File(path, metadata) => Range::Bytes(path, 0, metadata.len()),
            Place::Entry(entry) => match &self.shards[entry.shard as usize] {
                Shard::Tar(path) => Range::Bytes(path.clone(), entry.offset, entry.bytes),
                Shard::Parquet(images) => Range::Row(images, entry.offset),
            },
        }
    }

    fn find(&self, key: &str) -> Result<Place, Problem> {
        check_key(key)?;
        let key = key.strip_prefix("./").unwrap_or(key);
        if let Some(place) = self.find_name(key)? {
            return Ok(place);
        }
        let twins = self.twins(key);
        match twins.as_slice() {
            [] => Err(self.not_there(key)),
            [name] => self.find_name(name)?.ok_or_else(|| self.not_there(key)),
            names => Err(Problem::new(
                ProblemKind::MissingImage,
                format!(
                    "no picture has just this name, and {} differ from it by their Unicode normal \
                     form only",
                    names.len()
                ),
                "rename the pictures, so that the note's can be told",
            )),
        }
    }

    /// The picture of just this name.
    fn find_name(&self, key: &str) -> Result<Option<Place>, Problem> {
        let entry = self.entries.get(key).copied().map(Place::Entry);
        let Some(folder) = &self.folder else {
            return Ok(entry);
        };
        let path = folder.path.join(key);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                folder.refuse_outside(&path)?;
                Ok(Some(Place::File(path, metadata)))
            }
            Ok(_) => {
                let reason = std::io::Error::other("it is no regular file");
                Err(missing(&path, &reason))
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound && entry.is_none() => {
                Err(missing(&path, &error))
            }
            Err(_) => Ok(entry),
        }
    }

    fn not_there(&self, key: &str) -> Problem {
        let mut problem = self.nowhere(key);
        if let Some(other) = self.spelt_otherwise(key) {
            problem.message += &format!("; `{}` is there", shorten(&other));
            problem.mend = "write the picture's name as its file has it".into();
        }
        problem
    }

    /// The name of a picture that differs from `key` as those of other systems do: by the separator, by
    /// spaces at its ends, by the case of its ending or of all letters.
    fn spelt_otherwise(&self, key: &str) -> Option<String> {
        let plain = key.trim().replace('\\', "/");
        let ending = plain.rsplit_once('.').map(|(stem, ending)| {
            let other = match ending.chars().all(char::is_uppercase) {
                true => ending.to_lowercase(),
                false => ending.to_uppercase(),
            };
            format!("{stem}.{other}")
        });
        let names = [Some(plain.to_lowercase()), ending, Some(plain)];
        let there = |name: &String| {
            name != key && check_key(name).is_ok() && matches!(self.find_name(name), Ok(Some(_)))
        };
        names.into_iter().rev().flatten().find(there)
    }

    fn nowhere(&self, key: &str) -> Problem {
        match &self.folder {
            Some(folder) => {
                let path = folder.path.join(key);
                let looked = fs::metadata(&path).err();
                let gone = || std::io::ErrorKind::NotFound.into();
                missing(&path, &looked.unwrap_or_else(gone))
            }
            None => Problem::new(
                ProblemKind::MissingImage,
                "no shard has this entry",
                MEND_MISSING,
            ),
        }
    }
}

impl Folder {
    /// Refuses files that are only reached by a link out of the folder: whoever wrote the set may be
    /// a stranger, as with keys that lead outside.
    fn refuse_outside(&self, path: &Path) -> Result<(), Problem> {
        let real = fs::canonicalize(path).map_err(|error| missing(path, &error))?;
        if real.starts_with(&self.real) {
            return Ok(());
        }
        Err(Problem::new(
            ProblemKind::BadImageKey,
            format!(
                "a link leads outside the image folder, to `{}`",
                shown(&real)
            ),
            "copy the picture into the folder, or name the folder that holds it as `data.images`",
        ))
    }
}

const MEND_MISSING: &str = "add the picture, or remove `image` from the note";

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

fn read_range(path: &Path, offset: u64, bytes: u64) -> std::io::Result<Vec<u8>> {
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
