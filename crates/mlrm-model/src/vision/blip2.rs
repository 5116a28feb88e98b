//! BLIP-2's vision transformer, an EVA-CLIP ViT-g without its last layer (arXiv 2301.12597; Hugging
//! Face `blip_2_vision_model`, or the vision half of `blip-2`).

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use mlrm_config::VisionFamily;
use serde_json::{Value, json};

use super::encoder::{Encoder, FusedAttention, PatchEmbedding, prepend_class};
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
            ("qformer.", "the connector of a whole BLIP-2"),
            ("query_tokens", "the connector of a whole BLIP-2"),
            ("language_projection.", "the connector of a whole BLIP-2"),
            ("language_model.", "the language model of a whole BLIP-2"),
        ],
    },
    prefix: "vision_model.",
    own_prefix: "",
    initial,
};

/// Those of `Blip2VisionConfig`.
const DEFAULTS: VisionConfig = VisionConfig {
    family: VisionFamily::Blip2,
    hidden_size: 1408,
    intermediate_size: 6144,
    num_hidden_layers: 39,
    num_attention_heads: 16,
    image_size: 224,
    patch_size: 14,
    hidden_act: Activation::Gelu,
    layer_norm_eps: 1e-6,
    qkv_bias: true,
    position_grid: 224 / 14,
};

fn read(hf: &mut HfConfig) -> Result<VisionConfig, ModelError> {
    hf.refuse_unless("dropout", &[json!(0.0), json!(0)], "set it to 0");
    let mut config = VisionConfig::read_common(hf, &DEFAULTS)?;
    config.qkv_bias = hf.get("qkv_bias", Some(true))?;
    Ok(config)
}

fn to_json(config: &VisionConfig) -> Value {
    let mut keys = config.common_json("blip_2_vision_model", "Blip2VisionModel");
    keys["qkv_bias"] = json!(config.qkv_bias);
    keys
}

/// Normal with 0.02 throughout. (Hugging Face's own 1e-10 only makes room for published weights: with
/// it all patches would look alike.)
fn initial(_: &VisionConfig, name: &str) -> InitRule {
    if name.contains("norm") && name.ends_with(".weight") {
        InitRule::Constant(1.0)
    } else if name.ends_with(".bias") {
        InitRule::Constant(0.0)
    } else {
        InitRule::Normal(0.02)
    }
}

#[derive(Module, Debug)]
struct Embeddings {
    /// `[1, 1, hidden]`
    class_embedding: Param<Tensor<3>>,
    /// `[1, 1 + patches, hidden]`
    position_embedding: Param<Tensor<3>>,
    patch_embedding: PatchEmbedding,
}

/// The vision tower; field names are those of a Hugging Face checkpoint below `vision_model.`.
#[derive(Module, Debug)]
pub struct Blip2Vision {
    embeddings: Embeddings,
    encoder: Encoder<FusedAttention>,
    post_layernorm: LayerNorm,
}

impl Blip2Vision {
    /// A tower of zeros.
    pub fn new(config: &VisionConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        Self {
            embeddings: Embeddings {
                class_embedding: zeros([1, 1, width], device),
                position_embedding: zeros([1, 1 + config.patches(), width], device),
                patch_embedding: PatchEmbedding::new(config, true, device),
            },
            encoder: Encoder::new(config, device),
            post_layernorm: LayerNorm::new(width, config.layer_norm_eps, device),
        }
    }

    /// See [`super::VisionTower::forward`]. BLIP-2's own Q-Former reads the last state after
    /// `post_layernorm`.
    pub fn forward(
        &self,
        pixels: Tensor<4>,
        selection: FeatureSelection,
        every: Option<&mut Vec<Tensor<3>>>,
    ) -> VisionFeatures {
        let parts = &self.embeddings;
        let patches = parts.patch_embedding.forward(pixels);
        let width = patches.dims()[2];
        let class = parts.class_embedding.val().reshape([width]);
        let x = prepend_class(class, patches) + parts.position_embedding.val();
        let selected = self.encoder.selected(selection);
        let [mut state] = self.encoder.forward(x, [selected], every);
        if selection.post_layernorm {
            state = self.post_layernorm.forward(state);
        }
        VisionFeatures::with_class_token(state, selection.positions)
    }
}
