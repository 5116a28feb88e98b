//! Queries with what the models found: `RUN/report/examples.jsonl`.
//!
//! One query a line:
//!
//! ```json
//! {"query": {"id": "17", "title": "Alien", "text": "In space no one …", "image": "images/17.jpg"},
//!  "partners": [{"id": "18", "title": "Aliens", "text": "", "image": "images/18.jpg"}],
//!  "models": [{"name": "notellm2", "first_right_rank": 2, "results": [
//!    {"note": {"id": "21", "title": "Brazil", "text": "", "image": null}, "score": 0.81, "right": false}]}]}
//! ```
//!
//! `image` is a path, relative to the run's `report` folder, to the run folder, or absolute.
//! `first_right_rank` counts from 1 over the whole pool, `null` where no partner is in it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A note as the report shows it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Note {
    /// Its id.
    pub id: String,
    /// Its title.
    #[serde(default)]
    pub title: String,
    /// Its text; long ones are cut when shown.
    #[serde(default)]
    pub text: String,
    /// Its picture.
    #[serde(default)]
    pub image: Option<PathBuf>,
}

/// A note that a model found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// The note.
    pub note: Note,
    /// Cosine similarity to the query.
    pub score: f64,
    /// Whether it is a true partner.
    pub right: bool,
}

/// What one model found, the best first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelResults {
    /// The model's name.
    pub name: String,
    /// Rank of the first true partner over the whole pool, from 1.
    #[serde(default)]
    pub first_right_rank: Option<u64>,
    /// Its first hits.
    pub results: Vec<Hit>,
}

/// A query, its true partners, and what the models found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The query.
    pub query: Note,
    /// Its true partners.
    pub partners: Vec<Note>,
    /// One entry a model; the first one decides the order of the examples.
    pub models: Vec<ModelResults>,
}

impl Example {
    /// Rank of the first model's first true partner; the largest number where there is none.
    pub fn badness(&self) -> u64 {
        let Some(first) = self.models.first() else {
            return 0;
        };
        let found = first
            .results
            .iter()
            .position(|hit| hit.right)
            .map(|index| index as u64 + 1);
        found.or(first.first_right_rank).unwrap_or(u64::MAX)
    }
}

/// Why the examples could not be read.
#[derive(Debug, Error)]
pub enum ExamplesError {
    /// The file could not be read.
    #[error("cannot read the examples {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A line is malformed.
    #[error("{}: line {line}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// Reads the examples at `path`, the worst failures first. Without the file there are none.
///
/// # Errors
/// The file cannot be read, or a line is malformed.
pub fn read_examples(path: &Path) -> Result<Vec<Example>, ExamplesError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(ExamplesError::Io {
                path: path.to_owned(),
                source,
            });
        }
    };
    let mut examples: Vec<Example> = Vec::new();
    for (index, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        examples.push(
            serde_json::from_str(line).map_err(|source| ExamplesError::Line {
                path: path.to_owned(),
                line: index + 1,
                source,
            })?,
        );
    }
    examples.sort_by_key(|example| std::cmp::Reverse(example.badness()));
    Ok(examples)
}
