//! Training notes that show parts of other notes (`[train.swap]`).

use std::borrow::Cow;

use mlrm_config::{SwapField, SwapSettings, SwapSide};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::clean::without_last_graphemes;
use crate::notes::{Note, NoteSet};
use crate::order::{Cursor, below};
use crate::split::Pair;

/// A note of a batch, and whose parts it shows; rows of a [`NoteSet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shown {
    /// Whose place in the batch it is.
    pub row: u32,
    /// Whose title it shows.
    pub title: u32,
    /// Whose topics.
    pub topics: u32,
    /// Whose content.
    pub content: u32,
    /// Whose picture.
    pub image: u32,
    /// Last graphemes of its own title that stand behind another's.
    pub own_title_end: usize,
}

impl Shown {
    /// A note that shows all of its own.
    pub fn own(row: u32) -> Self {
        Self {
            row,
            title: row,
            topics: row,
            content: row,
            image: row,
            own_title_end: 0,
        }
    }

    /// The note as its prompt shall tell it, under its own id.
    pub(super) fn text<'a>(&self, notes: &'a NoteSet) -> Cow<'a, Note> {
        let own = &notes[self.row];
        if [self.title, self.topics, self.content] == [self.row; 3] {
            return Cow::Borrowed(own);
        }
        let title = if self.title == self.row {
            own.title.clone()
        } else {
            let other = without_last_graphemes(&notes[self.title].title, self.own_title_end);
            let cut = without_last_graphemes(&own.title, self.own_title_end).len();
            format!("{other}{}", &own.title[cut..])
        };
        Cow::Owned(Note {
            id: own.id.clone(),
            title,
            topics: notes[self.topics].topics.clone(),
            content: notes[self.content].content.clone(),
            ..Note::default()
        })
    }
}

/// Draws which notes of training show parts of others.
#[derive(Debug)]
pub struct Swap {
    settings: SwapSettings,
    /// The notes whose parts are shown: those of the training pairs, ascending.
    donors: Vec<u32>,
    seed: u64,
}

impl Swap {
    /// The draws of a run; `None` where nothing is swapped.
    pub fn new(settings: &SwapSettings, pairs: &[Pair], seed: u64) -> Option<Self> {
        let mut donors: Vec<u32> = pairs.iter().flat_map(|p| [p.query, p.target]).collect();
        donors.sort_unstable();
        donors.dedup();
        let swaps = settings.share > 0.0 && !donors.is_empty();
        swaps.then(|| Self {
            settings: settings.clone(),
            donors,
            seed,
        })
    }

    /// What the two notes of the pair drawn at `place` show. It depends on seed and place alone, so
    /// a resumed run shows what an uninterrupted one does.
    pub fn draw(&self, place: Cursor, query: u32, target: u32) -> [Shown; 2] {
        let mut random = self.random(place);
        let query = self.note(&mut random, query);
        let target = match self.settings.side {
            SwapSide::Both => self.note(&mut random, target),
            SwapSide::Query => Shown::own(target),
        };
        [query, target]
    }

    fn note(&self, random: &mut ChaCha8Rng, row: u32) -> Shown {
        let mut shown = Shown::own(row);
        if uniform(random) >= self.settings.share {
            return shown;
        }
        for field in &self.settings.fields {
            let donor = self.donors[below(random, self.donors.len() as u32) as usize];
            match field {
                SwapField::Title => {
                    shown.title = donor;
                    shown.own_title_end = self.settings.keep_title_end_chars;
                }
                SwapField::Topics => shown.topics = donor,
                SwapField::Content => shown.content = donor,
                SwapField::Image => shown.image = donor,
            }
        }
        shown
    }

    /// A generator of its own for every place: a stream an epoch, in it a stretch a pair that is far
    /// longer than the few words that its draws take.
    fn random(&self, place: Cursor) -> ChaCha8Rng {
        const WORDS_PER_PAIR: u128 = 1 << 10;
        let mut key = *b"mlrm note swaps\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        key[24..].copy_from_slice(&self.seed.to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        random.set_stream(place.epoch);
        random.set_word_pos(u128::from(place.position) * WORDS_PER_PAIR);
        random
    }
}

/// A uniform number in [0, 1) of 32 random bits.
fn uniform(random: &mut impl Rng) -> f64 {
    f64::from(random.next_u32()) / 4_294_967_296.0
}
