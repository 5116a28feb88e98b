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
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::Arc;

    use arrow_array::*;
    use proptest::prelude::*;

    use super::*;

    fn file(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(name);
        fs::write(&path, content).unwrap();
        (home, path)
    }

    fn rows(log: &Interactions) -> Vec<(&str, &str, i64)> {
        let texts = |event: &Interaction| {
            (
                &log.users[event.user],
                &log.notes[event.note],
                event.timestamp_seconds,
            )
        };
        log.events.iter().map(texts).collect()
    }

    #[test]
    fn columns_are_found_by_name() {
        let csv = "\u{feff}x,timestamp,note_id,user_id\r\n,5,\"a,b\",u\r\n\r\nq,0, b ,u\r\n";
        let (_home, path) = file("log.csv", csv);
        let log = Interactions::read(&path, TimeUnit::Auto).unwrap();
        assert_eq!(rows(&log), [("u", "a,b", 5), ("u", "b", 0)]);
        assert_eq!(log.users.len(), 1);
        assert_eq!(log.notes.number("b"), Some(1));
        let again = path.with_file_name("again.csv");
        write_interactions(
            &again,
            rows(&log)
                .into_iter()
                .map(|(user, note, timestamp_seconds)| RawInteraction {
                    user,
                    note,
                    timestamp_seconds,
                }),
        )
        .unwrap();
        let again = Interactions::read(&again, TimeUnit::Auto).unwrap();
        assert_eq!(rows(&again), rows(&log));
    }

    #[test]
    fn errors_name_file_row_and_cure() {
        let head = "user_id,note_id,timestamp\n";
        for (content, wanted) in [
            (
                format!("{head}u,n,1\nu,n,x\n"),
                ":3: `timestamp` is `x`, no whole number",
            ),
            (format!("{head}u,n,1.5\n"), ":2: `timestamp` is `1.5`"),
            (format!("{head}u,n,\n"), ":2: `timestamp` is ``"),
            (format!("{head}u,n,-1\n"), "before 1970"),
            (
                format!("{head}u,n,5\nu,n,1700000000000\n"),
                ":3: `timestamp` 1700000000000 is written as milliseconds, that of row 2 as seconds",
            ),
            (
                format!("{head}u,n,20230101\n"),
                "every `timestamp` reads as a day without hyphens",
            ),
            (format!("{head},n,1\n"), ":2: `user_id` is empty"),
            (
                format!("{head}u,n\n"),
                ":2: 2 fields where the first row has 3",
            ),
            (
                "user,note,time\n".into(),
                ":1: the columns user_id,note_id,timestamp are not all",
            ),
            (String::new(), "the file is empty"),
        ] {
            let (_home, path) = file("log.csv", content);
            let message = Interactions::read(&path, TimeUnit::Auto)
                .unwrap_err()
                .to_string();
            assert!(message.contains(wanted), "{message}");
        }
    }

    fn parquet(columns: Vec<(&str, ArrayRef)>) -> (tempfile::TempDir, PathBuf) {
        let (home, path) = file("log.parquet", "");
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, array)| (name, array, true)),
        )
        .unwrap();
        let file = fs::File::create(&path).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        (home, path)
    }

    #[test]
    fn parquet_columns_of_many_types_are_read() {
        let users: DictionaryArray<types::Int32Type> = ["u", "v"].into_iter().collect();
        let times = TimestampMillisecondArray::from(vec![1_999, 5_000]);
        let (_home, path) = parquet(vec![
            ("note_id", Arc::new(UInt64Array::from(vec![u64::MAX, 7]))),
            ("timestamp", Arc::new(times)),
            ("user_id", Arc::new(users)),
            (
                "vector",
                Arc::new(BinaryArray::from_iter_values([b"not read", b"not read"])),
            ),
        ]);
        let log = Interactions::read(&path, TimeUnit::Auto).unwrap();
        assert_eq!(
            rows(&log),
            [("u", "18446744073709551615", 1), ("v", "7", 5)]
        );
    }

    #[test]
    fn parquet_errors_name_the_row_or_the_column() {
        let ids = || -> ArrayRef { Arc::new(StringViewArray::from(vec![Some("a"), None])) };
        let (_home, path) = parquet(vec![
            ("note_id", ids()),
            ("user_id", ids()),
            ("timestamp", Arc::new(Int32Array::from(vec![1, 1]))),
        ]);
        let message = Interactions::read(&path, TimeUnit::Auto)
            .unwrap_err()
            .to_string();
        assert!(message.contains(":2: `user_id` is empty"), "{message}");
        let (_home, path) = parquet(vec![("note_id", ids()), ("user_id", ids())]);
        let message = Interactions::read(&path, TimeUnit::Auto)
            .unwrap_err()
            .to_string();
        assert!(message.contains("timestamp are not all there"), "{message}");
        let binary: ArrayRef = Arc::new(BinaryArray::from_iter_values([b"a", b"b"]));
        let (_home, path) = parquet(vec![
            ("note_id", ids()),
            ("user_id", binary),
            ("timestamp", ids()),
        ]);
        let message = Interactions::read(&path, TimeUnit::Auto)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("column `user_id` has the type Binary"),
            "{message}"
        );
    }

    #[test]
    fn no_bytes_make_the_reader_panic() {
        proptest!(ProptestConfig::with_cases(300), |(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            text in "[a,\"\n0-9.-]{0,60}",
            header: bool,
        )| {
            for content in [&bytes, text.as_bytes()] {
                let mut content = content.to_vec();
                if header {
                    content.splice(0..0, *b"user_id,note_id,timestamp\n");
                }
                let (_home, path) = file("log.csv", content);
                let _ = Interactions::read(&path, TimeUnit::Auto);
            }
        });
    }
}
