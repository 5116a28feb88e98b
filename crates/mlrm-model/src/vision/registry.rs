//! From a `model_type` to a family: the only place that tells the families apart.

use burn::tensor::{DType, Device, Tensor};
use mlrm_config::VisionFamily;
use serde_json::{Value, json};

use super::{FeatureSelection, VisionConfig, VisionFeatures, blip2, clip, qwen_vl, siglip};
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::weights::{
    Checkpoint, ExportedTensor, InitRule, NameTable, NamedTensor, export, fill, initial_values,
    load, parameter_count,
};

/// The `model_type` of a `config.json`, its family, and the section that holds the vision encoder
/// where the file describes more than that.
const MODEL_TYPES: [(&str, VisionFamily, Option<&str>); 8] = [
    ("clip_vision_model", VisionFamily::Clip, None),
    ("clip", VisionFamily::Clip, Some("vision_config")),
    ("siglip_vision_model", VisionFamily::Siglip, None),
    ("siglip", VisionFamily::Siglip, Some("vision_config")),
    ("blip_2_vision_model", VisionFamily::Blip2, None),
    ("blip-2", VisionFamily::Blip2, Some("vision_config")),
    ("qwen_vl_visual", VisionFamily::QwenVl, None),
    ("qwen", VisionFamily::QwenVl, Some("visual")),
];

/// The names that a `config.json` may have, for messages.
pub const FAMILY_NAMES: &str = "clip_vision_model, clip, siglip_vision_model, siglip, \
     blip_2_vision_model, blip-2, qwen_vl_visual, qwen (Qwen-VL)";

/// What a family's file states.
pub(super) struct Family {
    /// Reads the family's keys.
    pub read: fn(HfConfig) -> Result<VisionConfig, ModelError>,
    /// The `config.json` of the vision encoder alone.
    pub to_json: fn(&VisionConfig) -> Value,
    /// Names below the prefix.
    pub names: NameTable,
    /// What whole models put before the names.
    pub prefix: &'static str,
    /// What a checkpoint of the encoder alone puts before the names, where that is written.
    pub own_prefix: &'static str,
    /// Initial values from scratch, by name.
    pub initial: fn(&VisionConfig, &str) -> InitRule,
}

fn family(family: VisionFamily) -> &'static Family {
    match family {
        VisionFamily::Clip => &clip::FAMILY,
        VisionFamily::Siglip => &siglip::FAMILY,
        VisionFamily::Blip2 => &blip2::FAMILY,
        VisionFamily::QwenVl => &qwen_vl::FAMILY,
    }
}

pub(super) fn read(mut hf: HfConfig) -> Result<VisionConfig, ModelError> {
    let model_type: String = hf.get("model_type", None)?;
    let known = MODEL_TYPES.iter().find(|(name, ..)| *name == model_type);
    let Some((_, of, section)) = known else {
        let hint = format!("vision encoders that mlrm implements: {FAMILY_NAMES}");
        return Err(hf.unsupported("model_type", &json!(model_type), &hint));
    };
    let vision = match section {
        None => hf,
        Some(section) => hf.section(section)?,
    };
    (family(*of).read)(vision)
}

pub(super) fn to_json(config: &VisionConfig) -> Value {
    (family(config.family).to_json)(config)
}

/// A vision encoder of any family. It is frozen: no gradient, no optimiser state.
#[derive(Debug, Clone)]
pub struct VisionTower {
    config: VisionConfig,
    tower: Tower,
}

#[derive(Debug, Clone)]
enum Tower {
    Clip(clip::ClipVision),
    Siglip(siglip::SiglipVision),
    Blip2(blip2::Blip2Vision),
    QwenVl(qwen_vl::QwenVision),
}

/// `$tower`'s module, whatever its family, bound to `$module` in `$body`.
macro_rules! each {
    ($tower:expr, $module:ident => $body:expr) => {
        match $tower {
            Tower::Clip($module) => $body,
            Tower::Siglip($module) => $body,
            Tower::Blip2($module) => $body,
            Tower::QwenVl($module) => $body,
        }
    };
    ($tower:expr, map $module:ident => $body:expr) => {
        match $tower {
            Tower::Clip($module) => Tower::Clip($body),
            Tower::Siglip($module) => Tower::Siglip($body),
            Tower::Blip2($module) => Tower::Blip2($body),
            Tower::QwenVl($module) => Tower::QwenVl($body),
        }
    };
}

impl VisionTower {
    /// A tower of zeros on `device`, which must not keep gradients.
    fn zeros(config: &VisionConfig, device: &Device) -> Self {
        let tower = match config.family {
            VisionFamily::Clip => Tower::Clip(clip::ClipVision::new(config, device)),
            VisionFamily::Siglip => Tower::Siglip(siglip::SiglipVision::new(config, device)),
            VisionFamily::Blip2 => Tower::Blip2(blip2::Blip2Vision::new(config, device)),
            VisionFamily::QwenVl => Tower::QwenVl(qwen_vl::QwenVision::new(config, device)),
        };
        Self {
            config: config.clone(),
            tower,
        }
    }

    /// The tower with the weights of a checkpoint: its own, or a whole model's that holds it.
    pub fn load(
        config: &VisionConfig,
        checkpoint: &Checkpoint,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let Self { config, tower } = Self::zeros(config, device);
        let Family { names, prefix, .. } = *family(config.family);
        let has_prefix = checkpoint.names().any(|name| name.starts_with(prefix));
        let prefix = if has_prefix { prefix } else { "" };
        let tower = each!(tower, map module => load(module, checkpoint, prefix, names, dtype)?);
        Ok(Self { config, tower })
    }

    /// The tower with initial values drawn from `seed`.
    pub fn from_scratch(config: &VisionConfig, seed: u64, dtype: DType, device: &Device) -> Self {
        let Self { config, tower } = Self::zeros(config, device);
        let Family { names, initial, .. } = *family(config.family);
        let mut value = |tensor: &NamedTensor| {
            let rule = initial(&config, &tensor.name);
            Some(initial_values(tensor, rule, seed, "vision"))
        };
        let tower = each!(tower, map module => fill(module, names.rename, dtype, &mut value));
        Self { config, tower }
    }

    /// The weights under the names of a published checkpoint.
    pub fn export(&self) -> Result<Vec<ExportedTensor>, ModelError> {
        let Family {
            names, own_prefix, ..
        } = *family(self.config.family);
        each!(&self.tower, module => export(module, own_prefix, names.rename))
    }

    /// Parameters, counted in elements.
    pub fn parameter_count(&self) -> usize {
        each!(&self.tower, module => parameter_count(module))
    }

    /// What `selection` means for the pictures `pixels`, `[notes, 3, side, side]`.
    ///
    /// With `every` all hidden states are computed and left there: 0 is what enters the first layer,
    /// i the output of layer i, as in Hugging Face.
    pub fn forward(
        &self,
        pixels: Tensor<4>,
        selection: FeatureSelection,
        every: Option<&mut Vec<Tensor<3>>>,
    ) -> VisionFeatures {
        each!(&self.tower, module => module.forward(pixels, selection, every))
    }
}
