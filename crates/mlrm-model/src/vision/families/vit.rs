//! The first vision transformer (arXiv 2010.11929; Hugging Face `vit`), and DINO's (arXiv 2104.14294): a
//! class token; positions stretch to the pictures.

use mlrm_config::VisionFamily;
use serde_json::{Value, json};

use super::VisionEncoderFamily;
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::Activation;
use crate::vision::{AttentionKind, MaskToken, MlpKind, Stretch, Summary, VisionConfig};
use crate::weights::{InitRule, NameTable, renamed};

pub(super) static FAMILY: VisionEncoderFamily = VisionEncoderFamily {
    name: VisionFamily::Vit.name(),
    traits: VisionFamily::Vit.traits(),
    architecture: "ViTModel",
    whole: None,
    prefix: "vit.",
    own_prefix: "",
    names: NameTable {
        rename: |path| renamed(path, TABLE),
        ignored: &[
            (
                "pooler.",
                "features are taken before the pooler of pre-training",
            ),
            (
                "classifier.",
                "features are taken before the classifier of ImageNet",
            ),
        ],
    },
    read,
    write,
    scratch: |settings| DEFAULTS.sized(settings),
    initial: |_, name| super::identity(name).unwrap_or(InitRule::Normal(0.02)),
};

/// Names of the published checkpoints, which every version of `transformers` reads.
const TABLE: &[(&str, &str)] = &[
    ("class_embedding", "embeddings.cls_token"),
    (
        "patch_embedding.",
        "embeddings.patch_embeddings.projection.",
    ),
    ("position_embedding", "embeddings.position_embeddings"),
    ("layers.", "encoder.layer."),
    ("layer_norm1.", "layernorm_before."),
    ("layer_norm2.", "layernorm_after."),
    ("self_attn.q_proj.", "attention.attention.query."),
    ("self_attn.k_proj.", "attention.attention.key."),
    ("self_attn.v_proj.", "attention.attention.value."),
    ("self_attn.out_proj.", "attention.output.dense."),
    ("mlp.fc1.", "intermediate.dense."),
    ("mlp.fc2.", "output.dense."),
    ("post_layernorm.", "layernorm."),
];

/// Those of `ViTConfig`.
const DEFAULTS: VisionConfig = VisionConfig {
    family: &FAMILY,
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    image_size: 224,
    patch_size: 16,
    hidden_act: Activation::Gelu,
    layer_norm_eps: 1e-12,
    qkv_bias: true,
    key_bias: true,
    rope_theta: None,
    position_grid: 224 / 16,
    stretch: Stretch::Bicubic,
    patch_bias: true,
    pre_layernorm: false,
    attention: AttentionKind::Separate,
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
    // Of the pooler, and of a decoder of hidden patches.
    for key in ["pooler_act", "pooler_output_size", "encoder_stride"] {
        hf.take(key);
    }
    super::refuse_dropout(hf);
    let qkv_bias = hf.get("qkv_bias", Some(true))?;
    Ok(VisionConfig {
        qkv_bias,
        ..VisionConfig::read_common(hf, &DEFAULTS)?
    })
}

fn write(config: &VisionConfig) -> Value {
    let mut keys = config.common_json();
    super::rename_dropout(&mut keys);
    keys["qkv_bias"] = json!(config.qkv_bias);
    keys
}
