//! A run that is looked at while it goes on.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use mlrm_events::{EventTail, Stamped};
use serde::{Deserialize, Serialize};

use crate::run::{event_log_path, last_words, output_path};
use crate::state::RunState;

/// The list of its runs in the folder of a sweep: JSON, [`Listed`] each, in the order in which they are run.
pub const RUNS_FILE: &str = "runs.json";

/// A run of a sweep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Row and seed.
    pub name: String,
    /// Its folder, from that of the sweep on.
    pub folder: PathBuf,
}

/// How often a log file is looked at.
const TAIL_INTERVAL: Duration = Duration::from_millis(250);

/// Where the events come from.
pub enum Source {
    /// A trainer in this process. The channel is unbounded: the trainer never waits for the screen.
    Channel(Receiver<Stamped>),
    /// A log file that grows, or has grown.
    Tail(EventTail),
}

/// A run and what its events have told so far.
pub struct FollowedRun {
    /// Its name, as shown.
    pub name: String,
    /// What its events fold to.
    pub state: RunState,
    /// The error that its process ended with before there was an event; of runs of a sweep alone.
    pub refusal: Option<String>,
    source: Source,
    /// Where its process writes what it prints, where that is known.
    output: Option<PathBuf>,
    problem: Option<String>,
    next_look: Instant,
}

impl FollowedRun {
    /// A run by its events.
    pub fn new(name: impl Into<String>, source: Source) -> Self {
        Self {
            name: name.into(),
            state: RunState::default(),
            refusal: None,
            source,
            output: None,
            problem: None,
            next_look: Instant::now(),
        }
    }

    /// A run of a sweep by its folder, which need not be there yet.
    pub fn of_sweep(name: impl Into<String>, folder: &Path) -> Self {
        let tail = EventTail::new(event_log_path(folder));
        Self {
            output: Some(output_path(folder)),
            ..Self::new(name, Source::Tail(tail))
        }
    }

    /// Folds what has come in; whether anything has.
    pub fn poll(&mut self) -> bool {
        match &mut self.source {
            Source::Channel(receiver) => {
                let before = self.state.events;
                receiver
                    .try_iter()
                    .for_each(|event| self.state.apply(&event));
                self.state.events != before
            }
            Source::Tail(tail) => {
                if Instant::now() < self.next_look {
                    return false;
                }
                self.next_look = Instant::now() + TAIL_INTERVAL;
                match tail.poll() {
                    Ok(batch) => {
                        if batch.restarted {
                            self.state = RunState::default();
                        }
                        batch
                            .events
                            .iter()
                            .for_each(|event| self.state.apply(event));
                        self.state.unreadable_lines += batch.malformed.len() as u64;
                        if let Some(error) = batch.malformed.last() {
                            let lines = self.state.unreadable_lines;
                            self.problem =
                                Some(format!("{lines} unreadable lines skipped, {error}"));
                        }
                        let refused = self.look_for_refusal();
                        refused
                            || batch.restarted
                            || !batch.events.is_empty()
                            || !batch.malformed.is_empty()
                    }
                    Err(error) => {
                        self.problem = Some(format!("cannot read the log: {error}"));
                        false
                    }
                }
            }
        }
    }

    /// What the last look at the log could not read.
    pub fn take_problem(&mut self) -> Option<String> {
        self.problem.take()
    }

    /// Reads why the process of a run without events has ended; whether that is new.
    fn look_for_refusal(&mut self) -> bool {
        let output = self.output.as_deref().filter(|_| self.state.events == 0);
        let refusal = output.and_then(last_words);
        let new = refusal != self.refusal;
        self.refusal = refusal;
        new
    }
}
