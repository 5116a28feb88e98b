//! Pictures in an object store: a prefix of objects, or shards that are read by ranges.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use rayon::prelude::*;

use super::super::far_parquet::FarParquet;
use super::super::tar_index::{self, TarEntry};
use super::shards::{Shard, is_parquet, is_shard, row_entries};
use super::{ImageStore, Range};
use crate::batch::PictureHash;
use crate::error::{Problem, Result};
use crate::image::DecodeOptions;
use crate::store::{Object, Store};

/// Pictures that are asked for together, where they are far away.
const TOGETHER: usize = 64;

/// Contents of pictures that were asked for together, by key. Empty where pictures are near.
#[derive(Debug, Default)]
pub struct Fetched(HashMap<String, Vec<u8>>);

impl ImageStore {
    /// The pictures of a store, at an address of it.
    pub(crate) fn of_store(path: &Path, store: Store) -> Result<Self> {
        let mut images = Self::empty();
        images.open_address(path, store)?;
        Ok(images)
    }

    /// Lists a prefix, or the pictures of shards.
    fn open_address(&mut self, path: &Path, store: Store) -> Result<()> {
        let listed = store.listed()?;
        let shards = match &listed {
            Some((skip, objects)) => {
                let name = |object: &Object| object.key.get(*skip..).unwrap_or_default().to_owned();
                let direct = |name: &String| !name.contains('/') && is_shard(name);
                let shards = objects.iter().filter(|object| direct(&name(object)));
                shards.cloned().collect()
            }
            None => store.shards()?,
        };
        let opened: Vec<Result<(Shard, Vec<TarEntry>)>> = shards
            .par_iter()
            .map(|object| open_shard(&store, object))
            .collect();
        self.remote = Some((path.to_path_buf(), store));
        for opened in opened {
            let (shard, entries) = opened?;
            let place = self.path_of(&shard);
            self.add(shard, &place, entries)?;
        }
        if let Some((skip, objects)) = listed {
            let entry = |(offset, object): (u64, &Object)| TarEntry {
                name: object.key.get(skip..).unwrap_or_default().to_owned(),
                offset,
                bytes: object.bytes,
            };
            let entries = (0..).zip(&objects).map(entry);
            // Consoles make empty objects that stand for folders.
            let entries =
                entries.filter(|entry| !entry.name.is_empty() && !entry.name.ends_with('/'));
            let entries = entries.collect();
            self.add(Shard::Listed(objects), path, entries)?;
        }
        Ok(())
    }

    /// The store that shards of objects are in.
    pub(super) fn store(&self) -> &Store {
        match &self.remote {
            Some((_, store)) => store,
            None => unreachable!("objects come from a store"),
        }
    }

    /// Asks for the pictures of these keys together, where they are far away and not in the cache of this machine. What cannot
    /// be read is left out: whoever reads it hears why.
    pub fn ahead<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Fetched {
        let Some((_, store)) = &self.remote else {
            return Fetched::default();
        };
        let (mut of_bytes, mut bytes) = (Vec::new(), Vec::new());
        let (mut of_rows, mut rows) = (Vec::new(), Vec::new());
        for key in keys {
            match self.find(key).map(|place| self.range(place)) {
                Ok(Range::Object(_, object, range)) => {
                    of_bytes.push(key);
                    bytes.push((object, range));
                }
                Ok(Range::FarRow(_, file, row)) => {
                    of_rows.push(key);
                    rows.push((file, row));
                }
                Ok(Range::Bytes(..) | Range::Row(..)) | Err(_) => {}
            }
        }
        let bytes = of_bytes.into_iter().zip(store.read_ahead(&bytes));
        let rows = of_rows
            .into_iter()
            .zip(FarParquet::read_ahead(store, &rows));
        let read = bytes.chain(rows);
        Fetched(
            read.filter_map(|(key, content)| Some((key.to_owned(), content?)))
                .collect(),
        )
    }

    /// How many pictures are best asked for together.
    pub(crate) fn together(&self) -> usize {
        if self.remote.is_some() { TOGETHER } else { 1 }
    }

    /// All bytes of a picture's file, from `ahead` where they are there. Files of more bytes than `options` allow are a
    /// problem.
    pub(crate) fn content<'a>(
        &self,
        key: &str,
        options: &DecodeOptions,
        ahead: &'a Fetched,
    ) -> Result<Cow<'a, [u8]>, Problem> {
        match ahead.0.get(key) {
            Some(content) => {
                options.check_bytes(content.len() as u64)?;
                Ok(Cow::Borrowed(content))
            }
            None => self.read_within(key, options).map(Cow::Owned),
        }
    }

    /// Reads the files of pictures for their hashes alone, which [`Self::seen`] then gives.
    pub fn look_all(&self, keys: &[&str]) -> Vec<Result<PictureHash>> {
        let look = |keys: &[&str]| {
            let ahead = self.ahead(keys.iter().copied());
            let look = |key: &&str| match ahead.0.get(*key) {
                Some(content) => Ok(self.see(key, content)),
                None => self.look(key),
            };
            keys.iter().map(look).collect::<Vec<_>>()
        };
        keys.chunks(self.together()).flat_map(look).collect()
    }

    /// What tells these pictures from others, where they are in an object store: a hash of keys, sizes and
    /// entity tags.
    pub fn listing(&self, keys: &[&str]) -> Option<String> {
        self.remote.as_ref()?;
        let mut hasher = blake3::Hasher::new();
        for key in keys {
            let stamp = self.stamp(key).ok();
            let stamp = stamp.map(|stamp| (stamp.bytes, stamp.modified_nanoseconds));
            hasher.update(format!("{key}\0{stamp:?}\n").as_bytes());
        }
        Some(hasher.finalize().to_hex().to_string())
    }
}

/// A shard of a store, and its pictures.
fn open_shard(store: &Store, object: &Object) -> Result<(Shard, Vec<TarEntry>)> {
    Ok(match is_parquet(Path::new(&object.key)) {
        true => {
            let (file, keys) = FarParquet::open(store, object)?;
            (Shard::FarParquet(file), row_entries(keys))
        }
        false => {
            let entries = tar_index::entries_of(store, object)?;
            (Shard::Object(object.clone()), entries)
        }
    })
}
