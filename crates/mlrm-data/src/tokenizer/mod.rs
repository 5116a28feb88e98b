//! Token ids from text: a Hugging Face `tokenizer.json`, or a byte-level BPE trained on the notes.
//!
//! The vocabulary has ordinary tokens, which text is made of, and added tokens (`<s>`, `<IMG>`,
//! `<|im_end|>`, …), which mean something to the model. Note text comes from strangers, so
//! [`Tokenizer::encode`] never turns text into an added token, however it is spelt; a prompt states
//! where its special tokens stand by their ids ([`Piece::Token`]).

mod encode;
mod load;
#[cfg(test)]
mod tests;
mod train;

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

pub use encode::{Encoded, Piece};
pub use train::TEXT_END;

use crate::error::{DataError, Result, shorten};
use crate::write::write_file;

/// Rows that an embedding table can have: many times the largest published vocabulary.
const MOST_ROWS: u32 = 10_000_000;

/// A tokenizer that is ready to encode prompts.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The content of `tokenizer_config.json`, kept so that saving loses nothing.
    config: Map<String, Value>,
    /// Ids that text must never become: those of all added tokens but the unknown token.
    protected: HashSet<u32>,
    /// What the model gives to text that it has no token for, if it has such a token.
    unknown: Option<u32>,
    /// What every sequence begins with (Llama: the token of the text's beginning).
    prefix: Vec<u32>,
    pad: u32,
    vocabulary_rows: usize,
}

/// A token that the vocabulary lacked and now has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Its spelling.
    pub content: String,
    /// Its id: the embedding needs a row of this index.
    pub id: u32,
}

impl Tokenizer {
    /// Makes sure that these special tokens exist. Returns those that are new, whose embedding rows
    /// the model has to make (as the mean of the existing rows, method §1); a spelling that the
    /// vocabulary holds already keeps its id.
    ///
    /// # Errors
    /// When the vocabulary has no free id at its end, or a spelling is empty.
    pub fn add_special_tokens(&mut self, contents: &[&str]) -> Result<Vec<NewToken>> {
        let before = self.inner.get_vocab(true);
        let taken: HashSet<u32> = before.values().copied().collect();
        let added = self.inner.get_added_vocabulary();
        let missing: Vec<AddedToken> = contents
            .iter()
            .filter(|content| !added.is_special_token(content))
            .map(|content| AddedToken::from(*content, true))
            .collect();
        self.inner
            .add_special_tokens(missing)
            .map_err(|error| vocabulary_error(format!("cannot add special tokens: {error}")))?;
        let mut new: Vec<NewToken> = Vec::new();
        for &content in contents {
            let id = self.inner.token_to_id(content).ok_or_else(|| {
                vocabulary_error(format!("`{content}` cannot be a special token"))
            })?;
            if before.contains_key(content) || new.iter().any(|token| token.id == id) {
                continue;
            }
            // The library counts new ids from the number of tokens.
            if taken.contains(&id) {
                return Err(vocabulary_error(format!(
                    "the ids have gaps, so that `{content}` would get the id {id} of another token",
                )));
            }
            let content = content.to_owned();
            new.push(NewToken { content, id });
        }
        self.index()?;
        Ok(new)
    }

    /// Works out everything that follows from the vocabulary.
    fn index(&mut self) -> Result<()> {
        let vocabulary = self.inner.get_vocab(true);
        let Some((token, &last)) = vocabulary.iter().max_by_key(|&(_, id)| id) else {
            return Err(vocabulary_error("the vocabulary is empty".into()));
        };
        if last >= MOST_ROWS {
            return Err(vocabulary_error(format!(
                "the token `{}` has the id {last}, and an embedding table has a row for every id \
                 up to the largest, of which there can be {MOST_ROWS}",
                shorten(token)
            )));
        }
        self.vocabulary_rows = last as usize + 1;
        let added = self.inner.get_added_vocabulary();
        self.protected = added
            .get_vocab()
            .values()
            .copied()
            .filter(|&id| Some(id) != self.unknown)
            .collect();
        Ok(())
    }

    /// Rows that an embedding needs: the largest id plus one.
    pub fn vocabulary_rows(&self) -> usize {
        self.vocabulary_rows
    }

    /// The id of a token, ordinary or added, by its spelling in the vocabulary.
    pub fn token_id(&self, content: &str) -> Option<u32> {
        self.inner.token_to_id(content)
    }

    /// Special tokens (those that decoding can leave out) with their ids.
    pub(crate) fn special_tokens(&self) -> Vec<(&str, u32)> {
        let added = self.inner.get_added_vocabulary();
        let tokens = added.get_added_tokens_decoder().iter();
        let mut special: Vec<_> = tokens
            .filter(|(_, token)| token.special)
            .map(|(&id, token)| (token.content.as_str(), id))
            .collect();
        special.sort_unstable_by_key(|&(_, id)| id);
        special
    }

    /// What fills rows up to the length of the longest. No result may depend on it.
    pub fn pad_id(&self) -> u32 {
        self.pad
    }

    /// Ids that stand before every sequence, as the tokenizer's own post-processor or
    /// `add_bos_token` of its `tokenizer_config.json` says. Ids that it would put *after* a sequence
    /// are not used: the embedding is read at the prompt's own last token (method §2.4).
    pub fn prefix_ids(&self) -> &[u32] {
        &self.prefix
    }

    /// Text of ids, special tokens included; for people.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner
            .decode(ids, false)
            .map_err(|error| vocabulary_error(format!("cannot decode: {error}")))
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into a folder, as
    /// `transformers.PreTrainedTokenizerFast` and [`load`](Self::load) read them. (`AutoTokenizer`
    /// of transformers 5 puts the splitting of the model's family in the place of the file's own:
    /// with a tokenizer of that family that is the same, with a trained one it is not.)
    pub fn save(&self, folder: &Path) -> Result<()> {
        let text = self
            .inner
            .to_string(true)
            .map_err(|error| vocabulary_error(format!("cannot be written: {error}")))?;
        write_file(&folder.join("tokenizer.json"), |out| {
            std::io::Write::write_all(out, text.as_bytes())
        })?;
        write_file(&folder.join("tokenizer_config.json"), |out| {
            serde_json::to_writer_pretty(out, &self.config).map_err(std::io::Error::other)
        })
    }
}

/// Something that the tokenizer's own content makes impossible.
fn vocabulary_error(message: String) -> DataError {
    DataError::setting(
        "tokenizer.path",
        message,
        "use another tokenizer.json, or `tokenizer.train_vocab_size` instead",
    )
}
