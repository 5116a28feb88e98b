//! What becomes of notes whose picture is missing or cannot be used (`data.on_missing_image`,
//! `data.on_bad_image`).

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use mlrm_config::{DataSettings, OnImageProblem};
use serde::{Deserialize, Serialize};

use super::{Note, NoteSet, Screened};
use crate::error::{DataError, Problem, ProblemKind, Result, shorten};

/// Notes that a message names.
const NAMED: usize = 10;

/// How many notes of a run are not read with their picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WithoutPicture {
    /// Read by their text alone, since there is no picture.
    pub missing_by_text: usize,
    /// Read by their text alone, since their picture cannot be used.
    pub bad_by_text: usize,
    /// Left out, since there is no picture.
    pub missing_dropped: usize,
    /// Left out, since their picture cannot be used.
    pub bad_dropped: usize,
}

impl WithoutPicture {
    /// Notes that are read by their text alone.
    pub fn by_text(&self) -> usize {
        self.missing_by_text + self.bad_by_text
    }

    /// Notes that are left out.
    pub fn dropped(&self) -> usize {
        self.missing_dropped + self.bad_dropped
    }

    /// What people are told of it; `None` where there is nothing to tell.
    pub fn summary(&self) -> Option<String> {
        let part = |what: &str, all: usize, missing: usize, bad: usize| {
            let notes = if all == 1 { "note is" } else { "notes are" };
            (all > 0).then(|| {
                format!(
                    "{all} {notes} {what} ({missing} without a picture, {bad} with one that cannot \
                     be used)"
                )
            })
        };
        let by_text = part(
            "read by text alone",
            self.by_text(),
            self.missing_by_text,
            self.bad_by_text,
        );
        let dropped = part(
            "left out",
            self.dropped(),
            self.missing_dropped,
            self.bad_dropped,
        );
        let parts: Vec<String> = by_text.into_iter().chain(dropped).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl std::ops::AddAssign for WithoutPicture {
    fn add_assign(&mut self, other: Self) {
        self.missing_by_text += other.missing_by_text;
        self.bad_by_text += other.bad_by_text;
        self.missing_dropped += other.missing_dropped;
        self.bad_dropped += other.bad_dropped;
    }
}

/// A note whose picture could not be read, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FailedPicture {
    /// Id of the note.
    pub id: String,
    /// Key of the picture.
    pub image: String,
    /// What is wrong with it.
    pub reason: String,
    /// Whether the note is left out; else it is read by its text.
    pub left_out: bool,
}

/// Which notes of a set are read by their text prompt although the model looks at pictures.
///
/// Threads that make batches share it: a picture that cannot be decoded, which shows only then, makes
/// its note one of them where the settings say so.
#[derive(Debug)]
pub struct ByText {
    notes: Vec<AtomicBool>,
    on_missing: OnImageProblem,
    on_bad: OnImageProblem,
    /// What happened since [`Self::take_news`] was called last.
    news: Mutex<Vec<String>>,
    /// What could not be read since [`Self::take_failed`] was called last.
    failed: Mutex<Vec<FailedPicture>>,
}

impl ByText {
    /// What `settings` make of the notes that were found without a usable picture: the notes that are
    /// left, and which of them are read by text.
    ///
    /// # Errors
    /// Where the settings say so, with how many notes it is, which, and what can be done; no note left.
    pub fn resolve(
        notes: NoteSet,
        screened: &Screened,
        settings: &DataSettings,
    ) -> Result<(NoteSet, Self, WithoutPicture)> {
        let resolved = Self::resolve_part(notes, screened, settings)?;
        if resolved.0.is_empty() && resolved.2.dropped() > 0 {
            return Err(Self::nothing_left());
        }
        Ok(resolved)
    }

    /// That of a set no note is left.
    pub fn nothing_left() -> DataError {
        DataError::setting(
            "data.on_missing_image",
            "every note is dropped: none has a picture that can be used",
            "check `data.images`, or read the notes by their text: \"text\"",
        )
    }

    /// As [`Self::resolve`], of a part of a set, of which no note need be left.
    ///
    /// # Errors
    /// Where the settings say so.
    pub fn resolve_part(
        notes: NoteSet,
        screened: &Screened,
        settings: &DataSettings,
    ) -> Result<(NoteSet, Self, WithoutPicture)> {
        let (on_missing, on_bad) = (settings.on_missing_image, settings.on_bad_image);
        refuse_unreachable(screened)?;
        refuse(&notes, screened, on_missing, on_bad)?;
        let missing: Vec<u32> = screened.missing.iter().map(|(row, _)| *row).collect();
        let bad: Vec<u32> = screened.bad.iter().map(|(row, _)| *row).collect();
        let count = |rows: &[u32], setting: OnImageProblem, wanted| match setting == wanted {
            true => rows.len(),
            false => 0,
        };
        let counts = WithoutPicture {
            missing_by_text: count(&missing, on_missing, OnImageProblem::Text),
            bad_by_text: count(&bad, on_bad, OnImageProblem::Text),
            missing_dropped: count(&missing, on_missing, OnImageProblem::Drop),
            bad_dropped: count(&bad, on_bad, OnImageProblem::Drop),
        };
        let of = |wanted: OnImageProblem| {
            let missing = missing.iter().filter(move |_| on_missing == wanted);
            missing.chain(bad.iter().filter(move |_| on_bad == wanted))
        };
        let text: Vec<String> = of(OnImageProblem::Text)
            .map(|&row| notes[row].id.clone())
            .collect();
        let dropped: Vec<u32> = of(OnImageProblem::Drop).copied().collect();
        let failed = failed(&notes, screened, on_missing, on_bad);
        let notes = notes.without(&dropped);
        let by_text = Self {
            notes: (0..notes.len()).map(|_| AtomicBool::new(false)).collect(),
            on_missing,
            on_bad,
            news: Mutex::default(),
            failed: Mutex::new(failed),
        };
        for row in text.iter().filter_map(|id| notes.row(id)) {
            by_text.set(row);
        }
        Ok((notes, by_text, counts))
    }

    /// No note of a set of `notes`; whatever shows later is an error.
    pub fn none(notes: usize) -> Self {
        Self {
            notes: (0..notes).map(|_| AtomicBool::new(false)).collect(),
            on_missing: OnImageProblem::Error,
            on_bad: OnImageProblem::Error,
            news: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// Whether any note is, or may become one of them.
    pub fn may_read(&self) -> bool {
        [self.on_missing, self.on_bad] != [OnImageProblem::Error; 2]
    }

    /// Whether the note of this row is read by its text.
    pub fn reads(&self, row: u32) -> bool {
        self.notes[row as usize].load(Ordering::Relaxed)
    }

    /// A picture could not be read after all: its note is read by text from now on.
    ///
    /// # Errors
    /// `problem`, where that is what the settings say.
    pub(crate) fn late(&self, row: u32, note: &Note, problem: Problem) -> Result<(), Problem> {
        let (setting, name) = match problem.kind {
            // A network that fails makes no note one without a picture.
            ProblemKind::UnreachableStore => return Err(problem),
            ProblemKind::MissingImage => (self.on_missing, "data.on_missing_image"),
            _ => (self.on_bad, "data.on_bad_image"),
        };
        if setting == OnImageProblem::Error {
            let mend = format!("{}, or set `{name}` to \"text\"", problem.mend);
            return Err(Problem { mend, ..problem });
        }
        if self.set(row) {
            let dropped = match setting {
                OnImageProblem::Drop => ", for it is too late to leave it out",
                OnImageProblem::Text | OnImageProblem::Error => "",
            };
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.push(FailedPicture {
                id: note.id.clone(),
                image: note.image.clone().unwrap_or_default(),
                reason: problem.message.clone(),
                left_out: false,
            });
            // Nothing panics while it holds a lock.
            let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
            news.push(format!(
                "the picture of note `{}` cannot be used ({}): the note is read by its text from now \
                 on{dropped}",
                shorten(&note.id),
                problem.message
            ));
        }
        Ok(())
    }

    /// What has shown since the last call, in words.
    pub fn take_news(&self) -> Vec<String> {
        std::mem::take(&mut self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The pictures that could not be read since the last call, those that were found before anything
    /// was read at the first one. Notes that name no picture are not among them.
    pub fn take_failed(&self) -> Vec<FailedPicture> {
        std::mem::take(&mut self.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it was not so before.
    fn set(&self, row: u32) -> bool {
        !self.notes[row as usize].swap(true, Ordering::Relaxed)
    }
}

/// What was screened out, where the settings let it pass.
fn failed(
    notes: &NoteSet,
    screened: &Screened,
    on_missing: OnImageProblem,
    on_bad: OnImageProblem,
) -> Vec<FailedPicture> {
    let missing = screened.missing.iter();
    let missing = missing.filter_map(|(row, problem)| Some((row, problem.as_ref()?, on_missing)));
    let bad = screened.bad.iter();
    let bad = bad.map(|(row, problem)| (row, problem, on_bad));
    let failed = |(row, problem, on): (&u32, &Problem, OnImageProblem)| FailedPicture {
        id: notes[*row].id.clone(),
        image: notes[*row].image.clone().unwrap_or_default(),
        reason: problem.message.clone(),
        left_out: on == OnImageProblem::Drop,
    };
    missing.chain(bad).map(failed).collect()
}

/// The error of pictures that may be there, in a store that does not answer.
fn refuse_unreachable(screened: &Screened) -> Result<()> {
    let problems = screened.bad.iter().map(|(_, problem)| problem);
    let mut unreachable = problems.filter(|problem| problem.kind == ProblemKind::UnreachableStore);
    let Some(first) = unreachable.next() else {
        return Ok(());
    };
    let more = match unreachable.count() {
        0 => String::new(),
        more => format!(" (and {more} more pictures)"),
    };
    let message = format!("{}{more}", first.message);
    Err(DataError::setting(
        "data.images",
        message,
        first.mend.clone(),
    ))
}

/// The error of notes whose picture has to be there.
fn refuse(
    notes: &NoteSet,
    screened: &Screened,
    on_missing: OnImageProblem,
    on_bad: OnImageProblem,
) -> Result<()> {
    let none = "it names none".to_owned();
    let reason =
        |problem: &Option<Problem>| problem.as_ref().map_or(none.clone(), |p| p.message.clone());
    let missing = screened
        .missing
        .iter()
        .map(|(row, problem)| (*row, reason(problem)));
    let bad = screened
        .bad
        .iter()
        .map(|(row, problem)| (*row, problem.message.clone()));
    let missing = (on_missing == OnImageProblem::Error)
        .then(|| named(notes, missing.collect(), "have no picture"))
        .flatten();
    let bad = (on_bad == OnImageProblem::Error)
        .then(|| named(notes, bad.collect(), "have a picture that cannot be used"))
        .flatten();
    let (key, others) = match (&missing, &bad) {
        (None, None) => return Ok(()),
        (Some(_), None) => ("data.on_missing_image", ""),
        (None, Some(_)) => ("data.on_bad_image", ""),
        (Some(_), Some(_)) => ("data.on_missing_image", " and `data.on_bad_image`"),
    };
    let messages: Vec<String> = missing.into_iter().chain(bad).collect();
    Err(DataError::setting(
        key,
        messages.join("\n"),
        format!(
            "mend the pictures (`mlrm data check` names all), set this{others} to \"text\" (such \
             notes are read by their text) or \"drop\" (they are left out), or set `model.variant = \
             \"text\"`"
        ),
    ))
}

/// How many notes it is, and the first of them.
fn named(notes: &NoteSet, found: Vec<(u32, String)>, what: &str) -> Option<String> {
    let count = found.len();
    if count == 0 {
        return None;
    }
    let what = if count == 1 {
        what.replacen("have", "has", 1)
    } else {
        what.into()
    };
    let mut text = format!("{count} of {} notes {what}:", notes.len());
    for (row, reason) in found.iter().take(NAMED) {
        let note = &notes[*row];
        let image = note
            .image
            .as_deref()
            .map(|key| format!(", image `{}`", shorten(key)));
        let _ = write!(
            text,
            "\n  note `{}`{}: {reason}",
            shorten(&note.id),
            image.unwrap_or_default()
        );
    }
    if count > NAMED {
        let _ = write!(text, "\n  … and {} more", count - NAMED);
    }
    Some(text)
}

#[cfg(test)]
mod tests;
