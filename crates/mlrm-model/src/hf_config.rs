//! Strict reading of Hugging Face `config.json` files: every key is understood, known to be
//! without effect here, or refused by name.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::ModelError;

/// Keys that describe provenance, generation or training and do not change a forward pass.
const WITHOUT_EFFECT: &[&str] = &[
    "_name_or_path",
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "initializer_factor",
    "initializer_range",
    "model_type",
    "pad_token_id",
    "projection_dim",
    "return_dict",
    "tie_word_embeddings",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];

/// What transformers 4 wrote into every section of a file, with the values that are without effect.
/// Its settings of text generation, which no value makes matter here, are [`GENERATION`].
const OLD_DEFAULTS: &[(&str, &str)] = &[
    ("add_cross_attention", "false"),
    ("chunk_size_feed_forward", "0"),
    ("is_decoder", "false"),
    ("is_encoder_decoder", "false"),
    ("pruned_heads", "{}"),
    ("torchscript", "false"),
    ("use_bfloat16", "false"),
];

/// Settings of text generation, of classification and of what a call returns.
const GENERATION: &[&str] = &[
    "bad_words_ids",
    "begin_suppress_tokens",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "typical_p",
];

/// The keys of one `config.json`, or of a section of it, ticked off as they are read.
pub struct HfConfig<'a> {
    path: &'a Path,
    /// `vision_config.` in that section, empty at the top.
    section: String,
    keys: Map<String, Value>,
}

impl<'a> HfConfig<'a> {
    /// Reads `path`, a JSON object.
    pub fn read(path: &'a Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(|e| ModelError::io("read", path, e))?;
        Self::parse(path, &text)
    }

    /// Reads `text`, the content of `path`.
    pub fn parse(path: &'a Path, text: &str) -> Result<Self, ModelError> {
        let keys = serde_json::from_str(text)
            .map_err(|e| ModelError::format(path, format!("not a JSON object: {e}")))?;
        Ok(Self {
            path,
            section: String::new(),
            keys,
        })
    }

    /// The section `key` of a file that describes several models; the rest of the file is for others.
    ///
    /// Old CLIP files repeat what differs from the defaults under `<key>_dict`, which counts more.
    pub fn section(mut self, key: &str) -> Result<Self, ModelError> {
        let mut keys: Map<String, Value> = self.get(key, None)?;
        let more: Map<String, Value> = self.get(&format!("{key}_dict"), Some(Map::new()))?;
        keys.extend(more);
        Ok(Self {
            path: self.path,
            section: format!("{}{key}.", self.section),
            keys,
        })
    }

    /// The value of `key`, ticked off; `null` counts as absent.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.keys.remove(key).filter(|value| !value.is_null())
    }

    /// The value of `key` as `T`, or `default` where the key is absent.
    pub fn get<T: serde::de::DeserializeOwned>(
        &mut self,
        key: &str,
        default: Option<T>,
    ) -> Result<T, ModelError> {
        match (self.take(key), default) {
            (Some(value), _) => serde_json::from_value(value.clone()).map_err(|e| {
                let message = format!("`{}{key}` = {value} cannot be used: {e}", self.section);
                ModelError::format(self.path, message)
            }),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(ModelError::format(
                self.path,
                format!(
                    "key `{}{key}` is missing; is this the model's own config.json?",
                    self.section
                ),
            )),
        }
    }

    /// The value of `key`, where `null` has a meaning of its own; `default` where the key is absent.
    pub fn get_nullable<T: serde::de::DeserializeOwned>(
        &mut self,
        key: &str,
        default: Option<T>,
    ) -> Result<Option<T>, ModelError> {
        match self.keys.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.get(key, None).map(Some),
        }
    }

    /// Accepts `key` only where it is absent or has one of the `harmless` values.
    pub fn refuse_unless(
        &mut self,
        key: &str,
        harmless: &[Value],
        hint: &str,
    ) -> Result<(), ModelError> {
        match self.take(key) {
            Some(value) if !harmless.contains(&value) => Err(self.unsupported(key, &value, hint)),
            _ => Ok(()),
        }
    }

    /// An error about `key` of this file.
    pub fn unsupported(&self, key: &str, value: &Value, hint: &str) -> ModelError {
        ModelError::UnsupportedOption {
            path: self.path.to_owned(),
            option: format!("{}{key}", self.section),
            value: value.to_string(),
            hint: if hint.is_empty() {
                String::new()
            } else {
                format!("; {hint}")
            },
        }
    }

    /// Refuses what nobody asked for.
    pub fn finish(self) -> Result<(), ModelError> {
        let unknown = self
            .keys
            .iter()
            .find(|(key, value)| !value.is_null() && !without_effect(key, value));
        match unknown {
            Some((key, value)) => Err(self.unsupported(
                key,
                value,
                "mlrm does not know this key; remove it if it does not change the forward pass",
            )),
            None => Ok(()),
        }
    }
}

fn without_effect(key: &str, value: &Value) -> bool {
    let old_default = |(name, harmless): &(&str, &str)| {
        *name == key
            && serde_json::from_str(harmless).is_ok_and(|harmless: Value| *value == harmless)
    };
    WITHOUT_EFFECT.contains(&key)
        || GENERATION.contains(&key)
        || OLD_DEFAULTS.iter().any(old_default)
}
