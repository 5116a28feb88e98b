//! A model without its weights: everything that tells what it is, in a fraction of the bytes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use mlrm_config::HubName;

use crate::cache::RepoCache;
use crate::client::RemoteFile;
use crate::download::begins_at;
use crate::hub::{Found, Snapshot, is_whole};
use crate::{Hub, HubError, Needs, Watch};

/// Bytes before the header of a safetensors file: its length.
const LENGTH_BYTES: u64 = 8;
/// Longest header that safetensors allows, in bytes.
const MAX_HEADER_BYTES: u64 = 100_000_000;

impl Hub {
    /// A folder of what is needed of a model to say what it is: the small files, by way of the cache, and of
    /// weights that the cache does not have the headers alone, in files of their length that hold nothing
    /// behind. It is made in `into`, an empty folder, unless the cache has it all.
    ///
    /// # Errors
    ///
    /// As [`Hub::fetch`], and when `into` cannot be written.
    pub fn outline(
        &self,
        name: &HubName,
        into: &Path,
        watch: &mut dyn Watch,
    ) -> Result<Snapshot, HubError> {
        let cache = RepoCache::new(&self.environment.cache, name);
        let listing = match self.list(name, Needs::Model, &cache, watch)? {
            Found::Cached(snapshot) => return Ok(snapshot),
            Found::Listed(listing) => listing,
        };
        let commit = &listing.commit;
        let weights = self.small_files(name, Needs::Model, &cache, &listing, watch)?;
        let folder = cache.snapshot(commit);
        if weights.iter().all(|file| is_whole(&cache, commit, file)) {
            // One without its weights must not take the place of an older one that can be used offline.
            cache.remember(commit)?;
            return Ok(Snapshot {
                folder,
                commit: listing.commit,
            });
        }
        let lacking = |path: &str| {
            let file = weights.iter().find(|file| file.path == path)?;
            (!is_whole(&cache, commit, file)).then_some(*file)
        };
        let small = cache.files(commit);
        let weights = weights.iter().map(|file| file.path.clone());
        for path in small.into_iter().chain(weights) {
            let to = into.join(&path);
            if to.exists() {
                continue;
            }
            let parent = to.parent().unwrap_or(into);
            fs::create_dir_all(parent).map_err(HubError::io("create", parent))?;
            match lacking(&path) {
                Some(file) => self.header(name, commit, file, &to)?,
                None => link(&folder.join(&path), &to).map_err(HubError::io("link", &to))?,
            }
        }
        Ok(Snapshot {
            folder: into.to_owned(),
            commit: listing.commit,
        })
    }

    /// Writes the header of a safetensors file to `to`, and nothing behind it up to its length.
    fn header(
        &self,
        name: &HubName,
        commit: &str,
        file: &RemoteFile,
        to: &Path,
    ) -> Result<(), HubError> {
        let mut head = self.bytes(name, commit, file, 0, LENGTH_BYTES.min(file.bytes))?;
        if let Ok(length) = head.as_slice().try_into() {
            let length = u64::from_le_bytes(length);
            // One that cannot be is refused by whoever reads the file.
            if length <= MAX_HEADER_BYTES.min(file.bytes - LENGTH_BYTES) {
                head.extend(self.bytes(name, commit, file, LENGTH_BYTES, length)?);
            }
        }
        let write = || {
            let mut out = File::create(to)?;
            out.write_all(&head)?;
            out.set_len(file.bytes)
        };
        write().map_err(HubError::io("write", to))
    }

    /// `count` bytes of a file from `from` on.
    fn bytes(
        &self,
        name: &HubName,
        commit: &str,
        file: &RemoteFile,
        from: u64,
        count: u64,
    ) -> Result<Vec<u8>, HubError> {
        let url = self.client.file_url(name, commit, &file.path);
        let broke = |held: u64, reason: String| HubError::BrokeOff {
            name: name.clone(),
            file: file.path.clone(),
            held: from + held,
            bytes: file.bytes,
            reason,
        };
        let range = format!("{from}-{}", from + count.saturating_sub(1));
        let response = self.client.get(&url, Some(range));
        let response = response.map_err(|error| broke(0, error.to_string()))?;
        let skipped = match response.status().as_u16() {
            // A server without ranges: no more is read of it than is needed.
            200 => from,
            206 if begins_at(&response, from) => 0,
            206 => return Err(broke(0, "the server sent another part of it".into())),
            status => {
                return Err(HubError::Status {
                    name: name.clone(),
                    file: Some(file.path.clone()),
                    status,
                    url,
                    token: self.client.has_token(),
                });
            }
        };
        let mut body = response.into_body().into_reader();
        let failed = |error: io::Error| broke(0, error.to_string());
        io::copy(&mut (&mut body).take(skipped), &mut io::sink()).map_err(failed)?;
        let mut bytes = Vec::new();
        body.take(count).read_to_end(&mut bytes).map_err(failed)?;
        match bytes.len() as u64 {
            held if held < count => Err(broke(held, "the connection was closed".into())),
            _ => Ok(bytes),
        }
    }
}

/// Lets `to` be the file `from`.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    let from = fs::canonicalize(from)?;
    #[cfg(unix)]
    return std::os::unix::fs::symlink(from, to);
    #[cfg(not(unix))]
    return fs::hard_link(&from, to).or_else(|_| fs::copy(&from, to).map(drop));
}
