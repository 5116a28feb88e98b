//! DINOv3 (arXiv 2508.10104; Hugging Face `dinov3_vit`): DINOv2's layers with registers, no stored positions
//! but queries and keys that turn with the place of their patch, and keys without bias.

use mlrm_config::VisionFamily;
use serde_json::{Value, json};

use super::{VisionEncoderFamily, dinov2};
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::vision::{MaskToken, MlpKind, Stretch, VisionConfig};
use crate::weights::{NameTable, renamed};

pub(super) static FAMILY: VisionEncoderFamily = VisionEncoderFamily {
    name: VisionFamily::Dinov3Vit.name(),
    traits: VisionFamily::Dinov3Vit.traits(),
    architecture: "DINOv3ViTModel",
    whole: None,
    prefix: "",
    own_prefix: "",
    names: NameTable {
        rename: |path| renamed(path, TABLE),
        ignored: &[],
    },
    read,
    write,
    scratch: |settings| DEFAULTS.sized(settings),
    initial: dinov2::initial,
};

const TABLE: &[(&str, &str)] = &[
    ("class_embedding", "embeddings.cls_token"),
    ("mask_token", "embeddings.mask_token"),
    ("register_tokens", "embeddings.register_tokens"),
    ("patch_embedding.", "embeddings.patch_embeddings."),
    ("layers.", "layer."),
    ("layer_norm", "norm"),
    ("self_attn.out_proj.", "attention.o_proj."),
    ("self_attn.", "attention."),
    ("layer_scale1", "layer_scale1.lambda1"),
    ("layer_scale2", "layer_scale2.lambda1"),
    ("mlp.fc1.", "mlp.up_proj."),
    ("mlp.fc2.", "mlp.down_proj."),
    ("post_layernorm.", "norm."),
];

/// Those of `DINOv3ViTConfig`.
const DEFAULTS: VisionConfig = VisionConfig {
    family: &FAMILY,
    hidden_size: 384,
    intermediate_size: 1536,
    num_attention_heads: 6,
    patch_size: 16,
    layer_norm_eps: 1e-5,
    key_bias: false,
    rope_theta: Some(100.0),
    position_grid: 224 / 16,
    // Angles are computed for whatever is read.
    stretch: Stretch::Bicubic,
    mask_token: MaskToken::Batch,
    ..dinov2::DEFAULTS
};

/// What moves the places of patches at random in pre-training.
const AUGMENTED: [&str; 3] = ["pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale"];

fn read(hf: &mut HfConfig<'_>) -> Result<VisionConfig, ModelError> {
    dinov2::pass_over(hf);
    for key in AUGMENTED {
        hf.take(key);
    }
    for key in ["proj_bias", "mlp_bias"] {
        hf.refuse_unless(key, &[json!(true)], "only true is");
    }
    let gated = hf.get("use_gated_mlp", Some(false))?;
    if gated {
        hf.refuse_unless("hidden_act", &[json!("silu")], "the gated network has silu");
    }
    let qkv_bias = hf.get("query_bias", Some(true))?;
    let value_bias: bool = hf.get("value_bias", Some(true))?;
    if value_bias != qkv_bias {
        return Err(hf.unsupported(
            "value_bias",
            &json!(value_bias),
            "set it as `query_bias` is",
        ));
    }
    Ok(VisionConfig {
        mlp: match gated {
            true => MlpKind::SeparateSwiGlu,
            false => MlpKind::TwoLayers,
        },
        qkv_bias,
        key_bias: hf.get("key_bias", Some(false))?,
        rope_theta: Some(hf.get("rope_theta", Some(100.0))?),
        register_tokens: hf.get("num_register_tokens", Some(0))?,
        ..VisionConfig::read_common(hf, &DEFAULTS)?
    })
}

fn write(config: &VisionConfig) -> Value {
    let mut keys = config.common_json();
    let gated = config.mlp == MlpKind::SeparateSwiGlu;
    if gated {
        keys["hidden_act"] = json!("silu");
    }
    keys["use_gated_mlp"] = json!(gated);
    keys["query_bias"] = json!(config.qkv_bias);
    keys["key_bias"] = json!(config.key_bias);
    keys["value_bias"] = json!(config.qkv_bias);
    keys["proj_bias"] = json!(true);
    keys["mlp_bias"] = json!(true);
    keys["rope_theta"] = json!(config.rope_theta);
    keys["num_register_tokens"] = json!(config.register_tokens);
    // No place is moved here, nor by what trains the exported encoder on unless it says so.
    keys["pos_embed_rescale"] = Value::Null;
    keys
}
