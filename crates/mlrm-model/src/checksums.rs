//! What a folder held when it was written: `checksums.json`, a size and a BLAKE3 hash of every file.
//!
//! A disk, a copy or an editor can change a weight without any reader noticing: every bit pattern is
//! a number. Folders without the file, such as those of other tools, are taken as they are. A folder
//! in the folder that has sums of its own answers for its files; only the sums are listed above it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// The file's name in the folder that it describes.
pub const CHECKSUMS: &str = "checksums.json";

/// Damaged files that an error lists; the rest is counted.
const LISTED: usize = 10;

/// What a folder held.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checksums {
    /// Path below the folder, with `/` between its parts → what the file held.
    pub files: BTreeMap<String, FileSum>,
}

/// What a file held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSum {
    /// Its size.
    pub bytes: u64,
    /// Its BLAKE3 hash, in hexadecimal digits.
    pub blake3: String,
}

/// A file that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Path below the folder.
    pub file: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Checksums {
    /// Of every file in `folder`, but for its own [`CHECKSUMS`] and what the sums of folders in it
    /// list. A file that is shared by a hard link
    /// with the folder `previous` keeps the sum that is written there: it is not read again, and what
    /// has happened to it since is not taken for what was meant.
    ///
    /// # Errors
    ///
    /// A file that cannot be read.
    pub fn of(folder: &Path, previous: Option<&Path>) -> Result<Self, ModelError> {
        let known = match previous {
            // Whether they can be read is not the question here: then nothing is known.
            Some(previous) => Self::read(previous)
                .ok()
                .flatten()
                .map(|sums| (previous, sums)),
            None => None,
        };
        let mut files = BTreeMap::new();
        for path in files_below(folder)? {
            let name = name_below(folder, &path);
            if name == CHECKSUMS || answered_below(folder, &path) {
                continue;
            }
            let shared = known.as_ref().and_then(|(previous, sums)| {
                let sum = sums.files.get(&name)?;
                same_file(&path, &previous.join(&name)).then(|| sum.clone())
            });
            let sum = match shared {
                Some(sum) => sum,
                None => FileSum::of(&path)?,
            };
            files.insert(name, sum);
        }
        Ok(Self { files })
    }

    /// Writes the sums of `folder` into it; see [`Self::of`].
    ///
    /// # Errors
    ///
    /// A file that cannot be read or written.
    pub fn write(folder: &Path, previous: Option<&Path>) -> Result<(), ModelError> {
        let path = folder.join(CHECKSUMS);
        let sums = Self::of(folder, previous)?;
        let text = serde_json::to_string_pretty(&sums)
            .map_err(|e| ModelError::format(&path, format!("cannot be written: {e}")))?;
        fs::write(&path, text + "\n").map_err(|e| ModelError::io("write", &path, e))
    }

    /// The sums that were written into `folder`; `None` where there are none.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or is not the sums of a folder.
    pub fn read(folder: &Path) -> Result<Option<Self>, ModelError> {
        let path = folder.join(CHECKSUMS);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ModelError::io("read", &path, error)),
        };
        let sums = serde_json::from_slice(&bytes);
        sums.map(Some)
            .map_err(|e| ModelError::format(&path, format!("is damaged: {e}")))
    }

    /// The files of `folder` that are not what was written. Files that came later are not looked at.
    pub fn damage(&self, folder: &Path) -> Vec<Damage> {
        let mut found = Vec::new();
        for (name, sum) in &self.files {
            if let Some(reason) = sum.difference(&folder.join(name)) {
                let file = name.clone();
                found.push(Damage { file, reason });
            } else if let Some(inner) = name.strip_suffix(CHECKSUMS)
                && let Ok(Some(sums)) = Self::read(&folder.join(inner))
            {
                let below = sums.damage(&folder.join(inner)).into_iter();
                found.extend(below.map(|damage| Damage {
                    file: format!("{inner}{}", damage.file),
                    ..damage
                }));
            }
        }
        found
    }
}

impl FileSum {
    /// The size and hash of a file.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn of(path: &Path) -> Result<Self, ModelError> {
        let read = || {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::open(path)?)?;
            Ok(Self {
                bytes: hasher.count(),
                blake3: hasher.finalize().to_hex().to_string(),
            })
        };
        read().map_err(|e| ModelError::io("read", path, e))
    }

    /// How the file at `path` differs; `None` where it does not.
    fn difference(&self, path: &Path) -> Option<String> {
        let bytes = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Some("is missing".into());
            }
            Err(error) => return Some(format!("cannot be read: {error}")),
        };
        if bytes != self.bytes {
            return Some(format!("has {bytes} bytes of {}", self.bytes));
        }
        match Self::of(path) {
            Ok(found) if found == *self => None,
            Ok(_) => Some("has other content than was written".into()),
            Err(error) => Some(error.to_string()),
        }
    }
}

/// Checks every file of `folder` against the [`CHECKSUMS`] in it, where there are any.
///
/// # Errors
///
/// Names the files that are not what was written.
pub fn verify(folder: &Path) -> Result<(), ModelError> {
    let Some(sums) = Checksums::read(folder)? else {
        return Ok(());
    };
    let damage = sums.damage(folder);
    if damage.is_empty() {
        return Ok(());
    }
    let message = format!(
        "damaged: {}; take the folder from another copy, or remove its {CHECKSUMS} if you changed it \
         on purpose",
        listed(&damage)
    );
    Err(ModelError::format(folder, message))
}

/// `model/head.safetensors has other content than was written, …`.
pub fn listed(damage: &[Damage]) -> String {
    let all = damage
        .iter()
        .map(|Damage { file, reason }| format!("{file} {reason}"));
    let mut shown: Vec<String> = all.take(LISTED).collect();
    if damage.len() > LISTED {
        shown.push(format!("and {} more", damage.len() - LISTED));
    }
    shown.join(", ")
}

/// Every file below `folder`, links followed.
///
/// # Errors
///
/// A folder that cannot be listed.
pub fn files_below(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).and_then(|entries| {
            let paths = entries.map(|entry| entry.map(|entry| entry.path()));
            paths.collect::<Result<Vec<_>, _>>()
        });
        for path in entries.map_err(|e| ModelError::io("list", &folder, e))? {
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    Ok(found)
}

fn name_below(folder: &Path, path: &Path) -> String {
    let below = path.strip_prefix(folder).unwrap_or(path);
    let parts = below.components();
    let parts: Vec<_> = parts
        .map(|part| part.as_os_str().to_string_lossy())
        .collect();
    parts.join("/")
}

/// Whether a folder between `folder` and the file has sums of its own, which list the file.
fn answered_below(folder: &Path, path: &Path) -> bool {
    let between = path.ancestors().skip(1);
    let mut between = between.take_while(|above| *above != folder);
    between.any(|above| {
        let sums = above.join(CHECKSUMS);
        sums != path && sums.is_file()
    })
}

#[cfg(unix)]
fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => false,
    }
}

#[cfg(not(unix))]
fn same_file(_a: &Path, _b: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("llm")).unwrap();
        fs::write(home.path().join("llm/weights"), [1, 2, 3, 4]).unwrap();
        fs::write(home.path().join("state"), "5").unwrap();
        Checksums::write(home.path(), None).unwrap();
        home
    }

    #[test]
    fn every_kind_of_damage_is_found_and_named() {
        let home = written();
        let file = home.path().join("llm/weights");
        verify(home.path()).unwrap();
        let fails = |reason: &str| {
            let message = verify(home.path()).unwrap_err().to_string();
            let wanted = format!("damaged: llm/weights {reason};");
            assert!(message.contains(&wanted), "{message}");
        };
        fs::write(&file, [1, 2, 3, 5]).unwrap();
        fails("has other content than was written");
        fs::write(&file, [1, 2, 3]).unwrap();
        fails("has 3 bytes of 4");
        fs::remove_file(&file).unwrap();
        fails("is missing");
        fs::write(&file, [1, 2, 3, 4]).unwrap();
        fs::write(home.path().join("more"), "came later").unwrap();
        verify(home.path()).unwrap();
        fs::write(home.path().join(CHECKSUMS), "{").unwrap();
        let message = verify(home.path()).unwrap_err().to_string();
        assert!(message.contains("checksums.json: is damaged"), "{message}");
        fs::remove_file(home.path().join(CHECKSUMS)).unwrap();
        verify(home.path()).unwrap();
    }

    #[test]
    fn a_folder_in_the_folder_answers_for_its_files() {
        let home = written();
        let inner = home.path().join("llm");
        Checksums::write(&inner, None).unwrap();
        Checksums::write(home.path(), None).unwrap();
        let sums = Checksums::read(home.path()).unwrap().unwrap();
        let names: Vec<&str> = sums.files.keys().map(String::as_str).collect();
        assert_eq!(names, ["llm/checksums.json", "state"]);
        fs::write(inner.join("weights"), [1, 2, 3, 5]).unwrap();
        assert_eq!(sums.damage(home.path())[0].file, "llm/weights");
        fs::remove_file(inner.join(CHECKSUMS)).unwrap();
        let damage = sums.damage(home.path());
        assert_eq!(listed(&damage), "llm/checksums.json is missing");
    }

    #[test]
    #[cfg(unix)]
    fn what_is_shared_keeps_the_sum_that_it_was_written_with() {
        let first = written();
        let next = tempfile::tempdir().unwrap();
        fs::create_dir(next.path().join("llm")).unwrap();
        let shared = next.path().join("llm/weights");
        fs::hard_link(first.path().join("llm/weights"), &shared).unwrap();
        fs::write(next.path().join("state"), "6").unwrap();
        // Damaged after it was written: the copy is damaged too, and says so.
        fs::write(&shared, [9, 9, 9, 9]).unwrap();
        let sums = Checksums::of(next.path(), Some(first.path())).unwrap();
        let damage = sums.damage(next.path());
        assert_eq!(damage.len(), 1, "{damage:?}");
        assert_eq!(damage[0].file, "llm/weights");
    }
}
