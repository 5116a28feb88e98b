//! Names on the Hugging Face Hub, and paths that may be one.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::RunConfig;

/// What a name on the Hub begins with, in configs and on the command line.
const PREFIX: &str = "hf:";
/// Longest repository name that the Hub gives out, in characters.
const MAX_REPO_CHARS: usize = 96;
/// Hexadecimal digits of a commit.
const COMMIT_DIGITS: usize = 40;

/// The keys of [`RunConfig::model_paths`], in its order.
const MODEL_PATH_KEYS: [&str; 7] = [
    "model.path",
    "model.checkpoint",
    "model.llm.path",
    "model.vision.path",
    "model.connector.path",
    "model.llm.lora.path",
    "tokenizer.path",
];

/// A repository on the Hugging Face Hub: `hf:owner/name`, or `hf:owner/name@revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubName {
    /// `owner/name`.
    pub repo: String,
    /// A branch, tag or commit; `None` means the branch `main`.
    pub revision: Option<String>,
}

/// A text that begins with `hf:` and names no repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name on the Hub")]
pub struct HubNameError(String);

impl HubNameError {
    /// How such a name is written.
    pub const HELP: &str = "write hf:owner/name, or hf:owner/name@revision with a branch, tag or commit: \
                            hf:Qwen/Qwen2.5-0.5B@main";
}

impl HubName {
    /// The name that a path is; `None` for a path of this machine.
    ///
    /// # Errors
    /// When the path begins with `hf:` and is not such a name.
    pub fn of(path: &Path) -> Option<Result<Self, HubNameError>> {
        let text = path.to_str()?;
        text.starts_with(PREFIX).then(|| text.parse())
    }

    /// The commit, where the revision is one.
    pub fn commit(&self) -> Option<&str> {
        self.revision.as_deref().filter(|text| is_commit(text))
    }

    /// The same repository at a revision.
    pub fn at(&self, revision: &str) -> Self {
        Self {
            repo: self.repo.clone(),
            revision: Some(revision.into()),
        }
    }
}

/// Whether a text is a whole commit, in hexadecimal digits.
pub fn is_commit(text: &str) -> bool {
    text.len() == COMMIT_DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl FromStr for HubName {
    type Err = HubNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || HubNameError(text.to_owned());
        let name = text.strip_prefix(PREFIX).ok_or_else(wrong)?;
        let (repo, revision) = match name.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision)),
            None => (name, None),
        };
        let (owner, model) = repo.split_once('/').ok_or_else(wrong)?;
        // What the Hub itself demands; it also keeps a name from leading out of the cache.
        let part = |part: &str| {
            let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !part.is_empty()
                && part.chars().all(word)
                && !part.starts_with(['-', '.'])
                && !part.ends_with(['-', '.'])
        };
        let doubled = repo.contains("--") || repo.contains("..");
        let valid = part(owner) && part(model) && !doubled && repo.len() <= MAX_REPO_CHARS;
        if !valid || !revision.is_none_or(is_revision) {
            return Err(wrong());
        }
        Ok(Self {
            repo: repo.to_owned(),
            revision: revision.map(str::to_owned),
        })
    }
}

/// Whether a text can be a branch, tag or commit: it becomes a path of the cache and of a URL.
fn is_revision(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(word);
    text.split('/').all(part)
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.repo)?;
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

/// Where a model, a part of one or a tokenizer is: a path of this machine, or a name on the Hub.
///
/// It is written and compared as the user wrote it, and read as the folder that it was resolved to, so
/// that whoever reads files need not know of the Hub.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "PathBuf", into = "PathBuf")]
pub struct ModelPath {
    written: PathBuf,
    folder: Option<PathBuf>,
}

impl ModelPath {
    /// What stands in the config.
    pub fn written(&self) -> &Path {
        &self.written
    }

    /// The name on the Hub, where it is one.
    ///
    /// # Errors
    /// When it begins with `hf:` and is not such a name.
    pub fn hub_name(&self) -> Option<Result<HubName, HubNameError>> {
        HubName::of(&self.written)
    }

    /// The folder of this machine that holds what `name` (with its commit) stands for.
    pub fn resolved(name: &HubName, folder: PathBuf) -> Self {
        Self {
            written: name.to_string().into(),
            folder: Some(folder),
        }
    }
}

impl From<PathBuf> for ModelPath {
    fn from(written: PathBuf) -> Self {
        Self {
            written,
            folder: None,
        }
    }
}

impl From<&str> for ModelPath {
    fn from(written: &str) -> Self {
        PathBuf::from(written).into()
    }
}

impl From<ModelPath> for PathBuf {
    fn from(path: ModelPath) -> Self {
        path.written
    }
}

impl PartialEq for ModelPath {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for ModelPath {}

impl Deref for ModelPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        self.folder.as_deref().unwrap_or(&self.written)
    }
}

impl JsonSchema for ModelPath {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        PathBuf::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        PathBuf::json_schema(generator)
    }
}

impl RunConfig {
    /// The keys that name a folder (of a model, a part of one, or a tokenizer), where they are set.
    pub fn model_paths(&self) -> Vec<(&'static str, &ModelPath)> {
        let model = &self.model;
        let paths = [
            &model.path,
            &model.checkpoint,
            &model.llm.path,
            &model.vision.path,
            &model.connector.path,
            &model.llm.lora.path,
            &self.tokenizer.path,
        ];
        let keyed = MODEL_PATH_KEYS.into_iter().zip(paths);
        keyed
            .filter_map(|(key, path)| Some((key, path.as_ref()?)))
            .collect()
    }

    /// As [`Self::model_paths`], to put what they were resolved to in their place.
    pub fn model_paths_mut(&mut self) -> Vec<(&'static str, &mut ModelPath)> {
        let model = &mut self.model;
        let paths = [
            &mut model.path,
            &mut model.checkpoint,
            &mut model.llm.path,
            &mut model.vision.path,
            &mut model.connector.path,
            &mut model.llm.lora.path,
            &mut self.tokenizer.path,
        ];
        let keyed = MODEL_PATH_KEYS.into_iter().zip(paths);
        keyed
            .filter_map(|(key, path)| Some((key, path.as_mut()?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for text in [
            "hf:Qwen/Qwen2.5-0.5B",
            "hf:a/b@main",
            "hf:a_b/c.d@refs/pr/3",
            "hf:a/b@v1.0+cu",
        ] {
            let name: HubName = text.parse().expect(text);
            assert_eq!(name.to_string(), text);
        }
        let pinned: HubName = "hf:a/b@0123456789abcdef0123456789abcdef01234567"
            .parse()
            .expect("a commit");
        assert!(pinned.commit().is_some());
        assert_eq!(
            "hf:a/b@0123".parse::<HubName>().expect("a tag").commit(),
            None
        );
    }

    #[test]
    fn what_would_lead_elsewhere_is_no_name() {
        for text in [
            "hf:",
            "hf:gpt2",
            "hf:a/b/c",
            "hf:../b",
            "hf:a/..",
            "hf:a/b@",
            "hf:a/b@../../x",
            "hf:a/b@/x",
            "hf:a/b@x y",
            "hf:a/b?x",
            "hf:a--b/c",
            "hf:-a/b",
            "HF:a/b",
        ] {
            assert!(text.parse::<HubName>().is_err(), "{text}");
        }
        assert_eq!(HubName::of(Path::new("models/hf:a")), None);
    }

    #[test]
    fn a_resolved_path_is_read_as_its_folder_and_written_as_its_name() {
        let name: HubName = "hf:a/b@main".parse().expect("a name");
        let path = ModelPath::resolved(&name, "/cache/x".into());
        assert_eq!(&*path, Path::new("/cache/x"));
        assert_eq!(serde_json::to_value(&path).expect("JSON"), "hf:a/b@main");
        assert_eq!(path, ModelPath::from("hf:a/b@main"));
    }
}
