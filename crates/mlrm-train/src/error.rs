//! What can stop a run.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// An error of a run: says what is wrong, where, and how to correct it.
#[derive(Debug, Error)]
pub enum TrainError {
    /// Notes, logs, prompts or pictures.
    #[error(transparent)]
    Data(#[from] mlrm_data::DataError),
    /// Model folders, checkpoints or devices.
    #[error(transparent)]
    Model(#[from] mlrm_model::ModelError),
    /// Retrieval metrics.
    #[error(transparent)]
    Eval(#[from] mlrm_eval::Error),
    /// Settings.
    #[error(transparent)]
    Config(#[from] mlrm_config::ConfigError),
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// `read`, `write`, `create`…
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The model's numbers are not finite any more.
    #[error("{0}")]
    Diverged(String),
    /// A device has too little memory for what it was given.
    #[error("the device has too little memory: {0}")]
    OutOfMemory(String),
    /// What settings, options or files ask for cannot be done; says what to change.
    #[error("{0}")]
    Refused(String),
    /// A file or folder of a run or checkpoint is not what it should be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A device fails.
    #[error("{what}: {reason}")]
    Device {
        /// At what: `the weights cannot be read from the device`.
        what: String,
        /// What backend or driver say.
        reason: String,
    },
    /// A batch that no step can be taken with, or none where there should be one.
    #[error("{0}")]
    Batch(String),
    /// Another worker of the run is gone, failed, or holds something else than the first.
    #[error("{0}")]
    Worker(String),
    /// An event could not be kept.
    #[error("an event cannot be written: {0}")]
    Event(#[source] std::io::Error),
    /// A run's events cannot be read.
    #[error(transparent)]
    Log(#[from] mlrm_events::ReadError),
    /// The run failed, and what became of its last step.
    #[error("{error}\n{saved}")]
    Failed {
        /// Why.
        error: Box<Self>,
        /// Whether its last step was saved, and how to go on.
        saved: String,
    },
}

impl TrainError {
    /// A file or folder that is not what it should be.
    pub fn file(path: &Path, reason: impl Into<String>) -> Self {
        Self::File {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    /// A device that failed at something, with what it said.
    pub fn device(what: impl Into<String>, said: impl Debug) -> Self {
        Self::Device {
            what: what.into(),
            reason: format!("{said:?}"),
        }
    }

    /// A file operation that failed.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// The message says it all; there is no source code to point at.
impl miette::Diagnostic for TrainError {}
