//! What a terminal shows without the dashboard: one status line, or plain lines where output is no
//! terminal.

use mlrm_events::{Event, Stamped};

use crate::describe::{describe, train_step};
use crate::format;
use crate::state::RunState;

/// Seconds between plain lines of training steps.
const PLAIN_INTERVAL: f64 = 10.0;

/// Folds a run's events into one status line, and into the lines above it.
#[derive(Debug, Default)]
pub struct ProgressLine {
    state: RunState,
    /// Time of the last plain line of a training step.
    printed: Option<f64>,
}

impl ProgressLine {
    /// Before the run's first event.
    pub fn new() -> Self {
        Self::default()
    }

    /// The folded run.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// Takes an event; returns a line that is worth keeping on a terminal (above the status line),
    /// where there is one: everything but steps and the machine's figures.
    pub fn terminal(&mut self, event: &Stamped) -> Option<String> {
        self.state.apply(event);
        is_notable(&event.event).then(|| line_of(event))
    }

    /// Takes an event; returns the line for a log file or a pipe, where there is one: as
    /// [`ProgressLine::terminal`], and a training step at most every ten seconds, the first and the
    /// last always.
    pub fn plain(&mut self, event: &Stamped) -> Option<String> {
        self.state.apply(event);
        if is_notable(&event.event) {
            return Some(line_of(event));
        }
        let Event::TrainStep(step) = &event.event else {
            return None;
        };
        let last = self.state.total_steps() == Some(step.step);
        let due = self
            .printed
            .is_none_or(|time| event.time_seconds - time >= PLAIN_INTERVAL);
        if !due && !last {
            return None;
        }
        self.printed = Some(event.time_seconds);
        Some(self.status())
    }

    /// `step 120 of 2,000: loss 2.134 (multimodal 2.101, visual 2.431), temperature 0.0498,
    /// gate 0.52, 118 notes/s, 12 m 03 s left`, on one line.
    pub fn status(&self) -> String {
        let state = &self.state;
        let mut line = format!("step {}", state.steps());
        if let Some(step) = &state.last_step {
            line += ": ";
            line += &train_step(step);
        }
        if state.paused {
            line += ", paused";
        } else if let Some(seconds) = state.seconds_left() {
            line += &format!(", {} left", format::duration(seconds));
        }
        line
    }
}

fn is_notable(event: &Event) -> bool {
    match event {
        Event::RunStarted(_)
        | Event::Evaluation(_)
        | Event::Preflight(_)
        | Event::CheckpointSaved(_)
        | Event::Warning(_)
        | Event::Control(_)
        | Event::RunEnded(_) => true,
        Event::TrainStep(_)
        | Event::GateHistogram(_)
        | Event::Saliency(_)
        | Event::AttentionMass(_)
        | Event::EmbeddingProbe(_)
        | Event::System(_)
        | Event::Unknown(_) => false,
    }
}

fn line_of(event: &Stamped) -> String {
    let text = describe(&event.event);
    match (&event.event, event.event.step()) {
        (Event::RunStarted(_), _) | (_, None) => text,
        (_, Some(step)) => format!("step {}: {text}", format::count(step)),
    }
}
