//! The families of vision encoders, one file each: what its `config.json` says, how it differs from
//! the shared core, and what its tensors are called.

mod blip2;
mod clip;
mod dinov2;
mod dinov2_with_registers;
mod dinov3_vit;
mod qwen_vl;
mod siglip;
mod vit;

use mlrm_config::{VisionFamily, VisionSettings};
use serde_json::{Value, json};

use super::VisionConfig;
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::weights::{InitRule, NameTable};

/// What tells one family of vision encoders from the others.
#[derive(Debug)]
pub struct VisionEncoderFamily {
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

/// The entry of a family.
pub(super) fn of(family: VisionFamily) -> &'static VisionEncoderFamily {
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

/// The family of a `model_type`, and the section that describes the encoder where the file is a whole
/// model's.
pub(super) fn of_type(
    model_type: &str,
) -> Option<(&'static VisionEncoderFamily, Option<&'static str>)> {
    VisionFamily::ALL.iter().find_map(|&kind| {
        let family = of(kind);
        let whole = family.whole.filter(|(name, _)| *name == model_type);
        match whole {
            _ if kind.name() == model_type => Some((family, None)),
            Some((_, section)) => Some((family, Some(section))),
            None => None,
        }
    })
}

/// Every `model_type` that is read, for messages: `clip_vision_model, clip, …`.
pub(super) fn types() -> String {
    let names = VisionFamily::ALL.iter().flat_map(|&kind| {
        let whole = of(kind).whole.map(|(name, _)| name);
        [Some(kind.name()), whole].into_iter().flatten()
    });
    names.collect::<Vec<_>>().join(", ")
}

/// The rule of scales and shifts, which start as the identity in every family; `None` for other
/// tensors.
fn identity(name: &str) -> Option<InitRule> {
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
