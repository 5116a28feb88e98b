//! What can stop a run.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// An error of a run: says what is wrong, where, and how to mend it.
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
    /// The run cannot start or go on.
    #[error("{0}")]
    Run(String),
}

impl TrainError {
    /// An event that could not be kept.
    pub(crate) fn event(error: std::io::Error) -> Self {
        Self::Run(format!("an event cannot be written: {error}"))
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
