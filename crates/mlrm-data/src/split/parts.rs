//! Which notes and which events go into which part.

use mlrm_config::{PairSettings, TestTargets};

use super::{Pair, PairSplit};
use crate::error::Result;
use crate::notes::NoteSet;
use crate::pairs::Span;

/// Which part of a split a note belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Part {
    /// Seen in training.
    #[default]
    Train,
    /// Held out to choose the best checkpoint.
    Validation,
    /// Held out for the final table.
    Test,
}

/// The part of every note: notes in the order of a seeded hash of their ids, the first share is
/// test, the next validation. So the parts do not depend on the order of the file, and most notes
/// stay where they are when others are added.
pub(super) fn assign_parts(notes: &NoteSet, rules: &PairSettings, seed: u64) -> Vec<Part> {
    let count = notes.len();
    let share = |of: usize, fraction: f64| ((of as f64 * fraction).round() as usize).min(of);
    let test = share(count, rules.test_fraction);
    let validation = share(count - test, rules.validation_fraction);
    let mut order: Vec<(u64, &str, usize)> = notes
        .rows()
        .iter()
        .enumerate()
        .map(|(row, note)| (seeded_hash(seed, &note.id), note.id.as_str(), row))
        .collect();
    order.sort_unstable();
    let mut parts = vec![Part::Train; count];
    for (place, (_, _, row)) in order.into_iter().enumerate().take(test + validation) {
        parts[row] = if place < test {
            Part::Test
        } else {
            Part::Validation
        };
    }
    parts
}

/// Where the 64-bit FNV-1a hash starts, and what it multiplies by.
pub(crate) const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
/// See [`FNV_START`].
pub(crate) const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The rounds of SplitMix64's finaliser: the value is mixed with itself shifted right by so many
/// bits, then multiplied.
pub(crate) const SPLIT_MIX: [(u32, u64); 3] = [
    (30, 0xbf58_476d_1ce4_e5b9),
    (27, 0x94d0_49bb_1331_11eb),
    (31, 1),
];

/// FNV-1a over the id, mixed with the seed by the finaliser of SplitMix64: fixed for all time,
/// unlike the standard library's hashes.
fn seeded_hash(seed: u64, id: &str) -> u64 {
    let hash = id.bytes().fold(FNV_START, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
    });
    mixed(hash ^ mixed_seed(seed))
}

/// What a seed adds to the hash of every id.
pub(crate) fn mixed_seed(seed: u64) -> u64 {
    mixed(seed.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

fn mixed(value: u64) -> u64 {
    SPLIT_MIX.iter().fold(value, |value, &(shift, factor)| {
        (value ^ (value >> shift)).wrapping_mul(factor)
    })
}

pub(super) fn may_pair(query: Part, target: Part, targets: TestTargets) -> bool {
    match (query, targets) {
        (Part::Train, _) | (_, TestTargets::HeldOut) => query == target,
        (Part::Validation, TestTargets::All) => target != Part::Test,
        (Part::Test, TestTargets::All) => true,
    }
}

pub(super) fn by_part(pairs: Vec<Pair>, parts: &[Part]) -> PairSplit {
    let mut split = PairSplit::default();
    for pair in pairs {
        match parts[pair.query as usize] {
            Part::Train => split.train.push(pair),
            Part::Validation => split.validation.push(pair),
            Part::Test => split.test.push(pair),
        }
    }
    split
}

/// The times before the validation part, of it, and of the test part, of a log of so many events. Events of one
/// time stay together in the later part. `at` gives the time at a place of all times in their order, and how
/// many events are earlier.
///
/// # Errors
/// Shares that are none; what `at` gives.
pub(super) fn cut_by_time(
    events: u64,
    rules: &PairSettings,
    at: impl Fn(u64) -> Result<(i64, u64)>,
) -> Result<[Span; 3]> {
    super::check_fractions(rules)?;
    // The time from which on the last `share` of the first `count` events lies.
    let cut = |count: u64, share: f64| {
        let held_out = (count as f64 * share).round() as u64;
        let place = count - held_out.min(count);
        (place < count).then(|| at(place)).transpose()
    };
    let test = cut(events, rules.test_fraction)?;
    let (test_from, before_test) = test.unwrap_or((i64::MAX, events));
    let validation = cut(before_test, rules.validation_fraction)?;
    let validation_from = validation.map_or(test_from, |(from, _)| from);
    Ok([
        Span {
            from: i64::MIN,
            to: Some(validation_from),
        },
        Span {
            from: validation_from,
            to: Some(test_from),
        },
        Span {
            from: test_from,
            to: None,
        },
    ])
}
