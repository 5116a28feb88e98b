//! Which file or entry the key of a picture means.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::image_keys::{FolderNames, check_key, composed};
use super::{Entry, ImageStore, MEND_MISSING, missing};
use crate::error::{Problem, ProblemKind, Result, shorten, shown};

/// The folder of a store.
#[derive(Debug)]
pub(super) struct Folder {
    pub path: PathBuf,
    /// The same without links: what pictures must lie below.
    pub real: PathBuf,
    pub names: FolderNames,
}

/// Where one picture is.
pub(super) enum Place {
    File(PathBuf, fs::Metadata),
    Entry(Entry),
}

impl ImageStore {
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

    pub(super) fn find(&self, key: &str) -> Result<Place, Problem> {
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
                match &self.remote {
                    Some((path, _)) => format!("`{}` has no such picture", shown(path)),
                    None => "no shard has this entry".to_owned(),
                },
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
