//! Batches of a corpus that is embedded, made ahead of the device.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rayon::ThreadPool;

use super::{Ahead, NoteEncoder, Shown, thread_pool};
use crate::batch::NoteBatch;
use crate::error::Result;

/// Batches that are ready before the device asks for them.
const READY: usize = 3;

/// The notes of some rows of an encoder's notes, a batch at a time, each once.
///
/// Batches are of notes of like length, so that little is padded. Reading, decoding and preprocessing happen
/// on threads of their own while the batches before are computed.
pub type CorpusBatches = Ahead<Corpus, Result<CorpusBatch>>;

/// A batch of a corpus.
#[derive(Debug)]
pub struct CorpusBatch {
    /// Where its notes stand among the rows.
    pub places: Vec<usize>,
    /// The notes.
    pub notes: NoteBatch,
}

/// What makes the batches.
#[derive(Debug)]
pub struct Corpus {
    encoder: Arc<NoteEncoder>,
    rows: Vec<u32>,
    /// Places of rows, by the length of their notes.
    by_length: std::vec::IntoIter<usize>,
    batch_notes: usize,
    /// Apart from rayon's global pool, which the device may be.
    pool: ThreadPool,
    stop: Arc<AtomicBool>,
}

impl Corpus {
    /// Batches of `batch_notes` notes (at least one) of `rows`.
    ///
    /// # Errors
    /// A system that gives no threads.
    pub fn batches(
        encoder: &Arc<NoteEncoder>,
        rows: &[u32],
        batch_notes: usize,
    ) -> Result<CorpusBatches> {
        let text_length = |place: &usize| {
            let note = &encoder.notes()[rows[*place]];
            let topics: usize = note.topics.iter().map(String::len).sum();
            note.content.len() + note.title.len() + topics
        };
        let mut by_length: Vec<usize> = (0..rows.len()).collect();
        by_length.sort_by_key(text_length);
        let stop = Arc::new(AtomicBool::new(false));
        let corpus = Self {
            encoder: Arc::clone(encoder),
            rows: rows.to_vec(),
            by_length: by_length.into_iter(),
            batch_notes: batch_notes.max(1),
            pool: thread_pool(0)?,
            stop: Arc::clone(&stop),
        };
        Ahead::new(corpus, READY, stop)
    }
}

impl Iterator for Corpus {
    type Item = Result<CorpusBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let places: Vec<usize> = self.by_length.by_ref().take(self.batch_notes).collect();
        if places.is_empty() {
            return None;
        }
        let rows = places.iter().map(|&place| self.rows[place]);
        let shown: Vec<Shown> = rows.map(Shown::own).collect();
        let encode = || self.encoder.encode_until(&shown, &self.stop);
        let notes = self.pool.install(encode).transpose()?;
        Some(notes.map(|notes| CorpusBatch { places, notes }))
    }
}
