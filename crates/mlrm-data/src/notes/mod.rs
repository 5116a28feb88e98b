//! Notes: what an item is, where its text and picture come from.

mod by_text;
mod far_parquet;
mod image_keys;
mod image_store;
mod near;
mod parquet_images;
mod parquet_keys;
mod parquet_places;
mod read;
mod screen;
mod stream;
mod tar_index;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

pub use by_text::{ByText, FailedPicture, WithoutPicture};
pub use image_store::{Fetched, ImageStore, picture_shards};
pub use read::for_each_note;
pub use screen::Screened;
pub use stream::NoteFiles;

pub(crate) use near::NearIds;
#[cfg(feature = "object-store")]
pub(crate) use screen::cache_folder;

use crate::error::{DataError, Problem, ProblemKind, Result, shown};
use crate::files::table_files;
use crate::table::FLOAT_IDS;
use crate::write::write_file;

/// An item with text and, mostly, a picture (method §1).
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Note {
    /// Unique within its set.
    pub id: String,
    /// Headline; may be empty.
    pub title: String,
    /// Hashtags, genres, keywords; may be empty.
    pub topics: Vec<String>,
    /// Body text; may be empty.
    pub content: String,
    /// Key of the picture in the [`ImageStore`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// One label, used by evaluation slices, never by the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Every further field of the file, in its order; evaluation slices can use them.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Note {
    /// A note from the fields of its JSON object. `id` is text or a whole number; every other
    /// field may be missing or null.
    pub fn from_fields(fields: Map<String, Value>) -> Result<Self, Problem> {
        let mut note = Self::default();
        let mut id = None;
        for (name, value) in fields {
            match name.as_str() {
                "id" => id = Some(id_field(value)?),
                "title" => note.title = text_field("title", value)?.unwrap_or_default(),
                "content" => note.content = text_field("content", value)?.unwrap_or_default(),
                "image" => note.image = text_field("image", value)?.filter(|key| !key.is_empty()),
                "category" => {
                    note.category = text_field("category", value)?.filter(|label| !label.is_empty())
                }
                "topics" => note.topics = topics_field(value)?,
                _ => {
                    note.extra.insert(name, value);
                }
            }
        }
        note.id = id.ok_or_else(|| {
            Problem::new(
                ProblemKind::BadField,
                "`id` is missing",
                "give every note an id of its own",
            )
        })?;
        Ok(note)
    }

    /// Whether title, topics and content are all blank.
    pub fn has_no_text(&self) -> bool {
        let blank = |text: &String| text.trim().is_empty();
        blank(&self.title) && blank(&self.content) && self.topics.iter().all(blank)
    }
}

fn bad_field(name: &str, wanted: &str, found: &Value) -> Problem {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "an empty text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Problem::new(
        ProblemKind::BadField,
        format!("`{name}` must be {wanted}, found {found}"),
        "correct the field or delete the row",
    )
}

fn id_field(value: Value) -> Result<String, Problem> {
    match value {
        Value::String(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        Value::Number(id) if !id.is_f64() => Ok(id.to_string()),
        Value::Number(id) => Err(Problem::new(
            ProblemKind::BadField,
            format!("`id` must be text or a whole number, found a number with a point: {id}"),
            FLOAT_IDS,
        )),
        other => Err(bad_field("id", "text or a whole number", &other)),
    }
}

fn text_field(name: &str, value: Value) -> Result<Option<String>, Problem> {
    match value {
        Value::String(text) => Ok(Some(text)),
        Value::Null => Ok(None),
        other => Err(bad_field(name, "text", &other)),
    }
}

fn topics_field(value: Value) -> Result<Vec<String>, Problem> {
    let wanted = "a list of texts";
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::String(topic) => Ok(topic),
                other => Err(bad_field("topics", wanted, &other)),
            })
            .collect(),
        Value::String(_) => Err(Problem::new(
            ProblemKind::BadField,
            format!("`topics` must be {wanted}, found one text"),
            "write [\"one\", \"two\"]",
        )),
        other => Err(bad_field("topics", wanted, &other)),
    }
}

/// Notes in the order of their file, found by id or by row (0 is the first note).
#[derive(Debug, Clone, Default)]
pub struct NoteSet {
    notes: Vec<Note>,
    rows: HashMap<String, u32>,
    notices: Vec<String>,
    /// Ids of notes that the file has and the set is meant to be without.
    dropped: HashSet<String>,
}

impl NoteSet {
    /// Reads tables of notes (JSON Lines, CSV and its kin, Parquet), or the headerless CSV of the
    /// NoteLLM authors: one file, a folder of them, or those that fit a pattern
    /// ([`table_files`]), in the order of their names.
    ///
    /// # Errors
    /// The first row that is no note, or that repeats an id; files without any note.
    pub fn read(path: &Path) -> Result<Self> {
        let files = table_files(path)?;
        let mut notes = Vec::new();
        // Line or row of each note, and how many notes there are up to the end of each file.
        let (mut lines, mut ends) = (Vec::new(), Vec::new());
        let mut notices = Notices::default();
        for file in &files {
            let mut failed = None;
            let said = for_each_note(file, |line, note| match note {
                Ok(note) => {
                    notes.push(note);
                    lines.push(line);
                    std::ops::ControlFlow::Continue(())
                }
                Err(problem) => {
                    failed = Some(problem.at(file, line));
                    std::ops::ControlFlow::Break(())
                }
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
            ends.push(notes.len());
            notices.add(file, said);
        }
        if notes.is_empty() {
            return Err(no_notes(path));
        }
        let set = Self::new(notes).map_err(|repeated| {
            let place = |row: usize| Place {
                file: files
                    .get(ends.partition_point(|&end| end <= row))
                    .map_or(path, PathBuf::as_path),
                line: lines.get(row).copied().unwrap_or_default(),
            };
            repeated_id(
                &repeated.id,
                &place(repeated.first),
                &place(repeated.second),
            )
        })?;
        Ok(Self {
            notices: notices.list(files.len()),
            ..set
        })
    }

    /// What the user should know of how the file was read.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// A set of these notes, in this order.
    pub fn new(notes: Vec<Note>) -> Result<Self, RepeatedId> {
        let mut rows = HashMap::with_capacity(notes.len());
        for (row, note) in notes.iter().enumerate() {
            if let Some(first) = rows.insert(note.id.clone(), row as u32) {
                return Err(RepeatedId {
                    id: note.id.clone(),
                    first: first as usize,
                    second: row,
                });
            }
        }
        Ok(Self {
            notes,
            rows,
            notices: Vec::new(),
            dropped: HashSet::new(),
        })
    }

    /// The set without the notes of `dropped`, which stay known by their ids: rows of a log or of pairs
    /// that speak of them are left out, not refused.
    pub fn without(mut self, dropped: &[u32]) -> Self {
        if dropped.is_empty() {
            return self;
        }
        let out: HashSet<u32> = dropped.iter().copied().collect();
        let mut kept = Vec::with_capacity(self.notes.len());
        for (row, note) in self.notes.into_iter().enumerate() {
            match out.contains(&(row as u32)) {
                true => drop(self.dropped.insert(note.id)),
                false => kept.push(note),
            }
        }
        let ids = kept.iter().enumerate();
        self.rows = ids
            .map(|(row, note)| (note.id.clone(), row as u32))
            .collect();
        self.notes = kept;
        self
    }

    /// Whether this id is that of a note which the set is meant to be without.
    pub fn is_dropped(&self, id: &str) -> bool {
        self.dropped.contains(id)
    }

    /// The note of this id.
    pub fn get(&self, id: &str) -> Option<&Note> {
        self.row(id).map(|row| &self.notes[row as usize])
    }

    /// The row of this id.
    pub fn row(&self, id: &str) -> Option<u32> {
        self.rows.get(id).copied()
    }

    /// All notes, by row.
    pub fn rows(&self) -> &[Note] {
        &self.notes
    }

    /// How many notes there are.
    pub fn len(&self) -> usize {
        self.notes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }
}

impl std::ops::Index<u32> for NoteSet {
    type Output = Note;

    /// The note of a row of this set.
    fn index(&self, row: u32) -> &Note {
        &self.notes[row as usize]
    }
}

/// Where a note stands.
struct Place<'a> {
    file: &'a Path,
    line: u64,
}

fn no_notes(path: &Path) -> DataError {
    DataError::file(
        path,
        "there are no notes in it",
        "write one JSON object a line, as in {\"id\": \"1\", \"title\": \"…\"}",
    )
}

fn repeated_id(id: &str, first: &Place<'_>, second: &Place<'_>) -> DataError {
    let there = match first.file == second.file {
        false => format!(" of `{}`", shown(first.file)),
        true => String::new(),
    };
    DataError::row(
        second.file,
        second.line,
        format!(
            "the id `{}` is that of row {}{there} already",
            crate::error::shorten(id),
            first.line,
        ),
        "give every note an id of its own; `mlrm data check --fix` keeps the first",
    )
}

/// What was found out about the files of a set, each thing said once.
#[derive(Default)]
struct Notices(Vec<(String, String, usize)>);

impl Notices {
    fn add(&mut self, file: &Path, said: Vec<String>) {
        for what in said {
            match self.0.iter_mut().find(|(_, known, _)| *known == what) {
                Some((_, _, files)) => *files += 1,
                None => {
                    let name = file.file_name().unwrap_or_default().to_string_lossy();
                    self.0.push((name.into_owned(), what, 1));
                }
            }
        }
    }

    /// `files`: how many there are; of one only, its name is said by who asks.
    fn list(self, files: usize) -> Vec<String> {
        let said = |(name, what, of): (String, String, usize)| match (files, of) {
            (1, _) => what,
            (_, 1) => format!("{name}: {what}"),
            _ => format!("{name} and {} more: {what}", of - 1),
        };
        self.0.into_iter().map(said).collect()
    }
}

/// Two notes of a set have the same id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("notes {first} and {second} have the same id `{id}`")]
pub struct RepeatedId {
    /// The id.
    pub id: String,
    /// Row of the first note, counted from 0.
    pub first: usize,
    /// Row of the second note.
    pub second: usize,
}

/// Writes notes as JSON Lines, whole or not at all.
pub fn write_notes<'a>(path: &Path, notes: impl IntoIterator<Item = &'a Note>) -> Result<()> {
    write_file(path, |out| {
        for note in notes {
            serde_json::to_writer(&mut *out, note)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests;
