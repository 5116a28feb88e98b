//! What can be wrong with a model on disk or in a config.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::hf_config::Refusal;

/// An error of this crate: says what is wrong, where, and how to correct it.
#[derive(Debug, Error)]
pub enum ModelError {
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
    /// A file is not what it should be.
    #[error("{path}: {message}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and how to correct it.
        message: String,
    },
    /// A `config.json` asks for something that mlrm does not implement.
    #[error("{path}: {}", listed(refused))]
    Unsupported {
        /// The config file.
        path: PathBuf,
        /// Every option that is not implemented; at least one.
        refused: Vec<Refusal>,
    },
    /// Tensors on disk and the model do not match.
    #[error("{path}: {report}")]
    Tensors {
        /// The file or folder.
        path: PathBuf,
        /// Missing, unexpected and mis-shaped tensors, one a line.
        report: String,
    },
    /// A device name that this binary or machine cannot serve.
    #[error("device `{name}`: {message}")]
    Device {
        /// The name as written.
        name: String,
        /// What is wrong and how to correct it.
        message: String,
    },
    /// Inputs that the model cannot take.
    #[error("{0}")]
    Input(String),
}

impl ModelError {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn format(path: &Path, message: impl Into<String>) -> Self {
        Self::Format {
            path: path.to_owned(),
            message: message.into(),
        }
    }

    pub(crate) fn unsupported(path: &Path, refused: Vec<Refusal>) -> Self {
        Self::Unsupported {
            path: path.to_owned(),
            refused,
        }
    }

    /// What two readers of one `config.json` refuse, as one error; else this one.
    pub(crate) fn and(mut self, other: Option<Self>) -> Self {
        if let Self::Unsupported { refused, .. } = &mut self
            && let Some(Self::Unsupported { refused: more, .. }) = other
        {
            refused.extend(more);
        }
        self
    }
}

/// One refusal in a sentence, several as a list.
fn listed(refused: &[Refusal]) -> String {
    let hint = |refusal: &Refusal| match refusal.hint.as_str() {
        "" => String::new(),
        hint => format!("; {hint}"),
    };
    match refused {
        [one] => {
            let (option, value) = (&one.option, &one.value);
            format!(
                "option `{option}` = {value} is not implemented{}",
                hint(one)
            )
        }
        several => {
            let line = |r: &Refusal| format!("\n  `{}` = {}{}", r.option, r.value, hint(r));
            let lines: String = several.iter().map(line).collect();
            format!("{} options are not implemented:{lines}", several.len())
        }
    }
}
