//! CLIP's vision transformer (arXiv 2103.00020; Hugging Face `clip_vision_model`, or the vision half
//! of `clip`): OpenAI's with quick_gelu, OpenCLIP's with gelu.

use mlrm_config::VisionFamily;
use serde_json::json;

use super::VisionEncoderFamily;
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::Activation;
use crate::vision::{AttentionKind, MaskToken, MlpKind, Stretch, Summary, VisionConfig};
use crate::weights::{InitRule, NameTable, renamed};

pub(super) static FAMILY: VisionEncoderFamily = VisionEncoderFamily {
    name: VisionFamily::Clip.name(),
    traits: VisionFamily::Clip.traits(),
    architecture: "CLIPVisionModel",
    whole: Some(("clip", "vision_config")),
    prefix: "vision_model.",
    own_prefix: "vision_model.",
    names: NameTable {
        rename: |path| renamed(path, NAMES),
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
    read,
    write: VisionConfig::common_json,
    scratch: |settings| DEFAULTS.sized(settings),
    initial,
};

const NAMES: &[(&str, &str)] = &[
    ("class_embedding", "embeddings.class_embedding"),
    ("patch_embedding.", "embeddings.patch_embedding."),
    ("position_embedding", "embeddings.position_embedding.weight"),
    // The published checkpoints spell it so.
    ("pre_layernorm.", "pre_layrnorm."),
    ("layers.", "encoder.layers."),
];

/// Those of `CLIPVisionConfig`.
const DEFAULTS: VisionConfig = VisionConfig {
    family: &FAMILY,
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    image_size: 224,
    patch_size: 32,
    hidden_act: Activation::QuickGelu,
    layer_norm_eps: 1e-5,
    qkv_bias: true,
    key_bias: true,
    rope_theta: None,
    position_grid: 224 / 32,
    stretch: Stretch::No,
    patch_bias: false,
    pre_layernorm: true,
    attention: AttentionKind::Separate,
    mlp: MlpKind::TwoLayers,
    layer_scale: false,
    register_tokens: 0,
    mask_token: MaskToken::Absent,
    tables_in_batches: false,
    blocks: None,
    own_grids: None,
    summary: Summary::ClassToken,
};

fn read(hf: &mut HfConfig<'_>) -> Result<VisionConfig, ModelError> {
    hf.refuse_unless("dropout", &[json!(0.0), json!(0)], "set it to 0");
    VisionConfig::read_common(hf, &DEFAULTS)
}

/// Initial values as in Hugging Face (`initializer_factor` 1).
fn initial(config: &VisionConfig, name: &str) -> InitRule {
    let width = config.hidden_size as f64;
    let depth_scale = (2.0 * config.num_hidden_layers as f64).powf(-0.5);
    let input = width.powf(-0.5) * depth_scale;
    if let Some(rule) = super::identity(name) {
        rule
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
