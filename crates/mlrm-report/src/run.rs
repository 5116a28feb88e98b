//! A run folder as the report reads it.

use std::path::{Path, PathBuf};

use mlrm_events::text::one_line;
use mlrm_events::{Evaluation, ReadError, Split, read_log};
use thiserror::Error;

use crate::examples::{Example, ExamplesError, read_examples};
use crate::state::RunState;

/// A run: its folded events and its examples.
#[derive(Debug)]
pub struct Run {
    /// The folder's name.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// The folded events.
    pub state: RunState,
    /// Queries with what the models found, where the run has them.
    pub examples: Vec<Example>,
}

/// Why a run could not be read.
#[derive(Debug, Error)]
pub enum RunError {
    /// The events.
    #[error(transparent)]
    Events(#[from] ReadError),
    /// The examples.
    #[error(transparent)]
    Examples(#[from] ExamplesError),
    /// There is nothing to report.
    #[error("{}: the log has no event yet", path.display())]
    Empty {
        /// The log.
        path: PathBuf,
    },
}

/// The event log of a run folder; `run` may also be the log itself.
pub fn event_log_path(run: &Path) -> PathBuf {
    if run.is_file() {
        run.to_owned()
    } else {
        run.join("events.jsonl")
    }
}

/// Where `mlrm sweep` keeps what the process of a run prints: beside the folder of the run.
pub fn output_path(folder: &Path) -> PathBuf {
    folder.with_extension("log")
}

/// The error that a process printed last, on one line; `None` where there is none.
pub fn last_words(output: &Path) -> Option<String> {
    let text = std::fs::read_to_string(output).ok()?;
    let at = text.rfind("error: ")? + "error: ".len();
    Some(one_line(text[at..].trim()).to_string())
}

/// The folder of a run, and a name for it.
pub fn folder_and_name(run: &Path) -> (PathBuf, String) {
    let folder = match run.is_file() {
        true => run.parent().unwrap_or(Path::new(".")).to_owned(),
        false => run.to_owned(),
    };
    // `.` and `..` have no name of their own.
    let named = folder.canonicalize().unwrap_or_else(|_| folder.clone());
    let name = named
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    (folder, name.unwrap_or_else(|| "run".into()))
}

/// The runs that were evaluated, each with the evaluation that stands for it.
pub(crate) fn evaluated(runs: &[Run]) -> Vec<(&Run, &Evaluation)> {
    let found = runs.iter().filter_map(|run| Some((run, run.evaluation()?)));
    found.collect()
}

impl Run {
    /// Reads `run/events.jsonl` and, where it is there, `run/report/examples.jsonl`.
    ///
    /// # Errors
    /// A file cannot be read, a line of the examples is malformed, or there is no event. Lines of the
    /// log that are no events are counted ([`RunState::unreadable_lines`]).
    pub fn read(run: &Path) -> Result<Self, RunError> {
        let path = event_log_path(run);
        let log = read_log(&path)?;
        if log.events.is_empty() {
            return Err(RunError::Empty { path });
        }
        let (folder, name) = folder_and_name(run);
        let examples = read_examples(&folder.join("report").join("examples.jsonl"))?;
        Ok(Self {
            name,
            state: RunState::from_log(&log),
            folder,
            examples,
        })
    }

    /// The evaluation that stands for the run: the newest on test notes, else the newest.
    pub fn evaluation(&self) -> Option<&Evaluation> {
        let mut newest_first = self.state.evaluations.iter().rev();
        newest_first
            .find(|evaluation| evaluation.split == Split::Test)
            .or_else(|| self.state.evaluations.last())
    }
}
