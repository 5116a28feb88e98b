//! A log sorted by user and time, and where each note stands in it.

use std::sync::atomic::{AtomicU32, Ordering};

use mlrm_config::{PairWeight, Ties};
use rayon::prelude::*;

use super::inverse_sum::fixed_inverse;
use super::score::Scoring;
use crate::interactions::Interaction;

/// A view of one user's.
#[derive(Clone, Copy)]
pub(super) struct View {
    pub(super) time: i64,
    pub(super) note: u32,
}

/// Which views of a user follow one of its views.
#[derive(Clone, Copy)]
pub(super) struct Window {
    window_seconds: i64,
    each_occurrence: bool,
    ties: Ties,
}

impl Window {
    pub(super) fn new(scoring: &Scoring) -> Self {
        Self {
            window_seconds: scoring.window_seconds,
            each_occurrence: scoring.weight == PairWeight::Events,
            ties: scoring.ties,
        }
    }

    /// Where the views begin that may follow the view at `index` of a user's: after it, or, where
    /// ties count, with the first view of its time.
    fn first_partner(&self, views: &[View], index: usize) -> usize {
        match self.ties {
            Ties::Ignore => index + 1,
            Ties::Both => {
                let time = views[index].time;
                let ties = views[..index]
                    .iter()
                    .rev()
                    .take_while(|view| view.time == time);
                index - ties.count()
            }
        }
    }

    /// Whether a view at `later` may follow one at `time`, the window aside.
    fn may_follow(&self, time: i64, later: i64) -> bool {
        later > time || self.ties == Ties::Both && later == time
    }

    /// Tells `visit` of the other notes that follow the view at `index` of a user's. Where a user counts
    /// once a pair, windows of one user that overlap are walked once: what an earlier view of the same
    /// note has reached, up to `walked`, need not be reached again. Gives how far it is walked now.
    #[inline]
    pub(super) fn walk(
        &self,
        views: &[View],
        index: usize,
        walked: usize,
        mut visit: impl FnMut(u32),
    ) -> usize {
        let View { time, note } = views[index];
        let latest = time.saturating_add(self.window_seconds);
        let mut at = self.first_partner(views, index);
        if !self.each_occurrence {
            at = at.max(walked);
        }
        while let Some(view) = views.get(at).filter(|view| view.time <= latest) {
            if self.may_follow(time, view.time) && view.note != note {
                visit(view.note);
            }
            at += 1;
        }
        walked.max(at)
    }

    /// For each view of a user's, ascending by time, the most views that [`Self::walk`] may visit.
    pub(super) fn reach(&self, views: &[View], mut each: impl FnMut(u32, usize)) {
        let mut end = 0;
        for (index, view) in views.iter().enumerate() {
            let latest = view.time.saturating_add(self.window_seconds);
            end = end.max(index);
            while views.get(end).is_some_and(|view| view.time <= latest) {
                end += 1;
            }
            each(view.note, end - self.first_partner(views, index).min(end));
        }
    }
}

/// Co-occurrences by the note that they begin with.
pub(super) trait Occurrences: Sync {
    /// Tells `visit` of every co-occurrence event that begins with `note`: the other note, the
    /// user, and what the user adds to the pair's sum; of one user in a row. Where a user counts once a
    /// pair, an event may be left out when the user has another for the same pair.
    fn walk(&self, note: u32, visit: impl FnMut(u32, u32, u128));

    /// N_u of every user that saw `target` within the window after `query`.
    fn common_activities(&self, query: u32, target: u32) -> Vec<u32>;

    /// Distinct users of a note.
    fn audience(&self, note: u32) -> u32;
}

/// The events sorted by user and time, and where each note stands in them.
pub(super) struct Timeline {
    window: Window,
    views: Vec<View>,
    /// Per user the part of `views` that counts.
    spans: Vec<(usize, usize)>,
    /// Distinct notes per user (N_u).
    activity: Vec<u32>,
    /// What a user adds to the sum of a pair.
    terms: Vec<u128>,
    /// Distinct users per note.
    audience: Vec<u32>,
    /// Per note the end of its part of `places`, which begins at the end of the note before.
    place_ends: Vec<usize>,
    /// (user, index in the user's span), ascending within a note.
    places: Vec<(u32, u32)>,
}

impl Timeline {
    /// `users` is how many users the log has, `ranks` the rank of every note id.
    pub(super) fn new(
        events: &[Interaction],
        users: usize,
        ranks: &[u32],
        scoring: &Scoring,
    ) -> Self {
        let most = scoring.max_events_per_user.unwrap_or(usize::MAX);
        let (mut views, mut spans) = by_user(events, users);
        let audience: Vec<AtomicU32> = ranks.iter().map(|_| AtomicU32::new(0)).collect();
        let mut rest = views.as_mut_slice();
        let mut slices = Vec::with_capacity(users);
        for &(start, end) in &spans {
            let (slice, after) = std::mem::take(&mut rest).split_at_mut(end - start);
            slices.push(slice);
            rest = after;
        }
        let activity: Vec<u32> = slices
            .into_par_iter()
            .map(|slice| {
                slice.sort_unstable_by_key(|view| (view.time, ranks[view.note as usize]));
                let kept = &slice[slice.len().saturating_sub(most)..];
                let mut notes: Vec<u32> = kept.iter().map(|view| view.note).collect();
                notes.sort_unstable();
                notes.dedup();
                for &note in &notes {
                    audience[note as usize].fetch_add(1, Ordering::Relaxed);
                }
                notes.len() as u32
            })
            .collect();
        for (start, end) in &mut spans {
            *start = (*start).max(end.saturating_sub(most));
        }
        let (place_ends, places) = by_note(&views, &spans, ranks.len());
        Self {
            window: Window::new(scoring),
            views,
            spans,
            terms: match scoring.weight {
                PairWeight::InverseActivity => {
                    activity.iter().map(|&notes| fixed_inverse(notes)).collect()
                }
                _ => vec![1; users],
            },
            activity,
            audience: audience.into_iter().map(AtomicU32::into_inner).collect(),
            place_ends,
            places,
        }
    }

    fn places_of(&self, note: u32) -> &[(u32, u32)] {
        let note = note as usize;
        let start = if note == 0 {
            0
        } else {
            self.place_ends[note - 1]
        };
        &self.places[start..self.place_ends[note]]
    }
}

impl Occurrences for Timeline {
    fn walk(&self, note: u32, mut visit: impl FnMut(u32, u32, u128)) {
        let mut last_user = None;
        let mut walked = 0;
        for &(user, index) in self.places_of(note) {
            if last_user != Some(user) {
                last_user = Some(user);
                walked = 0;
            }
            let (start, end) = self.spans[user as usize];
            let views = &self.views[start..end];
            let term = self.terms[user as usize];
            let visit = |target| visit(target, user, term);
            walked = self.window.walk(views, index as usize, walked, visit);
        }
    }

    fn common_activities(&self, query: u32, target: u32) -> Vec<u32> {
        let mut activities = Vec::new();
        for views in self.places_of(query).chunk_by(|a, b| a.0 == b.0) {
            let user = views[0].0 as usize;
            let (start, end) = self.spans[user];
            let span = &self.views[start..end];
            let follows = |&(_, index): &(u32, u32)| {
                let mut found = false;
                let visit = |note| found |= note == target;
                let _walked = self.window.walk(span, index as usize, 0, visit);
                found
            };
            if views.iter().any(follows) {
                activities.push(self.activity[user]);
            }
        }
        activities
    }

    fn audience(&self, note: u32) -> u32 {
        self.audience[note as usize]
    }
}

/// Events grouped by user (a counting sort), and the span of each user.
fn by_user(events: &[Interaction], users: usize) -> (Vec<View>, Vec<(usize, usize)>) {
    let mut spans = vec![(0, 0); users];
    for event in events {
        spans[event.user as usize].1 += 1;
    }
    let mut start = 0;
    for span in &mut spans {
        let count = span.1;
        *span = (start, start);
        start += count;
    }
    let mut views = vec![View { time: 0, note: 0 }; events.len()];
    for event in events {
        let end = &mut spans[event.user as usize].1;
        views[*end] = View {
            time: event.timestamp_seconds,
            note: event.note,
        };
        *end += 1;
    }
    (views, spans)
}

/// Places grouped by note (a counting sort): users ascending, then time ascending.
fn by_note(
    views: &[View],
    spans: &[(usize, usize)],
    notes: usize,
) -> (Vec<usize>, Vec<(u32, u32)>) {
    let mut ends = vec![0; notes];
    let spans = || spans.iter().map(|&(start, end)| &views[start..end]);
    for view in spans().flatten() {
        ends[view.note as usize] += 1;
    }
    let mut start = 0;
    for end in &mut ends {
        let count: usize = *end;
        *end = start;
        start += count;
    }
    let mut places = vec![(0, 0); start];
    for (user, span) in spans().enumerate() {
        for (index, view) in span.iter().enumerate() {
            let end = &mut ends[view.note as usize];
            places[*end] = (user as u32, index as u32);
            *end += 1;
        }
    }
    (ends, places)
}
