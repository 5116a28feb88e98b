//! SigLIP's vision transformer (arXiv 2303.15343; Hugging Face `siglip_vision_model`, or the vision
//! half of `siglip`), and SigLIP 2's at fixed size, which is published as the same: no class token; an
//! attention head pools the patches into one vector.

use mlrm_config::VisionFamily;
use serde_json::json;

use super::VisionEncoderFamily;
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::Activation;
use crate::vision::{AttentionKind, MaskToken, MlpKind, Stretch, Summary, VisionConfig};
use crate::weights::{InitRule, NameTable, renamed};

pub(super) static FAMILY: VisionEncoderFamily = VisionEncoderFamily {
    name: VisionFamily::Siglip.name(),
    traits: VisionFamily::Siglip.traits(),
    architecture: "SiglipVisionModel",
    whole: Some(("siglip", "vision_config")),
    prefix: "vision_model.",
    own_prefix: "vision_model.",
    names: NameTable {
        rename: |path| renamed(path, NAMES),
        ignored: &[
            ("embeddings.position_ids", "a constant 0, 1, 2, …"),
            ("text_model.", "the text half of a whole SigLIP"),
            ("logit_scale", "belongs to SigLIP's own loss"),
            ("logit_bias", "belongs to SigLIP's own loss"),
        ],
    },
    read,
    write: VisionConfig::common_json,
    scratch: |settings| DEFAULTS.sized(settings),
    initial,
};

const NAMES: &[(&str, &str)] = &[
    ("patch_embedding.", "embeddings.patch_embedding."),
    ("position_embedding", "embeddings.position_embedding.weight"),
    ("layers.", "encoder.layers."),
];

/// Those of `SiglipVisionConfig`.
const DEFAULTS: VisionConfig = VisionConfig {
    family: &FAMILY,
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    image_size: 224,
    patch_size: 16,
    hidden_act: Activation::GeluPytorchTanh,
    layer_norm_eps: 1e-6,
    qkv_bias: true,
    key_bias: true,
    rope_theta: None,
    position_grid: 224 / 16,
    stretch: Stretch::No,
    patch_bias: true,
    pre_layernorm: false,
    attention: AttentionKind::Separate,
    mlp: MlpKind::TwoLayers,
    layer_scale: false,
    register_tokens: 0,
    mask_token: MaskToken::Absent,
    tables_in_batches: false,
    blocks: None,
    own_grids: None,
    summary: Summary::AttentionHead,
};

fn read(hf: &mut HfConfig<'_>) -> Result<VisionConfig, ModelError> {
    let hint = "the pooling head is the picture's vector in late fusion";
    hf.refuse_unless("vision_use_head", &[json!(true)], hint);
    VisionConfig::read_common(hf, &DEFAULTS)
}

/// Initial values close to Hugging Face's, which are Xavier-uniform where these are normal.
fn initial(config: &VisionConfig, name: &str) -> InitRule {
    if let Some(rule) = super::identity(name) {
        rule
    } else if name == "embeddings.position_embedding.weight" {
        InitRule::Normal((config.hidden_size as f64).powf(-0.5))
    } else if name == "embeddings.patch_embedding.weight" {
        let inputs = 3 * config.patch_size.pow(2);
        InitRule::Normal((inputs as f64).powf(-0.5))
    } else {
        InitRule::XavierNormal
    }
}
