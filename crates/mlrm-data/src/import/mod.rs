//! Any tables → `notes.jsonl`, `interactions.csv` and `images/`, as a declarative file says.
//!
//! A [`Spec`] names tables and how their columns become the fields of notes and events. The presets
//! ([`presets`]) are specs for data sets that are often used; [`movielens`] chooses among those of
//! MovieLens. Pictures that are on the web are fetched by [`fetch`].

mod events;
pub mod fetch;
mod filter;
mod findings;
mod html;
pub mod movielens;
mod notes;
mod pictures;
pub mod presets;
pub mod spec;
mod tables;
mod template;
mod validate;
mod value;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::spec::Spec;
pub use self::template::Template;
pub use self::value::ValuePath;

use self::findings::{Dropped, Findings};
use crate::error::{DataError, Result};
use crate::write::{write_file, write_folder};

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ImportSummary {
    /// Notes.
    pub notes: u64,
    /// Notes with a body text.
    pub with_content: u64,
    /// Notes with a picture.
    pub pictures: u64,
    /// Notes whose picture is known by its address only.
    pub picture_urls: u64,
    /// Notes that name a picture file that is not there.
    pub missing_pictures: u64,
    /// Users of the log.
    pub users: u64,
    /// Events of the log.
    pub interactions: u64,
    /// Rows that were left out, by table and reason.
    pub dropped: BTreeMap<String, u64>,
    /// What was found out about the files.
    pub notices: Vec<String>,
}

impl Spec {
    /// Reads a spec.
    ///
    /// # Errors
    /// What is no TOML, an unknown key, a value of a wrong type: with its line.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| {
            DataError::Several(format!("`{name}`: {}", error.to_string().trim_end()))
        })
    }

    /// Reads a spec's file.
    ///
    /// # Errors
    /// As of [`Self::parse`], and a file that cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(DataError::io("read", path))?;
        Self::parse(&text, &path.display().to_string())
    }
}

/// Imports the tables in the folder `from` into the new folder `out`, which appears whole or not at
/// all.
///
/// # Errors
/// Everything that is wrong with the spec; or every row that is at fault (the first are shown).
pub fn import(spec: &Spec, from: &Path, out: &Path) -> Result<ImportSummary> {
    let mut findings = Findings::default();
    validate::check(spec, from, &mut findings);
    findings.end()?;
    write_folder(out, |folder| {
        let mut findings = Findings::default();
        let mut dropped = Dropped::default();
        let mut notices = Vec::new();
        let notes = notes::write(
            spec,
            from,
            folder,
            &mut findings,
            &mut dropped,
            &mut notices,
        )?;
        if notes.ids.is_empty() {
            // Without a note the log would be wrong in every row.
            std::mem::take(&mut findings).end()?;
        }
        let log = events::write(
            spec,
            from,
            folder,
            &notes,
            &mut findings,
            &mut dropped,
            &mut notices,
        )?;
        findings.end()?;
        if notes.ids.is_empty() {
            return Err(DataError::Several(nothing_left(
                &spec.notes.table,
                &dropped,
            )));
        }
        if let Some(readme) = &spec.readme {
            write_file(&folder.join("README.md"), |file| {
                file.write_all(readme.as_bytes())
            })?;
        }
        write_file(&folder.join(ORIGIN), |file| {
            let text = serde_json::to_string_pretty(&Origin::of(spec, from))?;
            writeln!(file, "{text}")
        })?;
        Ok(ImportSummary {
            notes: notes.ids.len() as u64,
            with_content: notes.with_content,
            pictures: notes.pictures,
            picture_urls: notes.urls,
            missing_pictures: notes.missing_pictures,
            users: log.users,
            interactions: log.events,
            dropped: dropped.0,
            notices,
        })
    })
}

/// File of an imported folder that tells what it was made by.
const ORIGIN: &str = "import.json";

/// What a folder was imported by.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    /// Hash of the spec.
    spec: String,
    /// The folder of the tables.
    from: PathBuf,
}

impl Origin {
    fn of(spec: &Spec, from: &Path) -> Self {
        Self {
            spec: blake3::hash(format!("{spec:?}").as_bytes())
                .to_hex()
                .to_string(),
            from: fs::canonicalize(from).unwrap_or_else(|_| from.to_owned()),
        }
    }
}

/// Whether the folder `out` is what [`import`] made of `spec` and the folder `from`; `None` where it does
/// not tell.
pub fn is_import_of(spec: &Spec, from: &Path, out: &Path) -> Option<bool> {
    let text = fs::read(out.join(ORIGIN)).ok()?;
    let origin: Origin = serde_json::from_slice(&text).ok()?;
    Some(origin == Origin::of(spec, from))
}

fn nothing_left(table: &str, dropped: &Dropped) -> String {
    let mut text = format!("`notes.table`: no row of `{table}` became a note");
    for (reason, count) in &dropped.0 {
        text += &format!("; {reason}: {count}");
    }
    text + "; check the path and the filters"
}

#[cfg(test)]
mod tests;
