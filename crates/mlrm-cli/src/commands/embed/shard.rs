//! One shard of a corpus, and the manifest that lies beside its embeddings.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use miette::{IntoDiagnostic, WrapErr};
use mlrm_eval::{embedding_files, write_companion};
use serde::{Deserialize, Serialize};

use super::failed::{self, beside};
use super::parts::hash_of;

/// How the name of a manifest ends, after that of the embeddings.
pub const MANIFEST: &str = ".shard.json";

/// One of n equal parts of a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    pub index: usize,
    pub count: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let parsed = parts.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parsed {
            Some((index, count)) if index < count => Ok(Self { index, count }),
            _ => Err("write it as i/n with 0 <= i < n, such as 0/4".into()),
        }
    }
}

impl Shard {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Whether the shard takes one of many things in turn.
    pub fn takes(self, place: usize) -> bool {
        place % self.count == self.index
    }

    /// The rows of the shard: a contiguous part, so that shards concatenate in order. It is one of whole
    /// parts of `part_notes` where there are enough of these, so that the notes of a part, which are encoded
    /// together, are the same in any number of shards.
    pub fn rows(self, notes: usize, part_notes: usize) -> Range<usize> {
        let parts = notes.div_ceil(part_notes);
        let bound = |shard: usize| match parts >= self.count {
            true => notes.min(parts * shard / self.count * part_notes),
            false => notes * shard / self.count,
        };
        bound(self.index)..bound(self.index + 1)
    }
}

/// What the numbers of a shard depend on, and where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the program.
    pub version: String,
    /// Number of the shard, from 0.
    pub shard: usize,
    /// How many shards there are.
    pub of: usize,
    /// The first row of the shard among the rows of the notes, from 0.
    pub first_row: usize,
    /// Rows of the shard; notes that are left out have one.
    pub rows: usize,
    /// Rows of the notes.
    pub all_rows: usize,
    /// BLAKE3 of the files of the model.
    pub model: String,
    /// BLAKE3 of the files of the notes.
    pub notes: String,
    /// BLAKE3 of names, sizes and times of the pictures of the shard; none where none are looked at.
    pub pictures: Option<String>,
    /// The options that touch the numbers.
    pub options: BTreeMap<String, String>,
    /// Where they were computed.
    pub device: String,
    /// Embeddings in the file.
    pub embeddings: usize,
    /// Notes whose picture could not be read.
    pub failed_pictures: usize,
    /// The files of the shard.
    pub files: Vec<ShardFile>,
}

/// A file of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardFile {
    /// Its name in the folder of the manifest. The first is that of the embeddings.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of its content.
    pub blake3: String,
}

impl Manifest {
    /// Where the manifest of the embeddings `out` is.
    pub fn path_of(out: &Path) -> PathBuf {
        beside(out, MANIFEST)
    }

    /// Reads a manifest; `None` where there is none.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is no manifest.
    pub fn read(path: &Path) -> miette::Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.into_diagnostic(),
        };
        let parsed = text.and_then(|text| serde_json::from_str(&text).into_diagnostic());
        parsed
            .map(Some)
            .wrap_err_with(|| format!("{} is no manifest of a shard", path.display()))
    }

    /// Writes the manifest beside the embeddings, once these are there.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or written.
    pub fn seal(mut self, out: &Path) -> miette::Result<()> {
        let mut files = embedding_files(out);
        files.push(failed::path_of(out));
        files.retain(|path| path.exists());
        for path in files {
            let read = || {
                Ok::<_, std::io::Error>(ShardFile {
                    name: name_of(&path),
                    bytes: fs::metadata(&path)?.len(),
                    blake3: hash_of(&path)?.to_hex().to_string(),
                })
            };
            let file = read().into_diagnostic();
            self.files
                .push(file.wrap_err_with(|| format!("cannot read {}", path.display()))?);
        }
        let text = serde_json::to_string_pretty(&self).into_diagnostic()? + "\n";
        Ok(write_companion(&Self::path_of(out), &text).map_err(mlrm_train::TrainError::from)?)
    }

    /// What keeps the files from being those of the manifest at `path`.
    pub fn damage(&self, path: &Path) -> Option<String> {
        self.files.iter().find_map(|file| {
            let of = path.with_file_name(&file.name);
            let said = match fs::metadata(&of) {
                Err(error) => error.to_string(),
                Ok(metadata) if metadata.len() != file.bytes => {
                    format!("it has {} bytes of {}", metadata.len(), file.bytes)
                }
                Ok(_) => match hash_of(&of) {
                    Ok(hash) if hash.to_hex().as_str() == file.blake3 => return None,
                    Ok(_) => "it is not what was written".into(),
                    Err(error) => error.to_string(),
                },
            };
            Some(format!("{}: {said}", of.display()))
        })
    }

    /// Whether the two are of the same shard of the same job, wherever it was computed, the pictures aside.
    pub fn is_same_job(&self, other: &Self) -> bool {
        self.shard == other.shard && self.differences(other).is_empty()
    }

    /// In what the two are of different jobs, by name.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |name: &str, same: bool| {
            if !same {
                found.push(name.to_owned());
            }
        };
        compare("the version of mlrm", self.version == other.version);
        compare("the model", self.model == other.model);
        compare("the notes", self.notes == other.notes);
        compare("the rows of the notes", self.all_rows == other.all_rows);
        compare("the number of shards", self.of == other.of);
        let names = self.options.keys().chain(other.options.keys());
        let names: std::collections::BTreeSet<_> = names.collect();
        for name in names {
            compare(name, self.options.get(name) == other.options.get(name));
        }
        found
    }
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_contiguous_and_of_whole_parts_where_there_are_enough() {
        for (notes, part) in [(80, 10), (81, 10), (79, 7), (5, 50), (1, 1), (1000, 3)] {
            for count in [1, 2, 3, 4, 7, 80] {
                let mut end = 0;
                for index in 0..count {
                    let rows = Shard { index, count }.rows(notes, part);
                    assert_eq!(rows.start, end);
                    let whole = rows.start.is_multiple_of(part) || rows.start == notes;
                    assert!(
                        whole || notes.div_ceil(part) < count,
                        "{notes} {part} {count}"
                    );
                    end = rows.end;
                }
                assert_eq!(end, notes);
            }
        }
    }
}
