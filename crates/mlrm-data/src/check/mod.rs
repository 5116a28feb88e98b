//! Every problem of a data set, with file and row, and the clean rest.

mod fix;
mod images;
mod warnings;

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mlrm_config::{DataSettings, TimeUnit};
use serde::Serialize;

pub use fix::{FixSummary, write_clean};

use crate::error::{DataError, Problem, ProblemKind, Result, shorten, shown};
use crate::files::table_files;
use crate::image::DecodeOptions;
use crate::interactions::{Interner, for_each_interaction};
use crate::notes::{NearIds, Note, for_each_note};
use crate::pairs::for_each_pair;
use crate::store::is_named;

/// The files of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Notes: a file, a folder of them or a pattern of their names.
    pub notes: PathBuf,
    /// Behaviour log.
    pub interactions: Option<PathBuf>,
    /// Ready-made pairs.
    pub pairs: Option<PathBuf>,
    /// Folder or shard of the pictures.
    pub images: PathBuf,
    /// Unit of the log's times.
    pub time_unit: TimeUnit,
    /// Most bytes of pictures from an object store that are kept on this machine.
    pub image_cache_max_bytes: u64,
}

impl Sources {
    /// The files that these settings name. Beside ready-made pairs the log may be missing, as for
    /// [`load_pairs`](crate::split::load_pairs).
    pub fn of(settings: &DataSettings) -> Self {
        let path = |file: &PathBuf| settings.place(file);
        let log = settings.interactions.as_ref().map(path);
        Self {
            notes: path(&settings.notes),
            interactions: log.filter(|log| settings.pairs_file.is_none() || is_named(log)),
            pairs: settings.pairs_file.as_ref().map(path),
            images: path(&settings.images),
            time_unit: settings.time_unit,
            image_cache_max_bytes: settings.image_cache_max_bytes,
        }
    }
}

/// One problem, with the place where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file that has the problem; for a picture, the file of its note.
    pub file: PathBuf,
    /// Line of a text file or row of a Parquet file, counted from 1; none when the whole file is
    /// meant.
    pub row: Option<u64>,
    /// What kind of problem.
    pub kind: ProblemKind,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub mend: String,
    /// Whether the file could not be read on from here, so that the rest of it is unknown.
    #[serde(skip)]
    pub whole_file: bool,
}

impl Finding {
    fn new(file: &Path, row: u64, problem: Problem) -> Self {
        Self {
            file: file.to_path_buf(),
            row: Some(row),
            kind: problem.kind,
            message: problem.message,
            mend: problem.mend,
            whole_file: false,
        }
    }

    /// What keeps a whole file from being read.
    fn of_file(file: &Path, error: DataError) -> Self {
        let mend = "make the file readable, or name another one".to_owned();
        let (row, kind, message, mend) = match error {
            DataError::Row {
                row, message, mend, ..
            } => (Some(row), ProblemKind::WrongColumns, message, mend),
            DataError::File { message, mend, .. } => {
                (None, ProblemKind::UnreadableFile, message, mend)
            }
            other => (None, ProblemKind::UnreadableFile, other.to_string(), mend),
        };
        Self {
            file: file.to_path_buf(),
            row,
            kind,
            message,
            mend,
            whole_file: true,
        }
    }
}

/// What the user should know of how a file was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// The file.
    pub file: PathBuf,
    /// What was found out, or decided.
    pub message: String,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CheckReport {
    /// Rows of the notes file.
    pub notes: u64,
    /// Rows of the log.
    pub interactions: u64,
    /// Rows of the pairs file.
    pub pairs: u64,
    /// Pictures that were decoded.
    pub images: u64,
    /// How the files were read, where the user should know it.
    pub notices: Vec<Notice>,
    /// All problems: notes file, pictures, log, pairs; by row within each.
    pub findings: Vec<Finding>,
    /// What is no mistake but may not be what was meant; in the same order.
    pub warnings: Vec<Finding>,
}

impl CheckReport {
    /// Takes what reading a file to its end, or not, has told.
    fn read(&mut self, path: &Path, read: Result<Vec<String>>) {
        match read {
            Ok(messages) => self
                .notices
                .extend(messages.into_iter().map(|message| Notice {
                    file: path.to_path_buf(),
                    message,
                })),
            Err(error) => self.findings.push(Finding::of_file(path, error)),
        }
    }
}

/// Looks for every problem of a data set; pictures are decoded on all cores.
pub fn check(sources: &Sources, options: &DecodeOptions) -> CheckReport {
    let mut report = CheckReport::default();
    let notes = check_notes(&sources.notes, &mut report);
    if !notes.images.is_empty() {
        let warn = |&at: &Place| notes.finding(at, warnings::no_image());
        report.warnings.extend(notes.without_image.iter().map(warn));
    }
    images::check_images(sources, &notes, options, &mut report);
    if let Some(path) = &sources.interactions {
        check_interactions(path, sources.time_unit, &notes.ids, &mut report);
    }
    if let Some(path) = &sources.pairs {
        check_pairs(path, &notes.ids, &mut report);
    }
    report
}

/// Number of a file of notes, and line or row in it.
type Place = (usize, u64);

/// What later files are checked against.
#[derive(Default)]
struct SeenNotes {
    /// The files of the notes.
    files: Vec<PathBuf>,
    /// Place of the first note of each id.
    ids: HashMap<String, Place>,
    /// Place and key of each picture.
    images: Vec<(Place, String)>,
    /// Places of notes that name none.
    without_image: Vec<Place>,
}

impl SeenNotes {
    fn finding(&self, (file, row): Place, problem: Problem) -> Finding {
        Finding::new(&self.files[file], row, problem)
    }
}

fn check_notes(path: &Path, report: &mut CheckReport) -> SeenNotes {
    let mut seen = SeenNotes::default();
    match table_files(path) {
        Ok(files) => seen.files = files,
        Err(error) => report.findings.push(Finding::of_file(path, error)),
    }
    for (number, path) in seen.files.clone().iter().enumerate() {
        let (findings, warned) = (&mut report.findings, &mut report.warnings);
        let rows = &mut report.notes;
        let read = for_each_note(path, |row, note| {
            *rows += 1;
            match note {
                Ok(note) => {
                    let at = |problem| Finding::new(path, row, problem);
                    let problem = note_problem(&note, (number, row), &mut seen);
                    if problem.is_none() {
                        warned.extend(warnings::of_text(&note).map(at));
                    }
                    findings.extend(problem.map(at));
                }
                Err(problem) => findings.push(Finding::new(path, row, problem)),
            }
            ControlFlow::Continue(())
        });
        report.read(path, read);
    }
    seen
}

fn note_problem(note: &Note, at: Place, seen: &mut SeenNotes) -> Option<Problem> {
    if let Some(&(file, first)) = seen.ids.get(&note.id) {
        let there = match file == at.0 {
            true => String::new(),
            false => format!(" of `{}`", shown(&seen.files[file])),
        };
        return Some(Problem::new(
            ProblemKind::DuplicateId,
            format!(
                "the id `{}` is that of row {first}{there} already",
                shorten(&note.id)
            ),
            "give every note an id of its own",
        ));
    }
    seen.ids.insert(note.id.clone(), at);
    match &note.image {
        Some(key) => seen.images.push((at, key.clone())),
        None => seen.without_image.push(at),
    }
    note.has_no_text().then(|| {
        Problem::new(
            ProblemKind::EmptyText,
            "title, topics and content are all empty",
            "give the note some text",
        )
    })
}

/// Whether `id` is unknown, as a problem; `near` is filled when it is first needed.
fn dangling<'a>(
    id: &str,
    ids: &'a HashMap<String, Place>,
    near: &OnceCell<NearIds<'a>>,
) -> Option<Problem> {
    (!ids.contains_key(id)).then(|| {
        let near = near.get_or_init(|| {
            // In the order of the rows: a hash map has none that stays.
            let mut known: Vec<_> = ids.iter().map(|(id, at)| (*at, id.as_str())).collect();
            known.sort_unstable();
            NearIds::new(known.into_iter().map(|(_, id)| id))
        });
        Problem::new(
            ProblemKind::DanglingId,
            format!("no note has the id `{}`{}", shorten(id), near.hint(id)),
            "add the note, or delete the row",
        )
    })
}

fn check_interactions(
    path: &Path,
    unit: TimeUnit,
    ids: &HashMap<String, Place>,
    report: &mut CheckReport,
) {
    let findings = &mut report.findings;
    let rows = &mut report.interactions;
    let near = OnceCell::new();
    let mut users = Interner::default();
    let mut times = Vec::new();
    let read = for_each_interaction(path, unit, |row, event| {
        *rows += 1;
        let problem = match event {
            Ok(event) => {
                times.push((users.intern(event.user), event.timestamp_seconds));
                dangling(event.note, ids, &near)
            }
            Err(problem) => Some(problem),
        };
        findings.extend(problem.map(|problem| Finding::new(path, row, problem)));
        ControlFlow::Continue(())
    });
    report.read(path, read);
    if let Some(problem) = warnings::of_times(times) {
        report.warnings.push(Finding {
            row: None,
            ..Finding::new(path, 0, problem)
        });
    }
}

fn check_pairs(path: &Path, ids: &HashMap<String, Place>, report: &mut CheckReport) {
    let findings = &mut report.findings;
    let rows = &mut report.pairs;
    let near = OnceCell::new();
    let mut numbers = Interner::default();
    let mut seen = HashSet::new();
    let read = for_each_pair(path, |row, pair| {
        *rows += 1;
        let problem = match pair {
            Ok(pair) if pair.query == pair.target => Some(Problem::new(
                ProblemKind::SelfPair,
                format!("`{}` is paired with itself", shorten(pair.query)),
                "delete the row",
            )),
            Ok(pair) => dangling(pair.query, ids, &near)
                .or_else(|| dangling(pair.target, ids, &near))
                .or_else(|| {
                    let query = numbers.intern(pair.query);
                    let fresh = seen.insert((query, numbers.intern(pair.target)));
                    (!fresh).then(|| {
                        Problem::new(
                            ProblemKind::DuplicatePair,
                            "an earlier row has the same query and target",
                            "delete the row",
                        )
                    })
                }),
            Err(problem) => Some(problem),
        };
        findings.extend(problem.map(|problem| Finding::new(path, row, problem)));
        ControlFlow::Continue(())
    });
    report.read(path, read);
}

#[cfg(test)]
mod tests;
