//! DINOv2 (arXiv 2304.07193; Hugging Face `dinov2`): a class token, layers whose additions are scaled
//! by channel, a gated network in the giant; positions of 518 pixels stretch to the pictures.

use mlrm_config::VisionFamily;
use serde_json::{Value, json};

use super::VisionEncoderFamily;
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::Activation;
use crate::vision::{AttentionKind, MaskToken, MlpKind, Stretch, Summary, VisionConfig};
use crate::weights::{InitRule, NameTable, renamed};

pub(super) static FAMILY: VisionEncoderFamily = VisionEncoderFamily {
    name: VisionFamily::Dinov2.name(),
    traits: VisionFamily::Dinov2.traits(),
    architecture: "Dinov2Model",
    whole: None,
    prefix: "dinov2.",
    own_prefix: "",
    names: NAMES,
    read: |hf| {
        let mask_token = match hf.get("use_mask_token", Some(true))? {
            true => MaskToken::Row,
            false => MaskToken::Absent,
        };
        Ok(VisionConfig {
            mask_token,
            ..read(hf, &DEFAULTS)?
        })
    },
    write: |config| {
        let mut keys = write(config);
        keys["use_mask_token"] = json!(config.mask_token != MaskToken::Absent);
        keys
    },
    scratch: |settings| DEFAULTS.sized(settings),
    initial,
};

/// Names of the published checkpoints, which every version of `transformers` reads.
pub(super) const NAMES: NameTable = NameTable {
    rename: |path| renamed(path, TABLE),
    ignored: &[(
        "classifier.",
        "features are taken before the classifier of ImageNet",
    )],
};

const TABLE: &[(&str, &str)] = &[
    ("class_embedding", "embeddings.cls_token"),
    ("mask_token", "embeddings.mask_token"),
    ("register_tokens", "embeddings.register_tokens"),
    (
        "patch_embedding.",
        "embeddings.patch_embeddings.projection.",
    ),
    ("position_embedding", "embeddings.position_embeddings"),
    ("layers.", "encoder.layer."),
    ("layer_norm", "norm"),
    ("self_attn.q_proj.", "attention.attention.query."),
    ("self_attn.k_proj.", "attention.attention.key."),
    ("self_attn.v_proj.", "attention.attention.value."),
    ("self_attn.out_proj.", "attention.output.dense."),
    ("layer_scale1", "layer_scale1.lambda1"),
    ("layer_scale2", "layer_scale2.lambda1"),
    ("mlp.gate_up_proj.", "mlp.weights_in."),
    ("mlp.down_proj.", "mlp.weights_out."),
    ("post_layernorm.", "layernorm."),
];

/// Those of `Dinov2Config`.
pub(super) const DEFAULTS: VisionConfig = VisionConfig {
    family: &FAMILY,
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    image_size: 224,
    patch_size: 14,
    hidden_act: Activation::Gelu,
    layer_norm_eps: 1e-6,
    qkv_bias: true,
    key_bias: true,
    rope_theta: None,
    position_grid: 224 / 14,
    stretch: Stretch::Bicubic,
    patch_bias: true,
    pre_layernorm: false,
    attention: AttentionKind::Separate,
    mlp: MlpKind::TwoLayers,
    layer_scale: true,
    register_tokens: 0,
    mask_token: MaskToken::Row,
    tables_in_batches: true,
    blocks: None,
    own_grids: None,
    summary: Summary::ClassToken,
};

/// Reads the keys that both DINOv2 have; an absent one has the value in `defaults`.
pub(super) fn read(
    hf: &mut HfConfig<'_>,
    defaults: &VisionConfig,
) -> Result<VisionConfig, ModelError> {
    pass_over(hf);
    super::refuse_dropout(hf);
    let ratio: f64 = hf.get("mlp_ratio", Some(4.0))?;
    let gated = hf.get("use_swiglu_ffn", Some(false))?;
    let config = VisionConfig::read_common(hf, defaults)?;
    let inner = (config.hidden_size as f64 * ratio) as usize;
    Ok(VisionConfig {
        intermediate_size: if gated { gated_width(inner) } else { inner },
        mlp: if gated {
            MlpKind::SwiGlu
        } else {
            MlpKind::TwoLayers
        },
        qkv_bias: hf.get("qkv_bias", Some(defaults.qkv_bias))?,
        ..config
    })
}

/// Passes over keys of pre-training, and of what is read where an encoder is the backbone of a detector.
pub(super) fn pass_over(hf: &mut HfConfig<'_>) {
    for key in [
        "layerscale_value",
        "drop_path_rate",
        "apply_layernorm",
        "reshape_hidden_states",
        "out_features",
        "out_indices",
        "stage_names",
    ] {
        hf.take(key);
    }
}

/// The width of the gated network in the place of a plain one `inner` wide: two thirds, rounded up to a
/// multiple of 8.
fn gated_width(inner: usize) -> usize {
    (inner * 2 / 3).next_multiple_of(8)
}

/// The keys that both DINOv2 write.
pub(super) fn write(config: &VisionConfig) -> Value {
    let mut keys = config.common_json();
    super::rename_dropout(&mut keys);
    if let Some(keys) = keys.as_object_mut() {
        keys.remove("intermediate_size");
    }
    keys["mlp_ratio"] = mlp_ratio(config);
    keys["use_swiglu_ffn"] = json!(config.mlp == MlpKind::SwiGlu);
    keys["qkv_bias"] = json!(config.qkv_bias);
    keys
}

/// The smallest ratio that gives the width of the network, a whole number where there is one.
fn mlp_ratio(config: &VisionConfig) -> Value {
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let of_ratio = |ratio: usize| match config.mlp {
        MlpKind::TwoLayers => width * ratio,
        MlpKind::SwiGlu | MlpKind::SeparateSwiGlu => gated_width(width * ratio),
    };
    let whole = (1..).take_while(|&ratio| of_ratio(ratio) <= inner).last();
    match whole.filter(|&ratio| of_ratio(ratio) == inner) {
        Some(_) => {
            let smallest = (1..).find(|&ratio| of_ratio(ratio) == inner);
            json!(smallest)
        }
        // Half a unit more than the quotient, so that cutting the product off gives the width back.
        None => {
            let plain = match config.mlp {
                MlpKind::TwoLayers => inner,
                MlpKind::SwiGlu | MlpKind::SeparateSwiGlu => inner * 3 / 2,
            };
            json!((plain as f64 + 0.5) / width as f64)
        }
    }
}

/// Initial values as in Hugging Face, without its cut at two deviations.
pub(super) fn initial(_: &VisionConfig, name: &str) -> InitRule {
    if name.ends_with("lambda1") {
        InitRule::Constant(1.0)
    } else if name.ends_with("mask_token") {
        InitRule::Constant(0.0)
    } else {
        super::identity(name).unwrap_or(InitRule::Normal(0.02))
    }
}
