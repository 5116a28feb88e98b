//! From events to scored pairs, one query note at a time.
//!
//! The obvious way (list every co-occurrence of every user, then add up) needs memory for all of
//! them, which is quadratic in the events of a user. Here the events are sorted by user and time
//! once; then, for each note A, the users that saw A are walked, and for each of them the events
//! within the window after A. All scores of A stand in one array over the notes, of which only the
//! best partners are kept. Memory is linear in events, notes and the result; the work is the number
//! of co-occurrences; every note is independent of every other, so all cores take part; and no
//! result depends on the order of rows, users or threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use mlrm_config::{PairSettings, PairWeight, Ties, id_ranks};
use rayon::prelude::*;

use super::ScoredPair;
use super::inverse_sum::{exact_sum, round_fixed};
use super::losses::{EventLosses, Losses, PairLosses};
use super::timeline::{Occurrences, Timeline};
use crate::error::Result;
use crate::interactions::{Interaction, Interactions};

/// Checked numbers of [`PairSettings`].
#[derive(Debug, Clone, PartialEq)]
pub struct Scoring {
    /// Longest time from the first view to the second, inclusive.
    pub window_seconds: i64,
    /// What views at the same time are.
    pub ties: Ties,
    /// How co-occurrences add up.
    pub weight: PairWeight,
    /// Pairs that fewer users have in common are dropped.
    pub min_users: u32,
    /// Smallest score kept, inclusive.
    pub lower: Option<f64>,
    /// Largest score kept, inclusive.
    pub upper: Option<f64>,
    /// Partners kept for each note.
    pub top_k: Option<usize>,
    /// Only so many most recent events of a user count, also for the user's activity; of equal
    /// times those with the larger id stay.
    pub max_events_per_user: Option<usize>,
}

impl Scoring {
    /// Of settings that are valid. The window is rounded to whole seconds, as times are whole seconds.
    ///
    /// # Errors
    /// What [`PairSettings::validate`] finds.
    pub fn new(settings: &PairSettings) -> Result<Self> {
        const SECONDS_PER_DAY: f64 = 86_400.0;
        settings.validate()?;
        Ok(Self {
            window_seconds: (settings.window_days * SECONDS_PER_DAY).round() as i64,
            ties: settings.ties,
            weight: settings.weight,
            min_users: settings.min_users,
            lower: settings.lower,
            upper: settings.upper,
            top_k: settings.top_k,
            max_events_per_user: settings.max_events_per_user,
        })
    }

    /// The same but for the partners kept for each note; `None` keeps all.
    pub fn keeping(&self, top_k: Option<usize>) -> Self {
        Self {
            top_k,
            ..self.clone()
        }
    }

    fn keeps(&self, weight: f64) -> bool {
        self.lower.is_none_or(|lower| weight >= lower)
            && self.upper.is_none_or(|upper| weight <= upper)
    }
}

/// Pairs of a log, and what was dropped on the way to them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scored {
    /// Query ascending by id, then weight descending, then target ascending by id.
    pub pairs: Vec<ScoredPair>,
    /// What was dropped.
    pub dropped: PairLosses,
}

impl Scored {
    /// Why there are no more pairs, where there are fewer than notes (that is fewer than one for
    /// each) and a rule took something. `events` are those that the pairs come from.
    pub fn losses(
        &self,
        log: &Interactions,
        events: &[Interaction],
        scoring: &Scoring,
    ) -> Option<Losses> {
        if self.pairs.len() >= log.notes.len() {
            return None;
        }
        let losses = Losses {
            events: events.len() as u64,
            lost_events: EventLosses::of(log, events, scoring),
            lost_pairs: self.dropped,
        };
        losses.is_some().then_some(losses)
    }
}

/// All pairs of a log: query ascending by id, then weight descending, then target ascending by id.
pub fn score_pairs(log: &Interactions, scoring: &Scoring) -> Vec<ScoredPair> {
    score_pairs_where(log, &log.events, scoring, |_, _| true).pairs
}

/// As [`score_pairs`], from some `events` of the log, and for the pairs (query, target) that
/// `eligible` lets pass. It is asked before `top_k` cuts, so a note has its best *eligible*
/// partners.
pub fn score_pairs_where(
    log: &Interactions,
    events: &[Interaction],
    scoring: &Scoring,
    eligible: impl Fn(u32, u32) -> bool + Sync,
) -> Scored {
    let ranks = id_ranks(log.notes.texts());
    let timeline = Timeline::new(events, log.users.len(), &ranks, scoring);
    let context = Context {
        scoring,
        ranks: &ranks,
        timeline: &timeline,
    };
    score_notes(&context, &by_rank(&ranks), eligible)
}

/// The notes in the order of their ranks.
pub(super) fn by_rank(ranks: &[u32]) -> Vec<u32> {
    let mut by_rank = vec![0; ranks.len()];
    for (note, &rank) in ranks.iter().enumerate() {
        by_rank[rank as usize] = note as u32;
    }
    by_rank
}

/// The pairs of these query notes, in this order.
pub(super) fn score_notes<O: Occurrences>(
    context: &Context<'_, O>,
    queries: &[u32],
    eligible: impl Fn(u32, u32) -> bool + Sync,
) -> Scored {
    // Each worker has one set of arrays over the notes, and takes the next few notes when it is
    // done with the last: popular notes cost far more than others.
    const NOTES_AT_A_TIME: usize = 16;
    let next = AtomicUsize::new(0);
    let work = |_| {
        let mut scores = Scores::new(context.ranks.len(), context.scoring.weight);
        let mut found = Found::default();
        loop {
            let start = next.fetch_add(NOTES_AT_A_TIME, Ordering::Relaxed);
            if start >= queries.len() {
                return found;
            }
            let end = queries.len().min(start + NOTES_AT_A_TIME);
            for (place, &note) in queries.iter().enumerate().take(end).skip(start) {
                let first = found.pairs.len();
                let timeline = context.timeline;
                timeline.walk(note, |target, user, term| scores.add(target, user, term));
                scores.take_best(context, note, &eligible, &mut found);
                found.spans.push((place, first, found.pairs.len()));
            }
        }
    };
    let workers = rayon::current_num_threads();
    let parts: Vec<Found> = (0..workers).into_par_iter().map(work).collect();

    let mut dropped = PairLosses::default();
    for part in &parts {
        dropped += part.dropped;
    }
    let mut spans: Vec<_> = parts
        .iter()
        .flat_map(|part| {
            let pairs = &part.pairs;
            part.spans
                .iter()
                .map(|&(place, first, end)| (place, &pairs[first..end]))
        })
        .collect();
    spans.sort_unstable_by_key(|&(place, _)| place);
    let pairs = spans.into_iter().flat_map(|(_, pairs)| pairs).copied();
    Scored {
        pairs: pairs.collect(),
        dropped,
    }
}

/// What all workers read.
pub(super) struct Context<'a, O> {
    pub(super) scoring: &'a Scoring,
    pub(super) ranks: &'a [u32],
    pub(super) timeline: &'a O,
}

/// Pairs that one worker found; a span says which of them belong to the query of a place.
#[derive(Default)]
pub(super) struct Found {
    pub(super) pairs: Vec<ScoredPair>,
    spans: Vec<(usize, usize, usize)>,
    pub(super) dropped: PairLosses,
}

/// Scores of all partners of one note, in arrays over the notes that are reused for every note.
pub(super) struct Scores {
    weight: PairWeight,
    touched: Vec<u32>,
    /// Users in common.
    users: Vec<u32>,
    /// The last user that was added, plus 1.
    last_user: Vec<u32>,
    /// Occurrences, or the fixed-point sum of inverse activities; empty where neither is needed.
    sums: Vec<u128>,
    candidates: Vec<(f64, u32)>,
}

impl Scores {
    pub(super) fn new(notes: usize, weight: PairWeight) -> Self {
        let has_sums = matches!(weight, PairWeight::Events | PairWeight::InverseActivity);
        Self {
            weight,
            touched: Vec::new(),
            users: vec![0; notes],
            last_user: vec![0; notes],
            sums: vec![0; if has_sums { notes } else { 0 }],
            candidates: Vec::new(),
        }
    }

    #[inline]
    pub(super) fn add(&mut self, target: u32, user: u32, term: u128) {
        let index = target as usize;
        let first_of_user = self.last_user[index] != user + 1;
        if first_of_user {
            self.last_user[index] = user + 1;
            if self.users[index] == 0 {
                self.touched.push(target);
            }
            self.users[index] += 1;
        }
        if (first_of_user || self.weight == PairWeight::Events)
            && let Some(sum) = self.sums.get_mut(index)
        {
            *sum += term;
        }
    }

    /// The notes that were added.
    pub(super) fn partners(&self) -> &[u32] {
        &self.touched
    }

    /// Whether the weight of a note needs all activities.
    pub(super) fn is_unsure(&self, target: u32) -> bool {
        let (users, index) = (self.users[target as usize], target as usize);
        self.weight == PairWeight::InverseActivity && round_fixed(self.sums[index], users).is_none()
    }

    /// Appends the best partners of `query` to `found`, and is empty again.
    pub(super) fn take_best<O: Occurrences>(
        &mut self,
        context: &Context<'_, O>,
        query: u32,
        eligible: &impl Fn(u32, u32) -> bool,
        found: &mut Found,
    ) {
        let Context {
            scoring,
            ranks,
            timeline,
        } = context;
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        let mut touched = std::mem::take(&mut self.touched);
        for target in touched.drain(..) {
            let index = target as usize;
            if self.users[index] < scoring.min_users {
                found.dropped.min_users += 1;
            } else if !eligible(query, target) {
                found.dropped.split += 1;
            } else {
                let weight = self.weight_of(*timeline, query, target);
                match scoring.keeps(weight) {
                    true => candidates.push((weight, target)),
                    false => found.dropped.bounds += 1,
                }
            }
            self.users[index] = 0;
            self.last_user[index] = 0;
            if let Some(sum) = self.sums.get_mut(index) {
                *sum = 0;
            }
        }
        let rank = |note: u32| ranks[note as usize];
        let better = |a: &(f64, u32), b: &(f64, u32)| {
            b.0.total_cmp(&a.0).then_with(|| rank(a.1).cmp(&rank(b.1)))
        };
        let kept = scoring.top_k.unwrap_or(usize::MAX);
        if kept < candidates.len() {
            found.dropped.top_k += (candidates.len() - kept) as u64;
            if kept > 0 {
                candidates.select_nth_unstable_by(kept - 1, better);
            }
            candidates.truncate(kept);
        }
        candidates.sort_unstable_by(better);
        found
            .pairs
            .extend(candidates.iter().map(|&(weight, target)| ScoredPair {
                query,
                target,
                weight,
            }));
        self.touched = touched;
        self.candidates = candidates;
    }

    fn weight_of(&self, timeline: &impl Occurrences, query: u32, target: u32) -> f64 {
        let users = self.users[target as usize];
        match self.weight {
            PairWeight::Count => f64::from(users),
            PairWeight::Events => self.sums[target as usize] as f64,
            PairWeight::InverseActivity => round_fixed(self.sums[target as usize], users)
                .unwrap_or_else(|| exact_sum(timeline.common_activities(query, target))),
            PairWeight::Cosine => {
                let audience = |note: u32| u64::from(timeline.audience(note));
                f64::from(users) / ((audience(query) * audience(target)) as f64).sqrt()
            }
        }
    }
}
