//! From a name to a folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use mlrm_config::HubName;
use serde_json::Value;

use crate::cache::RepoCache;
use crate::client::{Client, Listing, RemoteFile};
use crate::download::Download;
use crate::needs::{INDEX, WEIGHTS};
use crate::{Environment, HubError, Needs, Watch};

/// The Hub, and the cache of what came from it.
pub struct Hub {
    pub(crate) environment: Environment,
    pub(crate) client: Client,
}

/// What a name stands for, as files of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder.
    pub folder: PathBuf,
    /// The commit that it is of.
    pub commit: String,
}

impl Hub {
    /// The Hub of an environment.
    pub fn new(environment: Environment) -> Self {
        Self {
            client: Client::new(&environment),
            environment,
        }
    }

    /// The folder of a name: what is needed of it and not in the cache yet is downloaded.
    ///
    /// A Hub that cannot be reached is no fault where the cache has it all; `watch` is told so.
    ///
    /// # Errors
    ///
    /// When the Hub refuses, the download breaks off, or the cache does not have what may not be asked
    /// for.
    pub fn fetch(
        &self,
        name: &HubName,
        needs: Needs,
        watch: &mut dyn Watch,
    ) -> Result<Snapshot, HubError> {
        let cache = RepoCache::new(&self.environment.cache, name);
        let listing = match self.list(name, needs, &cache, watch)? {
            Found::Cached(snapshot) => return Ok(snapshot),
            Found::Listed(listing) => listing,
        };
        let weights = self.small_files(name, needs, &cache, &listing, watch)?;
        let held = |file: &&RemoteFile| is_whole(&cache, &listing.commit, file);
        let lacking: Vec<&RemoteFile> =
            weights.iter().copied().filter(|file| !held(file)).collect();
        if !lacking.is_empty() {
            watch.weights(lacking.len(), lacking.iter().map(|file| file.bytes).sum());
        }
        for file in weights {
            self.file(name, &cache, &listing.commit, file, watch)?;
        }
        cache.remember(&listing.commit)?;
        Ok(Snapshot {
            folder: cache.snapshot(&listing.commit),
            commit: listing.commit,
        })
    }

    /// What a name stands for now, or what the cache has of it where nobody may or can be asked.
    pub(crate) fn list(
        &self,
        name: &HubName,
        needs: Needs,
        cache: &RepoCache,
        watch: &mut dyn Watch,
    ) -> Result<Found, HubError> {
        if self.environment.offline {
            let snapshot = cached(cache, needs).map_err(|missing| HubError::Offline {
                name: name.clone(),
                cache: self.environment.cache.clone(),
                missing,
            });
            return snapshot.map(Found::Cached);
        }
        match self.client.list(name) {
            Ok(listing) => Ok(Found::Listed(listing)),
            Err(error @ HubError::Unreachable { .. }) => {
                let Ok(snapshot) = cached(cache, needs) else {
                    return Err(error);
                };
                watch.say(&format!(
                    "{error}; taking commit {} from the cache",
                    snapshot.commit
                ));
                Ok(Found::Cached(snapshot))
            }
            Err(error) => Err(error),
        }
    }

    /// Brings every needed file of a commit but its weights into the cache, and tells the weights.
    pub(crate) fn small_files<'a>(
        &self,
        name: &HubName,
        needs: Needs,
        cache: &RepoCache,
        listing: &'a Listing,
        watch: &mut dyn Watch,
    ) -> Result<Vec<&'a RemoteFile>, HubError> {
        let paths: Vec<&str> = listing
            .files
            .iter()
            .map(|file| file.path.as_str())
            .collect();
        let missing = needs.missing(&paths);
        if !missing.is_empty() {
            return Err(HubError::NothingToRead {
                name: name.clone(),
                found: lacking(&missing, &paths),
            });
        }
        let find = |path: &str| listing.files.iter().find(|file| file.path == path);
        let mut shards = BTreeSet::new();
        let mut weights = Vec::new();
        for file in needs.of(&paths).into_iter().filter_map(find) {
            if file.path.ends_with(WEIGHTS) {
                weights.push(file);
                continue;
            }
            self.file(name, cache, &listing.commit, file, watch)?;
            if file.path.ends_with(INDEX) {
                shards.extend(shards_of(&cache.snapshot(&listing.commit), &file.path));
            }
        }
        for shard in &shards {
            weights.push(find(shard).ok_or_else(|| HubError::NothingToRead {
                name: name.clone(),
                found: format!("no {shard}, which its {INDEX} names"),
            })?);
        }
        Ok(weights)
    }

    pub(crate) fn file(
        &self,
        name: &HubName,
        cache: &RepoCache,
        commit: &str,
        file: &RemoteFile,
        watch: &mut dyn Watch,
    ) -> Result<(), HubError> {
        let blob = cache.blob(&file.etag);
        if !is_whole(cache, commit, file) {
            let _lock = cache.lock(&file.etag, watch)?;
            // Another process may have brought it while this one waited.
            if !has_length(&blob, file.bytes) {
                let download = Download {
                    client: &self.client,
                    name,
                    commit,
                    file,
                    blob: &blob,
                };
                download.run(watch)?;
            }
        }
        cache.link(commit, &file.path, &blob)
    }
}

/// What a name stands for.
pub(crate) enum Found {
    /// What the cache has.
    Cached(Snapshot),
    /// What the Hub says.
    Listed(Listing),
}

/// Whether the cache has a file of a commit.
pub(crate) fn is_whole(cache: &RepoCache, commit: &str, file: &RemoteFile) -> bool {
    has_length(&cache.snapshot(commit).join(&file.path), file.bytes)
}

fn has_length(path: &Path, bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|held| held.len() == bytes)
}

/// What the cache has of a name, or what it lacks.
fn cached(cache: &RepoCache, needs: Needs) -> Result<Snapshot, Vec<String>> {
    let commit = cache.known_commit().ok_or_else(|| vec!["it".to_owned()])?;
    let folder = cache.snapshot(&commit);
    let files = cache.files(&commit);
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let mut missing = needs.missing(&files);
    let indices = files
        .iter()
        .filter(|file| needs == Needs::Model && file.ends_with(INDEX));
    for index in indices {
        let shards = shards_of(&folder, index);
        missing.extend(
            shards
                .into_iter()
                .filter(|shard| !files.contains(&shard.as_str())),
        );
    }
    match missing.is_empty() {
        true => Ok(Snapshot { folder, commit }),
        false => Err(missing),
    }
}

/// The shards that an index names, as paths of the repository. An index that is none names nothing: it
/// is refused where weights are read, with what is wrong in it.
fn shards_of(folder: &Path, index: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(folder.join(index)).unwrap_or_default();
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    let map = json.get("weight_map").and_then(Value::as_object);
    let below = index.strip_suffix(INDEX).unwrap_or_default();
    let files = map
        .into_iter()
        .flatten()
        .filter_map(|(_, file)| file.as_str());
    files.map(|file| format!("{below}{file}")).collect()
}

/// What a repository lacks, and what it has in its place.
fn lacking(missing: &[String], paths: &[&str]) -> String {
    let pickled = paths
        .iter()
        .find(|path| path.ends_with(".bin") || path.ends_with(".pth"));
    let missing = missing.join(" and no ");
    match pickled {
        Some(file) if missing.contains("safetensors") => format!(
            "no {missing}: its weights are {file}, which may run code when it is read; a revision with \
             safetensors may be among its pull requests (@refs/pr/N)"
        ),
        _ => format!("no {missing}"),
    }
}
