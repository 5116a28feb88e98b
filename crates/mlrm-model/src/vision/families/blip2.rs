//! BLIP-2's vision transformer, an EVA-CLIP ViT-g without its last layer (arXiv 2301.12597; Hugging
//! Face `blip_2_vision_model`, or the vision half of `blip-2`). BLIP-2's own Q-Former reads the last
//! state after `post_layernorm`.

use mlrm_config::VisionFamily;
use serde_json::{Value, json};

use super::VisionEncoderFamily;
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::Activation;
use crate::vision::{AttentionKind, MaskToken, MlpKind, Stretch, Summary, VisionConfig};
use crate::weights::{InitRule, NameTable, renamed};

pub(super) static FAMILY: VisionEncoderFamily = VisionEncoderFamily {
    name: VisionFamily::Blip2.name(),
    traits: VisionFamily::Blip2.traits(),
    architecture: "Blip2VisionModel",
    whole: Some(("blip-2", "vision_config")),
    prefix: "vision_model.",
    own_prefix: "",
    names: NameTable {
        rename: |path| renamed(path, NAMES),
        ignored: &[
            ("qformer.", "the connector of a whole BLIP-2"),
            ("query_tokens", "the connector of a whole BLIP-2"),
            ("language_projection.", "the connector of a whole BLIP-2"),
            ("language_model.", "the language model of a whole BLIP-2"),
        ],
    },
    read,
    write,
    scratch: |settings| DEFAULTS.sized(settings),
    // Hugging Face's own 1e-10 only makes room for published weights: with it all patches would look
    // alike.
    initial: |_, name| super::identity(name).unwrap_or(InitRule::Normal(0.02)),
};

const NAMES: &[(&str, &str)] = &[
    ("class_embedding", "embeddings.class_embedding"),
    ("patch_embedding.", "embeddings.patch_embedding."),
    ("position_embedding", "embeddings.position_embedding"),
    ("layers.", "encoder.layers."),
];

/// Those of `Blip2VisionConfig`.
const DEFAULTS: VisionConfig = VisionConfig {
    family: &FAMILY,
    hidden_size: 1408,
    intermediate_size: 6144,
    num_hidden_layers: 39,
    num_attention_heads: 16,
    image_size: 224,
    patch_size: 14,
    hidden_act: Activation::Gelu,
    layer_norm_eps: 1e-6,
    qkv_bias: true,
    key_bias: true,
    rope_theta: None,
    position_grid: 224 / 14,
    stretch: Stretch::No,
    patch_bias: true,
    pre_layernorm: false,
    attention: AttentionKind::Fused,
    mlp: MlpKind::TwoLayers,
    layer_scale: false,
    register_tokens: 0,
    mask_token: MaskToken::Absent,
    tables_in_batches: true,
    blocks: None,
    own_grids: None,
    summary: Summary::ClassToken,
};

fn read(hf: &mut HfConfig<'_>) -> Result<VisionConfig, ModelError> {
    hf.refuse_unless("dropout", &[json!(0.0), json!(0)], "set it to 0");
    let mut config = VisionConfig::read_common(hf, &DEFAULTS)?;
    config.qkv_bias = hf.get("qkv_bias", Some(true))?;
    Ok(config)
}

fn write(config: &VisionConfig) -> Value {
    let mut keys = config.common_json();
    keys["qkv_bias"] = json!(config.qkv_bias);
    keys
}
