//! What the data of a run held when it began: `data.json` in the run folder.
//!
//! Which notes a run may be tested on, and where its order of pairs stands, depends on the content of
//! notes, log and pictures. A run whose data was edited since does not go on, and is not measured,
//! without a word.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use mlrm_config::{DataSettings, RunConfig};
use mlrm_data::files::table_files;
use mlrm_data::notes::{ImageStore, picture_shards};
use mlrm_data::store::{is_named, local};
use mlrm_model::checksums::FileSum;
use serde::{Deserialize, Serialize};

use crate::changes::Change;
use crate::corpus::Notes;
use crate::error::TrainError;
use crate::folders::write_beside;

const FILE: &str = "data.json";

/// Hashes of the files that a run reads; absent what it does not read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataRecord {
    /// The notes.
    pub notes: Option<FileSum>,
    /// The behaviour log.
    pub interactions: Option<FileSum>,
    /// Ready-made pairs.
    pub pairs_file: Option<FileSum>,
    /// The notes' pictures.
    pub images: Option<Pictures>,
}

/// The pictures of all notes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pictures {
    /// How many there are.
    pub count: usize,
    /// BLAKE3 of their keys, sizes and times of change. Where it is the same, so is `content`, which
    /// then need not be computed.
    pub listing: String,
    /// BLAKE3 of their keys and what they hold.
    pub content: String,
}

impl DataRecord {
    /// What the data of `config` holds now. Pictures are read unless `earlier` lists the same ones.
    ///
    /// # Errors
    /// A file that cannot be read. A picture that cannot be read is recorded as missing.
    pub fn of(
        config: &RunConfig,
        notes: &Notes,
        earlier: Option<&Self>,
    ) -> Result<Self, TrainError> {
        let data = &config.data;
        let sum = |path: &Path| -> Result<Option<FileSum>, TrainError> {
            let path = data.place(path);
            let file = is_named(&path).then(|| sum_of(&path));
            file.transpose()
        };
        let of_path = |path: &Option<PathBuf>| match path {
            Some(path) => sum(path),
            None => Ok(None),
        };
        let earlier = earlier.and_then(|earlier| earlier.images.as_ref());
        let images = notes.images.as_ref();
        Ok(Self {
            notes: notes_sum(&data.place(&data.notes))?,
            interactions: of_path(&data.interactions)?,
            pairs_file: of_path(&data.pairs_file)?,
            images: images.map(|store| Pictures::of(data, notes, store, earlier)),
        })
    }

    /// The record in the folder of a run; `None` where there is none, as in those of older versions.
    ///
    /// # Errors
    /// A file that cannot be read or is no such record.
    pub fn read(run: &Path) -> Result<Option<Self>, TrainError> {
        let path = run.join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).map_err(TrainError::io("read", &path))?;
        let record = serde_json::from_str(&text);
        record
            .map(Some)
            .map_err(|e| TrainError::file(&path, e.to_string()))
    }

    /// Writes the record into the folder of a run.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn write(&self, run: &Path) -> Result<(), TrainError> {
        let path = run.join(FILE);
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| TrainError::io("write", &path)(e.into()))?;
        write_beside(&path, &(text + "\n"))
    }

    /// Where `now` holds something else.
    pub fn changes(&self, now: &Self) -> Vec<Change> {
        let files = [
            ("data.notes", &self.notes, &now.notes),
            ("data.interactions", &self.interactions, &now.interactions),
            ("data.pairs_file", &self.pairs_file, &now.pairs_file),
        ];
        let change = |key: &str, difference: String| Change {
            key: key.into(),
            difference,
        };
        let mut found = Vec::new();
        for (key, there, here) in files {
            let difference = match (there, here) {
                (there, here) if there == here => continue,
                (None, _) => "was not there when the run began".into(),
                (_, None) => "is not there any more".into(),
                (Some(there), Some(here)) => format!(
                    "has other content than when the run began ({} bytes there, {} here)",
                    there.bytes, here.bytes
                ),
            };
            found.push(change(key, difference));
        }
        if let (Some(there), Some(here)) = (&self.images, &now.images)
            && there.content != here.content
        {
            let difference = format!(
                "holds other pictures than when the run began ({} there, {} here)",
                there.count, here.count
            );
            found.push(change("data.images", difference));
        }
        found
    }
}

/// The hash of a file, or of the copy of what an address names.
fn sum_of(path: &Path) -> Result<FileSum, TrainError> {
    Ok(FileSum::of(&local(path)?)?)
}

/// The notes: of one file its hash, of several one of their names and hashes.
fn notes_sum(path: &Path) -> Result<Option<FileSum>, TrainError> {
    if path.is_file() {
        return Ok(Some(sum_of(path)?));
    }
    // That there is none was said when the notes were opened.
    let files = table_files(path).unwrap_or_default();
    let files: Vec<_> = files.iter().filter(|file| is_named(file)).collect();
    if files.is_empty() {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    let mut bytes = 0;
    for file in files {
        let sum = sum_of(file)?;
        bytes += sum.bytes;
        let name = file.file_name().unwrap_or_default();
        hasher.update(format!("{}\0{}\n", name.to_string_lossy(), sum.blake3).as_bytes());
    }
    Ok(Some(FileSum {
        bytes,
        blake3: hasher.finalize().to_hex().to_string(),
    }))
}

impl Pictures {
    fn of(data: &DataSettings, notes: &Notes, store: &ImageStore, earlier: Option<&Self>) -> Self {
        let rows = notes.set.rows().iter();
        let keys: BTreeSet<&str> = rows.filter_map(|note| note.image.as_deref()).collect();
        let keys: Vec<&str> = keys.into_iter().collect();
        let listing = store
            .listing(&keys)
            .unwrap_or_else(|| listing(&data.place(&data.images), &keys));
        let content = match earlier.filter(|earlier| earlier.listing == listing) {
            Some(earlier) => earlier.content.clone(),
            None => content(store, &keys),
        };
        Self {
            count: keys.len(),
            listing,
            content,
        }
    }
}

/// A hash of keys, sizes and times of change of files, and of the shards that they may be in.
fn listing(images: &Path, keys: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut put = |name: &str, path: &Path| {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file);
        let bytes = metadata.as_ref().map(fs::Metadata::len);
        let changed = metadata.and_then(|metadata| metadata.modified().ok());
        let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let nanoseconds = changed.map(|since| since.as_nanos());
        hasher.update(format!("{name}\0{bytes:?}\0{nanoseconds:?}\n").as_bytes());
    };
    // That there are none was said when the pictures were opened.
    for shard in picture_shards(images).unwrap_or_default() {
        let name = shard.file_name().unwrap_or_default().to_string_lossy();
        match shard == images {
            true => put("", images),
            false => put(&name, &shard),
        }
    }
    for key in keys {
        put(key, &images.join(key));
    }
    hasher.finalize().to_hex().to_string()
}

/// A hash of keys and what the pictures hold, read by all cores.
fn content(store: &ImageStore, keys: &[&str]) -> String {
    // Training says what is wrong with what cannot be read.
    let hashes = |keys: &[&str]| {
        let looked = store.look_all(keys).into_iter();
        looked
            .map(|hash| hash.unwrap_or([0; blake3::OUT_LEN]))
            .collect()
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let share = keys.len().div_ceil(cores).max(1);
    let hashes = std::thread::scope(|scope| {
        let parts = keys.chunks(share);
        let workers = parts.map(|part| scope.spawn(move || hashes(part)));
        let workers: Vec<_> = workers.collect();
        let hashes = workers.into_iter().map(|worker| match worker.join() {
            Ok(hashes) => hashes,
            // An error of this program goes on here, where it is seen.
            Err(panic) => std::panic::resume_unwind(panic),
        });
        hashes.collect::<Vec<Vec<[u8; blake3::OUT_LEN]>>>()
    });
    let mut hasher = blake3::Hasher::new();
    for (key, hash) in keys.iter().zip(hashes.iter().flatten()) {
        hasher.update(key.as_bytes()).update(b"\0").update(hash);
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: u64, content: &str) -> DataRecord {
        let sum = |hash: &str| FileSum {
            bytes,
            blake3: hash.into(),
        };
        DataRecord {
            notes: Some(sum("a")),
            interactions: Some(sum(content)),
            pairs_file: None,
            images: Some(Pictures {
                count: 3,
                listing: "x".into(),
                content: content.into(),
            }),
        }
    }

    #[test]
    fn what_differs_is_named_by_its_setting() {
        let keys = |there: &DataRecord, here: &DataRecord| -> Vec<String> {
            let changes = there.changes(here).into_iter();
            changes.map(|change| change.key).collect()
        };
        let (there, mut here) = (record(5, "c"), record(5, "d"));
        assert!(there.changes(&there).is_empty());
        assert_eq!(keys(&there, &here), ["data.interactions", "data.images"]);
        here.notes = None;
        here.images = None;
        assert_eq!(keys(&there, &here), ["data.notes", "data.interactions"]);
    }

    #[test]
    fn notes_in_several_files_are_one_sum_of_all() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(home.path().join(name), text).unwrap();
        let sum = |name: &str| notes_sum(&home.path().join(name)).unwrap();
        write("a.jsonl", "1");
        write("b.jsonl", "2");
        let whole = sum("").unwrap();
        assert_eq!(whole.bytes, 2);
        assert_eq!(sum("*.jsonl"), Some(whole.clone()));
        assert_eq!(sum("a.jsonl").unwrap().bytes, 1);
        assert_eq!((sum("none.jsonl"), sum("none*")), (None, None));
        write("b.jsonl", "3");
        assert_ne!(sum(""), Some(whole.clone()));
        write("b.jsonl", "2");
        write("c.jsonl", "");
        assert_ne!(sum(""), Some(whole));
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(DataRecord::read(home.path()).unwrap(), None);
        let record = record(5, "c");
        record.write(home.path()).unwrap();
        assert_eq!(DataRecord::read(home.path()).unwrap(), Some(record));
    }

    #[test]
    fn a_listing_knows_sizes_and_times() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.png");
        fs::write(&path, "1").unwrap();
        let keys = ["a.png", "none.png"];
        let first = listing(home.path(), &keys);
        assert_eq!(listing(home.path(), &keys), first);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH).unwrap();
        let touched = listing(home.path(), &keys);
        assert_ne!(touched, first);
        fs::write(&path, "12").unwrap();
        assert_ne!(listing(home.path(), &keys), touched);
    }
}
