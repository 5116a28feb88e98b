//! Logs larger than memory: the same pairs, from events that lie on disk by user.
//!
//! Events go to files by a hash of their user, each of which fits in memory and is sorted there. Pairs
//! are then scored a block of query notes at a time: one pass over the files gathers the co-occurrences
//! that begin with a note of the block, as many as memory holds, and each note is scored from them as
//! from a log in memory. What stays in memory besides are the ids of the notes, some numbers for each of
//! them, and the pairs.
//!
//! The files have no name, so that nothing is left of them when the process ends, however it ends.

mod blocks;
mod parts;
mod times;

use std::path::{Path, PathBuf};

use mlrm_config::{TimeUnit, id_ranks};

pub use self::times::Span;

use self::parts::{Part, Spill};
use super::losses::Losses;
use super::score::{Scored, Scoring, by_rank};
use crate::error::Result;
use crate::interactions::{Interactions, Interner, batch_rows, for_each_batch};

/// Memory that scoring takes for an event of a log in memory: the event, its view, its place, and what
/// a growing list has to spare.
const EVENT_BYTES: u64 = 48;

/// Memory that an id takes, with its number.
const ID_BYTES: u64 = 160;

/// A log, where it fits.
#[derive(Debug)]
pub enum Log {
    /// In memory.
    Memory(Interactions),
    /// On disk.
    Disk(DiskLog),
}

/// A log whose events lie on disk, sorted by user, time and note.
#[derive(Debug)]
pub struct DiskLog {
    notes: Interner,
    /// The note of each rank of its id; events hold ranks.
    by_rank: Vec<u32>,
    parts: Vec<Part>,
    events: u64,
    users: u64,
    /// Distinct users of each note.
    note_users: Vec<u32>,
    notices: Vec<String>,
    memory_bytes: u64,
}

impl Log {
    /// Reads a log as [`Interactions::read`] does; one that scoring would need more than
    /// `memory_bytes` for goes to nameless files in `folder`.
    ///
    /// # Errors
    /// The first row that is no event; a folder that cannot be written.
    pub fn read(path: &Path, unit: TimeUnit, memory_bytes: u64, folder: &Path) -> Result<Self> {
        let mut log = Interactions::default();
        let mut spill: Option<Spill> = None;
        let notices = for_each_batch(
            path,
            unit,
            batch_rows(memory_bytes),
            |batch| match &mut spill {
                Some(spill) => spill.append(&batch),
                None => {
                    log.append(&batch);
                    if bytes_of(&log) > memory_bytes {
                        spill = Some(Spill::of(std::mem::take(&mut log), folder)?);
                    }
                    Ok(())
                }
            },
        )?;
        match spill {
            Some(spill) => Ok(Self::Disk(DiskLog::of(spill, notices, memory_bytes)?)),
            None => {
                log.notices = notices;
                log.say_if_empty();
                Ok(Self::Memory(log))
            }
        }
    }

    /// Ids of the notes.
    pub fn notes(&self) -> &Interner {
        match self {
            Self::Memory(log) => &log.notes,
            Self::Disk(log) => &log.notes,
        }
    }

    /// How many events there are.
    pub fn events(&self) -> u64 {
        match self {
            Self::Memory(log) => log.events.len() as u64,
            Self::Disk(log) => log.events,
        }
    }

    /// How many users there are.
    pub fn users(&self) -> u64 {
        match self {
            Self::Memory(log) => log.users.len() as u64,
            Self::Disk(log) => log.users,
        }
    }

    /// What the user should know of how the file was read.
    pub fn notices(&self) -> &[String] {
        match self {
            Self::Memory(log) => &log.notices,
            Self::Disk(log) => &log.notices,
        }
    }

    /// All pairs, as [`score_pairs_where`](super::score_pairs_where) gives them for all events, and why
    /// there are few.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn score(
        &self,
        scoring: &Scoring,
        eligible: impl Fn(u32, u32) -> bool + Sync,
    ) -> Result<(Scored, Option<Losses>)> {
        match self {
            Self::Memory(log) => {
                let scored = super::score_pairs_where(log, &log.events, scoring, eligible);
                let losses = scored.losses(log, &log.events, scoring);
                Ok((scored, losses))
            }
            Self::Disk(log) => log.score(Span::ALL, scoring, eligible),
        }
    }

    /// Distinct users of each note, by its number.
    pub fn note_users(&self) -> Vec<u32> {
        match self {
            Self::Memory(log) => log.note_users(&log.events),
            Self::Disk(log) => log.note_users.clone(),
        }
    }
}

impl DiskLog {
    fn of(spill: Spill, notices: Vec<String>, memory_bytes: u64) -> Result<Self> {
        let events = spill.events();
        let ranks = id_ranks(spill.notes().texts());
        let (notes, parts, rank_users) = spill.sort(&ranks)?;
        let users = parts.iter().map(|part| u64::from(part.users)).sum();
        let by_rank = by_rank(&ranks);
        let note_users = ranks.iter().map(|&rank| rank_users[rank as usize]);
        Ok(Self {
            note_users: note_users.collect(),
            notes,
            by_rank,
            parts,
            events,
            users,
            notices,
            memory_bytes,
        })
    }
}

fn bytes_of(log: &Interactions) -> u64 {
    let ids = (log.users.len() + log.notes.len()) as u64;
    log.events.len() as u64 * EVENT_BYTES + ids * ID_BYTES
}

/// Where nameless files of a result that will lie at `out` go: the same disk.
pub fn folder_beside(out: Option<&Path>) -> PathBuf {
    match out {
        Some(out) => mlrm_files::folder_of(out).to_path_buf(),
        None => std::env::temp_dir(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use mlrm_config::{PairSettings, PairWeight, Split, Ties};
    use proptest::prelude::*;

    use super::*;
    use crate::notes::{Note, NoteSet};
    use crate::split::split_any_log;

    fn scorings() -> impl Strategy<Value = Scoring> {
        let weights = vec![
            PairWeight::Count,
            PairWeight::Events,
            PairWeight::InverseActivity,
            PairWeight::Cosine,
        ];
        let bounds = |values: Vec<f64>| prop::option::of(prop::sample::select(values));
        (
            (0i64..40, prop::sample::select(weights), 0u32..3),
            bounds(vec![0.1, 0.25, 0.5, 1.0]),
            bounds(vec![0.5, 1.0, 3.0]),
            prop::option::of(0usize..5),
            prop::option::of(0usize..12),
            any::<bool>(),
        )
            .prop_map(|(first, lower, upper, top_k, cap, both)| Scoring {
                window_seconds: first.0,
                ties: if both { Ties::Both } else { Ties::Ignore },
                weight: first.1,
                min_users: first.2,
                lower,
                upper,
                top_k,
                max_events_per_user: cap,
            })
    }

    #[test]
    fn pairs_of_a_log_on_disk_are_those_in_memory() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log.csv");
        let events = prop::collection::vec((0u16..40, 0u16..30, 0i64..60), 1..600);
        proptest!(ProptestConfig::with_cases(200), |(
            events in events,
            rules in scorings(),
            block in 1usize..400,
            part_notes in 1u32..6,
        )| {
            let mut text = "user_id,note_id,timestamp\n".to_owned();
            for (user, note, time) in &events {
                text += &format!("u{user},{},{time}\n", note * 7);
            }
            fs::write(&path, text).unwrap();
            let eligible = |query: u32, target: u32| (query + target) % part_notes != 1;
            let memory = Log::read(&path, TimeUnit::S, u64::MAX, home.path()).unwrap();
            let mut disk = Log::read(&path, TimeUnit::S, 0, home.path()).unwrap();
            if let Log::Disk(log) = &mut disk {
                log.memory_bytes = (block * 2 * size_of::<blocks::Occurrence>()) as u64;
            }
            prop_assert!(matches!((&memory, &disk), (Log::Memory(_), Log::Disk(_))));
            prop_assert_eq!(memory.notes().texts(), disk.notes().texts());
            prop_assert_eq!((memory.events(), memory.users()), (disk.events(), disk.users()));
            prop_assert_eq!(memory.note_users(), disk.note_users());
            prop_assert_eq!(
                memory.score(&rules, eligible).unwrap(),
                disk.score(&rules, eligible).unwrap()
            );
        });
        // The files of the events have no name.
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_split_by_time_on_disk_is_the_one_in_memory() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log.csv");
        let events = prop::collection::vec((0u16..30, 0u16..25, 0i64..60), 1..400);
        let shares = (0usize..5, 0usize..5).prop_map(|(test, validation)| {
            [test, validation].map(|share| [0.0, 0.1, 0.3, 0.5, 0.99][share])
        });
        // Times near each other and far apart.
        let times = (prop::sample::select(vec![1i64, 977, 86_400_001]), 0i64..50);
        proptest!(ProptestConfig::with_cases(200), |(
            events in events,
            rules in scorings(),
            (test_fraction, validation_fraction) in shares.prop_map(|[a, b]| (a, b)),
            (unit, first) in times,
            train_top_k in prop::option::of(0usize..4),
            block in 1usize..400,
        )| {
            let mut text = "user_id,note_id,timestamp\n".to_owned();
            for (user, note, time) in &events {
                text += &format!("u{user},{},{}\n", note * 7, (time + first) * unit);
            }
            fs::write(&path, text).unwrap();
            let rules = PairSettings {
                window_days: (rules.window_seconds * unit) as f64 / 86_400.0,
                ties: rules.ties,
                weight: rules.weight,
                min_users: rules.min_users,
                lower: rules.lower,
                upper: rules.upper,
                top_k: rules.top_k,
                train_top_k,
                max_events_per_user: rules.max_events_per_user,
                split: Split::Time,
                test_fraction,
                validation_fraction,
                ..PairSettings::default()
            };
            let memory = Log::read(&path, TimeUnit::S, u64::MAX, home.path()).unwrap();
            let mut disk = Log::read(&path, TimeUnit::S, 0, home.path()).unwrap();
            if let Log::Disk(log) = &mut disk {
                log.memory_bytes = (block * 2 * size_of::<blocks::Occurrence>()) as u64;
            }
            // Not in the order of the log.
            let note = |id: u16| Note { id: (id * 7).to_string(), ..Note::default() };
            let notes = NoteSet::new((0..30).rev().map(note).collect()).unwrap();
            let split = |log: &Log| split_any_log(log, &notes, &rules, 0).map_err(|e| e.to_string());
            prop_assert_eq!(split(&memory), split(&disk));
        });
    }

    #[test]
    fn a_log_goes_to_disk_in_the_midst_of_reading_and_names_rows_that_are_no_events() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log.csv");
        let mut text = "user_id,note_id,timestamp\n".to_owned();
        for row in 0..500 {
            text += &format!(
                "u{},n{},{}\n",
                row * 7 % 31,
                row * 5 % 23,
                1_700_000_000 + row
            );
        }
        fs::write(&path, &text).unwrap();
        let rules = Scoring::new(&mlrm_config::PairSettings::default()).unwrap();
        let read = |memory| Log::read(&path, TimeUnit::Auto, memory, home.path()).unwrap();
        let whole = read(u64::MAX);
        for memory in [0, 1_000, 10_000] {
            let log = read(memory);
            assert!(matches!(log, Log::Disk(_)), "{memory}");
            let all = |_, _| true;
            assert_eq!(
                log.score(&rules, all).unwrap(),
                whole.score(&rules, all).unwrap()
            );
        }
        fs::write(&path, text + "u,n,soon\n").unwrap();
        let message = Log::read(&path, TimeUnit::Auto, 0, home.path()).unwrap_err();
        assert!(
            message.to_string().contains(":502: `timestamp` is `soon`"),
            "{message}"
        );
    }
}
