//! The pairs of a log, scored and split.

use std::collections::HashSet;

use mlrm_config::{PairSettings, Split, TestTargets};

use super::parts::{Part, assign_parts, by_part, may_pair};
use super::{Pair, PairData, PairSplit, check_fractions, same_everywhere};
use crate::error::Result;
use crate::interactions::Interner;
use crate::notes::NoteSet;
use crate::pairs::{Losses, Scored, ScoredPair, Scoring};

/// Which notes of a log may be pairs.
pub(super) struct Eligible<'a> {
    /// For each note of the log its row.
    rows: &'a [Option<u32>],
    /// Part of each row; of a split that holds out none, none.
    parts: Option<(&'a [Part], TestTargets)>,
}

impl Eligible<'_> {
    pub fn allow(&self, query: u32, target: u32) -> bool {
        let Some((parts, targets)) = self.parts else {
            return true;
        };
        let part = |note: u32| self.rows[note as usize].map(|row| parts[row as usize]);
        match (part(query), part(target)) {
            (Some(query), Some(target)) => may_pair(query, target, targets),
            _ => false,
        }
    }
}

/// The pairs that `score` gives, by notes or all in every part. `ids` and `note_users` are of the log.
pub(super) fn split_scored(
    ids: &Interner,
    note_users: &[u32],
    notes: &NoteSet,
    rules: &PairSettings,
    seed: u64,
    score: impl FnOnce(&Scoring, &Eligible<'_>) -> Result<(Scored, Option<Losses>)>,
) -> Result<PairData> {
    let scoring = Scoring::new(rules)?;
    check_fractions(rules)?;
    let rows = note_rows(ids, notes);
    let by_note = rules.split == Split::Note;
    let parts = match by_note {
        true => assign_parts(notes, rules, seed),
        false => vec![Part::Train; notes.len()],
    };
    let eligible = Eligible {
        rows: &rows,
        parts: by_note.then_some((parts.as_slice(), rules.test_targets)),
    };
    let deepest = scoring.keeping(deeper(rules.top_k, rules.training_partners()));
    let (scored, losses) = score(&deepest, &eligible)?;
    let pairs = to_pairs(scored.pairs, &rows);
    let pairs = match by_note {
        true => {
            let pairs = by_part(pairs, &parts);
            PairSplit {
                train: best_of_each(pairs.train, rules.training_partners()),
                validation: best_of_each(pairs.validation, rules.top_k),
                test: best_of_each(pairs.test, rules.top_k),
            }
        }
        false => {
            let truth = best_of_each(pairs.clone(), rules.top_k);
            PairSplit {
                train: best_of_each(pairs, rules.training_partners()),
                ..same_everywhere(truth, rules)
            }
        }
    };
    Ok(PairData {
        pairs,
        parts,
        note_users: of_rows(note_users, &rows, notes.len()),
        losses,
        notices: Vec::new(),
    })
}

/// Pairs of two notes of a log, the smaller number first.
type Known = HashSet<(u32, u32)>;

/// The pairs of the parts of a log that is cut by time, each scored by itself: `score` is told which part, and the
/// pairs of earlier ones. `ids` and `note_users`, which are of the training events, are of the log.
pub(super) fn split_by_time(
    ids: &Interner,
    note_users: &[u32],
    notes: &NoteSet,
    rules: &PairSettings,
    score: impl Fn(usize, &Scoring, &Known) -> Result<(Scored, Option<Losses>)>,
) -> Result<PairData> {
    let scoring = Scoring::new(rules)?;
    let rows = note_rows(ids, notes);
    let mut known = Known::new();
    let mut score = |part: usize, scoring: &Scoring| -> Result<_> {
        let (scored, losses) = score(part, scoring, &known)?;
        let ends = |pair: &ScoredPair| unordered(pair.query, pair.target);
        known.extend(scored.pairs.iter().map(ends));
        Ok((to_pairs(scored.pairs, &rows), losses))
    };
    let for_training = scoring.keeping(rules.training_partners());
    let (train, losses) = score(0, &for_training)?;
    Ok(PairData {
        pairs: PairSplit {
            train,
            validation: score(1, &scoring)?.0,
            test: score(2, &scoring)?.0,
        },
        parts: vec![Part::Train; notes.len()],
        note_users: of_rows(note_users, &rows, notes.len()),
        losses,
        notices: Vec::new(),
    })
}

/// For each note of a log its row in `notes`.
pub(super) fn note_rows(ids: &Interner, notes: &NoteSet) -> Vec<Option<u32>> {
    ids.texts().iter().map(|id| notes.row(id)).collect()
}

/// Pairs of notes of a log as pairs of rows.
fn to_pairs(scored: Vec<ScoredPair>, rows: &[Option<u32>]) -> Vec<Pair> {
    let row = |note: u32| rows[note as usize];
    let pair = |pair: ScoredPair| {
        Some(Pair {
            query: row(pair.query)?,
            target: row(pair.target)?,
            weight: pair.weight,
        })
    };
    scored.into_iter().filter_map(pair).collect()
}

/// What is counted of the notes of a log, by row.
pub(super) fn of_rows(counts: &[u32], rows: &[Option<u32>], notes: usize) -> Vec<u32> {
    let mut of_rows = vec![0; notes];
    for (count, row) in counts.iter().zip(rows) {
        if let Some(row) = row {
            of_rows[*row as usize] = *count;
        }
    }
    of_rows
}

/// The larger of two numbers of partners, of which `None` is all.
fn deeper(one: Option<usize>, other: Option<usize>) -> Option<usize> {
    one.zip(other).map(|(one, other)| one.max(other))
}

/// The first `kept` pairs of every query; pairs of one query stand together, best first.
fn best_of_each(mut pairs: Vec<Pair>, kept: Option<usize>) -> Vec<Pair> {
    if let Some(kept) = kept {
        let (mut query, mut seen) = (None, 0);
        pairs.retain(|pair| {
            if query.replace(pair.query) != Some(pair.query) {
                seen = 0;
            }
            seen += 1;
            seen <= kept
        });
    }
    pairs
}

/// A pair, whichever of its notes asks for the other.
pub(super) fn unordered(query: u32, target: u32) -> (u32, u32) {
    (query.min(target), query.max(target))
}
