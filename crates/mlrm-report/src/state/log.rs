//! The newest events as lines.

use std::borrow::Cow;
use std::collections::VecDeque;

use mlrm_events::{Event, Named, Stamped, TrainStep};

use crate::describe;

/// Newest log entries held of training steps, and of everything else.
const LOG_STEPS: usize = 500;
const LOG_OTHERS: usize = 2000;

/// One line of the log view.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// The event's number, from 0.
    pub number: u64,
    /// Unix time.
    pub time_seconds: f64,
    /// The step, where it has one.
    pub step: Option<u64>,
    /// The event's name.
    pub name: String,
    text: LogText,
}

/// Steps are many and seldom looked at: they become text when they are shown.
#[derive(Debug, Clone)]
enum LogText {
    Step(TrainStep),
    Other(String),
}

impl LogEntry {
    /// What happened.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.text {
            LogText::Step(step) => Cow::Owned(describe::train_step(step)),
            LogText::Other(text) => Cow::Borrowed(text),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    steps: VecDeque<LogEntry>,
    others: VecDeque<LogEntry>,
}

impl Log {
    pub(super) fn push(&mut self, number: u64, stamped: &Stamped) {
        let (ring, capacity, text) = match &stamped.event {
            Event::TrainStep(step) => {
                // The log line does not name the phases.
                let step = TrainStep {
                    seconds_by_phase: Named::default(),
                    ..*step
                };
                (&mut self.steps, LOG_STEPS, LogText::Step(step))
            }
            event => (
                &mut self.others,
                LOG_OTHERS,
                LogText::Other(describe::describe(event)),
            ),
        };
        if ring.len() == capacity {
            ring.pop_front();
        }
        ring.push_back(LogEntry {
            number,
            time_seconds: stamped.time_seconds,
            step: stamped.event.step(),
            name: stamped.event.name().to_owned(),
            text,
        });
    }

    /// All entries, the newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &LogEntry> {
        let mut steps = self.steps.iter().rev().peekable();
        let mut others = self.others.iter().rev().peekable();
        std::iter::from_fn(move || match (steps.peek(), others.peek()) {
            (Some(step), Some(other)) if step.number > other.number => steps.next(),
            (_, Some(_)) => others.next(),
            (_, None) => steps.next(),
        })
    }

    /// The entries that are no steps, the newest first.
    pub(super) fn newest_others(&self) -> impl Iterator<Item = &LogEntry> {
        self.others.iter().rev()
    }
}
