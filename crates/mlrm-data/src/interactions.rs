//! The behaviour log: who saw which note when.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;

use mlrm_config::TimeUnit;

use crate::error::{DataError, Problem, Result, shorten};
pub use crate::interner::Interner;
use crate::interner::Texts;
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
        let rows = batch_rows(fs::metadata(path).map_or(0, |file| file.len()));
        let notices = for_each_batch(path, unit, rows, |batch| {
            log.append(&batch);
            Ok(())
        })?;
        log.notices = notices;
        log.say_if_empty();
        Ok(log)
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

    /// Adds events, as [`Self::push`] does one after another, on all threads.
    pub(crate) fn append(&mut self, batch: &EventBatch) {
        let users = self.users.intern_all(&batch.users);
        let notes = self.notes.intern_all(&batch.notes);
        let rows = users.into_iter().zip(notes).zip(&batch.times);
        self.events
            .extend(rows.map(|((user, note), &timestamp_seconds)| Interaction {
                user,
                note,
                timestamp_seconds,
            }));
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

/// Rows of a log that are worked on together.
#[derive(Debug, Default)]
pub(crate) struct EventBatch {
    /// Ids of the users.
    pub(crate) users: Texts,
    /// Ids of the notes.
    pub(crate) notes: Texts,
    /// Unix times in seconds.
    pub(crate) times: Vec<i64>,
}

/// Rows of a batch within so much memory for a log: larger ones have more rows for each of the tables in which their ids
/// are looked up. A row takes some 40 bytes, and up to three batches are held at a time.
pub(crate) fn batch_rows(memory_bytes: u64) -> usize {
    let least = if cfg!(test) { 64 } else { 1 << 16 };
    ((memory_bytes / 1024) as usize).clamp(least, 1 << 21)
}

/// Batches that wait while one is worked on.
const BATCHES_AHEAD: usize = 1;

/// Hands all events of a file to `take`, a batch of `rows` at a time and in their order; the next rows are read on another thread
/// meanwhile. Gives what [`for_each_interaction`] does.
///
/// # Errors
/// What `take` gives; else the first row that is no event; a file that is no table or lacks a column.
pub(crate) fn for_each_batch(
    path: &Path,
    unit: TimeUnit,
    rows: usize,
    mut take: impl FnMut(EventBatch) -> Result<()>,
) -> Result<Vec<String>> {
    let (sender, receiver) = sync_channel(BATCHES_AHEAD);
    let read = move || {
        let mut batch = EventBatch::default();
        let mut failed = None;
        let notices = for_each_interaction(path, unit, |row, event| {
            let event = match event {
                Ok(event) => event,
                Err(problem) => {
                    failed = Some(problem.at(path, row));
                    return ControlFlow::Break(());
                }
            };
            batch.users.push(event.user);
            batch.notes.push(event.note);
            batch.times.push(event.timestamp_seconds);
            let full = batch.times.len() == rows;
            // Nobody waits for a batch any more where one could not be taken.
            match full && sender.send(std::mem::take(&mut batch)).is_err() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        match failed {
            Some(error) => Err(error),
            None => {
                let _nobody_waits = sender.send(batch);
                Ok(notices)
            }
        }
    };
    thread::scope(|scope| {
        let reader = scope.spawn(read);
        let taken = receiver.into_iter().try_for_each(&mut take);
        let notices = reader
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        taken.and(notices)
    })
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
