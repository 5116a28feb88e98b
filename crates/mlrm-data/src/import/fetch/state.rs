//! Which pictures are there, kept so that a call that was interrupted is gone on with.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{DataError, Result};

/// Name of the file, one JSON object a picture.
const NAME: &str = "fetched.jsonl";

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    id: String,
    url: String,
    key: String,
}

/// Finished pictures: id and address → key.
pub(super) struct State {
    known: Keys,
    new: Mutex<(File, Keys)>,
}

/// Id and address → key.
type Keys = HashMap<(String, String), String>;

impl State {
    /// Reads what earlier calls left in `folder`. A line that was cut off is a picture to be
    /// fetched again.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.map_err(DataError::io("read", &path))?,
        };
        let entries = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Entry>(line).ok());
        // A file holds what was fetched last under its name, whatever it held before.
        let last: HashMap<String, Entry> =
            entries.map(|entry| (entry.key.clone(), entry)).collect();
        let there = last
            .into_values()
            .filter(|entry| folder.join(&entry.key).is_file());
        let known = there
            .map(|entry| ((entry.id, entry.url), entry.key))
            .collect();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let mut file = file.map_err(DataError::io("write", &path))?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")
                .map_err(DataError::io("write", &path))?;
        }
        Ok(Self {
            known,
            new: Mutex::new((file, HashMap::new())),
        })
    }

    /// Whether the picture is there.
    pub(super) fn has(&self, id: &str, url: &str) -> bool {
        self.known.contains_key(&(id.to_owned(), url.to_owned()))
    }

    /// One more picture is there.
    pub(super) fn add(&self, id: &str, url: &str, key: &str) -> io::Result<()> {
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry {
            id: id.into(),
            url: url.into(),
            key: key.into(),
        };
        let line = serde_json::to_string(&entry)? + "\n";
        new.0.write_all(line.as_bytes())?;
        new.1.insert((entry.id, entry.url), entry.key);
        Ok(())
    }

    /// All that are there.
    pub(super) fn close(self) -> Result<HashMap<(String, String), String>> {
        let (_, new) = self
            .new
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut all = self.known;
        all.extend(new);
        Ok(all)
    }
}
