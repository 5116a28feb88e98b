//! Where in a Parquet file the pictures lie as they are, so that one is read without the page around it.
//!
//! A picture that is neither compressed nor encrypted is a run of bytes of its page, or of the dictionary before the pages. To read it
//! through the page costs the whole page, which in files without an offset index is mostly the row group: a hundred pictures for
//! one. So the first that is read of a page shows where all of them lie.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use memchr::memmem;

/// Where the pictures of some rows lie in the file; empty for those that do not lie there as they are.
pub(super) type Places = Arc<[Range<u64>]>;

/// The places that are known, by the first of the rows that lie together.
#[derive(Debug, Default)]
pub(super) struct KnownPlaces(RwLock<HashMap<u64, Places>>);

impl KnownPlaces {
    /// The places of the rows from `start` on. `learn` finds them the first time; threads that come at once may each do so.
    pub fn of(&self, start: u64, learn: impl FnOnce() -> Places) -> Places {
        // Nothing panics while it holds the lock.
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = known.get(&start) {
            return places.clone();
        }
        drop(known);
        let places = learn();
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(start, places.clone());
        places
    }
}

/// Finds pictures in parts of a file. What was found is the picture, since it was compared byte by byte.
pub(super) struct Finder<'a> {
    /// Where in the file each part begins, what it holds, and up to where pictures were found in it.
    parts: Vec<(u64, &'a [u8], usize)>,
}

impl<'a> Finder<'a> {
    /// Looks in these parts of a file, each with the place where it begins.
    pub fn new(parts: impl IntoIterator<Item = (u64, &'a [u8])>) -> Self {
        let parts = parts.into_iter().map(|(start, part)| (start, part, 0));
        Self {
            parts: parts.collect(),
        }
    }

    /// Where `picture` lies: mostly a few bytes after the one before it.
    pub fn find(&mut self, picture: &[u8]) -> Option<Range<u64>> {
        self.parts.iter_mut().find_map(|(start, part, next)| {
            let later = place_in(&part[*next..], picture).map(|at| *next + at);
            // A dictionary has a picture of several rows once.
            let at = later.or_else(|| place_in(part, picture))?;
            *next = at + picture.len();
            let from = *start + at as u64;
            Some(from..from + picture.len() as u64)
        })
    }
}

/// The first place of `picture`. It is looked for by its first bytes: to prepare a search for all of them takes longer than
/// to decode it.
fn place_in(part: &[u8], picture: &[u8]) -> Option<usize> {
    const HEAD: usize = 32;
    let head = &picture[..picture.len().min(HEAD)];
    // Where all begins alike the pages are read, rather than long compared.
    let mut places = memmem::find_iter(part, head).take(1 << 10);
    places.find(|&at| part[at..].starts_with(picture))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_found_in_any_order_and_in_any_part() {
        let (dictionary, page) = (b"..one....two..", b"--three--");
        let mut finder = Finder::new([(100, &dictionary[..]), (200, &page[..])]);
        for (picture, place) in [
            ("one", Some(102..105)),
            ("two", Some(109..112)),
            ("one", Some(102..105)),
            ("three", Some(202..207)),
            ("four", None),
            ("two", Some(109..112)),
        ] {
            assert_eq!(finder.find(picture.as_bytes()), place, "{picture}");
        }
    }

    #[test]
    fn pictures_that_begin_alike_are_told_apart() {
        let picture = |last: u8| [vec![7; 100], vec![last]].concat();
        let page = [picture(1), b"____".to_vec(), picture(2)].concat();
        let mut finder = Finder::new([(0, page.as_slice())]);
        assert_eq!(finder.find(&picture(2)), Some(105..206));
        assert_eq!(finder.find(&picture(1)), Some(0..101));
        assert_eq!(finder.find(&picture(3)), None);
        assert_eq!(Finder::new([(0, &page[..50])]).find(&picture(1)), None);
    }

    #[test]
    fn places_are_learned_once() {
        let known = KnownPlaces::default();
        let places: Places = [3..5, 0..0].into();
        assert_eq!(known.of(7, || places.clone()), places);
        assert_eq!(known.of(7, || unreachable!("they are known")), places);
        assert!(known.of(8, || [].into()).is_empty());
    }
}
