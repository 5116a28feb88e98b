//! The visual tower of Qwen-VL (arXiv 2308.12966): OpenCLIP's ViT-bigG without class token, for
//! pictures of 448 pixels, positions stretched from those of 224. It has no Hugging Face class; names
//! and keys are those of the published checkpoint (`transformer.visual.…` and the section `visual` of
//! its `config.json`). What follows the layers there is the connector `resampler` here.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use mlrm_config::VisionFamily;
use serde_json::{Value, json};

use super::encoder::{Encoder, FusedAttention, PatchEmbedding};
use super::registry::Family;
use super::{FeatureSelection, VisionConfig, VisionFeatures};
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::{Activation, LayerNorm, resize_positions, zeros};
use crate::weights::{InitRule, NameTable};

pub(super) const FAMILY: Family = Family {
    read,
    to_json,
    names: NameTable {
        rename,
        ignored: &[
            (
                "transformer.visual.attn_pool.",
                "the connector of a whole Qwen-VL",
            ),
            (
                "transformer.visual.ln_post.",
                "the connector of a whole Qwen-VL",
            ),
            (
                "transformer.visual.proj",
                "the connector of a whole Qwen-VL",
            ),
            ("transformer.wte.", "the language model of a whole Qwen-VL"),
            ("transformer.h.", "the language model of a whole Qwen-VL"),
            ("transformer.ln_f.", "the language model of a whole Qwen-VL"),
            ("lm_head.", "no LM head is ever computed"),
        ],
    },
    prefix: "transformer.visual.",
    own_prefix: "transformer.visual.",
    initial,
};

/// Stored positions along one side in the published checkpoint, which does not state them.
const PUBLISHED_GRID: usize = 16;

/// OpenCLIP's names of what the other families call by Hugging Face's.
fn rename(path: &str) -> String {
    let layer = |rest: &str| {
        rest.replace("self_attn.qkv.", "attn.in_proj.")
            .replace("self_attn.projection.", "attn.out_proj.")
            .replace("layer_norm", "ln_")
            .replace("mlp.fc1.", "mlp.c_fc.")
            .replace("mlp.fc2.", "mlp.c_proj.")
    };
    match path.strip_prefix("encoder.layers.") {
        Some(rest) => format!("transformer.resblocks.{}", layer(rest)),
        None => path.to_owned(),
    }
}

fn read(hf: &mut HfConfig) -> Result<VisionConfig, ModelError> {
    // The connector's sizes and an id of the language model's prompt.
    hf.take("output_dim");
    hf.take("n_queries");
    hf.take("image_start_id");
    let width: usize = hf.get("width", Some(1664))?;
    let ratio: f64 = hf.get("mlp_ratio", Some(4.9231))?;
    Ok(VisionConfig {
        family: VisionFamily::QwenVl,
        hidden_size: width,
        intermediate_size: (width as f64 * ratio) as usize,
        num_hidden_layers: hf.get("layers", Some(48))?,
        num_attention_heads: hf.get("heads", Some(16))?,
        image_size: hf.get("image_size", Some(448))?,
        patch_size: hf.get("patch_size", Some(14))?,
        hidden_act: Activation::Gelu,
        layer_norm_eps: 1e-6,
        qkv_bias: true,
        position_grid: hf.get("position_grid", Some(PUBLISHED_GRID))?,
    })
}

fn to_json(config: &VisionConfig) -> Value {
    json!({
        "model_type": "qwen_vl_visual",
        "width": config.hidden_size,
        // Half a unit more than the quotient, so that cutting the product off gives the width back.
        "mlp_ratio": (config.intermediate_size as f64 + 0.5) / config.hidden_size as f64,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "position_grid": config.position_grid,
    })
}

/// Initial values: OpenCLIP's scale for positions, normal with 0.02 elsewhere.
fn initial(config: &VisionConfig, name: &str) -> InitRule {
    if name.contains("ln_") && name.ends_with(".weight") {
        InitRule::Constant(1.0)
    } else if name.ends_with(".bias") {
        InitRule::Constant(0.0)
    } else if name == "positional_embedding" {
        InitRule::Normal((config.hidden_size as f64).powf(-0.5))
    } else {
        InitRule::Normal(0.02)
    }
}

/// The vision tower.
#[derive(Module, Debug)]
pub struct QwenVision {
    conv1: PatchEmbedding,
    /// `[stored positions, hidden]`
    positional_embedding: Param<Tensor<2>>,
    ln_pre: LayerNorm,
    encoder: Encoder<FusedAttention>,
}

impl QwenVision {
    /// A tower of zeros.
    pub fn new(config: &VisionConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        Self {
            conv1: PatchEmbedding::new(config, false, device),
            positional_embedding: zeros([config.position_grid.pow(2), width], device),
            ln_pre: LayerNorm::new(width, config.layer_norm_eps, device),
            encoder: Encoder::new(config, device),
        }
    }

    /// See [`super::VisionTower::forward`]; hidden state 0 is the one after `ln_pre`. There is neither a
    /// class token nor a pooling head: the summary is the mean of the selected state's patches.
    pub fn forward(
        &self,
        pixels: Tensor<4>,
        selection: FeatureSelection,
        every: Option<&mut Vec<Tensor<3>>>,
    ) -> VisionFeatures {
        let patches = self.conv1.forward(pixels);
        let positions = resize_positions(self.positional_embedding.val(), patches.dims()[1]);
        let x = self.ln_pre.forward(patches + positions.unsqueeze());
        let selected = self.encoder.selected(selection);
        let [state] = self.encoder.forward(x, [selected], every);
        let [notes, _, width] = state.dims();
        let mean = state.clone().cast(DType::F32).mean_dim(1);
        VisionFeatures {
            summary: mean.reshape([notes, width]).cast(state.dtype()),
            positions: state,
        }
    }
}
