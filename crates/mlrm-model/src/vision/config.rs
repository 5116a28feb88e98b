//! Sizes of a vision encoder, the same for every family.

use std::path::Path;

use mlrm_config::{SelectFeature, VisionActivation, VisionFamily, VisionSettings};
use serde_json::{Value, json};

use super::registry;
use crate::bounds;
use crate::error::ModelError;
use crate::hf_config::{Accepted, HfConfig, Noted};
use crate::nn::Activation;

/// Sizes of a vision encoder, read from its Hugging Face `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Which family it belongs to.
    pub family: VisionFamily,
    /// Width of the hidden states (v).
    pub hidden_size: usize,
    /// Inner width of the feed-forward network.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Side of the square input in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Activation of the feed-forward network.
    pub hidden_act: Activation,
    /// Added to the variance inside LayerNorm.
    pub layer_norm_eps: f64,
    /// Whether query, key and value have biases.
    pub qkv_bias: bool,
    /// Side of the grid of stored positions: that of the patches, but for Qwen-VL, which stores
    /// fewer and stretches them.
    pub position_grid: usize,
}

impl VisionConfig {
    /// Reads the `config.json` of a vision encoder, or the vision half of a whole model's; refuses
    /// what is not implemented, by name.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        Ok(Self::read_accepting(path, &[])?.config)
    }

    /// [`Self::read`] that passes over the unknown keys of `accept_keys`.
    ///
    /// # Errors
    /// A file that cannot be read, sizes that do not fit, and every option that is not implemented.
    pub fn read_accepting(path: &Path, accept_keys: &[String]) -> Result<Noted<Self>, ModelError> {
        let accepted = Accepted {
            keys: accept_keys,
            setting: "model.vision.accept_keys",
        };
        let noted = registry::read(HfConfig::read(path)?.accepting(accepted))?;
        let check = noted.config.check();
        check.map_err(|m| ModelError::format(path, m))?;
        Ok(noted)
    }

    /// Reads the keys that CLIP, SigLIP and BLIP-2 share; an absent one has the value in `defaults`.
    pub(super) fn read_common(hf: &mut HfConfig, defaults: &Self) -> Result<Self, ModelError> {
        hf.refuse_unless("attention_dropout", &[json!(0.0), json!(0)], "set it to 0");
        hf.refuse_unless("num_channels", &[json!(3)], "only RGB is");
        let mut size = |key, default| hf.get(key, Some(default));
        let (image_size, patch_size) = (
            size("image_size", defaults.image_size)?,
            size("patch_size", defaults.patch_size)?,
        );
        Ok(Self {
            family: defaults.family,
            hidden_size: size("hidden_size", defaults.hidden_size)?,
            intermediate_size: size("intermediate_size", defaults.intermediate_size)?,
            num_hidden_layers: size("num_hidden_layers", defaults.num_hidden_layers)?,
            num_attention_heads: size("num_attention_heads", defaults.num_attention_heads)?,
            image_size,
            patch_size,
            hidden_act: hf.get("hidden_act", Some(defaults.hidden_act))?,
            layer_norm_eps: hf.get("layer_norm_eps", Some(defaults.layer_norm_eps))?,
            qkv_bias: defaults.qkv_bias,
            position_grid: image_size.checked_div(patch_size).unwrap_or(0),
        })
    }

    /// The keys of [`Self::read_common`], for the class `architecture`.
    pub(super) fn common_json(&self, model_type: &str, architecture: &str) -> Value {
        json!({
            "architectures": [architecture],
            "model_type": model_type,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_channels": 3,
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "hidden_act": self.hidden_act,
            "layer_norm_eps": self.layer_norm_eps,
            "attention_dropout": 0.0,
        })
    }

    fn check(&self) -> Result<(), String> {
        bounds::check(&[
            ("hidden_size", self.hidden_size, bounds::WIDTH),
            ("intermediate_size", self.intermediate_size, bounds::WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, bounds::LAYERS),
            (
                "num_attention_heads",
                self.num_attention_heads,
                bounds::HEADS,
            ),
            ("image_size", self.image_size, bounds::SIDE),
            ("patch_size", self.patch_size, bounds::SIDE),
        ])?;
        let heads = self.num_attention_heads;
        if heads == 0 || !self.hidden_size.is_multiple_of(heads) {
            return Err(format!(
                "`num_attention_heads` = {heads} must divide `hidden_size` = {}",
                self.hidden_size
            ));
        }
        let patch = self.patch_size;
        if patch == 0 || self.image_size < patch {
            return Err(format!(
                "`patch_size` = {patch} must fit into `image_size` = {}",
                self.image_size
            ));
        }
        if self.num_hidden_layers == 0 || self.intermediate_size == 0 || self.position_grid == 0 {
            return Err("layers, widths and positions start at 1".into());
        }
        Ok(())
    }

    /// The sizes of a config section, for an encoder from scratch.
    pub fn from_settings(settings: &VisionSettings) -> Self {
        Self {
            family: settings.family,
            hidden_size: settings.hidden_size,
            intermediate_size: settings.intermediate_size,
            num_hidden_layers: settings.num_hidden_layers,
            num_attention_heads: settings.num_attention_heads,
            image_size: settings.image_size,
            patch_size: settings.patch_size,
            hidden_act: match settings.hidden_act {
                VisionActivation::QuickGelu => Activation::QuickGelu,
                VisionActivation::Gelu => Activation::Gelu,
                VisionActivation::GeluPytorchTanh => Activation::GeluPytorchTanh,
            },
            layer_norm_eps: match settings.family {
                VisionFamily::Clip => 1e-5,
                VisionFamily::Siglip | VisionFamily::Blip2 | VisionFamily::QwenVl => 1e-6,
            },
            qkv_bias: true,
            position_grid: settings.image_size / settings.patch_size.max(1),
        }
    }

    /// The `config.json` that Hugging Face tools read.
    pub fn to_json(&self) -> Value {
        registry::to_json(self)
    }

    /// Whole patches along one side of the picture; pixels past the last one are not read, as in a
    /// convolution (SigLIP so400m: 384 pixels are 27 patches of 14).
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Patches of one picture (P).
    pub fn patches(&self) -> usize {
        self.grid().pow(2)
    }

    /// Positions of a picture that `select` means.
    pub fn positions(&self, select: SelectFeature) -> usize {
        let class = self.has_class_token() && select == SelectFeature::ClsPatch;
        self.patches() + usize::from(class)
    }

    /// Whether position 0 of the hidden states is a class token.
    pub fn has_class_token(&self) -> bool {
        matches!(self.family, VisionFamily::Clip | VisionFamily::Blip2)
    }

    /// Whether the encoder ends in a norm that [`super::FeatureSelection::post_layernorm`] can ask for.
    pub fn has_post_layernorm(&self) -> bool {
        self.family != VisionFamily::QwenVl
    }
}
