//! Why events and pairs of a log come to nothing.

use std::fmt;

use mlrm_config::{Ties, id_ranks};

use super::score::Scoring;
use crate::interactions::{Interaction, Interactions};

/// Events that take part in no co-occurrence, by the rule that keeps them out; each is counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventLosses {
    /// Older than the most recent events of a user that count.
    pub activity_cap: u64,
    /// The only event of its user.
    pub alone: u64,
    /// Of a user that saw no other note.
    pub repeats: u64,
    /// Other notes within the window are all at the same time.
    pub ties: u64,
    /// No other note within the window.
    pub window: u64,
}

impl EventLosses {
    /// What happens to these events of a log, the bounds on pairs aside.
    pub fn of(log: &Interactions, events: &[Interaction], scoring: &Scoring) -> Self {
        let ranks = id_ranks(log.notes.texts());
        let mut views: Vec<(u32, i64, u32)> = events
            .iter()
            .map(|event| {
                (
                    event.user,
                    event.timestamp_seconds,
                    ranks[event.note as usize],
                )
            })
            .collect();
        views.sort_unstable();
        let most = scoring.max_events_per_user.unwrap_or(usize::MAX);
        let mut losses = Self::default();
        for of_user in views.chunk_by(|a, b| a.0 == b.0) {
            let cut = of_user.len().saturating_sub(most);
            losses.activity_cap += cut as u64;
            losses.count_user(&of_user[cut..], scoring);
        }
        losses
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.activity_cap + self.alone + self.repeats + self.ties + self.window
    }

    /// Counts the events (user, time, note) of one user, ascending.
    pub(super) fn count_user(&mut self, views: &[(u32, i64, u32)], scoring: &Scoring) {
        let count = views.len();
        if count <= 1 {
            self.alone += count as u64;
            return;
        }
        if views.iter().all(|view| view.2 == views[0].2) {
            self.repeats += count as u64;
            return;
        }
        // For each place the nearest after it, and before it, with another note.
        let (mut after, mut before) = (vec![None; count], vec![None; count]);
        for at in (0..count - 1).rev() {
            after[at] = nearest(views, at, Some(at + 1), &after);
        }
        for at in 1..count {
            before[at] = nearest(views, at, Some(at - 1), &before);
        }
        let mut start = 0;
        for of_time in views.chunk_by(|a, b| a.1 == b.1) {
            let (end, time) = (start + of_time.len(), of_time[0].1);
            let tied = of_time.iter().any(|view| view.2 != of_time[0].2);
            for at in start..end {
                let later = nearest(views, at, Some(end), &after);
                let earlier = nearest(views, at, start.checked_sub(1), &before);
                let near =
                    |other: usize| views[other].1.abs_diff(time) <= scoring.window_seconds as u64;
                if later.is_some_and(near)
                    || earlier.is_some_and(near)
                    || tied && scoring.ties == Ties::Both
                {
                    continue;
                }
                match tied {
                    true => self.ties += 1,
                    false => self.window += 1,
                }
            }
            start = end;
        }
    }
}

/// The first place from `candidate` on, in the direction of `further`, whose note is not that of
/// place `at`.
fn nearest(
    views: &[(u32, i64, u32)],
    at: usize,
    candidate: Option<usize>,
    further: &[Option<usize>],
) -> Option<usize> {
    let candidate = candidate.filter(|&place| place < views.len())?;
    match views[candidate].2 != views[at].2 {
        true => Some(candidate),
        false => further[candidate],
    }
}

impl std::ops::AddAssign for EventLosses {
    fn add_assign(&mut self, other: Self) {
        self.activity_cap += other.activity_cap;
        self.alone += other.alone;
        self.repeats += other.repeats;
        self.ties += other.ties;
        self.window += other.window;
    }
}

/// Pairs that were found and dropped, by the rule that drops them, in the order of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PairLosses {
    /// Fewer users in common than `min_users`.
    pub min_users: u64,
    /// The two notes may not be a pair of any part.
    pub split: u64,
    /// Below `lower` or above `upper`.
    pub bounds: u64,
    /// After the best `top_k` of the query note.
    pub top_k: u64,
}

impl PairLosses {
    /// All together.
    pub fn total(&self) -> u64 {
        self.min_users + self.split + self.bounds + self.top_k
    }
}

impl std::ops::AddAssign for PairLosses {
    fn add_assign(&mut self, other: Self) {
        self.min_users += other.min_users;
        self.split += other.split;
        self.bounds += other.bounds;
        self.top_k += other.top_k;
    }
}

/// How a log became pairs, for a message where few or none are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// Events of the log.
    pub events: u64,
    /// Events without a partner.
    pub lost_events: EventLosses,
    /// Pairs that were dropped.
    pub lost_pairs: PairLosses,
}

impl Losses {
    /// Whether a rule took something.
    pub(super) fn is_some(&self) -> bool {
        self.lost_events.total() > 0 || self.lost_pairs.total() > 0
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (events, pairs) = (&self.lost_events, &self.lost_pairs);
        write!(
            formatter,
            "{} of {} events are in no pair",
            events.total(),
            self.events
        )?;
        let reasons = [
            (
                events.ties,
                "at the same time as the user's other notes (ties; `ties = \"both\"` pairs them)",
            ),
            (
                events.window,
                "further than `window_days` from the user's other notes",
            ),
            (events.alone, "the only event of their user"),
            (events.repeats, "of users that saw one note again and again"),
            (events.activity_cap, "past the last `max_events_per_user`"),
        ];
        list(formatter, reasons)?;
        let reasons = [
            (pairs.min_users, "with fewer users than `min_users`"),
            (pairs.split, "across the parts of the split"),
            (pairs.bounds, "outside of `lower` and `upper`"),
            (pairs.top_k, "after the first `top_k` of their note"),
        ];
        if pairs.total() > 0 {
            write!(formatter, "; {} pairs were dropped", pairs.total())?;
        }
        list(formatter, reasons)
    }
}

/// The reasons that count: `: 3 this, 4 that`.
fn list<const N: usize>(
    formatter: &mut fmt::Formatter<'_>,
    reasons: [(u64, &str); N],
) -> fmt::Result {
    let reasons = reasons.iter().filter(|(count, _)| *count > 0);
    for (index, (count, reason)) in reasons.enumerate() {
        let mark = if index == 0 { ":" } else { "," };
        write!(formatter, "{mark} {count} {reason}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mlrm_config::PairSettings;
    use proptest::prelude::*;

    use super::*;

    fn log_of(events: &[(u8, u8, i64)]) -> Interactions {
        let mut log = Interactions::default();
        for (user, note, time) in events {
            log.push(&user.to_string(), &note.to_string(), *time);
        }
        log
    }

    /// By definition: every event against every other of its user.
    fn naive(events: &[(u8, u8, i64)], scoring: &Scoring) -> EventLosses {
        let mut losses = EventLosses::default();
        for user in 0..=u8::MAX {
            let mut views: Vec<_> = events.iter().filter(|event| event.0 == user).collect();
            views.sort_by_key(|event| (event.2, event.1));
            let most = scoring.max_events_per_user.unwrap_or(usize::MAX);
            let cut = views.len().saturating_sub(most);
            losses.activity_cap += cut as u64;
            let views = &views[cut..];
            for view in views {
                let mut others = views.iter().filter(|other| other.1 != view.1);
                let near =
                    |other: &&&(u8, u8, i64)| (other.2 - view.2).abs() <= scoring.window_seconds;
                let near: Vec<_> = others.clone().filter(near).collect();
                let counts =
                    |other: &&&&(u8, u8, i64)| scoring.ties == Ties::Both || other.2 != view.2;
                let reason = match near.iter().any(|other| counts(&other)) {
                    true => continue,
                    false if views.len() == 1 => &mut losses.alone,
                    false if others.next().is_none() => &mut losses.repeats,
                    false if near.is_empty() => &mut losses.window,
                    false => &mut losses.ties,
                };
                *reason += 1;
            }
        }
        losses
    }

    #[test]
    fn every_lost_event_is_counted_under_its_rule() {
        let events = prop::collection::vec((0u8..4, 0u8..4, 0i64..20), 0..30);
        let rules = (0i64..8, prop::option::of(0usize..6), any::<bool>());
        proptest!(ProptestConfig::with_cases(1000), |(events in events, rules in rules)| {
            let (window_seconds, max_events_per_user, both) = rules;
            let scoring = Scoring {
                window_seconds,
                max_events_per_user,
                ties: if both { Ties::Both } else { Ties::Ignore },
                ..Scoring::new(&PairSettings::default()).unwrap()
            };
            let log = log_of(&events);
            prop_assert_eq!(EventLosses::of(&log, &log.events, &scoring), naive(&events, &scoring));
        });
    }

    #[test]
    fn the_message_names_the_rules_that_took_something() {
        let losses = Losses {
            events: 9,
            lost_events: EventLosses {
                ties: 6,
                alone: 1,
                ..EventLosses::default()
            },
            lost_pairs: PairLosses {
                top_k: 4,
                ..PairLosses::default()
            },
        };
        let message = losses.to_string();
        assert!(
            message.starts_with("7 of 9 events are in no pair: 6 at the same time"),
            "{message}"
        );
        assert!(
            message.ends_with("4 pairs were dropped: 4 after the first `top_k` of their note"),
            "{message}"
        );
        assert!(!message.contains("window_days"), "{message}");
    }
}
