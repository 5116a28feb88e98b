//! Training, validation and test pairs that keep apart what must be kept apart.
//!
//! * [`Split::Note`]: a seeded share of the notes is held out. Training pairs have both ends among
//!   the training notes. Validation and test queries are validation and test notes; their targets
//!   are notes of the same part (`test_targets = "held_out"`), or any note (`"all"`; but validation
//!   targets are never test notes, so that choosing a checkpoint cannot see the test's behaviour).
//!   `top_k` counts eligible partners: a note has its k best partners within its part.
//!   `train_top_k` does so for training notes, so that they can learn from more than the best.
//! * [`Split::Time`]: the log is cut by time into training, validation and test events, and each
//!   part is scored by itself. A pair that an earlier part has, in either direction, is not in a
//!   later one.
//! * [`Split::None`]: every pair is in every part; a check of fit, not of skill.

mod partners;
mod parts;
mod ready;
mod scored;

use std::path::{Path, PathBuf};

use mlrm_config::{DataSettings, PairSettings, Split};

use crate::error::{DataError, Result};
use crate::interactions::{Interaction, Interactions, refuse_unknown};
use crate::notes::NoteSet;
use crate::pairs::{Log, Losses, RawPair, Scoring, read_pairs, score_pairs_where, write_pairs};
use crate::store::is_named;
use crate::write::write_folder;

pub use partners::Partners;
pub use parts::Part;
pub(crate) use parts::{FNV_PRIME, FNV_START, SPLIT_MIX, mixed_seed};

use parts::cut_by_time;
use ready::split_pairs;
use scored::{Eligible, note_rows, of_rows, split_by_time, split_scored, unordered};

/// A query note, a note related to it, and how much; rows of a [`NoteSet`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Row of the query note.
    pub query: u32,
    /// Row of the target note.
    pub target: u32,
    /// Score of the pair.
    pub weight: f64,
}

/// The pairs of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PairSplit {
    /// What the model learns from.
    pub train: Vec<Pair>,
    /// What chooses the best checkpoint.
    pub validation: Vec<Pair>,
    /// What the final table measures.
    pub test: Vec<Pair>,
}

impl PairSplit {
    /// Writes `train.csv`, `validation.csv` and `test.csv` into the new folder `out`, whole or not
    /// at all.
    pub fn write(&self, out: &Path, notes: &NoteSet) -> Result<()> {
        let parts = [
            ("train.csv", &self.train),
            ("validation.csv", &self.validation),
            ("test.csv", &self.test),
        ];
        write_folder(out, |folder| {
            parts.into_iter().try_for_each(|(name, pairs)| {
                let rows = pairs.iter().map(|pair| RawPair {
                    query: &notes[pair.query].id,
                    target: &notes[pair.target].id,
                    weight: pair.weight,
                });
                write_pairs(&folder.join(name), rows)
            })
        })
    }

    /// Which notes are known to be related, in either direction, judged by the training pairs
    /// alone: what the objective must not take for a negative. `notes` is the size of the note set.
    pub fn known_partners(&self, notes: usize) -> Partners {
        Partners::new(&self.train, notes)
    }
}

/// Pairs of a run, and what evaluation needs to know about the notes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PairData {
    /// The pairs.
    pub pairs: PairSplit,
    /// Part of every note (`split = "note"`); all `Train` otherwise.
    pub parts: Vec<Part>,
    /// Users that saw a note in the training log (for the popularity baseline): the whole log with
    /// `split = "note"`, which holds out notes and not events; the events before the held-out parts
    /// with `split = "time"`. From a file of pairs, the training pairs that the note is target of.
    pub note_users: Vec<u32>,
    /// What the user should know of how the files were read.
    pub notices: Vec<String>,
    /// Why there are few training pairs, where there are.
    pub losses: Option<Losses>,
}

/// Pairs from the settings of a run: reads the log or the file of pairs (paths are relative to
/// `settings.root`), scores, and splits by `seed`. When both are set, the file of pairs is read and
/// the log only counts users; window, weight, bounds, `top_k` and `train_top_k` do not apply to
/// ready-made pairs.
///
/// # Errors
/// What the readers refuse; ids that no note has; settings that cannot work; no training pair left.
pub fn load_pairs(settings: &DataSettings, notes: &NoteSet, seed: u64) -> Result<PairData> {
    let path = |file: &PathBuf| settings.place(file);
    let rules = &settings.pairs;
    check_fractions(rules)?;
    let data = match (&settings.pairs_file, &settings.interactions) {
        (Some(pairs), log) => {
            let pairs_path = path(pairs);
            let pairs = read_pairs(&pairs_path)?;
            let mut data = split_pairs(&pairs, &pairs_path, notes, rules, seed)?;
            data.notices = said_of(&pairs_path, &pairs.notices);
            // The default log name is no promise that the file exists.
            if let Some(log_path) = log.as_ref().map(path).filter(|log| is_named(log)) {
                let log = Interactions::read(&log_path, settings.time_unit)?;
                let log = log.without_dropped(notes);
                data.notices.extend(said_of(&log_path, &log.notices));
                data.note_users = count_users(&log, &log.events, notes);
            }
            data
        }
        (None, Some(log)) => {
            let log_path = path(log);
            let log = Interactions::read(&log_path, settings.time_unit)?.without_dropped(notes);
            refuse_unknown(&log.notes, &log_path, notes)?;
            PairData {
                notices: said_of(&log_path, &log.notices),
                ..split_log(&log, notes, rules, seed)?
            }
        }
        (None, None) => {
            return Err(DataError::setting(
                "data.interactions",
                "there is neither a log nor a file of pairs",
                "set `data.interactions` or `data.pairs_file`",
            ));
        }
    };
    if data.pairs.train.is_empty() {
        let why = data
            .losses
            .map_or(String::new(), |losses| format!(": {losses}"));
        return Err(DataError::setting(
            "data.pairs",
            format!("no training pair is left{why}"),
            "lower `min_users` or `lower`, widen `window_days`, or check that the log fits the notes",
        ));
    }
    Ok(data)
}

fn said_of(path: &Path, notices: &[String]) -> Vec<String> {
    let said = |notice| format!("{}: {notice}", path.display());
    notices.iter().map(said).collect()
}

/// Refuses shares that are none, and whatever else the settings cannot be.
pub(crate) fn check_fractions(rules: &PairSettings) -> Result<()> {
    Ok(rules.validate()?)
}

/// Scores a log in memory and splits the pairs; ids that no note has must have been refused before.
///
/// # Errors
/// Settings that cannot work.
pub fn split_log(
    log: &Interactions,
    notes: &NoteSet,
    rules: &PairSettings,
    seed: u64,
) -> Result<PairData> {
    let score_all = |scoring: &Scoring, parts: &Eligible<'_>| {
        let scored = score_pairs_where(log, &log.events, scoring, |query, target| {
            parts.allow(query, target)
        });
        let losses = scored.losses(log, &log.events, scoring);
        Ok((scored, losses))
    };
    match rules.split {
        Split::Time => {
            let mut times: Vec<i64> = log.events.iter().map(|e| e.timestamp_seconds).collect();
            times.sort_unstable();
            let spans = cut_by_time(times.len() as u64, rules, |place| {
                let time = times[place as usize];
                Ok((time, times.partition_point(|&other| other < time) as u64))
            })?;
            let events = spans.map(|span| -> Vec<Interaction> {
                let within = |e: &&Interaction| span.contains(e.timestamp_seconds);
                log.events.iter().filter(within).copied().collect()
            });
            let users = log.note_users(&events[0]);
            split_by_time(&log.notes, &users, notes, rules, |part, scoring, known| {
                let events = &events[part];
                let scored = score_pairs_where(log, events, scoring, |query, target| {
                    !known.contains(&unordered(query, target))
                });
                let losses = scored.losses(log, events, scoring);
                Ok((scored, losses))
            })
        }
        Split::Note | Split::None => {
            let note_users = log.note_users(&log.events);
            split_scored(&log.notes, &note_users, notes, rules, seed, score_all)
        }
    }
}

/// As [`split_log`], of a log that may lie on disk.
///
/// # Errors
/// As [`split_log`]; files that cannot be read.
pub fn split_any_log(
    log: &Log,
    notes: &NoteSet,
    rules: &PairSettings,
    seed: u64,
) -> Result<PairData> {
    match (log, rules.split) {
        (Log::Memory(log), _) => split_log(log, notes, rules, seed),
        (Log::Disk(on_disk), Split::Time) => {
            let spans = cut_by_time(log.events(), rules, |place| on_disk.time_at(place))?;
            let users = on_disk.note_users_within(spans[0])?;
            split_by_time(log.notes(), &users, notes, rules, |part, scoring, known| {
                on_disk.score(spans[part], scoring, |query, target| {
                    !known.contains(&unordered(query, target))
                })
            })
        }
        (Log::Disk(_), Split::Note | Split::None) => {
            let score = |scoring: &Scoring, parts: &Eligible<'_>| {
                log.score(scoring, |query, target| parts.allow(query, target))
            };
            split_scored(log.notes(), &log.note_users(), notes, rules, seed, score)
        }
    }
}

fn same_everywhere(pairs: Vec<Pair>, rules: &PairSettings) -> PairSplit {
    PairSplit {
        validation: match rules.validation_fraction > 0.0 {
            true => pairs.clone(),
            false => Vec::new(),
        },
        test: pairs.clone(),
        train: pairs,
    }
}

/// Distinct users per note, by row.
fn count_users(log: &Interactions, events: &[Interaction], notes: &NoteSet) -> Vec<u32> {
    let rows = note_rows(&log.notes, notes);
    of_rows(&log.note_users(events), &rows, notes.len())
}

#[cfg(test)]
mod tests;
