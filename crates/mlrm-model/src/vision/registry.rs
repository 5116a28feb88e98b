//! From a `model_type` to a vision family: the only place that tells them apart by name.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use mlrm_config::VisionFamily;
use serde_json::{Value, json};

use super::{FeatureSelection, VisionConfig, VisionFeatures, blip2, clip, qwen_vl, siglip};
use crate::error::ModelError;
use crate::hf_config::{HfConfig, Noted};
use crate::weights::{
    Checkpoint, Fit, InitRule, LoadOptions, NameTable, NamedTensor, Tensors, WriteOptions, Written,
    each_value, fill, fit, initial_values, load, write_module,
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

/// Pictures that [`VisionTower::encode`] passes through the encoder at a time.
pub const PICTURES_AT_A_TIME: usize = 8;

/// The names that a `config.json` may have, for messages.
pub const FAMILY_NAMES: &str = "clip_vision_model, clip, siglip_vision_model, siglip, \
     blip_2_vision_model, blip-2, qwen_vl_visual, qwen (Qwen-VL)";

/// What a family's file states.
pub(super) struct Family {
    /// Reads the family's keys.
    pub read: fn(&mut HfConfig) -> Result<VisionConfig, ModelError>,
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

pub(super) fn read(mut hf: HfConfig) -> Result<Noted<VisionConfig>, ModelError> {
    let model_type: String = hf.get("model_type", None)?;
    let known = MODEL_TYPES.iter().find(|(name, ..)| *name == model_type);
    let Some((_, of, section)) = known else {
        let hint = format!("vision encoders that mlrm implements: {FAMILY_NAMES}");
        return Err(hf.unsupported("model_type", &json!(model_type), &hint));
    };
    let mut vision = match section {
        None => hf,
        Some(section) => hf.section(section)?,
    };
    let config = (family(*of).read)(&mut vision)?;
    let notes = vision.finish()?;
    Ok(Noted { config, notes })
}

pub(super) fn to_json(config: &VisionConfig) -> Value {
    (family(config.family).to_json)(config)
}

/// A vision encoder of any family. It is frozen: no gradient, no optimiser state.
#[derive(Module, Debug)]
pub struct VisionTower {
    #[module(skip)]
    config: VisionConfig,
    tower: Tower,
}

#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one a model, and small beside the weights that it holds"
)]
enum Tower {
    Clip(clip::ClipVision),
    Siglip(siglip::SiglipVision),
    Blip2(blip2::Blip2Vision),
    QwenVl(qwen_vl::QwenVision),
}

impl VisionTower {
    /// A tower of zeros on `device`, which must not keep gradients.
    pub(crate) fn zeros(config: &VisionConfig, device: &Device) -> Self {
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

    /// The tower with the weights of a checkpoint, strictly: its own, or a whole model's that holds
    /// it, whose other tensors are left unread.
    pub fn load(
        config: &VisionConfig,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let Self { config, tower } = Self::zeros(config, device);
        let Family { names, prefix, .. } = *family(config.family);
        let prefix = checkpoint.prefix(prefix);
        let tower = load(tower, checkpoint, prefix, names, options)?;
        Ok(Self { config, tower })
    }

    /// How the names and shapes of a checkpoint fit the tower.
    pub fn fit(&self, checkpoint: &Checkpoint) -> Fit {
        let Family { names, prefix, .. } = *family(self.config.family);
        let prefix = checkpoint.prefix(prefix);
        fit(&self.tower, checkpoint, prefix, names, None)
    }

    /// The tower with initial values drawn from `seed`.
    pub fn from_scratch(config: &VisionConfig, seed: u64, dtype: DType, device: &Device) -> Self {
        let Self { config, tower } = Self::zeros(config, device);
        let Family { names, initial, .. } = *family(config.family);
        let mut value = |tensor: &NamedTensor| {
            let rule = initial(&config, &tensor.name);
            Some(initial_values(tensor, rule, seed, "vision"))
        };
        let tower = fill(tower, Tensors::Base, names.rename, dtype, &mut value);
        Self { config, tower }
    }

    /// Writes the weights into `folder` under the names of a checkpoint of the encoder alone.
    pub fn write(&self, folder: &Path, options: WriteOptions) -> Result<Written, ModelError> {
        let Family {
            names, own_prefix, ..
        } = *family(self.config.family);
        write_module(folder, &self.tower, own_prefix, names.rename, options)
    }

    /// Its sizes.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// Adds names, shapes and values of all weights to `hasher`.
    pub(super) fn hash_weights(&self, hasher: &mut blake3::Hasher) -> Result<(), ModelError> {
        each_value(&self.tower, str::to_owned, &mut |tensor, data| {
            let head = format!("{} {:?} {:?}\n", tensor.name, tensor.shape, data.dtype());
            hasher.update(head.as_bytes()).update(data.as_bytes());
            Ok(())
        })
    }

    /// What `selection` means for the pictures `pixels`, `[notes, 3, side, side]`.
    ///
    /// How a matrix product rounds depends on its size. So pictures always pass in batches of
    /// [`PICTURES_AT_A_TIME`], the last one filled up: a picture has the same features, bit by bit,
    /// whichever others come with it.
    pub fn encode(&self, pixels: Tensor<4>, selection: FeatureSelection) -> VisionFeatures {
        let [notes, channels, height, width] = pixels.dims();
        let mut parts = Vec::new();
        for start in (0..notes).step_by(PICTURES_AT_A_TIME) {
            let count = PICTURES_AT_A_TIME.min(notes - start);
            let mut part = pixels.clone().narrow(0, start, count);
            if count < PICTURES_AT_A_TIME {
                let missing = [PICTURES_AT_A_TIME - count, channels, height, width];
                let blank = Tensor::zeros(missing, (&part.device(), part.dtype()));
                part = Tensor::cat(vec![part, blank], 0);
            }
            parts.push(self.forward(part, selection, None).slice(0..count));
        }
        match VisionFeatures::cat(parts) {
            Some(features) => features,
            // Of no pictures.
            None => self.forward(pixels, selection, None),
        }
    }

    /// What `selection` means for the pictures `pixels`, `[notes, 3, side, side]`, all at once.
    ///
    /// With `every` all hidden states are computed and left there: 0 is what enters the first layer,
    /// i the output of layer i, as in Hugging Face.
    pub fn forward(
        &self,
        pixels: Tensor<4>,
        selection: FeatureSelection,
        every: Option<&mut Vec<Tensor<3>>>,
    ) -> VisionFeatures {
        match &self.tower {
            Tower::Clip(tower) => tower.forward(pixels, selection, every),
            Tower::Siglip(tower) => tower.forward(pixels, selection, every),
            Tower::Blip2(tower) => tower.forward(pixels, selection, every),
            Tower::QwenVl(tower) => tower.forward(pixels, selection, every),
        }
    }
}
