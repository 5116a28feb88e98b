//! The pictures of notes: read, decoded and preprocessed as far as nothing is kept of them.

use std::sync::Arc;

use super::cache::Pixels;
use super::{PixelCache, of_note};
use crate::batch::{Picture, PictureHash};
use crate::error::{DataError, Problem, Result, shorten};
use crate::image::{DecodeOptions, ImagePreprocessor, decode};
use crate::notes::{ByText, Fetched, ImageStore, Note, NoteSet};
use crate::prompt::PromptEncoder;

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
    pub(super) fallback: Option<Fallback>,
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

    /// The same, where pictures that are `known` are neither decoded nor given values.
    pub fn with_known(self, known: Option<Arc<dyn KnownPictures>>) -> Self {
        Self { known, ..self }
    }

    /// The picture of the note in `row`; `None` where the note is read without one.
    pub(super) fn picture(
        &self,
        row: u32,
        note: &Note,
        ahead: &Fetched,
    ) -> Result<Option<Picture>> {
        let by_text = self.fallback.as_ref().map(|fallback| &fallback.by_text);
        if by_text.is_some_and(|by_text| by_text.reads(row)) {
            return Ok(None);
        }
        let key = note.image.as_deref().ok_or_else(|| no_picture(note))?;
        let read = match &self.known {
            None => {
                let pixels = self.pixels(row, key, ahead);
                pixels.map(|pixels| self.of_pixels(None, &pixels))
            }
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
    pub(super) fn ahead(&self, rows: &[u32], notes: &NoteSet) -> Fetched {
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
    pub(super) fn blank(&self) -> Picture {
        let known = self.known.as_ref();
        // No picture is a file of no bytes.
        let hash = known.map(|_| *blake3::hash(b"").as_bytes());
        let known = known
            .zip(hash)
            .is_some_and(|(known, hash)| known.knows(&hash));
        let [height, width] = self.preprocessor.blank_size();
        Picture {
            hash,
            size: [height, width],
            values: (!known).then(|| vec![0.0; 3 * height * width].into()),
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
        let of_known = |hash: PictureHash| Picture {
            hash: Some(hash),
            size: self.preprocessor.blank_size(),
            values: None,
        };
        if let Some(hash) = self.store.seen(key) {
            if known.knows(&hash) {
                return Ok(of_known(hash));
            }
            if let Some(pixels) = self.cached(row) {
                return Ok(self.of_pixels(Some(hash), &pixels));
            }
        }
        let bytes = self.store.content(key, &self.options, ahead)?;
        let hash = self.store.see(key, &bytes);
        if known.knows(&hash) {
            return Ok(of_known(hash));
        }
        let pixels = self.decoded(&bytes)?;
        // Where its features will be kept, nobody needs it again.
        if !known.keeps_more() {
            self.keep(row, &pixels);
        }
        Ok(self.of_pixels(Some(hash), &pixels))
    }

    fn pixels(&self, row: u32, key: &str, ahead: &Fetched) -> Result<Pixels, Problem> {
        if let Some(pixels) = self.cached(row) {
            return Ok(pixels);
        }
        let bytes = self.store.content(key, &self.options, ahead)?;
        let pixels = self.decoded(&bytes)?;
        self.keep(row, &pixels);
        Ok(pixels)
    }

    fn cached(&self, row: u32) -> Option<Pixels> {
        self.cache.as_ref()?.get(row)
    }

    fn keep(&self, row: u32, pixels: &Pixels) {
        if let Some(cache) = &self.cache {
            cache.insert(row, pixels);
        }
    }

    fn decoded(&self, bytes: &[u8]) -> Result<Pixels, Problem> {
        let picture = decode(bytes, &self.options)?;
        self.preprocessor.check(&picture)?;
        let (width, height) = picture.dimensions();
        Ok(Pixels {
            size: self.preprocessor.output_size(height, width),
            bytes: self.preprocessor.resize_crop(&picture).into(),
        })
    }

    fn of_pixels(&self, hash: Option<PictureHash>, pixels: &Pixels) -> Picture {
        let mut values = vec![0.0; pixels.bytes.len()];
        self.preprocessor.normalize_into(&pixels.bytes, &mut values);
        Picture {
            hash,
            size: pixels.size,
            values: Some(values.into()),
        }
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
