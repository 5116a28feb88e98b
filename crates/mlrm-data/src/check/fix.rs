//! The clean rest of a data set.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use super::{CheckReport, Finding, Sources};
use crate::error::{DataError, Problem, ProblemKind, Result, shorten};
use crate::files::table_files;
use crate::interactions::{Interactions, RawInteraction, for_each_interaction, write_interactions};
use crate::notes::{ImageStore, Note, for_each_note, write_notes};
use crate::pairs::{PairList, RawPair, for_each_pair, write_pairs};
use crate::write::{write_file, write_folder};

const NOTES: &str = "notes.jsonl";
const INTERACTIONS: &str = "interactions.csv";
const PAIRS: &str = "pairs.csv";
const LEFT_OUT: &str = "left_out.jsonl";

/// How much of a data set was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct FixSummary {
    /// Notes kept.
    pub notes: u64,
    /// Rows of the log kept.
    pub interactions: u64,
    /// Pairs kept.
    pub pairs: u64,
    /// Pictures copied.
    pub images: u64,
    /// Rows left out, of all files.
    pub left_out: u64,
}

/// Writes what `report` has nothing against into the new folder `out`: `notes.jsonl`,
/// `interactions.csv`, `pairs.csv`, the pictures under their keys (so `images = "."`), and
/// `left_out.jsonl` with every row left out and why. Rows of the log and pairs go with their note.
/// The sources are not touched, and `out` appears whole or not at all.
///
/// # Errors
/// A file that could not be read as a whole; no note left; `out` is not empty.
pub fn write_clean(sources: &Sources, report: &CheckReport, out: &Path) -> Result<FixSummary> {
    if let Some(finding) = report.findings.iter().find(|finding| finding.whole_file) {
        return Err(DataError::file(
            &finding.file,
            format!("the file cannot be cleaned: {}", finding.message),
            finding.mend.as_str(),
        ));
    }
    write_folder(out, |folder| {
        let mut rest = Rest::new(report);
        let notes = rest.notes(sources)?;
        let summary = FixSummary {
            notes: notes.len() as u64,
            images: copy_images(sources, &notes, folder)?,
            interactions: rest.interactions(sources, &notes, folder)?,
            pairs: rest.pairs(sources, &notes, folder)?,
            left_out: rest.left_out.len() as u64,
        };
        write_notes(&folder.join(NOTES), &notes)?;
        write_file(&folder.join(LEFT_OUT), |file| {
            for finding in &rest.left_out {
                serde_json::to_writer(&mut *file, finding)?;
                file.write_all(b"\n")?;
            }
            Ok(())
        })?;
        Ok(summary)
    })
}

/// What is still to be decided, and what was left out.
struct Rest<'a> {
    /// The first finding of each row of each file.
    findings: HashMap<(&'a Path, u64), &'a Finding>,
    left_out: Vec<Finding>,
}

impl<'a> Rest<'a> {
    fn new(report: &'a CheckReport) -> Self {
        let mut findings = HashMap::new();
        for finding in &report.findings {
            if let Some(row) = finding.row {
                findings
                    .entry((finding.file.as_path(), row))
                    .or_insert(finding);
            }
        }
        Self {
            findings,
            left_out: Vec::new(),
        }
    }

    /// Whether the row stays; if not, it is written down why.
    fn keeps(&mut self, file: &Path, row: u64, note_ids: &HashSet<&str>, ids: &[&str]) -> bool {
        if let Some(&finding) = self.findings.get(&(file, row)) {
            self.left_out.push(finding.clone());
            return false;
        }
        let Some(id) = ids.iter().find(|id| !note_ids.contains(*id)) else {
            return true;
        };
        let problem = Problem::new(
            ProblemKind::DanglingId,
            format!("the note `{}` is left out", shorten(id)),
            "mend the note",
        );
        self.left_out.push(Finding::new(file, row, problem));
        false
    }

    fn notes(&mut self, sources: &Sources) -> Result<Vec<Note>> {
        let mut notes = Vec::new();
        for path in table_files(&sources.notes)? {
            for_each_note(&path, |row, note| {
                if self.keeps(&path, row, &HashSet::new(), &[]) {
                    notes.extend(note);
                }
                ControlFlow::Continue(())
            })?;
        }
        if notes.is_empty() {
            return Err(DataError::file(
                &sources.notes,
                "no clean note is left",
                "mend the notes that the check names",
            ));
        }
        Ok(notes)
    }

    fn interactions(&mut self, sources: &Sources, notes: &[Note], folder: &Path) -> Result<u64> {
        let Some(path) = &sources.interactions else {
            return Ok(0);
        };
        let ids = ids(notes);
        let mut log = Interactions::default();
        for_each_interaction(path, sources.time_unit, |row, event| {
            let used: &[&str] = match &event {
                Ok(event) => &[event.note],
                Err(_) => &[],
            };
            if self.keeps(path, row, &ids, used)
                && let Ok(event) = event
            {
                log.push(event.user, event.note, event.timestamp_seconds);
            }
            ControlFlow::Continue(())
        })?;
        let rows = log.events.iter().map(|event| RawInteraction {
            user: &log.users[event.user],
            note: &log.notes[event.note],
            timestamp_seconds: event.timestamp_seconds,
        });
        write_interactions(&folder.join(INTERACTIONS), rows)?;
        Ok(log.events.len() as u64)
    }

    fn pairs(&mut self, sources: &Sources, notes: &[Note], folder: &Path) -> Result<u64> {
        let Some(path) = &sources.pairs else {
            return Ok(0);
        };
        let ids = ids(notes);
        let mut list = PairList::default();
        for_each_pair(path, |row, pair| {
            let used: &[&str] = match &pair {
                Ok(pair) => &[pair.query, pair.target],
                Err(_) => &[],
            };
            if self.keeps(path, row, &ids, used)
                && let Ok(pair) = pair
            {
                list.push(pair);
            }
            ControlFlow::Continue(())
        })?;
        let rows = list.pairs.iter().map(|pair| RawPair {
            query: &list.notes[pair.query],
            target: &list.notes[pair.target],
            weight: pair.weight,
        });
        write_pairs(&folder.join(PAIRS), rows)?;
        Ok(list.pairs.len() as u64)
    }
}

fn ids(notes: &[Note]) -> HashSet<&str> {
    notes.iter().map(|note| note.id.as_str()).collect()
}

fn copy_images(sources: &Sources, notes: &[Note], folder: &Path) -> Result<u64> {
    let keys: HashSet<&str> = notes
        .iter()
        .filter_map(|note| note.image.as_deref())
        .collect();
    if keys.is_empty() {
        return Ok(0);
    }
    let store = ImageStore::open_with(&sources.images, sources.image_cache_max_bytes)?;
    keys.par_iter().try_for_each(|key| {
        let path = folder.join(key);
        let names = [NOTES, INTERACTIONS, PAIRS, LEFT_OUT];
        if names.iter().any(|name| path.starts_with(folder.join(name))) {
            return Err(DataError::image(
                shorten(key),
                "the clean set has another file of this name",
                "rename the picture",
            ));
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(DataError::io("create", parent))?;
        }
        fs::write(&path, store.read(key)?).map_err(DataError::io("write", &path))
    })?;
    Ok(keys.len() as u64)
}
