//! From rows of a note set to batches: prompts encoded, pictures read, decoded and preprocessed.
//!
//! [`NoteEncoder`] makes one batch, on all threads of the current rayon pool. [`PairBatches`] makes
//! the batches of training ahead of the step, on threads of its own.

mod cache;
mod pairs;
mod swap;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

pub use pairs::{LoaderSettings, PairBatches};
pub use swap::{Shown, Swap};

use crate::batch::NoteBatch;
use crate::error::{DataError, Problem, Result, shorten};
use crate::image::{DecodeOptions, ImagePreprocessor, decode};
use crate::notes::{ByText, ImageStore, Note, NoteSet};
use crate::prompt::{EncodedNote, PromptEncoder, PromptStyle};
use cache::PixelCache;

/// Where the pictures of notes come from and what is done with them.
#[derive(Debug)]
pub struct Pictures {
    store: Arc<ImageStore>,
    preprocessor: ImagePreprocessor,
    options: DecodeOptions,
    cache: PixelCache,
    fallback: Option<Fallback>,
}

/// How notes are read whose picture is not there or cannot be used.
#[derive(Debug, Clone)]
pub struct Fallback {
    /// Which notes these are.
    pub by_text: Arc<ByText>,
    /// The encoder of their prompts, which show no picture.
    pub prompts: Arc<PromptEncoder>,
    /// Whether their text is kept from the model too: it sees pictures alone, and of these notes
    /// nothing.
    pub hide_text: bool,
}

impl Pictures {
    /// Pictures of `store`, decoded by `options` and preprocessed by `preprocessor`. At most `cache_bytes` of pixels are kept
    /// after resize and crop, so that they need not be decoded again; 0 keeps none.
    pub fn new(
        store: Arc<ImageStore>,
        preprocessor: ImagePreprocessor,
        options: DecodeOptions,
        cache_bytes: usize,
    ) -> Self {
        Self {
            store,
            preprocessor,
            options,
            cache: PixelCache::new(cache_bytes),
            fallback: None,
        }
    }

    /// The same, where notes without a usable picture are read as `fallback` says instead of being
    /// errors.
    pub fn with_fallback(self, fallback: Fallback) -> Self {
        Self {
            fallback: Some(fallback),
            ..self
        }
    }

    /// Side of the pictures in pixels.
    pub fn image_size(&self) -> usize {
        self.preprocessor.image_size()
    }

    /// Writes the values of the picture of the note in `row`, `[3, image_size, image_size]`; `false`
    /// where the note is read without one.
    fn write_values(&self, row: u32, note: &Note, values: &mut [f32]) -> Result<bool> {
        let by_text = self.fallback.as_ref().map(|fallback| &fallback.by_text);
        if by_text.is_some_and(|by_text| by_text.reads(row)) {
            return Ok(false);
        }
        let key = note.image.as_deref().ok_or_else(|| no_picture(note))?;
        let pixels = match self.cache.get(row) {
            Some(pixels) => pixels,
            None => match self.pixels(key) {
                Ok(pixels) => self.cache.insert(row, pixels.into()),
                Err(problem) => {
                    let problem = match by_text {
                        Some(by_text) => by_text.late(row, &note.id, problem),
                        None => ByText::none(0).late(row, &note.id, problem),
                    };
                    let error = |problem: Problem| {
                        let error = DataError::image(shorten(key), problem.message, problem.mend);
                        of_note(note, error)
                    };
                    return problem.map(|()| false).map_err(error);
                }
            },
        };
        self.preprocessor.normalize_into(&pixels, values);
        Ok(true)
    }

    fn pixels(&self, key: &str) -> Result<Vec<u8>, Problem> {
        let bytes = self.store.read_within(key, &self.options)?;
        let picture = decode(&bytes, &self.options)?;
        Ok(self.preprocessor.resize_crop(&picture))
    }
}

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
        let image_size = self.pictures.as_ref().map_or(0, Pictures::image_size);
        let mut values = vec![0.0; shown.len() * 3 * image_size * image_size];
        let encode = |shown: &Shown, values: &mut [f32]| -> Result<Option<(EncodedNote, bool)>> {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let note = shown.text(&self.notes);
            let fallback = match &self.pictures {
                Some(pictures) => {
                    let picture = &self.notes[shown.image];
                    let written = pictures.write_values(shown.image, picture, values)?;
                    pictures.fallback.as_ref().filter(|_| !written)
                }
                None => None,
            };
            let prompt = match fallback {
                None => self.prompts.encode(&note),
                Some(fallback) if fallback.hide_text => fallback.prompts.encode(&Note::default()),
                Some(fallback) => fallback.prompts.encode(&note),
            };
            let prompt = prompt.map_err(|error| of_note(&note, error))?;
            Ok(Some((prompt, fallback.is_some())))
        };
        // Every result is collected, so that of several errors always the first is reported.
        let prompts: Vec<Result<Option<(EncodedNote, bool)>>> = match self.pictures {
            Some(_) => values
                .par_chunks_exact_mut(3 * image_size * image_size)
                .zip(shown)
                .map(|(values, shown)| encode(shown, values))
                .collect(),
            None => shown
                .par_iter()
                .map(|shown| encode(shown, &mut []))
                .collect(),
        };
        let prompts: Result<Option<Vec<(EncodedNote, bool)>>> =
            prompts.into_iter().collect::<Result<_>>();
        let Some(prompts) = prompts? else {
            return Ok(None);
        };
        let (prompts, by_text): (Vec<EncodedNote>, Vec<bool>) = prompts.into_iter().unzip();
        let pad_id = self.prompts.tokenizer().pad_id();
        let rows: Vec<u32> = shown.iter().map(|shown| shown.row).collect();
        let mut batch = NoteBatch::from_prompts(&prompts, &rows, pad_id);
        if self.pictures.is_some() {
            batch.image_size = image_size;
            batch.pixel_values = Some(values);
        }
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
}

fn of_note(note: &Note, error: DataError) -> DataError {
    DataError::Note {
        id: shorten(&note.id),
        source: Box::new(error),
    }
}

fn no_picture(note: &Note) -> DataError {
    of_note(
        note,
        DataError::setting(
            "model.variant",
            "this variant needs a picture of every note, and the note has none",
            "give the note an `image`, leave the note out, or set `model.variant = \"text\"`",
        ),
    )
}
