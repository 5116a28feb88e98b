//! The behaviour log: who saw which note when.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use mlrm_config::TimeUnit;

use crate::error::{DataError, Problem, Result, shorten};
use crate::notes::{NearIds, NoteSet};
use crate::table::{Table, TableOptions};
use crate::time::TimeColumn;
use crate::write::write_file;

pub(crate) const COLUMNS: [&str; 3] = ["user_id", "note_id", "timestamp"];

/// One event of a log: a user saw a note. Users and notes are numbers of the log's [`Interner`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interaction {
    /// Number of the user in [`Interactions::users`].
    pub user: u32,
    /// Number of the note in [`Interactions::notes`].
    pub note: u32,
    /// Unix time.
    pub timestamp_seconds: i64,
}

/// Texts as dense numbers, in the order of first appearance.
#[derive(Debug, Clone, Default)]
pub struct Interner {
    numbers: HashMap<String, u32>,
    texts: Vec<String>,
    /// The number that was asked for last.
    last: u32,
}

impl Interner {
    /// The number of a text, new or known.
    pub fn intern(&mut self, text: &str) -> u32 {
        // Most logs hold one user's events in a row.
        let last = self.texts.get(self.last as usize);
        if last.is_some_and(|last| last == text) {
            return self.last;
        }
        self.last = match self.numbers.get(text) {
            Some(&number) => number,
            None => {
                let number = self.texts.len() as u32;
                self.numbers.insert(text.to_owned(), number);
                self.texts.push(text.to_owned());
                number
            }
        };
        self.last
    }

    /// The number of a known text.
    pub fn number(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    /// All texts, by number.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// How many texts are known.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

impl std::ops::Index<u32> for Interner {
    type Output = str;

    fn index(&self, number: u32) -> &str {
        &self.texts[number as usize]
    }
}

/// A behaviour log in memory: 16 bytes an event.
#[derive(Debug, Clone, Default)]
pub struct Interactions {
    /// Ids of the users.
    pub users: Interner,
    /// Ids of the notes.
    pub notes: Interner,
    /// Events in the order of the file. A row that occurs twice is two events.
    pub events: Vec<Interaction>,
    /// What the user should know of how the file was read.
    pub notices: Vec<String>,
}

impl Interactions {
    /// Reads a log: a table (JSON Lines, CSV and its kin, Parquet) with the columns user_id,
    /// note_id and timestamp; further columns are not read. Times are whole numbers of `unit`, ISO
    /// 8601, or of a Parquet type of its own; all of a file in one form.
    ///
    /// # Errors
    /// The first row that is no event.
    pub fn read(path: &Path, unit: TimeUnit) -> Result<Self> {
        let mut log = Self::default();
        let mut failed = None;
        log.notices = for_each_interaction(path, unit, |row, event| match event {
            Ok(event) => {
                log.push(event.user, event.note, event.timestamp_seconds);
                ControlFlow::Continue(())
            }
            Err(problem) => {
                failed = Some(problem.at(path, row));
                ControlFlow::Break(())
            }
        })?;
        log.say_if_empty();
        failed.map_or(Ok(log), Err)
    }

    /// Notes that there is no event, if so.
    pub(crate) fn say_if_empty(&mut self) {
        if self.events.is_empty() {
            self.notices.push("there are no events in it".into());
        }
    }

    /// How many users saw each note in these events, by its number.
    pub(crate) fn note_users(&self, events: &[Interaction]) -> Vec<u32> {
        let views = events.iter().map(|event| (event.note, event.user));
        let mut views: Vec<(u32, u32)> = views.collect();
        views.sort_unstable();
        views.dedup();
        let mut users = vec![0; self.notes.len()];
        for (note, _) in views {
            users[note as usize] += 1;
        }
        users
    }

    /// Adds an event.
    pub fn push(&mut self, user: &str, note: &str, timestamp_seconds: i64) {
        let event = Interaction {
            user: self.users.intern(user),
            note: self.notes.intern(note),
            timestamp_seconds,
        };
        self.events.push(event);
    }

    /// The log without the events of notes that `notes` is meant to be without.
    pub(crate) fn without_dropped(mut self, notes: &NoteSet) -> Self {
        let dropped = self.notes.texts().iter().map(|id| notes.is_dropped(id));
        let dropped: Vec<bool> = dropped.collect();
        self.events.retain(|event| !dropped[event.note as usize]);
        self
    }
}

/// Refuses a log (read from `path`) that has ids of notes which are not in `notes`.
///
/// # Errors
/// Such ids, the first and how many.
pub fn refuse_unknown(ids: &Interner, path: &Path, notes: &NoteSet) -> Result<()> {
    let unknown = |id: &&String| notes.row(id).is_none() && !notes.is_dropped(id);
    let Some(first) = ids.texts().iter().find(unknown) else {
        return Ok(());
    };
    let count = ids.texts().iter().filter(unknown).count();
    let message = match count {
        1 => format!(
            "the note `{}` of the log is not among the notes",
            shorten(first)
        ),
        _ => format!(
            "{count} notes of the log are not among the notes, the first is `{}`",
            shorten(first)
        ),
    };
    let near = NearIds::new(notes.rows().iter().map(|note| note.id.as_str()));
    let message = message + &near.hint(first);
    let mend = "add the notes, or let `mlrm data check --fix DIR` leave such rows out";
    Err(DataError::file(path, message, mend))
}

/// A row of a log, before its ids become numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawInteraction<'a> {
    /// Id of the user.
    pub user: &'a str,
    /// Id of the note.
    pub note: &'a str,
    /// Unix time.
    pub timestamp_seconds: i64,
}

/// Hands every event of a file to `each`, with its line (of Parquet its row) counted from 1, until
/// `each` breaks. Rows that are no event are handed over as problems; what makes the whole file
/// unreadable is the error. Gives what the user should know of how the file was read.
///
/// # Errors
/// A file that is no table or lacks a column.
pub fn for_each_interaction(
    path: &Path,
    unit: TimeUnit,
    mut each: impl FnMut(u64, Result<RawInteraction<'_>, Problem>) -> ControlFlow<()>,
) -> Result<Vec<String>> {
    let options = TableOptions {
        known: &COLUMNS,
        ..TableOptions::default()
    };
    let table = Table::open(path, &options)?;
    table.require(&COLUMNS)?;
    let mut notices = table.notices().to_vec();
    let mut times = TimeColumn::new(unit);
    let [user_id, note_id, _] = COLUMNS;
    table.rows(&COLUMNS, |row, cells| {
        let cells = cells.and_then(|cells| Ok((cells.cell(0)?, cells.cell(1)?, cells.cell(2)?)));
        let (user, note, time) = match cells {
            Ok(cells) => cells,
            Err(problem) => return each(row, Err(problem)),
        };
        let ids = user
            .id(user_id)
            .and_then(|user| Ok((user, note.id(note_id)?)));
        match ids.and_then(|ids| Ok((ids, times.seconds(row, &time)?))) {
            Ok(((user, note), timestamp_seconds)) => each(
                row,
                Ok(RawInteraction {
                    user: &user,
                    note: &note,
                    timestamp_seconds,
                }),
            ),
            Err(problem) => each(row, Err(problem)),
        }
    })?;
    let times = times.notice();
    notices.extend(times.map_err(|problem| DataError::file(path, problem.message, problem.mend))?);
    Ok(notices)
}

/// Writes a log as CSV, whole or not at all.
pub fn write_interactions<'a>(
    path: &Path,
    events: impl IntoIterator<Item = RawInteraction<'a>>,
) -> Result<()> {
    write_file(path, |out| {
        let mut out = csv::Writer::from_writer(out);
        out.write_record(COLUMNS)?;
        for event in events {
            let time = event.timestamp_seconds.to_string();
            out.write_record([event.user, event.note, &time])?;
        }
        out.flush()
    })
}

#[cfg(test)]
mod tests;
