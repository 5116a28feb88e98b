//! Texts as dense numbers.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::ops::Range;

use compact_str::CompactString;
use foldhash::fast::RandomState;
use rayon::prelude::*;

/// Tables that the texts are divided among by their hash. One of some million ids then fits into a processor's cache,
/// where a table of all of them would wait for memory at every look. Ids of up to 24 bytes lie in the table itself.
const SHARDS: usize = 512;

/// Numbers of texts.
type Table = HashMap<CompactString, u32, RandomState>;

/// Texts as dense numbers, in the order of first appearance.
#[derive(Debug, Clone)]
pub struct Interner {
    hasher: RandomState,
    /// The numbers of the texts of each shard.
    shards: Vec<Table>,
    texts: Vec<String>,
    /// The number that was asked for last.
    last: u32,
}

impl Default for Interner {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            shards: vec![Table::default(); SHARDS],
            texts: Vec::new(),
            last: 0,
        }
    }
}

impl Interner {
    /// The number of a text, new or known.
    pub fn intern(&mut self, text: &str) -> u32 {
        // Most logs hold one user's events in a row.
        let last = self.texts.get(self.last as usize);
        if last.is_some_and(|last| last == text) {
            return self.last;
        }
        let shard = self.shard(text);
        self.last = match self.shards[shard].get(text) {
            Some(&number) => number,
            None => {
                let number = self.texts.len() as u32;
                self.shards[shard].insert(text.into(), number);
                self.texts.push(text.to_owned());
                number
            }
        };
        self.last
    }

    /// The numbers of many texts, as [`Self::intern`] gives them one after another, on all threads.
    pub(crate) fn intern_all(&mut self, texts: &Texts) -> Vec<u32> {
        let chunks = rayon::current_num_threads();
        let rows_of =
            |chunk: usize| texts.len() * chunk / chunks..texts.len() * (chunk + 1) / chunks;
        let divided: Vec<Vec<Rows>> = (0..chunks)
            .into_par_iter()
            .map(|chunk| self.divide(texts, rows_of(chunk)))
            .collect();
        let found: Vec<Found> = self
            .shards
            .par_iter()
            .enumerate()
            .map(|(shard, known)| look_up(known, divided.iter().map(|chunk| &chunk[shard])))
            .collect();

        // New texts get their numbers in the order of the rows.
        let mut numbers = vec![0; texts.len()];
        let fresh = found.iter().flat_map(|found| &found.fresh);
        let mut first_rows: Vec<u32> = fresh.map(|&(row, _)| row).collect();
        first_rows.sort_unstable();
        for &row in &first_rows {
            numbers[row as usize] = self.texts.len() as u32;
            self.texts.push(texts.get(row as usize).to_owned());
        }
        let shards = self.shards.par_iter_mut().zip(&found);
        shards.for_each(|(shard, found)| {
            let fresh = found.fresh.iter();
            shard.extend(fresh.map(|&(row, text)| (text.into(), numbers[row as usize])));
        });
        for place in found.iter().flat_map(|found| &found.places) {
            numbers[place.row as usize] = match place.number {
                Number::Known(number) => number,
                Number::OfRow(first) => numbers[first as usize],
            };
        }
        numbers
    }

    /// Some rows by the shards of their texts: what a shard looks at lies together.
    fn divide(&self, texts: &Texts, rows: Range<usize>) -> Vec<Rows> {
        let mut divided = vec![Rows::default(); SHARDS];
        for row in rows {
            let text = texts.get(row);
            let own = &mut divided[self.shard(text)];
            own.rows.push(row as u32);
            own.texts.push(text);
        }
        divided
    }

    /// The number of a known text.
    pub fn number(&self, text: &str) -> Option<u32> {
        self.shards[self.shard(text)].get(text).copied()
    }

    /// All texts, by number.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// How many texts are known.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    fn shard(&self, text: &str) -> usize {
        // The table of a shard goes by another hash: a state of its own.
        self.hasher.hash_one(text) as usize % SHARDS
    }
}

impl std::ops::Index<u32> for Interner {
    type Output = str;

    fn index(&self, number: u32) -> &str {
        &self.texts[number as usize]
    }
}

/// Many texts in one piece of memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Texts {
    all: String,
    /// Where each text ends.
    ends: Vec<usize>,
}

impl Texts {
    pub(crate) fn push(&mut self, text: &str) {
        self.all.push_str(text);
        self.ends.push(self.all.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.all[start..self.ends[index]]
    }
}

/// Rows of a batch, and their texts.
#[derive(Clone, Default)]
struct Rows {
    rows: Vec<u32>,
    texts: Texts,
}

/// What a shard knows of its rows.
struct Found<'a> {
    places: Vec<Place>,
    /// Texts that were not known, and the row where each stands first.
    fresh: Vec<(u32, &'a str)>,
}

struct Place {
    row: u32,
    number: Number,
}

enum Number {
    Known(u32),
    /// That of this row, which is the first with the same text.
    OfRow(u32),
}

fn look_up<'a>(known: &Table, chunks: impl Iterator<Item = &'a Rows>) -> Found<'a> {
    let mut first_rows: HashMap<&str, u32, RandomState> = HashMap::default();
    let (mut places, mut fresh) = (Vec::new(), Vec::new());
    for chunk in chunks {
        for (index, &row) in chunk.rows.iter().enumerate() {
            let text = chunk.texts.get(index);
            let number = match known.get(text) {
                Some(&number) => Number::Known(number),
                None => Number::OfRow(*first_rows.entry(text).or_insert_with(|| {
                    fresh.push((row, text));
                    row
                })),
            };
            places.push(Place { row, number });
        }
    }
    Found { places, fresh }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn many_at_a_time_get_the_numbers_of_one_after_another() {
        proptest!(ProptestConfig::with_cases(100), |(
            batches in prop::collection::vec(prop::collection::vec(0..400_u32, 0..300), 1..5),
            one_by_one in prop::collection::vec(0..400_u32, 0..20),
        )| {
            let (mut single, mut many) = (Interner::default(), Interner::default());
            for batch in &batches {
                let mut texts = Texts::default();
                batch.iter().for_each(|id| texts.push(&format!("é{id}")));
                let expected: Vec<u32> = batch.iter().map(|id| single.intern(&format!("é{id}"))).collect();
                prop_assert_eq!(many.intern_all(&texts), expected);
                // Both ways may be mixed.
                for id in &one_by_one {
                    prop_assert_eq!(many.intern(&id.to_string()), single.intern(&id.to_string()));
                }
            }
            prop_assert_eq!(many.texts(), single.texts());
            for (number, text) in (0..).zip(many.texts()) {
                prop_assert_eq!(many.number(text), Some(number));
            }
            prop_assert_eq!(many.number("none"), None);
        });
    }
}
