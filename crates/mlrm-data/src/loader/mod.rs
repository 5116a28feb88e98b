//! From rows of a note set to batches: prompts encoded, pictures read, decoded and preprocessed.
//!
//! [`NoteEncoder`] makes one batch, on all threads of the current rayon pool. [`PairBatches`] makes
//! the batches of training ahead of the step, on threads of its own.

mod cache;
mod pairs;
mod swap;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rayon::prelude::*;

pub use pairs::{LoaderSettings, PairBatches};
pub use swap::{Shown, Swap};

use crate::batch::{NoteBatch, PictureHash};
use crate::error::{DataError, Problem, Result, shorten};
use crate::image::{DecodeOptions, ImagePreprocessor, decode};
use crate::notes::{ImageStore, Note, NoteSet};
use crate::prompt::{EncodedNote, PromptEncoder};
use cache::PixelCache;

/// Pictures whose features are kept: nobody needs their values.
pub trait KnownPictures: std::fmt::Debug + Send + Sync {
    /// Whether `picture` is one of them.
    fn knows(&self, picture: &PictureHash) -> bool;
}

/// Where the pictures of notes come from and what is done with them.
#[derive(Debug)]
pub struct Pictures {
    store: Arc<ImageStore>,
    preprocessor: ImagePreprocessor,
    options: DecodeOptions,
    cache: PixelCache,
    known: Option<Arc<dyn KnownPictures>>,
    /// Of the pictures of these rows, where any can be known.
    hashes: RwLock<HashMap<u32, PictureHash>>,
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
            known: None,
            hashes: RwLock::default(),
        }
    }

    /// The same pictures, some of which may be `known`.
    pub fn with_known(self, known: Option<Arc<dyn KnownPictures>>) -> Self {
        Self { known, ..self }
    }

    /// Side of the pictures in pixels.
    pub fn image_size(&self) -> usize {
        self.preprocessor.image_size()
    }

    /// Writes the values of the picture of the note in `row`, `[3, image_size, image_size]`, unless it
    /// is found to be known already, and says which picture it is where any can be known.
    fn write_values(
        &self,
        row: u32,
        note: &Note,
        values: &mut [f32],
    ) -> Result<Option<PictureHash>> {
        let Some(known) = &self.known else {
            self.read_values(row, note, values)?;
            return Ok(None);
        };
        // Nothing panics while it holds the lock.
        let hashes = self.hashes.read().unwrap_or_else(PoisonError::into_inner);
        let seen = hashes.get(&row).copied();
        drop(hashes);
        if let Some(hash) = seen.filter(|hash| known.knows(hash)) {
            return Ok(Some(hash));
        }
        self.read_values(row, note, values)?;
        let hash = hash(values);
        let mut hashes = self.hashes.write().unwrap_or_else(PoisonError::into_inner);
        hashes.insert(row, hash);
        Ok(Some(hash))
    }

    fn read_values(&self, row: u32, note: &Note, values: &mut [f32]) -> Result<()> {
        let key = note.image.as_deref().ok_or_else(|| no_picture(note))?;
        let pixels = match self.cache.get(row) {
            Some(pixels) => pixels,
            None => {
                let pixels = self.pixels(key).map_err(|problem| {
                    let error = DataError::image(shorten(key), problem.message, problem.mend);
                    of_note(note, error)
                })?;
                self.cache.insert(row, pixels.into())
            }
        };
        self.preprocessor.normalize_into(&pixels, values);
        Ok(())
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

    /// Refuses notes without a picture where pictures are needed, before any work is done on the
    /// others. Whether a picture can be read shows when it is.
    pub fn require_pictures(&self, rows: impl IntoIterator<Item = u32>) -> Result<()> {
        if self.pictures.is_none() {
            return Ok(());
        }
        let mut notes = rows.into_iter().map(|row| &self.notes[row]);
        match notes.find(|note| note.image.is_none()) {
            Some(note) => Err(no_picture(note)),
            None => Ok(()),
        }
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
        let encode = |shown: &Shown, values: &mut [f32]| -> Result<Option<Encoded>> {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let mut picture = None;
            if let Some(pictures) = &self.pictures {
                picture = pictures.write_values(shown.image, &self.notes[shown.image], values)?;
            }
            let note = shown.text(&self.notes);
            let prompt = self.prompts.encode(&note);
            let prompt = prompt.map_err(|error| of_note(&note, error))?;
            Ok(Some((prompt, picture)))
        };
        // Every result is collected, so that of several errors always the first is reported.
        let encoded: Vec<Result<Option<Encoded>>> = match self.pictures {
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
        let encoded: Result<Option<Vec<Encoded>>> = encoded.into_iter().collect::<Result<_>>();
        let Some(encoded) = encoded? else {
            return Ok(None);
        };
        let (prompts, hashes): (Vec<EncodedNote>, Vec<Option<PictureHash>>) =
            encoded.into_iter().unzip();
        let pad_id = self.prompts.tokenizer().pad_id();
        let rows: Vec<u32> = shown.iter().map(|shown| shown.row).collect();
        let mut batch = NoteBatch::from_prompts(&prompts, &rows, pad_id);
        if self.pictures.is_some() {
            batch.image_size = image_size;
            batch.pixel_values = Some(values);
            batch.pictures = hashes.into_iter().flatten().collect();
        }
        Ok(Some(batch))
    }
}

/// A prompt, and which picture it shows where any can be known.
type Encoded = (EncodedNote, Option<PictureHash>);

fn hash(values: &[f32]) -> PictureHash {
    let mut hasher = blake3::Hasher::new();
    for values in values.chunks(1 << 12) {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    *hasher.finalize().as_bytes()
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
