//! Pictures, shards and parts of them, through the cache.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::cache::{Cache, Entry};
use super::client::Client;
use super::fault::Fault;
use super::ranges::{LEAST, RangeReader};
use super::{Object, files};
use crate::error::{DataError, Problem, Result};

/// A bucket or web server, and what of it is kept on this machine.
#[derive(Debug)]
pub(crate) struct Store {
    client: Client,
    /// The bucket's address, for the names of entries.
    bucket: PathBuf,
    cache: Option<Cache>,
}

impl Store {
    /// The store of an address. At most `cache_bytes` are kept.
    ///
    /// # Errors
    /// No address that can be read; credentials that are none.
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self> {
        let cache = Cache::open(cache_bytes);
        if let Some(cache) = &cache {
            // The bound may be a smaller one than before.
            cache.make_room(0);
        }
        Ok(Self::with(Client::of(path)?, cache))
    }

    pub(super) fn with(client: Client, cache: Option<Cache>) -> Self {
        Self {
            bucket: client.address.with_key(""),
            client,
            cache,
        }
    }

    /// The shards that the address names: `.tar` or `.parquet` files, one, or those that fit braces and a `*` in its last
    /// part. Of a prefix none: [`Self::listed`].
    ///
    /// # Errors
    /// Nothing there; a store that does not answer.
    pub fn shards(&self) -> Result<Vec<Object>> {
        let keys = self.client.address.keys()?;
        if keys.iter().all(|key| !is_shard(key)) {
            return Ok(Vec::new());
        }
        files::named_all(&self.client, &keys)
    }

    /// What is below the address as a prefix, and how many bytes of a key the prefix has; `None` where
    /// the address names shards.
    ///
    /// # Errors
    /// Nothing there; a store that does not answer; a web server, which lists nothing.
    pub fn listed(&self) -> Result<Option<(usize, Vec<Object>)>> {
        let address = &self.client.address;
        let keys = address.keys()?;
        let [prefix] = keys.as_slice() else {
            return Ok(None);
        };
        if is_shard(prefix) {
            return Ok(None);
        }
        if address.is_web() {
            return Err(DataError::file(
                address.with_key(&address.key),
                "a web server does not list its files",
                "name shards, such as https://host/shards/{000..031}.tar",
            ));
        }
        let objects = self.client.list(prefix);
        let objects = objects.map_err(|fault| fault.of_place(address))?;
        if objects.is_empty() {
            return Err(DataError::file(
                address.with_key(prefix),
                "nothing is there",
                "correct the bucket or the prefix",
            ));
        }
        let skip = if prefix.is_empty() {
            0
        } else {
            prefix.len() + 1
        };
        Ok(Some((skip, objects)))
    }

    /// The address of an object.
    pub fn address(&self, object: &Object) -> PathBuf {
        self.client.address.with_key(&object.key)
    }

    /// A part of an object, from the cache or from the store.
    ///
    /// # Errors
    /// What the store says, after all tries.
    pub fn read(&self, object: &Object, range: Range<u64>) -> Result<Vec<u8>, Problem> {
        let entry = self.entry(object, &range);
        if let Some(content) = self.cache.as_ref().and_then(|cache| cache.get(&entry)) {
            return Ok(content);
        }
        let content = self.client.read(object, range).map_err(Fault::problem)?;
        self.keep(&entry, &content);
        Ok(content)
    }

    /// Parts that are not in the cache, asked for all at once; `None` for those that are there, or that cannot be read:
    /// [`Self::read`] says why.
    pub fn read_ahead(&self, wanted: &[(&Object, Range<u64>)]) -> Vec<Option<Vec<u8>>> {
        let kept = |entry: &Entry| self.cache.as_ref().is_some_and(|cache| cache.has(entry));
        let entries: Vec<Entry> = wanted
            .iter()
            .map(|(object, range)| self.entry(object, range))
            .collect();
        let absent: Vec<usize> = (0..wanted.len())
            .filter(|&at| !kept(&entries[at]))
            .collect();
        let asked: Vec<_> = absent.iter().map(|&at| wanted[at].clone()).collect();
        let mut read = vec![None; wanted.len()];
        self.client.read_all(&asked, |number, content| {
            let at = absent[number];
            if let Ok(content) = content {
                self.keep(&entries[at], &content);
                read[at] = Some(content);
            }
        });
        read
    }

    /// Parts of objects, asked for all at once. They are not looked for in the cache, and not kept there.
    ///
    /// # Errors
    /// Of each what the store says, after all tries.
    pub fn fetch(&self, wanted: &[(&Object, Range<u64>)]) -> Vec<Result<Vec<u8>, Problem>> {
        let mut fetched: Vec<_> = wanted.iter().map(|_| Ok(Vec::new())).collect();
        self.client.read_all(wanted, |at, content| {
            fetched[at] = content.map_err(Fault::problem);
        });
        fetched
    }

    /// The content of a row of a Parquet file, if it is in the cache.
    pub fn kept_row(&self, object: &Object, row: u64) -> Option<Vec<u8>> {
        self.cache.as_ref()?.get(&self.row(object, row))
    }

    /// Whether the content of a row is in the cache.
    pub fn has_row(&self, object: &Object, row: u64) -> bool {
        let cache = self.cache.as_ref();
        cache.is_some_and(|cache| cache.has(&self.row(object, row)))
    }

    /// Keeps the content of a row.
    pub fn keep_row(&self, object: &Object, row: u64, content: &[u8]) {
        self.keep(&self.row(object, row), content);
    }

    /// The entry of a row: no range that an entry of a tar file may have, nor that of an index.
    fn row(&self, object: &Object, row: u64) -> Entry {
        Entry::of(&self.bucket, object, u64::MAX, row.saturating_add(1))
    }

    /// An object as a file. What is read of it is not kept.
    pub fn reader(&self, object: &Object) -> RangeReader {
        RangeReader::new(self.client.clone(), object.clone())
    }

    /// Whether a part of so many bytes, that [`Self::reader`] comes past, is worth keeping: it was fetched with what is around it, and
    /// drives nothing out of the cache.
    pub fn keeps_passing(&self, bytes: u64) -> bool {
        let cache = self.cache.as_ref();
        bytes <= LEAST && cache.is_some_and(|cache| cache.has_room(bytes))
    }

    /// Keeps a part of an object from a place on.
    pub fn keep_part(&self, object: &Object, start: u64, content: &[u8]) {
        let range = start..start + content.len() as u64;
        self.keep(&self.entry(object, &range), content);
    }

    /// What was kept of the headers of a tar file, or of the end of a Parquet file.
    pub fn kept_index(&self, object: &Object) -> Option<Vec<u8>> {
        self.cache.as_ref()?.get(&self.index(object))
    }

    /// Keeps what was found out about a shard.
    pub fn keep_index(&self, object: &Object, content: &[u8]) {
        self.keep(&self.index(object), content);
    }

    /// The entry of an index: no range that a picture may have.
    fn index(&self, object: &Object) -> Entry {
        Entry::of(&self.bucket, object, u64::MAX, 0)
    }

    fn entry(&self, object: &Object, range: &Range<u64>) -> Entry {
        Entry::of(&self.bucket, object, range.start, range.end)
    }

    fn keep(&self, entry: &Entry, content: &[u8]) {
        if let Some(cache) = &self.cache {
            cache.put(entry, content);
        }
    }
}

/// Whether a key is that of a file of many pictures.
fn is_shard(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    [".tar", ".parquet"]
        .iter()
        .any(|ending| name.ends_with(ending))
        || name.contains('*')
}
