//! Model folders that tests spoil.

// Every test file uses a part of this.
#![allow(dead_code)]

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::Home;
use crate::tensors::copy_folder;

/// A trained model, copied and spoilt again and again.
pub struct Model {
    pub home: Home,
}

impl Model {
    pub fn new() -> Self {
        Self {
            home: Home::trained(),
        }
    }

    /// Spoils a copy of the model in `model/`; opening it is refused with `words`.
    #[track_caller]
    pub fn refused(&self, spoil: impl FnOnce(&Path), words: &[&str]) {
        let folder = self.home.path("model");
        copy_folder(&self.home.path("run/model"), &folder);
        // As a folder that others wrote: what is wrong has to be seen in the files themselves.
        let sums = folder.join("checksums.json");
        if sums.exists() {
            fs::remove_file(sums).expect("checksums");
        }
        spoil(&folder);
        let embed = "embed model --notes data/notes.jsonl --out x.npy";
        self.home.refused(embed, words);
        fs::remove_dir_all(folder).expect("a folder");
    }
}

/// Cuts a file.
pub fn truncate(path: &Path, bytes: usize) {
    let content = fs::read(path).expect("a file");
    fs::write(path, &content[..bytes]).expect("a file");
}

/// Changes a JSON file.
pub fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let text = fs::read_to_string(path).expect("a file");
    let mut value = serde_json::from_str(&text).expect("JSON");
    edit(&mut value);
    fs::write(path, value.to_string()).expect("a file");
}
