//! Files of many pictures, and where in them each is.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::far_parquet::FarParquet;
use super::super::image_keys::composed;
use super::super::parquet_images::ParquetImages;
use super::super::tar_index::{self, TarEntry};
use super::ImageStore;
use crate::error::{DataError, Result, shorten};
use crate::files::{files_in, pattern_files};
use crate::store::Object;

/// A file of many pictures.
#[derive(Debug)]
pub(super) enum Shard {
    Tar(PathBuf),
    Parquet(ParquetImages),
    /// A tar file in an object store.
    Object(Object),
    /// A Parquet file in an object store.
    FarParquet(FarParquet),
    /// All objects below a prefix, each a picture.
    Listed(Vec<Object>),
}

/// A picture in a shard: of a tar file its bytes, of a Parquet file its row, of a prefix the number of its object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub shard: u32,
    pub offset: u64,
    pub bytes: u64,
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
pub(super) fn is_shard(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(stem, ending)| ending == "tar" && !stem.is_empty())
}

pub(super) fn is_parquet(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default();
    ending.eq_ignore_ascii_case("parquet")
}

impl ImageStore {
    /// Lists the pictures of a shard. As in any tar file, a later entry replaces an earlier one of its
    /// name; two shards must not have the same name.
    pub(super) fn index(&mut self, path: &Path) -> Result<()> {
        let (shard, entries) = match is_parquet(path) {
            true => {
                let (images, keys) = ParquetImages::open(path)?;
                (Shard::Parquet(images), row_entries(keys))
            }
            false => (Shard::Tar(path.to_path_buf()), tar_index::entries(path)?),
        };
        self.add(shard, path, entries)
    }

    /// Adds the pictures of a shard, which is at `path`.
    pub(super) fn add(&mut self, shard: Shard, path: &Path, entries: Vec<TarEntry>) -> Result<()> {
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
            // A file of a folder goes before an entry of a shard.
            let (Some(earlier), false) = (earlier, matches!(shard, Shard::Listed(_))) else {
                continue;
            };
            if earlier.shard != number {
                let other = self.path_of(&self.shards[earlier.shard as usize]);
                return Err(DataError::file(
                    path,
                    format!("`{}` is in `{}` too", shorten(&name), other.display()),
                    "keep every key in one shard",
                ));
            }
            if let Shard::Parquet(_) | Shard::FarParquet(_) = shard {
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

    /// Where a shard is, for messages.
    pub(super) fn path_of(&self, shard: &Shard) -> PathBuf {
        match (shard, &self.remote) {
            (Shard::Tar(path), _) => path.clone(),
            (Shard::Parquet(images), _) => images.path.clone(),
            (Shard::FarParquet(file), _) => file.images.path.clone(),
            (Shard::Object(object), Some((_, store))) => store.address(object),
            (Shard::Object(_) | Shard::Listed(_), remote) => remote
                .as_ref()
                .map(|(path, _)| path.clone())
                .unwrap_or_default(),
        }
    }
}

/// The pictures of a Parquet file as entries: the place of each is its row.
pub(super) fn row_entries(keys: Vec<String>) -> Vec<TarEntry> {
    let entry = |(offset, name)| TarEntry {
        name,
        offset,
        bytes: 0,
    };
    (0..).zip(keys).map(entry).collect()
}
