//! CLIP's vision transformer (arXiv 2103.00020; Hugging Face `clip_vision_model`, or the vision half
//! of `clip`): OpenAI's with quick_gelu, OpenCLIP's with gelu.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use mlrm_config::VisionFamily;
use serde_json::{Value, json};

use super::encoder::{Encoder, PatchEmbedding, SplitAttention, prepend_class};
use super::registry::Family;
use super::{FeatureSelection, VisionConfig, VisionFeatures};
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::{Activation, LayerNorm, zeros};
use crate::weights::{InitRule, NameTable};

pub(super) const FAMILY: Family = Family {
    read,
    to_json,
    names: NameTable {
        rename: str::to_owned,
        ignored: &[
            ("embeddings.position_ids", "a constant 0, 1, 2, …"),
            (
                "visual_projection.weight",
                "features are taken before the projection into the space of texts",
            ),
            ("text_model.", "the text half of a whole CLIP"),
            ("text_projection.weight", "the text half of a whole CLIP"),
            ("logit_scale", "belongs to CLIP's own loss"),
        ],
    },
    prefix: "vision_model.",
    own_prefix: "vision_model.",
    initial,
};

/// Those of `CLIPVisionConfig`.
const DEFAULTS: VisionConfig = VisionConfig {
    family: VisionFamily::Clip,
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    image_size: 224,
    patch_size: 32,
    hidden_act: Activation::QuickGelu,
    layer_norm_eps: 1e-5,
    qkv_bias: true,
    position_grid: 224 / 32,
};

fn read(hf: &mut HfConfig) -> Result<VisionConfig, ModelError> {
    hf.refuse_unless("dropout", &[json!(0.0), json!(0)], "set it to 0");
    VisionConfig::read_common(hf, &DEFAULTS)
}

fn to_json(config: &VisionConfig) -> Value {
    config.common_json("clip_vision_model", "CLIPVisionModel")
}

/// Initial values as in Hugging Face (`initializer_factor` 1).
fn initial(config: &VisionConfig, name: &str) -> InitRule {
    let width = config.hidden_size as f64;
    let depth_scale = (2.0 * config.num_hidden_layers as f64).powf(-0.5);
    let input = width.powf(-0.5) * depth_scale;
    if name.contains("norm") && name.ends_with(".weight") {
        InitRule::Constant(1.0)
    } else if name.ends_with(".bias") {
        InitRule::Constant(0.0)
    } else if name == "embeddings.class_embedding" || name.ends_with("out_proj.weight") {
        InitRule::Normal(width.powf(-0.5))
    } else if name.ends_with("fc1.weight") {
        InitRule::Normal((2.0 * width).powf(-0.5))
    } else if name.starts_with("encoder.") {
        InitRule::Normal(input)
    } else {
        InitRule::Normal(0.02)
    }
}

#[derive(Module, Debug)]
struct PositionEmbedding {
    /// `[1 + patches, hidden]`
    weight: Param<Tensor<2>>,
}

#[derive(Module, Debug)]
struct Embeddings {
    /// `[hidden]`
    class_embedding: Param<Tensor<1>>,
    patch_embedding: PatchEmbedding,
    position_embedding: PositionEmbedding,
}

/// The vision tower; field names are those of a Hugging Face checkpoint below `vision_model.`.
#[derive(Module, Debug)]
pub struct ClipVision {
    embeddings: Embeddings,
    // The published checkpoints spell it so.
    pre_layrnorm: LayerNorm,
    encoder: Encoder<SplitAttention>,
    post_layernorm: LayerNorm,
}

impl ClipVision {
    /// A tower of zeros.
    pub fn new(config: &VisionConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        let norm = || LayerNorm::new(width, config.layer_norm_eps, device);
        Self {
            embeddings: Embeddings {
                class_embedding: zeros([width], device),
                patch_embedding: PatchEmbedding::new(config, false, device),
                position_embedding: PositionEmbedding {
                    weight: zeros([1 + config.patches(), width], device),
                },
            },
            pre_layrnorm: norm(),
            encoder: Encoder::new(config, device),
            post_layernorm: norm(),
        }
    }

    /// See [`super::VisionTower::forward`]; hidden state 0 is the one after `pre_layrnorm`.
    pub fn forward(
        &self,
        pixels: Tensor<4>,
        selection: FeatureSelection,
        every: Option<&mut Vec<Tensor<3>>>,
    ) -> VisionFeatures {
        let parts = &self.embeddings;
        let patches = parts.patch_embedding.forward(pixels);
        let x = prepend_class(parts.class_embedding.val(), patches)
            + parts.position_embedding.weight.val().unsqueeze();
        let x = self.pre_layrnorm.forward(x);
        let selected = self.encoder.selected(selection);
        let [mut state] = self.encoder.forward(x, [selected], every);
        if selection.post_layernorm {
            state = self.post_layernorm.forward(state);
        }
        VisionFeatures::with_class_token(state, selection.positions)
    }
}
