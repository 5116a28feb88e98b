//! Writing a model, or a part of one, as Hugging Face's libraries read it.

use std::path::Path;

use serde_json::Value;

use super::{Loaded, ModelSource};
use crate::decoder::{Decoder, DecoderConfig};
use crate::embedder::{ModelFolder, WrittenPart, write_part};
use crate::error::ModelError;
use crate::system::SystemPart;
use crate::weights::{WriteOptions, Written, write_module};

/// What belongs to a vision encoder beside config and weights, and is copied as it is.
const OF_VISION: [&str; 1] = ["preprocessor_config.json"];
/// The same of a language model.
const OF_LLM: [&str; 11] = [
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
];

impl ModelSource {
    /// Writes `loaded`, which was loaded from here, into the fresh folder `out`: a whole model as a
    /// model folder, whose `llm/` and `vision/` are Hugging Face folders, a part as such a folder. Of
    /// a whole model of others the two halves are written, without what is between and behind them.
    /// `weights` is for these folders; the head stays in f32.
    ///
    /// A decoder is written without an LM head, which is never loaded.
    ///
    /// # Errors
    /// A file that cannot be read or written, and `loaded` that is not of this folder.
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
            (
                Self::System {
                    whole, llm, vision, ..
                },
                Loaded::System(decoder, tower, _),
            ) => {
                let (root, system) = (whole.root(), whole.system);
                let part = out.join("llm");
                let config =
                    section_config(root, system.section(SystemPart::Llm), &llm.config.to_json())?;
                let mut written = vec![WrittenPart {
                    folder: "llm",
                    weights: write_decoder(&part, config, decoder, &llm.config, weights)?,
                }];
                copy_companions(root, &part, &OF_LLM)?;
                if let (Some(sizes), Some(tower)) = (vision, tower) {
                    let part = out.join("vision");
                    let section = system.section(SystemPart::Vision);
                    let config = section_config(root, section, &sizes.config.to_json())?;
                    written.push(WrittenPart {
                        folder: "vision",
                        weights: write_part(&part, config, |part| tower.write(part, weights))?,
                    });
                    copy_companions(root, &part, &OF_VISION)?;
                }
                Ok(written)
            }
            (Self::Model(folder), Loaded::Model(embedder)) => {
                let written =
                    embedder.write(out, &folder.prompt, &folder.provenance, weights, None)?;
                copy_companions(&folder.llm(), &out.join("llm"), &OF_LLM)?;
                if folder.config.vision.is_some() {
                    copy_companions(&folder.vision(), &out.join("vision"), &OF_VISION)?;
                }
                copy_template(folder, out)?;
                Ok(written)
            }
            (Self::Llm { root, config }, Loaded::Llm(llm)) => {
                let json = section_config(root, None, &config.config.to_json())?;
                let written = write_decoder(out, json, llm, &config.config, weights)?;
                copy_companions(root, out, &OF_LLM)?;
                Ok(at_root(written))
            }
            (Self::Vision { root, config }, Loaded::Vision(vision)) => {
                let json = section_config(root, None, &config.config.to_json())?;
                let written = write_part(out, json, |out| vision.write(out, weights))?;
                copy_companions(root, out, &OF_VISION)?;
                Ok(at_root(written))
            }
            _ => Err(ModelError::format(
                self.root(),
                "the weights are not those of this folder",
            )),
        }
    }
}

fn write_decoder(
    folder: &Path,
    json: Value,
    decoder: &Decoder,
    config: &DecoderConfig,
    weights: WriteOptions,
) -> Result<Written, ModelError> {
    let family = config.family();
    let (prefix, rename) = (family.prefix, family.names.rename);
    let write = |folder: &Path| write_module(folder, decoder, prefix, rename, weights);
    write_part(folder, json, write)
}

/// The folder's own `config.json`, or the `section` of it that describes the part, which say more than
/// the forward pass needs, for the class that is written. Where they are of another kind, it is what
/// was read of them: `written`.
fn section_config(
    root: &Path,
    section: Option<&str>,
    written: &Value,
) -> Result<Value, ModelError> {
    let path = root.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|e| ModelError::io("read", &path, e))?;
    let mut config: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|e| ModelError::format(&path, format!("not JSON: {e}")))?;
    if let Some(section) = section {
        config = config[section].take();
    }
    if config["model_type"] != written["model_type"] {
        return Ok(written.clone());
    }
    config["architectures"] = written["architectures"].clone();
    if let Some(keys) = config.as_object_mut() {
        // What transformers 5 calls `dtype` was `torch_dtype` before; one of them is enough.
        keys.remove("dtype");
        // Qwen-VL's config is that of its language model, but for this.
        keys.remove("visual");
    }
    Ok(config)
}

fn copy_companions(from: &Path, to: &Path, names: &[&str]) -> Result<(), ModelError> {
    for name in names {
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
