//! Why a folder of the Hub cannot be had, and what helps.

use std::path::{Path, PathBuf};

use mlrm_config::HubName;

/// Why a folder of the Hub cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A variable of the environment makes no sense.
    #[error("{0}")]
    Environment(String),
    /// The Hub answered, but not with the file.
    #[error("{name}{}: HTTP {status} from {url}", of_file(file))]
    Status {
        /// What was asked for.
        name: HubName,
        /// The file; `None` for the list of files.
        file: Option<String>,
        /// The HTTP status.
        status: u16,
        /// The address.
        url: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The Hub does not answer.
    #[error("{name}: {endpoint} cannot be reached: {reason}")]
    Unreachable {
        /// What was asked for.
        name: HubName,
        /// `HF_ENDPOINT` or the Hub.
        endpoint: String,
        /// What the connection says.
        reason: String,
    },
    /// Nothing may be asked, and the cache does not have it all.
    #[error("{name}: HF_HUB_OFFLINE is set, and {} lacks {}", cache.display(), missing.join(", "))]
    Offline {
        /// What was asked for.
        name: HubName,
        /// The cache.
        cache: PathBuf,
        /// What is missing.
        missing: Vec<String>,
    },
    /// A file is not as long as the list of files says.
    #[error("{name}: {file} should have {expected} bytes, but the server sends {found}")]
    WrongLength {
        /// What was asked for.
        name: HubName,
        /// The file.
        file: String,
        /// Bytes by the list of files.
        expected: u64,
        /// Bytes that were sent.
        found: u64,
    },
    /// A file has other content than the list of files says.
    #[error("{name}: {file} has the hash {found}, but the Hub lists {expected}")]
    WrongContent {
        /// What was asked for.
        name: HubName,
        /// The file.
        file: String,
        /// The hash by the list of files.
        expected: String,
        /// The hash of what was sent.
        found: String,
    },
    /// The connection broke and did not come back.
    #[error("{name}: {file}: the download broke off at {held} of {bytes} bytes: {reason}")]
    BrokeOff {
        /// What was asked for.
        name: HubName,
        /// The file.
        file: String,
        /// Bytes that are there.
        held: u64,
        /// Bytes of the whole file.
        bytes: u64,
        /// What the connection says.
        reason: String,
    },
    /// The repository does not hold what was asked for.
    #[error("{name} holds {found}")]
    NothingToRead {
        /// What was asked for.
        name: HubName,
        /// What there is or is not.
        found: String,
    },
    /// The answer is not one of the Hub.
    #[error("{name}: the answer of {url} is not understood: {reason}")]
    Answer {
        /// What was asked for.
        name: HubName,
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The cache cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
}

fn of_file(file: &Option<String>) -> String {
    file.as_ref()
        .map(|file| format!(": {file}"))
        .unwrap_or_default()
}

impl HubError {
    /// What helps.
    pub fn help(&self) -> String {
        match self {
            Self::Environment(_) => "correct the variable, or unset it".into(),
            Self::Status { name, file, status, token, .. } => status_help(name, file.as_deref(), *status, *token),
            Self::Unreachable { .. } => {
                "check the network, the proxy (HTTPS_PROXY) and HF_ENDPOINT, or name a folder of this machine"
                    .into()
            }
            Self::Offline { .. } => "run it once without HF_HUB_OFFLINE: what is missing is then downloaded".into(),
            Self::WrongLength { .. } | Self::WrongContent { .. } => "nothing was kept; try again, or another HF_ENDPOINT".into(),
            Self::BrokeOff { .. } => "run the command again: the download goes on from there".into(),
            Self::NothingToRead { .. } => {
                "mlrm reads config.json with model.safetensors (whole or in shards), adapter folders of PEFT, \
                 model folders of its own, and tokenizer.json; is this the right repository or revision?"
                    .into()
            }
            Self::Answer { .. } => "is HF_ENDPOINT the address of a Hub?".into(),
            Self::Io { .. } => "check space and permissions, or name another folder by HF_HOME".into(),
        }
    }

    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

fn status_help(name: &HubName, file: Option<&str>, status: u16, token: bool) -> String {
    let repo = &name.repo;
    match (status, token) {
        // The Hub answers so to strangers for repositories that are not there, too.
        (401, false) => format!(
            "there is no repository {repo}, or it is private or gated: check the name, accept its terms on \
             its page, and set HF_TOKEN (or run `hf auth login`)"
        ),
        (401, true) => {
            format!("the token is not valid, or may not read {repo}: check HF_TOKEN and the name")
        }
        (403, _) => format!(
            "the token may not read {repo}: accept its terms on its page with the account of HF_TOKEN"
        ),
        (404, _) if file.is_some() => "the file is not there any more; try again".into(),
        (404, _) => match &name.revision {
            Some(revision) => format!("check the name {repo} and the revision {revision}"),
            None => format!("check the name {repo}"),
        },
        (429 | 500.., _) => "the server is busy or broken; try again later".into(),
        _ => "check the name, the revision and HF_ENDPOINT".into(),
    }
}
