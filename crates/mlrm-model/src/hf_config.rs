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

/// The keys of one `config.json`, ticked off as they are read.
pub struct HfConfig<'a> {
    path: &'a Path,
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
        Ok(Self { path, keys })
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
                ModelError::format(self.path, format!("`{key}` = {value} cannot be used: {e}"))
            }),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(ModelError::format(
                self.path,
                format!("key `{key}` is missing; is this the model's own config.json?"),
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
            option: key.into(),
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
            .find(|(key, value)| !value.is_null() && !WITHOUT_EFFECT.contains(&key.as_str()));
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
