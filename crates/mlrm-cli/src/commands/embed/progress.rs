//! What a job has given so far.

use std::path::PathBuf;

use mlrm_data::notes::{FailedPicture, WithoutPicture};
use mlrm_eval::{EmbeddingSet, PartFile};
use mlrm_train::corpus::Notes;

use super::view::View;

/// Pictures that fail while they are decoded, of which each is told; the list has all.
const WARNINGS: usize = 10;

/// What a job has given so far.
pub struct Embedded {
    pub view: View,
    /// Rows of the parts so far.
    pub rows: usize,
    /// Embeddings that there are.
    pub notes: usize,
    /// Those of a job that is one part.
    pub whole: Option<EmbeddingSet>,
    /// Where those of a job of several parts are kept.
    pub kept: Vec<PartFile>,
    /// The pictures that could not be read.
    pub failed: Vec<FailedPicture>,
    /// Hashes of the pictures of each part, where any are looked at.
    pub pictures: Vec<String>,
    /// Embeddings that an interrupted run of the same job had computed.
    pub taken: usize,
    pub without_picture: WithoutPicture,
    /// Warnings that there were.
    warned: usize,
}

impl Embedded {
    pub fn new(rows: usize) -> Self {
        Self {
            view: View::new(rows),
            rows: 0,
            notes: 0,
            whole: None,
            kept: Vec::new(),
            failed: Vec::new(),
            pictures: Vec::new(),
            taken: 0,
            without_picture: WithoutPicture::default(),
            warned: 0,
        }
    }

    /// A part of so many rows is there, with the hash of its pictures.
    pub fn begin(&mut self, rows: usize, notes: &Notes, pictures: Option<String>) {
        self.rows += rows;
        self.notes += notes.set.len();
        self.without_picture += notes.without_picture;
        self.pictures.extend(pictures);
        self.fail(notes.by_text.take_failed());
    }

    /// The part was kept by an earlier process.
    pub fn take(&mut self, path: PathBuf, notes: usize, failed: Vec<FailedPicture>) {
        self.taken += notes;
        self.keep(path, notes);
        self.fail(failed);
        self.view.take(notes, self.rows);
    }

    pub fn keep(&mut self, path: PathBuf, notes: usize) {
        self.kept.push(PartFile { path, notes });
    }

    pub fn fail(&mut self, failed: Vec<FailedPicture>) {
        self.view.fail(failed.len());
        self.failed.extend(failed);
    }

    /// How many warnings were not said.
    pub fn untold(&self) -> usize {
        self.warned.saturating_sub(WARNINGS)
    }

    /// Says the first of many warnings.
    pub fn warn(&mut self, line: &str) {
        if self.warned < WARNINGS {
            self.view.say(&format!("warning: {line}"));
        }
        self.warned += 1;
    }
}
