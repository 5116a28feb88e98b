//! The families of decoders, one file each: what its `config.json` says, how it differs from the
//! shared core, and what its tensors are called. [`register`] adds one from outside.

mod gemma2;
mod gemma3;
mod granite;
pub mod llama;
mod mistral;
mod opt;
mod phi3;
mod qwen;
mod qwen2;
pub(crate) mod qwen2_5_vl;
mod qwen3;
pub(crate) mod qwen3_vl;
mod smollm3;

use mlrm_config::{LlmFamily, LlmSettings};
use serde_json::Value;

use super::{DecoderConfig, LayerKind};
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::registry::{Family, Registry, named};
use crate::weights::NameTable;

/// What tells one family of decoders from the others.
pub struct DecoderFamily {
    /// Hugging Face's `model_type`; no two families have the same.
    pub name: &'static str,
    /// Hugging Face's class of the decoder without LM head.
    pub architecture: &'static str,
    /// What a causal language model's checkpoint puts before the decoder's names.
    pub prefix: &'static str,
    /// The tensors' names below the prefix.
    pub names: NameTable,
    /// Reads the family's `config.json`; refuses by name what is not implemented.
    pub read: fn(&mut HfConfig<'_>) -> Result<DecoderConfig, ModelError>,
    /// The keys that the family's `config.json` has beside those of all families.
    pub write: fn(&DecoderConfig) -> Value,
    /// The sizes of a config section, for a decoder from scratch with so many words.
    pub scratch: fn(&LlmSettings, usize) -> DecoderConfig,
}

/// Families from outside of this crate.
static ADDED: Registry<DecoderFamily> = Registry::new();

named!(DecoderFamily);

impl Family for DecoderFamily {
    fn types(&self) -> [Option<&'static str>; 2] {
        [Some(self.name), None]
    }
}

/// Makes a family known, to all that reads a `config.json` in this process. Once it is, again does
/// nothing.
///
/// # Errors
/// Another family has its `model_type`.
pub fn register(family: &'static DecoderFamily) -> Result<(), ModelError> {
    ADDED.add(family, built_in())
}

/// The entry of a family.
pub fn of(family: LlmFamily) -> &'static DecoderFamily {
    match family {
        LlmFamily::Llama => &llama::FAMILY,
        LlmFamily::Mistral => &mistral::FAMILY,
        LlmFamily::Qwen => &qwen::FAMILY,
        LlmFamily::Qwen2 => &qwen2::FAMILY,
        LlmFamily::Qwen3 => &qwen3::FAMILY,
        LlmFamily::Gemma2 => &gemma2::FAMILY,
        LlmFamily::Gemma3 => &gemma3::FAMILY,
        LlmFamily::Phi3 => &phi3::FAMILY,
        LlmFamily::SmolLm3 => &smollm3::FAMILY,
        LlmFamily::Granite => &granite::FAMILY,
        LlmFamily::Opt => &opt::FAMILY,
    }
}

/// Language models of whole models, which no config builds from scratch.
const OF_WHOLE_MODELS: [&DecoderFamily; 2] = [&qwen2_5_vl::FAMILY, &qwen3_vl::FAMILY];

fn built_in() -> impl Iterator<Item = &'static DecoderFamily> {
    let alone = LlmFamily::ALL.iter().copied().map(of);
    alone.chain(OF_WHOLE_MODELS)
}

/// The family of a Hugging Face `model_type`.
pub fn of_type(model_type: &str) -> Option<&'static DecoderFamily> {
    let mut all = ADDED.with(built_in());
    all.find(|family| family.name == model_type)
}

/// The `model_type` of every family, for messages: `llama, mistral, …`.
pub fn types() -> String {
    ADDED.types(built_in())
}

/// The names of kinds of layers in `layer_types`.
const LAYER_TYPES: [(&str, LayerKind); 2] = [
    ("full_attention", LayerKind::Full),
    ("sliding_attention", LayerKind::Sliding),
];

/// What `layer_types` says of each of `layers` layers, or `usual` where it is absent.
fn layer_types(
    hf: &mut HfConfig<'_>,
    layers: usize,
    usual: impl Fn(usize) -> LayerKind,
) -> Result<Vec<LayerKind>, ModelError> {
    // Sizes are checked when all are read.
    let layers = layers.min(crate::bounds::LAYERS);
    let Some(types) = hf.take("layer_types") else {
        return Ok((0..layers).map(usual).collect());
    };
    let kind = |value: &Value| {
        let known = |(name, _): &&(&str, LayerKind)| value.as_str() == Some(*name);
        LAYER_TYPES.iter().find(known).map(|&(_, kind)| kind)
    };
    let kinds: Option<Vec<LayerKind>> = types
        .as_array()
        .and_then(|types| types.iter().map(kind).collect());
    let hint = "full_attention and sliding_attention are, one for each layer";
    kinds
        .filter(|kinds| kinds.len() == layers)
        .ok_or_else(|| hf.unsupported("layer_types", &types, hint))
}

fn write_layer_types(keys: &mut Value, config: &DecoderConfig) {
    let name = |kind: &LayerKind| {
        let entry = LAYER_TYPES.iter().find(|(_, known)| known == kind);
        entry.map(|(name, _)| *name)
    };
    keys["layer_types"] = config.layer_kinds.iter().map(name).collect();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use burn::tensor::Device;

    use super::*;
    use crate::decoder::Decoder;
    use crate::weights::named_tensors;

    fn parse(text: &str) -> Result<DecoderConfig, ModelError> {
        let path = Path::new("config.json");
        Ok(DecoderConfig::from_hf(path, HfConfig::parse(path, text)?, &[])?.config)
    }

    /// Reads a `config.json`, and what is written of it, which must mean the same.
    pub(super) fn read(text: &str) -> DecoderConfig {
        let config = parse(text).expect("a config");
        let written = config.to_json().to_string();
        assert_eq!(parse(&written).expect(&written), config, "{written}");
        config
    }

    /// `text` with one key set is refused, and the message names the key and says `words`.
    pub(super) fn refused(text: &str, key: &str, value: Value, words: &str) {
        let mut keys: Value = serde_json::from_str(text).expect("JSON");
        keys[key] = value;
        let error = parse(&keys.to_string()).expect_err(key).to_string();
        assert!(error.contains(&format!("`{key}`")), "{error}");
        assert!(error.contains(words), "{error}");
    }

    fn small(family: LlmFamily) -> DecoderConfig {
        let settings = LlmSettings {
            family,
            hidden_size: 8,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 6,
            max_position_embeddings: 9,
            ..LlmSettings::default()
        };
        DecoderConfig::from_settings(&settings, 11)
    }

    #[test]
    fn every_family_is_found_by_its_name_and_writes_what_it_reads() {
        for &family in LlmFamily::ALL {
            assert!(of_type(family.name()).is_some());
            let config = small(family);
            assert_eq!(config.family.name, family.name());
            let written = config.to_json().to_string();
            assert_eq!(parse(&written).expect(&written), config, "{written}");
        }
        assert!(of_type("mamba").is_none());
    }

    #[test]
    fn names_of_tensors_can_be_undone() {
        for &family in LlmFamily::ALL {
            let config = small(family);
            let decoder = Decoder::new(&config, &Device::default());
            let own = named_tensors(&decoder, str::to_owned);
            let renamed = named_tensors(&decoder, config.family().names.rename);
            let names: BTreeSet<&str> = renamed.iter().map(|t| t.name.as_str()).collect();
            assert_eq!(names.len(), own.len(), "{names:?}");
        }
    }
}
