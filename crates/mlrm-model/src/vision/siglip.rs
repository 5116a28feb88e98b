//! SigLIP's vision transformer (arXiv 2303.15343; Hugging Face `siglip_vision_model`, or the vision
//! half of `siglip`): no class token; an attention head pools the patches into one vector.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use mlrm_config::VisionFamily;
use serde_json::{Value, json};

use super::encoder::{Encoder, PatchEmbedding, SplitAttention};
use super::registry::Family;
use super::{FeatureSelection, VisionConfig, VisionFeatures};
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::{Activation, CrossAttention, LayerNorm, TwoLayerMlp, zeros};
use crate::weights::{InitRule, NameTable};

pub(super) const FAMILY: Family = Family {
    read,
    to_json,
    names: NameTable {
        rename: str::to_owned,
        ignored: &[
            ("embeddings.position_ids", "a constant 0, 1, 2, …"),
            ("text_model.", "the text half of a whole SigLIP"),
            ("logit_scale", "belongs to SigLIP's own loss"),
            ("logit_bias", "belongs to SigLIP's own loss"),
        ],
    },
    prefix: "vision_model.",
    own_prefix: "vision_model.",
    initial,
};

/// Those of `SiglipVisionConfig`.
const DEFAULTS: VisionConfig = VisionConfig {
    family: VisionFamily::Siglip,
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    image_size: 224,
    patch_size: 16,
    hidden_act: Activation::GeluPytorchTanh,
    layer_norm_eps: 1e-6,
    qkv_bias: true,
    position_grid: 224 / 16,
};

fn read(hf: &mut HfConfig) -> Result<VisionConfig, ModelError> {
    let hint = "the pooling head is the picture's vector in late fusion";
    hf.refuse_unless("vision_use_head", &[json!(true)], hint);
    VisionConfig::read_common(hf, &DEFAULTS)
}

fn to_json(config: &VisionConfig) -> Value {
    config.common_json("siglip_vision_model", "SiglipVisionModel")
}

/// Initial values close to Hugging Face's, which are Xavier-uniform where these are normal.
fn initial(config: &VisionConfig, name: &str) -> InitRule {
    if name.contains("norm") && name.ends_with(".weight") {
        InitRule::Constant(1.0)
    } else if name.ends_with("bias") {
        InitRule::Constant(0.0)
    } else if name == "embeddings.position_embedding.weight" {
        InitRule::Normal((config.hidden_size as f64).powf(-0.5))
    } else if name == "embeddings.patch_embedding.weight" {
        let inputs = 3 * config.patch_size.pow(2);
        InitRule::Normal((inputs as f64).powf(-0.5))
    } else {
        InitRule::XavierNormal
    }
}

#[derive(Module, Debug)]
struct PositionEmbedding {
    /// `[patches, hidden]`
    weight: Param<Tensor<2>>,
}

#[derive(Module, Debug)]
struct Embeddings {
    patch_embedding: PatchEmbedding,
    position_embedding: PositionEmbedding,
}

/// One learnt query that reads all patches.
#[derive(Module, Debug)]
struct PoolingHead {
    /// `[1, 1, hidden]`
    probe: Param<Tensor<3>>,
    attention: CrossAttention,
    layernorm: LayerNorm,
    mlp: TwoLayerMlp,
}

/// The vision tower; field names are those of a Hugging Face checkpoint below `vision_model.`.
#[derive(Module, Debug)]
pub struct SiglipVision {
    embeddings: Embeddings,
    encoder: Encoder<SplitAttention>,
    post_layernorm: LayerNorm,
    head: PoolingHead,
    #[module(skip)]
    hidden_act: Activation,
}

impl PoolingHead {
    fn new(config: &VisionConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        Self {
            probe: zeros([1, 1, width], device),
            attention: CrossAttention::new(width, config.num_attention_heads, device),
            layernorm: LayerNorm::new(width, config.layer_norm_eps, device),
            mlp: TwoLayerMlp::new(width, config.intermediate_size, device),
        }
    }

    /// `[batch, patches, hidden]` → `[batch, hidden]`
    fn forward(&self, patches: Tensor<3>, activation: Activation) -> Tensor<2> {
        let [batch, _, width] = patches.dims();
        let probe = self.probe.val().expand([batch, 1, width]);
        let mixed = self.attention.forward(probe, patches.clone(), patches);
        let pooled = mixed.reshape([batch, width]);
        let normal = self.layernorm.forward(pooled.clone());
        pooled + self.mlp.forward(normal, activation)
    }
}

impl SiglipVision {
    /// A tower of zeros.
    pub fn new(config: &VisionConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        Self {
            embeddings: Embeddings {
                patch_embedding: PatchEmbedding::new(config, true, device),
                position_embedding: PositionEmbedding {
                    weight: zeros([config.patches(), width], device),
                },
            },
            encoder: Encoder::new(config, device),
            post_layernorm: LayerNorm::new(width, config.layer_norm_eps, device),
            head: PoolingHead::new(config, device),
            hidden_act: config.hidden_act,
        }
    }

    /// See [`super::VisionTower::forward`]. The summary is HF's `pooler_output`, from the last layer
    /// whatever layer is selected.
    pub fn forward(
        &self,
        pixels: Tensor<4>,
        selection: FeatureSelection,
        every: Option<&mut Vec<Tensor<3>>>,
    ) -> VisionFeatures {
        let parts = &self.embeddings;
        let x = parts.patch_embedding.forward(pixels)
            + parts.position_embedding.weight.val().unsqueeze();
        let wanted = [self.encoder.selected(selection), self.encoder.depth()];
        let [state, last] = self.encoder.forward(x, wanted, every);
        let pooled = self.post_layernorm.forward(last);
        let positions = if selection.post_layernorm {
            self.post_layernorm.forward(state)
        } else {
            state
        };
        VisionFeatures {
            summary: self.head.forward(pooled, self.hidden_act),
            positions,
        }
    }
}
