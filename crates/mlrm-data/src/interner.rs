//! Texts as dense numbers.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use rayon::prelude::*;

/// Tables that the texts are divided among by their hash. One of ten million ids then fits into a processor's cache,
/// where a table of all of them would wait for memory at every look.
const SHARDS: usize = 512;

/// Texts as dense numbers, in the order of first appearance.
#[derive(Debug, Clone)]
pub struct Interner {
    hasher: RandomState,
    /// The numbers of the texts of each shard.
    shards: Vec<HashMap<Box<str>, u32>>,
    texts: Vec<String>,
    /// The number that was asked for last.
    last: u32,
}

impl Default for Interner {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: vec![HashMap::new(); SHARDS],
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
        let shards: Vec<u16> = (0..texts.len())
            .into_par_iter()
            .with_min_len(1 << 10)
            .map(|row| self.shard(texts.get(row)) as u16)
            .collect();
        let rows = rows_by_shard(&shards);
        let looked_up: Vec<LookedUp> = self
            .shards
            .par_iter()
            .zip(&rows)
            .map(|(known, rows)| look_up(known, rows, texts))
            .collect();

        // Where a new text stands first, its number is written; the rows that repeat it look there.
        let mut first_rows: Vec<u32> = looked_up
            .iter()
            .flat_map(|found| &found.first_rows)
            .copied()
            .collect();
        first_rows.sort_unstable();
        let mut numbers = vec![0; texts.len()];
        for &row in &first_rows {
            numbers[row as usize] = self.texts.len() as u32;
            self.texts.push(texts.get(row as usize).to_owned());
        }
        self.shards
            .par_iter_mut()
            .zip(&looked_up)
            .for_each(|(shard, found)| {
                let fresh = found.first_rows.iter().map(|&row| row as usize);
                shard.extend(fresh.map(|row| (texts.get(row).into(), numbers[row])));
            });
        for (rows, found) in rows.iter().zip(&looked_up) {
            for (&row, place) in rows.iter().zip(&found.places) {
                numbers[row as usize] = match *place {
                    Place::Known(number) => number,
                    Place::AsRow(first) => numbers[first as usize],
                };
            }
        }
        numbers
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
        // The table of a shard goes by another hash: its keys are random.
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

/// What a shard knows of its rows of a batch.
struct LookedUp {
    /// One for each row.
    places: Vec<Place>,
    /// Rows with texts that were not known, each where it stands first.
    first_rows: Vec<u32>,
}

enum Place {
    Known(u32),
    /// The number of this row, which is the first with the same text.
    AsRow(u32),
}

/// The rows of each shard, ascending.
fn rows_by_shard(shards: &[u16]) -> Vec<Vec<u32>> {
    let mut rows = vec![Vec::new(); SHARDS];
    for (row, &shard) in (0..).zip(shards) {
        rows[usize::from(shard)].push(row);
    }
    rows
}

fn look_up(known: &HashMap<Box<str>, u32>, rows: &[u32], texts: &Texts) -> LookedUp {
    let mut fresh: HashMap<&str, u32> = HashMap::new();
    let mut first_rows = Vec::new();
    let places = rows.iter().map(|&row| {
        let text = texts.get(row as usize);
        match known.get(text) {
            Some(&number) => Place::Known(number),
            None => Place::AsRow(*fresh.entry(text).or_insert_with(|| {
                first_rows.push(row);
                row
            })),
        }
    });
    LookedUp {
        places: places.collect(),
        first_rows,
    }
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
