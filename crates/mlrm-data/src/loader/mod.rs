//! From rows of a note set to batches: prompts encoded, pictures read, decoded and preprocessed.
//!
//! [`NoteEncoder`] makes one batch, on all threads of the current rayon pool. [`PairBatches`] makes
//! the batches of training ahead of the step, and [`Corpus`] those of a corpus that is embedded, on threads
//! of their own.

mod ahead;
mod cache;
mod corpus;
mod pairs;
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
pub use swap::{Shown, Swap};

use crate::batch::{BatchPictures, NoteBatch, Picture, PictureHash};
use crate::error::{DataError, Problem, Result, shorten};
use crate::image::{DecodeOptions, ImagePreprocessor, decode};
use crate::notes::{ByText, Fetched, ImageStore, Note, NoteSet};
use crate::prompt::{EncodedNote, PromptEncoder, PromptStyle};

/// Most threads that `loader_threads = 0` takes.
const MOST_AUTOMATIC_THREADS: usize = 16;

/// Where features of pictures are kept: those of a picture that is known there are read in place of it.
pub trait KnownPictures: std::fmt::Debug + Send + Sync {
    /// Whether the features of `picture` are there.
    fn knows(&self, picture: &PictureHash) -> bool;

    /// Whether those of pictures that are not known yet will be.
    fn keeps_more(&self) -> bool;
}

/// Where the pictures of notes come from and what is done with them.
#[derive(Debug)]
pub struct Pictures {
    store: Arc<ImageStore>,
    preprocessor: ImagePreprocessor,
    options: DecodeOptions,
    cache: Option<Arc<PixelCache>>,
    fallback: Option<Fallback>,
    known: Option<Arc<dyn KnownPictures>>,
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
    /// Pictures of `store`, decoded by `options` and preprocessed by `preprocessor`. Pixels after resize
    /// and crop are kept in `cache`, so that they need not be decoded again.
    pub fn new(
        store: Arc<ImageStore>,
        preprocessor: ImagePreprocessor,
        options: DecodeOptions,
        cache: Arc<PixelCache>,
    ) -> Self {
        Self {
            store,
            cache: cache.serves(&preprocessor).then_some(cache),
            preprocessor,
            options,
            fallback: None,
            known: None,
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

    /// The same, where pictures that are `known` are neither decoded nor given values.
    pub fn with_known(self, known: Option<Arc<dyn KnownPictures>>) -> Self {
        Self { known, ..self }
    }

    /// The picture of the note in `row`; `None` where the note is read without one.
    fn picture(&self, row: u32, note: &Note, ahead: &Fetched) -> Result<Option<Picture>> {
        let by_text = self.fallback.as_ref().map(|fallback| &fallback.by_text);
        if by_text.is_some_and(|by_text| by_text.reads(row)) {
            return Ok(None);
        }
        let key = note.image.as_deref().ok_or_else(|| no_picture(note))?;
        let read = match &self.known {
            None => self.pixels(row, key, ahead).map(|pixels| Picture {
                hash: None,
                values: Some(self.values(&pixels)),
            }),
            Some(known) => self.known_or_read(row, key, known.as_ref(), ahead),
        };
        match read {
            Ok(picture) => Ok(Some(picture)),
            Err(problem) => {
                let problem = match by_text {
                    Some(by_text) => by_text.late(row, note, problem),
                    None => ByText::none(0).late(row, note, problem),
                };
                let error = |problem: Problem| {
                    let error = DataError::image(shorten(key), problem.message, problem.mend);
                    of_note(note, error)
                };
                problem.map(|()| None).map_err(error)
            }
        }
    }

    /// The pictures of these rows that have to be read, asked for together where they are far away.
    fn ahead(&self, rows: &[u32], notes: &NoteSet) -> Fetched {
        let by_text = self.fallback.as_ref().map(|fallback| &fallback.by_text);
        let is_read = |row: &&u32| !by_text.is_some_and(|by_text| by_text.reads(**row));
        let is_known = |key: &str| {
            let known = self.known.as_ref().zip(self.store.seen(key));
            known.is_some_and(|(known, hash)| known.knows(&hash))
        };
        let rows = rows
            .iter()
            .filter(is_read)
            .filter(|row| self.cached(**row).is_none());
        let keys = rows.filter_map(|&row| notes[row].image.as_deref());
        self.store.ahead(keys.filter(|key| !is_known(key)))
    }

    /// What notes without a picture show.
    fn blank(&self) -> Picture {
        let known = self.known.as_ref();
        // No picture is a file of no bytes.
        let hash = known.map(|_| *blake3::hash(b"").as_bytes());
        let known = known
            .zip(hash)
            .is_some_and(|(known, hash)| known.knows(&hash));
        let side = self.image_size();
        Picture {
            hash,
            values: (!known).then(|| vec![0.0; 3 * side * side].into()),
        }
    }

    /// The picture, read and decoded as far as nothing is known of it.
    fn known_or_read(
        &self,
        row: u32,
        key: &str,
        known: &dyn KnownPictures,
        ahead: &Fetched,
    ) -> Result<Picture, Problem> {
        let of_hash = |hash: PictureHash, values| Picture {
            hash: Some(hash),
            values,
        };
        if let Some(hash) = self.store.seen(key) {
            if known.knows(&hash) {
                return Ok(of_hash(hash, None));
            }
            if let Some(pixels) = self.cached(row) {
                return Ok(of_hash(hash, Some(self.values(&pixels))));
            }
        }
        let bytes = self.store.content(key, &self.options, ahead)?;
        let hash = self.store.see(key, &bytes);
        if known.knows(&hash) {
            return Ok(of_hash(hash, None));
        }
        let pixels: Arc<[u8]> = self.decoded(&bytes)?.into();
        let values = self.values(&pixels);
        // Where its features will be kept, nobody needs it again.
        if !known.keeps_more() {
            self.keep(row, &pixels);
        }
        Ok(of_hash(hash, Some(values)))
    }

    fn pixels(&self, row: u32, key: &str, ahead: &Fetched) -> Result<Arc<[u8]>, Problem> {
        if let Some(pixels) = self.cached(row) {
            return Ok(pixels);
        }
        let bytes = self.store.content(key, &self.options, ahead)?;
        let pixels: Arc<[u8]> = self.decoded(&bytes)?.into();
        self.keep(row, &pixels);
        Ok(pixels)
    }

    fn cached(&self, row: u32) -> Option<Arc<[u8]>> {
        self.cache.as_ref()?.get(row)
    }

    fn keep(&self, row: u32, pixels: &Arc<[u8]>) {
        if let Some(cache) = &self.cache {
            cache.insert(row, pixels);
        }
    }

    fn decoded(&self, bytes: &[u8]) -> Result<Vec<u8>, Problem> {
        let picture = decode(bytes, &self.options)?;
        Ok(self.preprocessor.resize_crop(&picture))
    }

    fn values(&self, pixels: &[u8]) -> Arc<[f32]> {
        let mut values = vec![0.0; pixels.len()];
        self.preprocessor.normalize_into(pixels, &mut values);
        values.into()
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
        let batch = BatchPictures {
            image_size: pictures.image_size(),
            distinct,
            of_note,
        };
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
