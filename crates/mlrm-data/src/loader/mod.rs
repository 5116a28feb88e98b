//! From rows of a note set to batches: prompts encoded, pictures read, decoded and preprocessed.
//!
//! [`NoteEncoder`] makes one batch, on all threads of the current rayon pool. [`PairBatches`] makes
//! the batches of training ahead of the step, and [`Corpus`] those of a corpus that is embedded, on threads
//! of their own.

mod ahead;
mod cache;
mod corpus;
mod pairs;
mod pictures;
mod swap;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

pub use ahead::{Ahead, Hand};
pub use cache::PixelCache;
pub use corpus::{Corpus, CorpusBatch, CorpusBatches};
pub use pairs::{LoaderSettings, PairBatches, batch_notes};
pub use pictures::{Fallback, KnownPictures, Pictures};
pub use swap::{Shown, Swap};

use crate::batch::{BatchPictures, NoteBatch, Picture};
use crate::error::{DataError, Result, shorten};
use crate::notes::{Note, NoteSet};
use crate::prompt::{EncodedNote, PromptEncoder, PromptStyle};

/// Most threads that `loader_threads = 0` takes.
const MOST_AUTOMATIC_THREADS: usize = 16;

/// Turns rows of a note set into batches for one prompt style, with or without pictures.
#[derive(Debug)]
pub struct NoteEncoder {
    notes: Arc<NoteSet>,
    prompts: Arc<PromptEncoder>,
    pictures: Option<Pictures>,
}

impl NoteEncoder {
    /// An encoder; `pictures` is `None` for variants that see none.
    pub fn new(
        notes: Arc<NoteSet>,
        prompts: Arc<PromptEncoder>,
        pictures: Option<Pictures>,
    ) -> Self {
        Self {
            notes,
            prompts,
            pictures,
        }
    }

    /// The notes.
    pub fn notes(&self) -> &NoteSet {
        &self.notes
    }

    /// The encoder of the prompts.
    pub fn prompts(&self) -> &PromptEncoder {
        &self.prompts
    }

    /// Whether the note of this row is shown with its picture.
    pub fn shows_picture(&self, row: u32) -> bool {
        let Some(pictures) = &self.pictures else {
            return false;
        };
        let fallback = pictures.fallback.as_ref();
        self.notes[row].image.is_some() && !fallback.is_some_and(|f| f.by_text.reads(row))
    }

    /// How long the text of a note is as it is shown, as [`PromptEncoder::text_bytes`] counts it.
    fn text_bytes(&self, shown: &Shown) -> usize {
        self.prompts.text_bytes(&shown.text(&self.notes))
    }

    /// The batch of the notes in these rows, in this order.
    ///
    /// # Errors
    /// The first note of them that cannot be encoded, with its id and its picture's key.
    ///
    /// # Panics
    /// When a row is not one of the note set.
    pub fn encode_rows(&self, rows: &[u32]) -> Result<NoteBatch> {
        let shown: Vec<Shown> = rows.iter().copied().map(Shown::own).collect();
        let batch = self.encode_until(&shown, &AtomicBool::new(false))?;
        // Nothing sets the flag above.
        Ok(batch.unwrap_or_default())
    }

    /// As [`encode_rows`](Self::encode_rows), but for notes that may show parts of others, and gives
    /// up with `None` soon after `stop` is set.
    fn encode_until(&self, shown: &[Shown], stop: &AtomicBool) -> Result<Option<NoteBatch>> {
        let Some((pictures, by_text)) = self.pictures_of(shown, stop)? else {
            return Ok(None);
        };
        let fallback = self.pictures.as_ref().and_then(|all| all.fallback.as_ref());
        let encode = |(at, shown): (usize, &Shown)| -> Result<Option<EncodedNote>> {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let note = shown.text(&self.notes);
            let prompt = match fallback.filter(|_| by_text[at]) {
                None => self.prompts.encode(&note),
                Some(fallback) if fallback.hide_text => fallback.prompts.encode(&Note::default()),
                Some(fallback) => fallback.prompts.encode(&note),
            };
            prompt.map(Some).map_err(|error| of_note(&note, error))
        };
        // Every result is collected, so that of several errors always the first is reported.
        let prompts: Vec<Result<Option<EncodedNote>>> =
            shown.par_iter().enumerate().map(encode).collect();
        let prompts: Result<Option<Vec<EncodedNote>>> = prompts.into_iter().collect::<Result<_>>();
        let Some(prompts) = prompts? else {
            return Ok(None);
        };
        let pad_id = self.prompts.tokenizer().pad_id();
        let rows: Vec<u32> = shown.iter().map(|shown| shown.row).collect();
        let mut batch = NoteBatch::from_prompts(&prompts, &rows, pad_id);
        batch.pictures = pictures;
        if by_text.contains(&true) {
            // The batch is of the variant's style, even where all of it is read by text.
            let (style, none) = (self.prompts.style(), || vec![0; shown.len()]);
            let micl = style == PromptStyle::Micl;
            batch.image_index = batch.image_index.or_else(|| style.has_image().then(none));
            batch.image_emb_index = batch.image_emb_index.or_else(|| micl.then(none));
            batch.by_text = by_text;
        }
        Ok(Some(batch))
    }

    /// The pictures that notes show, each read once, and which notes are read without one; `None` once
    /// `stop` is set.
    fn pictures_of(&self, shown: &[Shown], stop: &AtomicBool) -> Result<Option<Looks>> {
        let Some(pictures) = &self.pictures else {
            return Ok(Some((None, vec![false; shown.len()])));
        };
        let (mut places, mut rows) = (HashMap::new(), Vec::new());
        let mut place = |row: u32| {
            *places.entry(row).or_insert_with(|| {
                rows.push(row);
                rows.len() - 1
            })
        };
        let of_note: Vec<usize> = shown.iter().map(|shown| place(shown.image)).collect();
        let ahead = pictures.ahead(&rows, &self.notes);
        let read = |&row: &u32| -> Result<Option<Option<Picture>>> {
            match stop.load(Ordering::Relaxed) {
                true => Ok(None),
                false => pictures.picture(row, &self.notes[row], &ahead).map(Some),
            }
        };
        let read: Vec<Result<Option<Option<Picture>>>> = rows.par_iter().map(read).collect();
        let read: Option<Vec<Option<Picture>>> = read.into_iter().collect::<Result<_>>()?;
        let Some(read) = read else {
            return Ok(None);
        };
        let (mut distinct, mut blank) = (Vec::new(), None);
        let mut add = |picture: Picture| {
            distinct.push(picture);
            distinct.len() - 1
        };
        // All notes without a picture show the same one.
        let of_row = read.into_iter().map(|picture| match picture {
            Some(picture) => (add(picture), false),
            None => (*blank.get_or_insert_with(|| add(pictures.blank())), true),
        });
        let of_row: Vec<(usize, bool)> = of_row.collect();
        let (of_note, by_text) = of_note.iter().map(|&at| of_row[at]).unzip();
        let batch = BatchPictures { distinct, of_note };
        Ok(Some((Some(batch), by_text)))
    }
}

/// Pictures of a batch, and which of its notes are read without theirs.
type Looks = (Option<BatchPictures>, Vec<bool>);

fn of_note(note: &Note, error: DataError) -> DataError {
    DataError::Note {
        id: shorten(&note.id),
        source: Box::new(error),
    }
}

/// Threads that encode notes; 0 takes half of the machine's, at most 16.
fn thread_pool(threads: usize) -> Result<ThreadPool> {
    let threads = match threads {
        0 => {
            let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
            (cores / 2).clamp(1, MOST_AUTOMATIC_THREADS)
        }
        threads => threads,
    };
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("mlrm-loader-{index}"))
        .build()
        .map_err(|error| no_threads(&error.to_string()))
}

fn no_threads(reason: &str) -> DataError {
    DataError::setting(
        "data.loader_threads",
        format!("the system gives no threads: {reason}"),
        "set fewer",
    )
}
