//! The tower of Qwen3-VL (arXiv 2511.21631; Hugging Face `qwen3_vl_vision`): stored positions, interpolated to the
//! picture, beside rotary ones; patches that go in blocks of 2 × 2; outputs of some layers are read beside the last.

use serde_json::{Value, json};

use super::VisionEncoderFamily;
use super::qwen2_5_vl::{self, common_json, initial, layers, read_common};
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::Activation;
use crate::vision::{LayerSet, MlpKind, PatchBlocks, Stretch, VisionConfig};
use crate::weights::{NameTable, renamed};
use mlrm_config::{PictureDefaults, VisionTraits};

pub(super) static FAMILY: VisionEncoderFamily = VisionEncoderFamily {
    name: "qwen3_vl_vision",
    traits: VisionTraits {
        pictures: PictureDefaults::Siglip,
        ..qwen2_5_vl::TRAITS
    },
    architecture: "Qwen3VLVisionModel",
    whole: Some(("qwen3_vl", "vision_config")),
    prefix: "model.visual.",
    own_prefix: "",
    names: NameTable {
        rename: |path| renamed(path, NAMES),
        ignored: IGNORED,
    },
    read,
    write,
    scratch: |settings| DEFAULTS.sized(settings),
    initial,
};

/// What whole models hold beside the tower.
const IGNORED: &[(&str, &str)] = &[
    ("merger.", "the connector of a whole model"),
    ("deepstack_merger_list.", "the connector of a whole model"),
    ("model.visual.merger.", "the connector of a whole model"),
    (
        "model.visual.deepstack_merger_list.",
        "the connector of a whole model",
    ),
    (
        "model.language_model.",
        "the language model of a whole model",
    ),
    ("lm_head.", "no LM head is ever computed"),
];

const NAMES: &[(&str, &str)] = &[
    ("patch_embedding.", "patch_embed.proj."),
    ("position_embedding", "pos_embed.weight"),
    ("layers.", "blocks."),
    ("layer_norm", "norm"),
    ("self_attn.qkv.", "attn.qkv."),
    ("self_attn.projection.", "attn.proj."),
    ("mlp.fc1.", "mlp.linear_fc1."),
    ("mlp.fc2.", "mlp.linear_fc2."),
];

/// Those of `Qwen3VLVisionConfig`; pictures are of any size, 448 pixels where nothing says it.
const DEFAULTS: VisionConfig = VisionConfig {
    family: &FAMILY,
    hidden_size: 1152,
    intermediate_size: 4304,
    num_hidden_layers: 27,
    patch_size: 16,
    hidden_act: Activation::GeluPytorchTanh,
    position_grid: 48,
    stretch: Stretch::Corners,
    patch_bias: true,
    mlp: MlpKind::TwoLayers,
    blocks: Some(PatchBlocks {
        merge: 2,
        window: None,
        full: LayerSet::NONE,
        frames: 2,
        deep: LayerSet::NONE,
        rms_norm: false,
        stored_positions: true,
    }),
    ..qwen2_5_vl::DEFAULTS
};

fn read(hf: &mut HfConfig<'_>) -> Result<VisionConfig, ModelError> {
    let config = read_common(hf, &DEFAULTS)?;
    let deep = layers(hf, "deepstack_visual_indexes", &[8, 16, 24])?;
    let stored: usize = hf.get("num_position_embeddings", Some(2304))?;
    let side = stored.isqrt();
    if side * side != stored {
        let hint = "a square of positions is";
        return Err(hf.unsupported("num_position_embeddings", &json!(stored), hint));
    }
    Ok(VisionConfig {
        hidden_act: hf.get("hidden_act", Some(DEFAULTS.hidden_act))?,
        position_grid: side,
        blocks: config.blocks.map(|blocks| PatchBlocks { deep, ..blocks }),
        ..config
    })
}

fn write(config: &VisionConfig) -> Value {
    let mut keys = common_json(config);
    keys["hidden_act"] = json!(config.hidden_act);
    keys["num_position_embeddings"] = json!(config.position_grid.pow(2));
    if let Some(blocks) = &config.blocks {
        keys["deepstack_visual_indexes"] = json!(blocks.deep.indices());
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::tests::{parsed, refusal};

    /// The section of Qwen3-VL 4B as published.
    fn published() -> Value {
        json!({
            "model_type": "qwen3_vl_vision", "deepstack_visual_indexes": [5, 11, 17], "depth": 24,
            "hidden_act": "gelu_pytorch_tanh", "hidden_size": 1024, "in_channels": 3,
            "initializer_range": 0.02, "intermediate_size": 4096, "num_heads": 16,
            "num_position_embeddings": 2304, "out_hidden_size": 2560, "patch_size": 16,
            "spatial_merge_size": 2, "temporal_patch_size": 2,
        })
    }

    #[test]
    fn a_published_config() {
        let config = parsed(&published());
        let blocks = config.blocks.expect("blocks");
        assert_eq!((blocks.merge, blocks.window, blocks.frames), (2, None, 2));
        assert_eq!(blocks.deep.indices(), [5, 11, 17]);
        assert_eq!((config.position_grid, config.grid()), (48, 28));
        assert_eq!(config.feature_width(), 4 * 1024);
        assert_eq!(parsed(&config.to_json()), config);
    }

    #[test]
    fn what_is_not_implemented() {
        for (key, value, words) in [
            ("hidden_act", json!("silu"), "hidden_act"),
            ("num_position_embeddings", json!(2300), "a square"),
            ("deepstack_visual_indexes", json!([24]), "layer 24"),
        ] {
            let mut keys = published();
            keys[key] = value;
            let message = refusal(&keys);
            assert!(message.contains(words), "{key}: {message}");
        }
    }
}
