//! The tower of Qwen2.5-VL (arXiv 2502.13923; Hugging Face `qwen2_5_vl_vision`): RMSNorm, gated networks, attention
//! within windows in most layers, rotary positions, patches that go in blocks of 2 × 2. What makes visual tokens of the
//! blocks is the connector `merger` here.

use mlrm_config::{PictureDefaults, VisionTraits};
use serde_json::{Value, json};

use super::VisionEncoderFamily;
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::Activation;
use crate::vision::{
    AttentionKind, LayerSet, MaskToken, MlpKind, PatchBlocks, Stretch, Summary, VisionConfig,
};
use crate::weights::{InitRule, NameTable, renamed};

pub(super) static FAMILY: VisionEncoderFamily = VisionEncoderFamily {
    name: "qwen2_5_vl_vision",
    traits: TRAITS,
    architecture: "Qwen2_5_VisionTransformerPretrainedModel",
    whole: Some(("qwen2_5_vl", "vision_config")),
    prefix: "visual.",
    own_prefix: "",
    names: NameTable {
        rename: |path| renamed(path, NAMES),
        ignored: &[
            ("merger.", "the connector of a whole model"),
            ("visual.merger.", "the connector of a whole model"),
            ("model.", "the language model of a whole model"),
            ("lm_head.", "no LM head is ever computed"),
        ],
    },
    read,
    write,
    scratch: |settings| DEFAULTS.sized(settings),
    initial,
};

/// Of both families whose patches go in blocks.
pub(super) const TRAITS: VisionTraits = VisionTraits {
    class_token: false,
    post_layernorm: false,
    whole_mlp_ratio: false,
    rotary: true,
    pictures: PictureDefaults::Blip,
};

const NAMES: &[(&str, &str)] = &[
    ("patch_embedding.", "patch_embed.proj."),
    ("layers.", "blocks."),
    ("layer_norm", "norm"),
    ("self_attn.qkv.", "attn.qkv."),
    ("self_attn.projection.", "attn.proj."),
];

/// Those of the published checkpoints; pictures are of any size, 448 pixels where nothing says it.
pub(super) const DEFAULTS: VisionConfig = VisionConfig {
    family: &FAMILY,
    hidden_size: 1280,
    intermediate_size: 3420,
    num_hidden_layers: 32,
    num_attention_heads: 16,
    image_size: 448,
    patch_size: 14,
    hidden_act: Activation::Gelu,
    layer_norm_eps: 1e-6,
    qkv_bias: true,
    key_bias: true,
    rope_theta: Some(10_000.0),
    position_grid: 448 / 14,
    // Angles are computed for whatever is read.
    stretch: Stretch::Bicubic,
    patch_bias: false,
    pre_layernorm: false,
    attention: AttentionKind::Fused,
    mlp: MlpKind::SeparateSwiGlu,
    layer_scale: false,
    register_tokens: 0,
    mask_token: MaskToken::Absent,
    tables_in_batches: false,
    blocks: Some(PatchBlocks {
        merge: 2,
        window: Some(4),
        full: LayerSet::NONE,
        frames: 2,
        deep: LayerSet::NONE,
        rms_norm: true,
        stored_positions: false,
    }),
    own_grids: None,
    summary: Summary::MeanPatch,
};

fn read(hf: &mut HfConfig<'_>) -> Result<VisionConfig, ModelError> {
    hf.refuse_unless("hidden_act", &[json!("silu")], "only silu is");
    let config = read_common(hf, &DEFAULTS)?;
    let pixels: usize = hf.get("window_size", Some(112))?;
    let full = layers(hf, "fullatt_block_indexes", &[7, 15, 23, 31])?;
    let blocks = config.blocks.map(|blocks| PatchBlocks {
        window: Some(pixels / (blocks.merge * config.patch_size).max(1)),
        full,
        ..blocks
    });
    Ok(VisionConfig { blocks, ..config })
}

fn write(config: &VisionConfig) -> Value {
    let mut keys = common_json(config);
    keys["hidden_act"] = json!("silu");
    if let Some(blocks) = &config.blocks {
        let side = blocks.merge * config.patch_size;
        keys["window_size"] = json!(blocks.window.unwrap_or(0) * side);
        keys["fullatt_block_indexes"] = json!(blocks.full.indices());
    }
    keys
}

/// Reads the keys that both families have; an absent one has the value in `defaults`.
pub(super) fn read_common(
    hf: &mut HfConfig<'_>,
    defaults: &VisionConfig,
) -> Result<VisionConfig, ModelError> {
    for key in ["in_channels", "in_chans"] {
        hf.refuse_unless(key, &[json!(3)], "only RGB is");
    }
    let axial = json!({"rope_type": "axial", "rope_theta": 10_000.0});
    hf.refuse_unless(
        "rope_parameters",
        &[axial],
        "only axial angles of base 10000 are",
    );
    // The width of the language model, which tells it itself; of films; of the patches, once more.
    for key in ["out_hidden_size", "tokens_per_second", "spatial_patch_size"] {
        hf.take(key);
    }
    let mut size = |key, default| hf.get(key, Some(default));
    let config = VisionConfig {
        hidden_size: size("hidden_size", defaults.hidden_size)?,
        intermediate_size: size("intermediate_size", defaults.intermediate_size)?,
        num_hidden_layers: size("depth", defaults.num_hidden_layers)?,
        num_attention_heads: size("num_heads", defaults.num_attention_heads)?,
        patch_size: size("patch_size", defaults.patch_size)?,
        ..defaults.clone()
    };
    let (merge, frames) = (
        size("spatial_merge_size", 2)?,
        size("temporal_patch_size", 2)?,
    );
    let blocks = config.blocks.map(|blocks| PatchBlocks {
        merge,
        frames,
        ..blocks
    });
    // Whole blocks, at least one.
    let side = config.patch_size.saturating_mul(merge).max(1);
    let image_size = (defaults.image_size / side).max(1) * side;
    Ok(VisionConfig {
        image_size,
        position_grid: image_size.checked_div(config.patch_size).unwrap_or(0),
        blocks,
        ..config
    })
}

/// The layers that `key` lists, `default` where it is absent.
pub(super) fn layers(
    hf: &mut HfConfig<'_>,
    key: &str,
    default: &[usize],
) -> Result<LayerSet, ModelError> {
    let indices: Vec<usize> = hf.get(key, Some(default.to_vec()))?;
    let hint = "ascending indices below 128 are";
    LayerSet::of(&indices).ok_or_else(|| hf.unsupported(key, &json!(indices), hint))
}

/// The keys of [`read_common`].
pub(super) fn common_json(config: &VisionConfig) -> Value {
    let blocks = config.blocks.as_ref();
    json!({
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "in_channels": 3,
        "patch_size": config.patch_size,
        "spatial_merge_size": config.merge(),
        "temporal_patch_size": blocks.map_or(1, |blocks| blocks.frames),
    })
}

/// Initial values of Hugging Face's `Qwen2_5_VLPreTrainedModel`.
pub(super) fn initial(_: &VisionConfig, name: &str) -> InitRule {
    super::identity(name).unwrap_or(InitRule::Normal(0.02))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::tests::{parsed, refusal};

    /// The section of Qwen2.5-VL 3B as published.
    fn published() -> Value {
        json!({
            "model_type": "qwen2_5_vl_vision", "depth": 32, "hidden_act": "silu", "hidden_size": 1280,
            "intermediate_size": 3420, "num_heads": 16, "in_chans": 3, "out_hidden_size": 2048,
            "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2, "temporal_patch_size": 2,
        })
    }

    #[test]
    fn a_published_config() {
        let config = parsed(&published());
        let blocks = config.blocks.expect("blocks");
        assert_eq!(
            (blocks.merge, blocks.window, blocks.frames),
            (2, Some(4), 2)
        );
        assert_eq!(blocks.full.indices(), [7, 15, 23, 31]);
        assert_eq!((config.grid(), config.feature_width()), (32, 1280));
        assert_eq!(parsed(&config.to_json()), config);
        let whole = json!({"model_type": "qwen2_5_vl", "vision_config": published()});
        assert_eq!(parsed(&whole), config);
    }

    #[test]
    fn what_is_not_implemented() {
        for (key, value, words) in [
            ("hidden_act", json!("gelu"), "only silu is"),
            ("in_chans", json!(1), "only RGB is"),
            ("fullatt_block_indexes", json!([3, 2]), "ascending"),
            ("fullatt_block_indexes", json!([3, 32]), "layer 32"),
            ("window_size", json!(14), "windows"),
            (
                "rope_parameters",
                json!({"rope_type": "yarn"}),
                "only axial",
            ),
            ("surprise", json!(1), "does not know this key"),
        ] {
            let mut keys = published();
            keys[key] = value;
            let message = refusal(&keys);
            assert!(message.contains(words), "{key}: {message}");
        }
    }
}
