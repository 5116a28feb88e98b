//! Writing a model, or a part of one, as Hugging Face's libraries read it.

use std::path::Path;

use serde_json::Value;

use super::{Loaded, ModelSource};
use crate::embedder::{ModelFolder, WrittenPart, write_part};
use crate::error::ModelError;
use crate::weights::{WriteOptions, write_module};

/// What belongs to a part beside config and weights, and is copied as it is.
const COMPANIONS: [&str; 12] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "qwen.tiktoken",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "preprocessor_config.json",
];

impl ModelSource {
    /// Writes `loaded`, which was loaded from here, into the fresh folder `out`: a whole model as a
    /// model folder, whose `llm/` and `vision/` are Hugging Face folders, a part as such a folder.
    /// `weights` is for these; the head stays in f32.
    ///
    /// A decoder is written without an LM head, which is never loaded.
    pub fn export(
        &self,
        loaded: &Loaded,
        out: &Path,
        weights: WriteOptions,
    ) -> Result<Vec<WrittenPart>, ModelError> {
        let at_root = |weights| {
            vec![WrittenPart {
                folder: "",
                weights,
            }]
        };
        match (self, loaded) {
            (Self::System { whole, .. }, _) => Err(ModelError::format(
                whole.root(),
                "is a whole model of others, not one that mlrm wrote; `mlrm train` with \
                 model.checkpoint and train.max_steps = 0 makes a model folder of it",
            )),
            (Self::Model(folder), Loaded::Model(embedder)) => {
                let written =
                    embedder.write(out, &folder.prompt, &folder.provenance, weights, None)?;
                copy_companions(&folder.llm(), &out.join("llm"))?;
                if folder.config.vision.is_some() {
                    copy_companions(&folder.vision(), &out.join("vision"))?;
                }
                copy_template(folder, out)?;
                Ok(written)
            }
            (Self::Llm { root, config }, Loaded::Llm(llm)) => {
                let json = own_config(root, &config.config.to_json())?;
                let family = config.config.family();
                let (prefix, rename) = (family.prefix, family.names.rename);
                let write = |out: &Path| write_module(out, llm.as_ref(), prefix, rename, weights);
                let written = write_part(out, json, write)?;
                copy_companions(root, out)?;
                Ok(at_root(written))
            }
            (Self::Vision { root, config }, Loaded::Vision(vision)) => {
                let json = own_config(root, &config.config.to_json())?;
                let written = write_part(out, json, |out| vision.write(out, weights))?;
                copy_companions(root, out)?;
                Ok(at_root(written))
            }
            _ => Err(ModelError::Input(
                "the weights are not those of this folder".into(),
            )),
        }
    }
}

/// The folder's own `config.json`, which says more than the forward pass needs, for the class that
/// is written. Of a whole model one half is written, whose config is what was read of it.
fn own_config(root: &Path, written: &Value) -> Result<Value, ModelError> {
    let path = root.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|e| ModelError::io("read", &path, e))?;
    let mut config: Value = serde_json::from_str(&text)
        .map_err(|e| ModelError::format(&path, format!("not JSON: {e}")))?;
    if config["model_type"] != written["model_type"] {
        return Ok(written.clone());
    }
    config["architectures"] = written["architectures"].clone();
    // What transformers 5 calls `dtype` was `torch_dtype` before; one of them is enough.
    if let Some(keys) = config.as_object_mut() {
        keys.remove("dtype");
    }
    Ok(config)
}

fn copy_companions(from: &Path, to: &Path) -> Result<(), ModelError> {
    for name in COMPANIONS {
        let file = from.join(name);
        if file.is_file() {
            copy(&file, &to.join(name))?;
        }
    }
    Ok(())
}

fn copy_template(folder: &ModelFolder, out: &Path) -> Result<(), ModelError> {
    let template = folder.root().join("template.toml");
    match template.is_file() {
        true => copy(&template, &out.join("template.toml")),
        false => Ok(()),
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), ModelError> {
    let copied = std::fs::copy(from, to);
    copied.map_err(|e| ModelError::io("write", to, e))?;
    Ok(())
}
