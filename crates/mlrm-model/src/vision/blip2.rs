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

fn read(mut hf: HfConfig) -> Result<VisionConfig, ModelError> {
    hf.refuse_unless("attention_dropout", &[json!(0.0), json!(0)], "set it to 0")?;
    hf.refuse_unless("dropout", &[json!(0.0), json!(0)], "set it to 0")?;
    hf.refuse_unless("num_channels", &[json!(3)], "only RGB is")?;
    let (image_size, patch_size) = (
        hf.get("image_size", Some(224))?,
        hf.get("patch_size", Some(14))?,
    );
    let config = VisionConfig {
        family: VisionFamily::Blip2,
        hidden_size: hf.get("hidden_size", Some(1408))?,
        intermediate_size: hf.get("intermediate_size", Some(6144))?,
        num_hidden_layers: hf.get("num_hidden_layers", Some(39))?,
        num_attention_heads: hf.get("num_attention_heads", Some(16))?,
        image_size,
        patch_size,
        hidden_act: hf.get("hidden_act", Some(Activation::Gelu))?,
        layer_norm_eps: hf.get("layer_norm_eps", Some(1e-6))?,
        qkv_bias: hf.get("qkv_bias", Some(true))?,
        position_grid: image_size.checked_div(patch_size).unwrap_or(0),
    };
    hf.finish()?;
    Ok(config)
}

fn to_json(config: &VisionConfig) -> Value {
    json!({
        "architectures": ["Blip2VisionModel"],
        "model_type": "blip_2_vision_model",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
        "qkv_bias": config.qkv_bias,
        "attention_dropout": 0.0,
    })
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
