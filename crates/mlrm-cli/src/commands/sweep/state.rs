//! What the folder of a run tells of it.

use std::path::Path;

use mlrm_config::RunConfig;
use mlrm_events::{EndReason, Event, read_log};
use mlrm_train::TrainError;
use mlrm_train::run_folder::{Existing, RunFolder, RunOptions};

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing is there.
    Missing,
    /// It was begun and has not ended.
    Interrupted,
    /// It ended with an error.
    Failed(String),
    /// It is whole.
    Done,
}

impl State {
    pub(super) fn words(&self) -> String {
        match self {
            Self::Missing => "missing".into(),
            Self::Interrupted => "interrupted".into(),
            Self::Failed(reason) => format!("failed: {reason}"),
            Self::Done => "done".into(),
        }
    }
}

/// The state of the run in a folder, by its log.
///
/// # Errors
/// A log that is there and cannot be read.
pub(super) fn state_of(dir: &Path) -> Result<State, TrainError> {
    let path = dir.join("events.jsonl");
    if !path.is_file() {
        return Ok(State::Missing);
    }
    let log = read_log(&path)?;
    let last = log.events.last().map(|stamped| &stamped.event);
    Ok(match last {
        Some(Event::RunEnded(ended)) => match ended.reason {
            EndReason::Completed => State::Done,
            EndReason::Failed => {
                let reason = ended.message.clone();
                State::Failed(reason.unwrap_or_else(|| "it does not say why".into()))
            }
            _ => State::Interrupted,
        },
        _ => State::Interrupted,
    })
}

/// Whether another process trains in the folder of the run.
pub(super) fn is_held(config: &RunConfig) -> bool {
    RunFolder::check(config, &options(Existing::Overwrite)).is_err()
}

/// How `mlrm train` is told to begin, by what the folder holds.
///
/// # Errors
/// As [`state_of`].
pub(super) fn beginning(config: &RunConfig) -> Result<Option<&'static str>, TrainError> {
    if state_of(&config.run.dir)? == State::Missing {
        return Ok(None);
    }
    // Settings are known to be the same: what cannot be resumed has nothing to go on from.
    Ok(Some(
        match RunFolder::check(config, &options(Existing::Resume)) {
            Ok(()) => "--resume",
            Err(_) => "--overwrite",
        },
    ))
}

fn options(existing: Existing) -> RunOptions {
    RunOptions {
        existing,
        ..RunOptions::default()
    }
}
