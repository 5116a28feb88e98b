//! Strict reading of Hugging Face `config.json` files: every key is understood, known to be
//! without effect here, off, accepted by the user, or refused by name, all at once.

mod keys;

use std::path::Path;

use serde_json::{Map, Value};

use self::keys::{WITH_EFFECT, inert, without_effect};
use crate::error::ModelError;

/// The keys of one `config.json`, or of a section of it, ticked off as they are read.
pub struct HfConfig<'a> {
    path: &'a Path,
    /// `vision_config.` in that section, empty at the top.
    section: String,
    keys: Map<String, Value>,
    accepted: Accepted<'a>,
    /// Options that were asked for and are not implemented.
    refused: Vec<Refusal>,
}

/// Keys that a user vouches for: they do not change the forward pass.
#[derive(Debug, Clone, Copy, Default)]
pub struct Accepted<'a> {
    /// The keys.
    pub keys: &'a [String],
    /// The setting that lists them, for messages; empty where there is none.
    pub setting: &'static str,
}

/// A config with what is worth saying about its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Noted<T> {
    /// The config.
    pub config: T,
    /// Keys that mlrm does not know and that were passed over, with the reason.
    pub notes: Vec<String>,
}

/// An option of a file that is not implemented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The key, with its section.
    pub option: String,
    /// Its value, as JSON.
    pub value: String,
    /// What to do instead; empty where nothing can be said.
    pub hint: String,
}

impl<'a> HfConfig<'a> {
    /// Reads `path`, a JSON object.
    ///
    /// # Errors
    /// A file that cannot be read, or is no JSON object.
    pub fn read(path: &'a Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(|e| ModelError::io("read", path, e))?;
        Self::parse(path, &text)
    }

    /// Reads `text`, the content of `path`.
    ///
    /// # Errors
    /// A text that is no JSON object.
    pub fn parse(path: &'a Path, text: &str) -> Result<Self, ModelError> {
        // Editors of Windows put a byte order mark before it.
        let keys = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|e| ModelError::format(path, format!("not a JSON object: {e}")))?;
        Ok(Self {
            path,
            section: String::new(),
            keys,
            accepted: Accepted::default(),
            refused: Vec::new(),
        })
    }

    /// Passes over the unknown keys that a user vouches for.
    pub fn accepting(self, accepted: Accepted<'a>) -> Self {
        Self { accepted, ..self }
    }

    /// The section `key` of a file that describes several models; the rest of the file is for others.
    ///
    /// Old CLIP files repeat what differs from the defaults under `<key>_dict`, which counts more.
    ///
    /// # Errors
    /// A key that is not there, or is no object.
    pub fn section(mut self, key: &str) -> Result<Self, ModelError> {
        let mut keys: Map<String, Value> = self.get(key, None)?;
        let more: Map<String, Value> = self.get(&format!("{key}_dict"), Some(Map::new()))?;
        keys.extend(more);
        Ok(Self {
            path: self.path,
            section: format!("{}{key}.", self.section),
            keys,
            accepted: self.accepted,
            refused: self.refused,
        })
    }

    /// The value of `key`, ticked off; `null` counts as absent.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.keys.remove(key).filter(|value| !value.is_null())
    }

    /// The value of `key`, which stays to be read; `None` where it is absent.
    pub fn peek(&self, key: &str) -> Option<&Value> {
        self.keys.get(key)
    }

    /// Puts `value` where `key` is absent or null, for a family whose default is another than that of
    /// whoever reads it.
    pub fn default_to(&mut self, key: &str, value: Value) {
        let held = self.keys.entry(key).or_insert(Value::Null);
        if held.is_null() {
            *held = value;
        }
    }

    /// The value of `key` as `T`, or `default` where the key is absent.
    ///
    /// # Errors
    /// A value of another type; a key that is missing and has no default.
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
    ///
    /// # Errors
    /// A value of another type.
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

    /// Accepts `key` only where it is absent or has one of the `harmless` values; else
    /// [`Self::finish`] refuses it, with all others.
    pub fn refuse_unless(&mut self, key: &str, harmless: &[Value], hint: &str) {
        match self.take(key) {
            Some(value) if !harmless.contains(&value) => {
                let refusal = self.refusal(key, &value, hint);
                self.refused.push(refusal);
            }
            _ => {}
        }
    }

    /// An error about `key` of this file.
    pub fn unsupported(&self, key: &str, value: &Value, hint: &str) -> ModelError {
        ModelError::unsupported(self.path, vec![self.refusal(key, value, hint)])
    }

    fn refusal(&self, key: &str, value: &Value, hint: &str) -> Refusal {
        Refusal {
            option: format!("{}{key}", self.section),
            value: value.to_string(),
            hint: hint.to_owned(),
        }
    }

    /// Judges the keys that nobody asked for. Those that change nothing pass, and so do unknown ones
    /// whose value is inert (null, false, empty) or that the user accepts: these are returned as notes.
    ///
    /// # Errors
    /// Every option that is not implemented and every other unknown key, all in one.
    pub fn finish(mut self) -> Result<Vec<String>, ModelError> {
        let keys = std::mem::take(&mut self.keys);
        let mut notes = Vec::new();
        let mut unknown = Vec::new();
        for (key, value) in keys {
            if without_effect(&key, &value) {
                continue;
            }
            let section = &self.section;
            let known = WITH_EFFECT.iter().find(|(name, _)| *name == key);
            if inert(&value) {
                if known.is_none() {
                    notes.push(format!("`{section}{key}` = {value} is unknown and off"));
                }
            } else if let Some((_, hint)) = known {
                let refusal = self.refusal(&key, &value, hint);
                self.refused.push(refusal);
            } else if self.accepted.keys.contains(&key) {
                notes.push(format!("`{section}{key}` = {value} is accepted unread"));
            } else {
                unknown.push((key, value));
            }
        }
        let hint = self.acceptance(&unknown);
        for (index, (key, value)) in unknown.iter().enumerate() {
            let last = index + 1 == unknown.len();
            let refusal = self.refusal(key, value, if last { &hint } else { "" });
            self.refused.push(refusal);
        }
        if self.refused.is_empty() {
            return Ok(notes);
        }
        Err(ModelError::unsupported(self.path, self.refused))
    }

    /// How `unknown` keys can be accepted.
    fn acceptance(&self, unknown: &[(String, Value)]) -> String {
        let (this, they) = match unknown.len() {
            1 => ("this key", "it does"),
            _ => ("these keys", "they do"),
        };
        let setting = self.accepted.setting;
        let accept = match setting {
            "" => "remove what does not".to_owned(),
            _ => {
                let mut keys = self.accepted.keys.to_vec();
                keys.extend(unknown.iter().map(|(key, _)| key.clone()));
                format!(
                    "accept with {setting} = {} (inspect and export: --accept-keys)",
                    Value::from(keys)
                )
            }
        };
        format!("mlrm does not know {this}; if {they} not change the forward pass, {accept}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn finish(keys: Value, accept: &[&str]) -> Result<Vec<String>, String> {
        let keys = keys.to_string();
        let accept: Vec<String> = accept.iter().map(|key| key.to_string()).collect();
        let accepted = Accepted {
            keys: &accept,
            setting: "model.llm.accept_keys",
        };
        let config = HfConfig::parse(Path::new("config.json"), &keys).expect("JSON");
        let finished = config.accepting(accepted).finish();
        finished.map_err(|error| error.to_string())
    }

    #[test]
    fn bookkeeping_passes_in_silence() {
        let keys = json!({"_attn_implementation_autoset": true, "_flash_attn_2_enabled": true,
            "auto_map": {"AutoModel": "m.M"}, "unsloth_version": "2024.9", "is_llama_config": true,
            "transformers.js_config": {"dtype": "q4"}, "model_name": "x", "max_length": 20});
        assert_eq!(finish(keys, &[]), Ok(vec![]));
    }

    #[test]
    fn an_unknown_key_that_is_off_is_noted() {
        for off in [json!(null), json!(false), json!(""), json!([]), json!({})] {
            let note = format!("`new_option` = {off} is unknown and off");
            assert_eq!(finish(json!({"new_option": off}), &[]), Ok(vec![note]));
        }
        // Known ones that are off need no word.
        let known = json!({"quantization_config": null, "alibi": false});
        assert_eq!(finish(known, &[]), Ok(vec![]));
    }

    #[test]
    fn other_unknown_keys_are_refused_in_one_message_that_says_how_to_accept_them() {
        let keys = json!({"first": 1, "second": [0.5], "off": false});
        let message = finish(keys.clone(), &[]).expect_err("two unknown keys");
        for part in [
            "`first` = 1",
            "`second` = [0.5]",
            "model.llm.accept_keys = [\"first\",\"second\"]",
        ] {
            assert!(message.contains(part), "{message}");
        }
        let message = finish(keys.clone(), &["first"]).expect_err("one unknown key");
        assert!(!message.contains("`first`"), "{message}");
        assert!(message.contains("= [\"first\",\"second\"]"), "{message}");
        let notes = finish(keys, &["first", "second"]).expect("all accepted");
        assert_eq!(notes.len(), 3);
    }

    #[test]
    fn what_changes_the_forward_pass_cannot_be_accepted() {
        let keys = json!({"quantization_config": {"bits": 4}, "num_local_experts": 8});
        let accept = ["quantization_config", "num_local_experts"];
        let message = finish(keys, &accept).expect_err("both");
        assert!(message.contains("2 options"), "{message}");
        assert!(message.contains("were not quantised"), "{message}");
        assert!(message.contains("experts"), "{message}");
    }

    #[test]
    fn every_refusal_of_a_file_comes_at_once() {
        let text =
            json!({"hidden_act": "relu", "attention_dropout": 0.1, "surprise": 3}).to_string();
        let mut config = HfConfig::parse(Path::new("config.json"), &text).expect("JSON");
        config.refuse_unless("hidden_act", &[json!("silu")], "only silu is");
        config.refuse_unless("attention_dropout", &[json!(0.0)], "set it to 0");
        let message = config.finish().expect_err("three").to_string();
        for part in ["3 options", "only silu is", "set it to 0", "`surprise` = 3"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
