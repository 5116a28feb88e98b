//! The visual tower of Qwen-VL (arXiv 2308.12966): OpenCLIP's ViT-bigG without class token, for
//! pictures of 448 pixels, positions stretched from those of 224. It has no Hugging Face class; names
//! and keys are those of the published checkpoint (`transformer.visual.…` and the section `visual` of
//! its `config.json`). What follows the layers there is the connector `resampler` here.

use mlrm_config::VisionFamily;
use serde_json::{Value, json};

use super::VisionEncoderFamily;
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::Activation;
use crate::vision::{AttentionKind, MaskToken, MlpKind, Stretch, Summary, VisionConfig};
use crate::weights::{InitRule, NameTable, renamed};

pub(super) static FAMILY: VisionEncoderFamily = VisionEncoderFamily {
    name: VisionFamily::QwenVl.name(),
    traits: VisionFamily::QwenVl.traits(),
    // There is no class of Hugging Face's; the published file names the whole model's.
    architecture: "",
    whole: Some(("qwen", "visual")),
    prefix: "transformer.visual.",
    own_prefix: "transformer.visual.",
    names: NameTable {
        rename: |path| renamed(path, NAMES),
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
    read,
    write,
    scratch: |settings| DEFAULTS.sized(settings),
    initial,
};

/// OpenCLIP's names.
const NAMES: &[(&str, &str)] = &[
    ("patch_embedding.", "conv1."),
    ("position_embedding", "positional_embedding"),
    ("pre_layernorm.", "ln_pre."),
    ("layers.", "transformer.resblocks."),
    ("self_attn.qkv.", "attn.in_proj."),
    ("self_attn.projection.", "attn.out_proj."),
    ("layer_norm", "ln_"),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
];

/// Those of the published checkpoint, which does not state the stored positions.
const DEFAULTS: VisionConfig = VisionConfig {
    family: &FAMILY,
    hidden_size: 1664,
    intermediate_size: 8192,
    num_hidden_layers: 48,
    num_attention_heads: 16,
    image_size: 448,
    patch_size: 14,
    hidden_act: Activation::Gelu,
    layer_norm_eps: 1e-6,
    qkv_bias: true,
    key_bias: true,
    rope_theta: None,
    position_grid: 16,
    stretch: Stretch::Bicubic,
    patch_bias: false,
    pre_layernorm: true,
    attention: AttentionKind::FusedByHead,
    mlp: MlpKind::TwoLayers,
    layer_scale: false,
    register_tokens: 0,
    mask_token: MaskToken::Absent,
    tables_in_batches: false,
    blocks: None,
    own_grids: None,
    summary: Summary::MeanPatch,
};

fn read(hf: &mut HfConfig<'_>) -> Result<VisionConfig, ModelError> {
    // The connector's sizes and an id of the language model's prompt.
    hf.take("output_dim");
    hf.take("n_queries");
    hf.take("image_start_id");
    let width: usize = hf.get("width", Some(DEFAULTS.hidden_size))?;
    let ratio: f64 = hf.get("mlp_ratio", Some(4.9231))?;
    Ok(VisionConfig {
        hidden_size: width,
        intermediate_size: (width as f64 * ratio) as usize,
        num_hidden_layers: hf.get("layers", Some(DEFAULTS.num_hidden_layers))?,
        num_attention_heads: hf.get("heads", Some(DEFAULTS.num_attention_heads))?,
        image_size: hf.get("image_size", Some(DEFAULTS.image_size))?,
        patch_size: hf.get("patch_size", Some(DEFAULTS.patch_size))?,
        position_grid: hf.get("position_grid", Some(DEFAULTS.position_grid))?,
        ..DEFAULTS
    })
}

fn write(config: &VisionConfig) -> Value {
    json!({
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
