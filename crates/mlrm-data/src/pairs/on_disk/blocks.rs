//! Scores of the notes of a log on disk, a block of them at a time.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use mlrm_config::PairWeight;
use rayon::prelude::*;

use super::{DiskLog, Span};
use crate::error::Result;
use crate::pairs::ScoredPair;
use crate::pairs::inverse_sum::fixed_inverse;
use crate::pairs::losses::{EventLosses, Losses};
use crate::pairs::score::{Context, Found, Scored, Scores, Scoring, score_notes};
use crate::pairs::timeline::{Occurrences, View, Window};

/// Fewest co-occurrences that are held, however little memory there is for them.
const FEWEST: u64 = if cfg!(test) { 1 } else { 1 << 16 };

/// Memory of a note while pairs are scored: its id, ranks, users and reach.
const NOTE_BYTES: u64 = 96;

/// Memory of a note in the sums of a thread.
const SCORE_BYTES: u64 = 32;

/// Co-occurrences that a thread gathers before it hands them over.
const BATCH: usize = 1 << 14;

/// Activities whose inverse is looked up.
const LOOKED_UP: u32 = 1 << 12;

/// That a user saw a note within the window after another; of notes the ranks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Occurrence {
    query: u32,
    user: u32,
    target: u32,
    /// N_u.
    activity: u32,
}

/// What one look at the log tells before its notes are scored.
struct Survey {
    /// Distinct users of each rank, by the events that count.
    audience: Vec<u32>,
    /// For each rank the most co-occurrences that begin with it.
    reach: Vec<u64>,
    /// Events of these times.
    events: u64,
    losses: EventLosses,
}

impl DiskLog {
    /// All pairs of the events of some times, and why there are few.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub(crate) fn score(
        &self,
        span: Span,
        scoring: &Scoring,
        eligible: impl Fn(u32, u32) -> bool + Sync,
    ) -> Result<(Scored, Option<Losses>)> {
        let survey = self.survey(span, scoring)?;
        let notes = self.by_rank.len();
        let ranks: Vec<u32> = (0..notes as u32).collect();
        let of_ranks =
            |query: u32, target: u32| eligible(self.note_of(query), self.note_of(target));
        let mut scored = Scored::default();
        let pairs_bytes =
            most_pairs(&survey.reach, scoring).saturating_mul(size_of::<ScoredPair>() as u64);
        if pairs_bytes <= self.memory_bytes {
            // Growing by doubling would hold the pairs one and a half times; a system that has not the room may do so.
            let pairs = pairs_bytes as usize / size_of::<ScoredPair>();
            let _ = scored.pairs.try_reserve_exact(pairs);
        }
        let most = self.most_occurrences(pairs_bytes);
        for range in blocks(&survey.reach, most) {
            let block = match self.pieces(&survey, &range, most) {
                1 => {
                    let block = self.gather((span, scoring), &survey, range.clone(), (1, 0))?;
                    let context = Context {
                        scoring,
                        ranks: &ranks,
                        timeline: &block,
                    };
                    let queries: Vec<u32> = range.collect();
                    score_notes(&context, &queries, of_ranks)
                }
                pieces => {
                    let rules = (span, scoring);
                    self.score_piecewise(rules, &survey, &ranks, range.start, pieces, of_ranks)?
                }
            };
            scored.dropped += block.dropped;
            let named = |pair: ScoredPair| ScoredPair {
                query: self.note_of(pair.query),
                target: self.note_of(pair.target),
                ..pair
            };
            scored.pairs.extend(block.pairs.into_iter().map(named));
        }
        let losses = Losses {
            events: survey.events,
            lost_events: survey.losses,
            lost_pairs: scored.dropped,
        };
        let few = scored.pairs.len() < notes && losses.is_some();
        Ok((scored, few.then_some(losses)))
    }

    /// How many co-occurrences are gathered at a time: half of what memory has beside what is held all the time, the pairs
    /// among it.
    fn most_occurrences(&self, pairs_bytes: u64) -> u64 {
        let for_each_note = NOTE_BYTES + rayon::current_num_threads() as u64 * SCORE_BYTES;
        let held = (self.by_rank.len() as u64 * for_each_note).saturating_add(pairs_bytes);
        let rest = self.memory_bytes.saturating_sub(held) / 2;
        let bytes = rest.max(self.memory_bytes / 8);
        (bytes / size_of::<Occurrence>() as u64).max(FEWEST)
    }

    fn note_of(&self, rank: u32) -> u32 {
        self.by_rank[rank as usize]
    }

    /// How many passes the co-occurrences of a block take: more than one where a single note has more
    /// than memory holds.
    fn pieces(&self, survey: &Survey, range: &Range<u32>, most: u64) -> u32 {
        let all: u64 = range.clone().map(|rank| survey.reach[rank as usize]).sum();
        all.div_ceil(most).max(1) as u32
    }

    /// The pairs of one note whose co-occurrences are gathered for some of the targets at a time.
    fn score_piecewise(
        &self,
        (span, scoring): (Span, &Scoring),
        survey: &Survey,
        ranks: &[u32],
        query: u32,
        pieces: u32,
        eligible: impl Fn(u32, u32) -> bool,
    ) -> Result<Scored> {
        let mut scores = Scores::new(ranks.len(), scoring.weight);
        let mut unsure = HashMap::new();
        for piece in 0..pieces {
            let block = self.gather((span, scoring), survey, query..query + 1, (pieces, piece))?;
            let before = scores.partners().len();
            block.walk(query, |target, user, term| scores.add(target, user, term));
            for &target in &scores.partners()[before..] {
                if scores.is_unsure(target) {
                    unsure.insert(target, block.common_activities(query, target));
                }
            }
        }
        let known = Block {
            unsure,
            ..Block::new(query, 1, Vec::new(), scoring, &survey.audience)
        };
        let context = Context {
            scoring,
            ranks,
            timeline: &known,
        };
        let mut found = Found::default();
        scores.take_best(&context, query, &eligible, &mut found);
        Ok(Scored {
            pairs: found.pairs,
            dropped: found.dropped,
        })
    }

    fn survey(&self, span: Span, scoring: &Scoring) -> Result<Survey> {
        let notes = self.by_rank.len();
        let audience: Vec<AtomicU32> = (0..notes).map(|_| AtomicU32::new(0)).collect();
        let reach: Vec<AtomicU64> = (0..notes).map(|_| AtomicU64::new(0)).collect();
        let window = Window::new(scoring);
        let look = |part: &super::Part| -> Result<(u64, EventLosses)> {
            let (mut events, mut losses) = (0, EventLosses::default());
            let (mut distinct, mut rows) = (Vec::new(), Vec::new());
            part.each_user(|_, views| {
                let views = span.of(views);
                let kept = kept(views, scoring);
                events += views.len() as u64;
                losses.activity_cap += (views.len() - kept.len()) as u64;
                rows.clear();
                rows.extend(kept.iter().map(|view| (0, view.time, view.note)));
                losses.count_user(&rows, scoring);
                distinct.clear();
                distinct.extend(kept.iter().map(|view| view.note));
                distinct.sort_unstable();
                distinct.dedup();
                for &note in &distinct {
                    audience[note as usize].fetch_add(1, Ordering::Relaxed);
                }
                window.reach(kept, |note, most| {
                    reach[note as usize].fetch_add(most as u64, Ordering::Relaxed);
                });
            })?;
            Ok((events, losses))
        };
        let looked = self
            .parts
            .par_iter()
            .map(look)
            .collect::<Result<Vec<_>>>()?;
        let (mut events, mut all) = (0, EventLosses::default());
        for (of_part, losses) in looked {
            events += of_part;
            all += losses;
        }
        Ok(Survey {
            audience: audience.into_iter().map(AtomicU32::into_inner).collect(),
            reach: reach.into_iter().map(AtomicU64::into_inner).collect(),
            events,
            losses: all,
        })
    }

    /// The co-occurrences of some times that begin with a note of these ranks; of `pieces` of them, by target,
    /// one.
    fn gather<'a>(
        &self,
        (span, scoring): (Span, &Scoring),
        survey: &'a Survey,
        range: Range<u32>,
        (pieces, piece): (u32, u32),
    ) -> Result<Block<'a>> {
        let most: u64 = range.clone().map(|rank| survey.reach[rank as usize]).sum();
        let all = Mutex::new(Vec::with_capacity((most / u64::from(pieces)) as usize));
        let hand_over = |own: &mut Vec<Occurrence>| {
            // Nothing panics while it holds the lock.
            all.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .append(own);
        };
        let window = Window::new(scoring);
        let mut first_user = 0;
        let mut first_users = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            first_users.push(first_user);
            first_user += part.users;
        }
        let parts = self.parts.par_iter().zip(first_users);
        parts.try_for_each(|(part, first_user)| -> Result<()> {
            let mut own = Vec::with_capacity(BATCH);
            let mut user = first_user;
            let mut walked: HashMap<u32, usize> = HashMap::new();
            part.each_user(|notes, all| {
                let kept = kept(span.of(all), scoring);
                walked.clear();
                let mut activity = (kept.len() == all.len()).then_some(notes);
                for (index, view) in kept.iter().enumerate() {
                    if !range.contains(&view.note) {
                        continue;
                    }
                    let activity = *activity.get_or_insert_with(|| distinct(kept));
                    let before = walked.entry(view.note).or_default();
                    *before = window.walk(kept, index, *before, |target| {
                        if target % pieces == piece {
                            own.push(Occurrence {
                                query: view.note,
                                user,
                                target,
                                activity,
                            });
                        }
                    });
                }
                user += 1;
                if own.len() >= BATCH {
                    hand_over(&mut own);
                }
            })?;
            hand_over(&mut own);
            Ok(())
        })?;
        let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.par_sort_unstable_by_key(|found| (found.query, found.user));
        Ok(Block::new(
            range.start,
            range.len(),
            all,
            scoring,
            &survey.audience,
        ))
    }
}

/// The events of a user that count.
fn kept<'a>(views: &'a [View], scoring: &Scoring) -> &'a [View] {
    let most = scoring.max_events_per_user.unwrap_or(usize::MAX);
    &views[views.len().saturating_sub(most)..]
}

fn distinct(views: &[View]) -> u32 {
    let mut notes: Vec<u32> = views.iter().map(|view| view.note).collect();
    notes.sort_unstable();
    notes.dedup();
    notes.len() as u32
}

/// The most pairs that notes of so many co-occurrences have.
fn most_pairs(reach: &[u64], scoring: &Scoring) -> u64 {
    let kept = scoring.top_k.map_or(u64::MAX, |kept| kept as u64);
    let of_notes = reach.iter().map(|&reach| reach.min(kept));
    of_notes.fold(0, u64::saturating_add)
}

/// Neighbouring ranks whose co-occurrences are at most so many together, or one that has more.
fn blocks(reach: &[u64], most: u64) -> Vec<Range<u32>> {
    let mut blocks = Vec::new();
    let (mut start, mut sum) = (0, 0u64);
    for (rank, &reach) in (0..).zip(reach) {
        if rank > start && sum.saturating_add(reach) > most {
            blocks.push(start..rank);
            (start, sum) = (rank, 0);
        }
        sum = sum.saturating_add(reach);
    }
    if (start as usize) < reach.len() {
        blocks.push(start..reach.len() as u32);
    }
    blocks
}

/// The co-occurrences that begin with a note of a block, by note and user.
struct Block<'a> {
    first: u32,
    /// Where those of each note end.
    ends: Vec<usize>,
    occurrences: Vec<Occurrence>,
    /// [`fixed_inverse`] of small activities, where they are what a user adds.
    inverses: Option<Vec<u128>>,
    audience: &'a [u32],
    /// Activities of the users of pairs whose co-occurrences are not here any more.
    unsure: HashMap<u32, Vec<u32>>,
}

impl<'a> Block<'a> {
    fn new(
        first: u32,
        notes: usize,
        occurrences: Vec<Occurrence>,
        scoring: &Scoring,
        audience: &'a [u32],
    ) -> Self {
        let end = |place: usize| {
            let query = first + place as u32;
            occurrences.partition_point(|found| found.query <= query)
        };
        let inverse = scoring.weight == PairWeight::InverseActivity;
        Self {
            first,
            ends: (0..notes).map(end).collect(),
            inverses: inverse.then(|| (0..LOOKED_UP).map(fixed_inverse).collect()),
            occurrences,
            audience,
            unsure: HashMap::new(),
        }
    }

    fn of(&self, query: u32) -> &[Occurrence] {
        let place = (query - self.first) as usize;
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.occurrences[start..self.ends[place]]
    }
}

impl Occurrences for Block<'_> {
    fn walk(&self, note: u32, mut visit: impl FnMut(u32, u32, u128)) {
        let term = |activity: u32| match &self.inverses {
            None => 1,
            Some(inverses) => match inverses.get(activity as usize) {
                Some(&inverse) => inverse,
                None => fixed_inverse(activity),
            },
        };
        for found in self.of(note) {
            visit(found.target, found.user, term(found.activity));
        }
    }

    fn common_activities(&self, query: u32, target: u32) -> Vec<u32> {
        if let Some(known) = self.unsure.get(&target) {
            return known.clone();
        }
        let of_target = self.of(query).iter().filter(|found| found.target == target);
        let mut users: Vec<(u32, u32)> = of_target
            .map(|found| (found.user, found.activity))
            .collect();
        users.dedup();
        users.into_iter().map(|(_, activity)| activity).collect()
    }

    fn audience(&self, note: u32) -> u32 {
        self.audience[note as usize]
    }
}
