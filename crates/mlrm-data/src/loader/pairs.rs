//! Batches of pairs, made ahead of the step.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mlrm_config::{DataSettings, SwapSettings, TrainSettings};
use rayon::ThreadPool;

use super::{Ahead, NoteEncoder, Shown, Swap, thread_pool};
use crate::batch::NoteBatch;
use crate::error::{DataError, Result};
use crate::order::{Cursor, LengthWindows, PairOrder};
use crate::split::Pair;

/// How batches are made.
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderSettings {
    /// Pairs of a batch (B); it holds 2B notes.
    pub batch_pairs: usize,
    /// Threads that encode notes; 0 takes half of the machine's, at most 16.
    pub threads: usize,
    /// Batches that are ready before they are asked for; 0 makes each when it is asked for.
    pub prefetch_batches: usize,
    /// Which notes show parts of others.
    pub swap: SwapSettings,
    /// Whether a note that stands at several places of a batch, and shows the same at them, is one
    /// note of it.
    pub merge_duplicates: bool,
    /// Batches among which pairs are sorted by length ([`LengthWindows`]); 0 does not sort.
    pub length_window_batches: usize,
}

impl LoaderSettings {
    /// The settings of a run.
    pub fn new(data: &DataSettings, train: &TrainSettings) -> Self {
        Self {
            batch_pairs: train.batch_pairs,
            threads: data.loader_threads,
            prefetch_batches: data.prefetch_batches,
            swap: train.swap.clone(),
            merge_duplicates: train.merge_duplicates,
            length_window_batches: train.length_window_batches,
        }
    }
}

/// A batch, and where the order stands after it.
type Item = Result<(Cursor, NoteBatch)>;

/// The batches of training, without end: [`PairOrder`]'s pairs, queries first, then their targets, at
/// the places of notes that are sorted by length, so that neighbours are padded little. Each comes
/// with the cursor that continues behind it.
///
/// Batches are the same for every number of threads. After an error there are no more. Dropping the
/// iterator stops the threads; at most the notes that they are at are finished first.
#[derive(Debug)]
pub struct PairBatches(Ahead<Producer, Item>);

impl PairBatches {
    /// Batches of `pairs` in the order of `seed`, from `cursor` on.
    ///
    /// # Errors
    /// No pairs, or a system that gives no threads.
    pub fn new(
        encoder: Arc<NoteEncoder>,
        pairs: Arc<[Pair]>,
        seed: u64,
        cursor: Cursor,
        settings: LoaderSettings,
    ) -> Result<Self> {
        let count = u32::try_from(pairs.len()).ok().filter(|&count| count > 0);
        let count = count.ok_or_else(|| {
            DataError::setting(
                "data.pairs",
                format!("there are {} pairs to train on", pairs.len()),
                "check the log and the bounds of `data.pairs`",
            )
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let drawn = Drawn::new(&encoder, pairs, count, seed, cursor, &settings);
        let producer = Producer {
            encoder,
            drawn,
            merge_duplicates: settings.merge_duplicates,
            pool: thread_pool(settings.threads)?,
            stop: Arc::clone(&stop),
        };
        Ok(Self(Ahead::new(producer, settings.prefetch_batches, stop)?))
    }
}

impl Iterator for PairBatches {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        self.0.next()
    }
}

/// How many notes each of the first `batches` batches embeds, as [`PairBatches`] makes them: each of
/// its notes once, or one at each place. None where there are no pairs.
pub fn batch_notes(
    encoder: &NoteEncoder,
    pairs: &[Pair],
    seed: u64,
    settings: &LoaderSettings,
    batches: usize,
) -> Vec<usize> {
    let Some(count) = u32::try_from(pairs.len()).ok().filter(|&count| count > 0) else {
        return Vec::new();
    };
    if !settings.merge_duplicates {
        return vec![2 * settings.batch_pairs; batches];
    }
    let start = Cursor::default();
    let mut drawn = Drawn::new(encoder, pairs, count, seed, start, settings);
    let different = |_| drawn.next_batch().into_iter().collect::<HashSet<_>>().len();
    (0..batches).map(different).collect()
}

/// Windows over `pairs`, each as long as the longer of its notes.
fn length_windows(
    encoder: &NoteEncoder,
    pairs: &[Pair],
    settings: &LoaderSettings,
) -> LengthWindows {
    let notes: Vec<usize> = (0..encoder.notes().len() as u32)
        .map(|row| encoder.text_bytes(&Shown::own(row)))
        .collect();
    let length = |pair: &Pair| notes[pair.query as usize].max(notes[pair.target as usize]);
    LengthWindows {
        lengths: pairs.iter().map(length).collect(),
        batch_pairs: settings.batch_pairs,
        window_batches: settings.length_window_batches,
    }
}

/// What stands at the places of one batch after the other.
#[derive(Debug)]
struct Drawn<P> {
    pairs: P,
    order: PairOrder,
    swap: Option<Swap>,
    batch_pairs: usize,
}

impl<P: AsRef<[Pair]>> Drawn<P> {
    /// `count` of `pairs` in the order of `seed`, from `cursor` on.
    fn new(
        encoder: &NoteEncoder,
        pairs: P,
        count: u32,
        seed: u64,
        cursor: Cursor,
        settings: &LoaderSettings,
    ) -> Self {
        let mut order = PairOrder::new(count, seed, cursor);
        if settings.length_window_batches > 0 {
            order = order.in_windows(length_windows(encoder, pairs.as_ref(), settings));
        }
        Self {
            swap: Swap::new(&settings.swap, pairs.as_ref(), seed),
            pairs,
            order,
            batch_pairs: settings.batch_pairs,
        }
    }

    /// The next batch: queries first, then their targets.
    fn next_batch(&mut self) -> Vec<Shown> {
        let drawn = self.order.next_batch(self.batch_pairs);
        let shown = drawn.into_iter().map(|(place, index)| {
            let Pair { query, target, .. } = self.pairs.as_ref()[index];
            match &self.swap {
                Some(swap) => swap.draw(place, query, target),
                None => [query, target].map(Shown::own),
            }
        });
        let (queries, targets): (Vec<Shown>, Vec<Shown>) =
            shown.map(|[query, target]| (query, target)).unzip();
        [queries, targets].concat()
    }
}

/// Makes one batch after the other.
#[derive(Debug)]
struct Producer {
    encoder: Arc<NoteEncoder>,
    drawn: Drawn<Arc<[Pair]>>,
    merge_duplicates: bool,
    /// Apart from rayon's global pool, which the step may keep busy.
    pool: ThreadPool,
    stop: Arc<AtomicBool>,
}

impl Iterator for Producer {
    type Item = Item;

    /// The next batch; `None` once `stop` is set.
    fn next(&mut self) -> Option<Item> {
        let shown = self.drawn.next_batch();
        let (notes, places) = self.arrange(&shown);
        let cursor = self.drawn.order.cursor();
        let encode = || self.encoder.encode_until(&notes, &self.stop);
        let batch = self.pool.install(encode).transpose()?;
        Some(batch.map(|batch| (cursor, NoteBatch { places, ..batch })))
    }
}

impl Producer {
    /// The notes of a batch, short ones first, and which of them stands at each place of `shown`.
    fn arrange(&self, shown: &[Shown]) -> (Vec<Shown>, Vec<usize>) {
        let mut order: Vec<usize> = (0..shown.len()).collect();
        order.sort_by_cached_key(|&place| self.encoder.text_bytes(&shown[place]));
        let (mut notes, mut places) = (Vec::new(), vec![0; shown.len()]);
        let mut merged = HashMap::new();
        for place in order {
            let next = notes.len();
            let note = match self.merge_duplicates {
                true => *merged.entry(shown[place]).or_insert(next),
                false => next,
            };
            if note == next {
                notes.push(shown[place]);
            }
            places[place] = note;
        }
        (notes, places)
    }
}
