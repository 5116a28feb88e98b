//! The families of vision encoders, one file each: what its `config.json` says, how it differs from
//! the shared core, and what its tensors are called. [`register`] adds one from outside.

mod blip2;
mod clip;
mod dinov2;
mod dinov2_with_registers;
mod dinov3_vit;
mod qwen2_5_vl;
mod qwen3_vl;
mod qwen_vl;
mod siglip;
mod vit;

use mlrm_config::{VisionFamily, VisionSettings, VisionTraits};
use serde_json::{Value, json};

use super::VisionConfig;
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::registry::{Family, Registry, named};
use crate::weights::{InitRule, NameTable};

/// What tells one family of vision encoders from the others.
pub struct VisionEncoderFamily {
    /// Hugging Face's `model_type` of the encoder alone; no two families have the same.
    pub name: &'static str,
    /// What the rest of the program has to know of it.
    pub traits: VisionTraits,
    /// Hugging Face's class of the encoder alone.
    pub architecture: &'static str,
    /// The `model_type` of a whole model that holds such an encoder, and the section of its
    /// `config.json` that describes it.
    pub whole: Option<(&'static str, &'static str)>,
    /// What whole models put before the encoder's names.
    pub prefix: &'static str,
    /// What a checkpoint of the encoder alone puts before the names, where that is written.
    pub own_prefix: &'static str,
    /// The tensors' names below the prefix.
    pub names: NameTable,
    /// Reads the family's `config.json`; refuses by name what is not implemented.
    pub read: fn(&mut HfConfig<'_>) -> Result<VisionConfig, ModelError>,
    /// The keys of the family's `config.json` beside `model_type` and `architectures`.
    pub write: fn(&VisionConfig) -> Value,
    /// The sizes of a config section, for an encoder from scratch.
    pub scratch: fn(&VisionSettings) -> VisionConfig,
    /// Initial values from scratch, by the tensor's name.
    pub initial: fn(&VisionConfig, &str) -> InitRule,
}

/// Families from outside of this crate.
static ADDED: Registry<VisionEncoderFamily> = Registry::new();

named!(VisionEncoderFamily);

impl Family for VisionEncoderFamily {
    fn types(&self) -> [Option<&'static str>; 2] {
        [Some(self.name), self.whole.map(|(name, _)| name)]
    }
}

/// Makes a family known, to all that reads a `config.json` in this process. Once it is, again does
/// nothing.
///
/// # Errors
/// Another family has its `model_type`, or that of the whole model which holds such an encoder.
pub fn register(family: &'static VisionEncoderFamily) -> Result<(), ModelError> {
    ADDED.add(family, built_in())
}

/// The entry of a family.
pub fn of(family: VisionFamily) -> &'static VisionEncoderFamily {
    match family {
        VisionFamily::Clip => &clip::FAMILY,
        VisionFamily::Siglip => &siglip::FAMILY,
        VisionFamily::Blip2 => &blip2::FAMILY,
        VisionFamily::QwenVl => &qwen_vl::FAMILY,
        VisionFamily::Dinov2 => &dinov2::FAMILY,
        VisionFamily::Dinov2WithRegisters => &dinov2_with_registers::FAMILY,
        VisionFamily::Dinov3Vit => &dinov3_vit::FAMILY,
        VisionFamily::Vit => &vit::FAMILY,
    }
}

/// Towers of whole models, which no config builds from scratch.
const OF_WHOLE_MODELS: [&VisionEncoderFamily; 2] = [&qwen2_5_vl::FAMILY, &qwen3_vl::FAMILY];

fn built_in() -> impl Iterator<Item = &'static VisionEncoderFamily> {
    let alone = VisionFamily::ALL.iter().copied().map(of);
    alone.chain(OF_WHOLE_MODELS)
}

/// The family of a `model_type`, and the section that describes the encoder where the file is a whole
/// model's.
pub(super) fn of_type(
    model_type: &str,
) -> Option<(&'static VisionEncoderFamily, Option<&'static str>)> {
    ADDED.with(built_in()).find_map(|family| {
        let whole = family.whole.filter(|(name, _)| *name == model_type);
        match whole {
            _ if family.name == model_type => Some((family, None)),
            Some((_, section)) => Some((family, Some(section))),
            None => None,
        }
    })
}

/// Every `model_type` that is read, for messages: `clip_vision_model, clip, …`.
pub(super) fn types() -> String {
    ADDED.types(built_in())
}

/// The rule of scales and shifts, which start as the identity in every family; `None` for other
/// tensors.
pub fn identity(name: &str) -> Option<InitRule> {
    if name.contains("norm") && name.ends_with(".weight") {
        Some(InitRule::Constant(1.0))
    } else if name.ends_with("bias") {
        Some(InitRule::Constant(0.0))
    } else {
        None
    }
}

/// Keys of dropout, which a frozen encoder does not have, as ViT calls them.
const DROPOUTS: [&str; 2] = ["hidden_dropout_prob", "attention_probs_dropout_prob"];

fn refuse_dropout(hf: &mut HfConfig<'_>) {
    for key in DROPOUTS {
        hf.refuse_unless(key, &[json!(0.0), json!(0)], "set it to 0");
    }
}

/// What [`VisionConfig::common_json`] says of dropout, as ViT calls it.
fn rename_dropout(keys: &mut Value) {
    if let Some(keys) = keys.as_object_mut() {
        keys.remove("attention_dropout");
        keys.extend(DROPOUTS.map(|key| (key.to_owned(), json!(0.0))));
    }
}
