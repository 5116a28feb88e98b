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
    /// Settings or sizes that do not fit each other, or ask for what the model does not have.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// Rows of a batch that the model cannot take.
    #[error("{message}")]
    Batch {
        /// The first such row, where it is one.
        row: Option<usize>,
        /// What is wrong with it.
        message: String,
    },
    /// A tensor of another shape or number format than is needed.
    #[error("{what} has shape {found}, not {expected}")]
    Shape {
        /// The tensor.
        what: String,
        /// The shape that is needed.
        expected: String,
        /// The shape that it has.
        found: String,
    },
    /// Values that a number format cannot hold.
    #[error("tensor `{tensor}`: {reason}")]
    Values {
        /// The tensor's name.
        tensor: String,
        /// What it holds, and what to write instead.
        reason: String,
    },
    /// Values that do not come back from the device.
    #[error("{what} cannot be read from its device: {reason}")]
    Unreadable {
        /// What they are of.
        what: String,
        /// What backend or driver say.
        reason: String,
    },
}

/// Settings or sizes of a model that do not fit each other, or what they are meant for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct InvalidConfig {
    /// The options, as `num_attention_heads`.
    pub keys: Vec<&'static str>,
    /// What is wrong with them and how to correct it.
    pub message: String,
}

impl InvalidConfig {
    /// What is wrong with these options.
    pub fn new(keys: &[&'static str], message: impl Into<String>) -> Self {
        Self {
            keys: keys.to_vec(),
            message: message.into(),
        }
    }

    /// The same of a part: its name before the message.
    pub(crate) fn of(self, part: &str) -> Self {
        Self {
            message: format!("{part}: {}", self.message),
            ..self
        }
    }
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

    /// Options that do not fit, and why.
    pub(crate) fn config(keys: &[&'static str], message: impl Into<String>) -> Self {
        Self::Config(InvalidConfig::new(keys, message))
    }

    /// A row that the model cannot take, and why.
    pub(crate) fn row(row: usize, message: impl Into<String>) -> Self {
        Self::Batch {
            row: Some(row),
            message: message.into(),
        }
    }

    /// A batch that the model cannot take, and why.
    pub(crate) fn batch(message: impl Into<String>) -> Self {
        Self::Batch {
            row: None,
            message: message.into(),
        }
    }

    /// Values that do not come back from the device, with what it said.
    pub fn unreadable(what: impl Into<String>, said: impl std::fmt::Debug) -> Self {
        Self::Unreadable {
            what: what.into(),
            reason: format!("{said:?}"),
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
