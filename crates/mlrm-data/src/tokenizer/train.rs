//! A byte-level BPE trained on the notes: no unknown tokens, no download.

use serde_json::json;
use tokenizers::AddedToken;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::{Tokenizer, vocabulary_error};
use crate::error::{DataError, Result};

/// End of a text; pads as well. The first token of a trained vocabulary, whose id is 0.
pub const TEXT_END: &str = "<|endoftext|>";

/// Pairs of tokens that occur once in all texts are not worth a row of the embedding.
const LEAST_OCCURRENCES: u64 = 2;

impl Tokenizer {
    /// Trains a byte-level BPE of at most `vocabulary_size` tokens: [`TEXT_END`], then
    /// `special_tokens`, then the 256 bytes, then merges, most frequent first. The result depends
    /// on the texts alone, not on their order, the threads, or chance. Texts too few for that many
    /// merges give a smaller vocabulary.
    pub fn train<I>(texts: I, vocabulary_size: usize, special_tokens: &[&str]) -> Result<Self>
    where
        I: Iterator<Item = String> + Send,
    {
        let mut special = vec![AddedToken::from(TEXT_END, true)];
        for token in special_tokens {
            if special.iter().all(|known| known.content != *token) {
                special.push(AddedToken::from(*token, true));
            }
        }
        let least = special.len() + ByteLevel::alphabet().len();
        if vocabulary_size < least {
            return Err(DataError::setting(
                "tokenizer.train_vocab_size",
                format!(
                    "{vocabulary_size} tokens are too few for the 256 bytes and special tokens"
                ),
                format!("set at least {least}"),
            ));
        }
        let failed = |error: tokenizers::Error| {
            vocabulary_error(format!("training the tokenizer failed: {error}"))
        };
        let mut inner = tokenizers::Tokenizer::new(BPE::default());
        inner
            .with_pre_tokenizer(Some(byte_level()))
            .with_decoder(Some(byte_level()))
            .with_post_processor(Some(byte_level()));
        let trainer = BpeTrainer::builder()
            .vocab_size(vocabulary_size)
            .min_frequency(LEAST_OCCURRENCES)
            .special_tokens(special)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .show_progress(false)
            .build();
        inner
            .train(&mut TrainerWrapper::BpeTrainer(trainer), texts)
            .map_err(failed)?;
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": TEXT_END,
            "pad_token": TEXT_END,
            "clean_up_tokenization_spaces": false,
        });
        let config = config.as_object().cloned().unwrap_or_default();
        Self::from_parts(inner, config, None, None)
    }
}

/// GPT-2's splitting into words, bytes as characters, no blank put before the text.
fn byte_level() -> ByteLevel {
    ByteLevel::new(false, false, true)
}
