//! Reading `tokenizer.json` and, where there is one, `tokenizer_config.json`.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, ModelWrapper};

use super::{Piece, Tokenizer, vocabulary_error};
use crate::error::{DataError, LFS_POINTER, Result, shorten};

/// The parts of `tokenizer.json` that the library does not hand out, or not as they were written.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    added_tokens: Vec<WrittenToken>,
    model: WrittenModel,
}

#[derive(Deserialize)]
struct WrittenToken {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct WrittenModel {
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    unk_id: Option<u32>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, or that of a folder. A `tokenizer_config.json` beside it is read
    /// for `add_bos_token`, `pad_token` and `eos_token`, and for tokens that it alone lists
    /// (`added_tokens_decoder`), which are added as transformers does.
    ///
    /// BPE dropout, truncation and padding that the file asks for are left out: encoding is
    /// deterministic, and the prompt has a budget of its own.
    pub fn load(path: &Path) -> Result<Self> {
        let path = match path.is_dir() {
            true => path.join("tokenizer.json"),
            false => path.to_path_buf(),
        };
        // Qwen 1 is published with this alone.
        if !path.exists() && path.with_file_name("qwen.tiktoken").exists() {
            return Err(DataError::file(
                &path,
                "is not there; mlrm does not read the `qwen.tiktoken` beside it",
                "convert it to a `tokenizer.json` of the Hugging Face tokenizers library with the \
                 same ids",
            ));
        }
        let of_others = ["tokenizer.model", "spiece.model", "vocab.json", "vocab.txt"];
        let beside = |name: &&str| !path.exists() && path.with_file_name(name).exists();
        if let Some(name) = of_others.into_iter().find(beside) {
            return Err(DataError::file(
                &path,
                format!("is not there; mlrm does not read the `{name}` beside it"),
                "let transformers write it: `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`",
            ));
        }
        let bytes = fs::read(&path).map_err(DataError::io("read", &path))?;
        if bytes.starts_with(LFS_POINTER) {
            return Err(DataError::file(
                &path,
                "this is a pointer of Git LFS, not the file",
                "run `git lfs pull` where it comes from",
            ));
        }
        let broken = |reason: String| {
            DataError::file(
                &path,
                format!("no usable tokenizer: {}", shorten(&reason)),
                "name a `tokenizer.json` of the Hugging Face tokenizers library",
            )
        };
        let written: Written =
            serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        let mut inner =
            tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| broken(error.to_string()))?;
        check_ids(&inner, &written).map_err(&broken)?;
        let unknown = match (&written.model.unk_token, written.model.unk_id) {
            (_, Some(id)) => Some(id),
            (Some(token), None) => inner.token_to_id(token),
            (None, None) => None,
        };
        if let ModelWrapper::BPE(bpe) = inner.get_model()
            && bpe.dropout.is_some()
        {
            let mut bpe = bpe.clone();
            bpe.dropout = None;
            inner.with_model(bpe);
        }
        let padding = inner.get_padding().map(|padding| padding.pad_token.clone());
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|error| broken(error.to_string()))?;
        let config_path = path.with_file_name("tokenizer_config.json");
        let config = read_config(&config_path)?;
        add_listed(&mut inner, &config).map_err(|reason| {
            DataError::file(
                &config_path,
                format!("its `added_tokens_decoder` {reason}"),
                "take both files from the same folder",
            )
        })?;
        Self::from_parts(inner, config, unknown, padding)
    }

    /// A tokenizer of these parts; `padding` is the spelling of a pad token that is not in `config`.
    pub(super) fn from_parts(
        inner: tokenizers::Tokenizer,
        config: Map<String, Value>,
        unknown: Option<u32>,
        padding: Option<String>,
    ) -> Result<Self> {
        let mut tokenizer = Self {
            inner,
            config,
            protected: HashSet::new(),
            unknown,
            prefix: Vec::new(),
            pad: 0,
            vocabulary_rows: 0,
        };
        tokenizer.index()?;
        tokenizer.prefix = tokenizer.find_prefix()?;
        let nameless = |id: &&u32| tokenizer.inner.id_to_token(**id).is_none();
        if let Some(id) = tokenizer.prefix.iter().find(nameless) {
            return Err(vocabulary_error(format!(
                "its post-processor puts the id {id} before a text, but no token has it"
            )));
        }
        let named = |key| config_token(&tokenizer.config, key);
        let candidates = [named("pad_token"), padding, named("eos_token")];
        let known = candidates.into_iter().flatten().find_map(|content| {
            let id = tokenizer.inner.token_to_id(&content)?;
            Some((content, id))
        });
        if let Some((content, id)) = known {
            tokenizer.pad = id;
            // `tokenizer.json` is saved without its padding, which may be what named the token.
            let pad_token = Value::String(content);
            tokenizer.config.insert("pad_token".into(), pad_token);
        }
        Ok(tokenizer)
    }

    /// The ids before a sequence: `add_bos_token` decides where it is written, as in
    /// transformers' Llama tokenizer; otherwise what the post-processor puts before a sample does.
    fn find_prefix(&self) -> Result<Vec<u32>> {
        match self.config.get("add_bos_token").and_then(Value::as_bool) {
            Some(false) => return Ok(Vec::new()),
            Some(true) => {
                let bos = config_token(&self.config, "bos_token");
                let id = bos.and_then(|content| self.inner.token_to_id(&content));
                return id.map(|id| vec![id]).ok_or_else(|| {
                    vocabulary_error(
                        "tokenizer_config.json has `add_bos_token`, but its `bos_token` is not in \
                         the vocabulary"
                            .into(),
                    )
                });
            }
            None => {}
        }
        let sample = self.run_model(&[Piece::Text("a")])?;
        let bare = sample.get_ids().to_vec();
        let processed = self
            .inner
            .post_process(sample, None, true)
            .map_err(|error| vocabulary_error(format!("its post-processor fails: {error}")))?;
        let ids = processed.get_ids();
        if bare.is_empty() {
            return Ok(Vec::new());
        }
        let start = ids.windows(bare.len()).position(|window| window == bare);
        start.map(|start| ids[..start].to_vec()).ok_or_else(|| {
            vocabulary_error("its post-processor changes the ids of the text itself".into())
        })
    }
}

/// The library only logs when the vocabulary gives an added token another id than the file states:
/// the model would read other embeddings than those it was trained with.
fn check_ids(inner: &tokenizers::Tokenizer, written: &Written) -> Result<(), String> {
    for WrittenToken { id, content } in &written.added_tokens {
        let given = inner.token_to_id(content);
        if given != Some(*id) {
            let given = given.map_or("none".to_owned(), |id| id.to_string());
            return Err(format!(
                "the added token `{content}` has the id {id} in the file, but gets {given}"
            ));
        }
    }
    Ok(())
}

/// A token as `added_tokens_decoder` describes it.
#[derive(Deserialize)]
struct ListedToken {
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

/// Adds the tokens of `added_tokens_decoder` that `tokenizer.json` lacks, in the order of their ids;
/// the error says why one cannot have its id.
fn add_listed(
    inner: &mut tokenizers::Tokenizer,
    config: &Map<String, Value>,
) -> Result<(), String> {
    let Some(listed) = config.get("added_tokens_decoder").filter(|v| !v.is_null()) else {
        return Ok(());
    };
    let listed: BTreeMap<u32, ListedToken> = serde_json::from_value(listed.clone())
        .map_err(|error| format!("cannot be read: {error}"))?;
    for (id, token) in listed {
        let content = token.content;
        if inner.token_to_id(&content).is_none() {
            let added = AddedToken::from(content.as_str(), token.special)
                .lstrip(token.lstrip)
                .rstrip(token.rstrip)
                .single_word(token.single_word)
                .normalized(token.normalized.unwrap_or(!token.special));
            let result = match token.special {
                true => inner.add_special_tokens([added]),
                false => inner.add_tokens([added]),
            };
            result.map_err(|error| format!("has `{content}`, which cannot be added: {error}"))?;
        }
        let given = inner.token_to_id(&content);
        if given != Some(id) {
            let given = given.map_or("none".to_owned(), |id| id.to_string());
            return Err(format!(
                "gives `{content}` the id {id}, but with tokenizer.json it has {given}"
            ));
        }
    }
    Ok(())
}

fn read_config(path: &Path) -> Result<Map<String, Value>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(error) => return Err(DataError::io("read", path)(error)),
    };
    serde_json::from_str(&text).map_err(|error| {
        DataError::file(
            path,
            format!("no JSON object: {error}"),
            "correct the file or remove it",
        )
    })
}

/// A token of `tokenizer_config.json`: its spelling, or an object that holds it.
fn config_token(config: &Map<String, Value>, key: &str) -> Option<String> {
    let token = config.get(key)?;
    let content = token.as_str().or_else(|| token.get("content")?.as_str());
    content.map(str::to_owned)
}
