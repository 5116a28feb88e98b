//! Llama 1 to 3 (arXiv 2302.13971, 2307.09288, 2407.21783): the shared core as it is. The families
//! that follow it read most of their config here.

use mlrm_config::{LlmFamily, LlmSettings};
use serde_json::{Value, json};

use super::DecoderFamily;
use crate::decoder::{DecoderConfig, FeedForwardKind, NormKind, Positions, rope_config};
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::{Rope, RopeScaling};
use crate::weights::{NameTable, renamed};

pub(super) static FAMILY: DecoderFamily = DecoderFamily {
    name: LlmFamily::Llama.name(),
    architecture: "LlamaModel",
    prefix: "model.",
    names: NAMES,
    read,
    write,
    scratch: |settings, words| scratch_line(&FAMILY, settings, words),
};

/// Names of the Llama line: the core's own, but that the three projections stand side by side.
pub const NAMES: NameTable = NameTable {
    rename: |path| renamed(path, &[("self_attn.qkv.", "self_attn.")]),
    ignored: &[
        ("lm_head.weight", "no LM head is ever computed"),
        (
            "rotary_emb.inv_freq",
            "rotary angles are computed from the config",
        ),
    ],
};

fn read(hf: &mut HfConfig<'_>) -> Result<DecoderConfig, ModelError> {
    hf.refuse_unless("pretraining_tp", &[json!(1)], "only 1 is");
    let attention_bias = hf.get("attention_bias", Some(false))?;
    Ok(DecoderConfig {
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: hf.get("mlp_bias", Some(false))?,
        ..read_line(&FAMILY, hf)?
    })
}

fn write(config: &DecoderConfig) -> Value {
    let mut keys = write_line(config);
    keys["attention_bias"] = json!(config.qkv_bias);
    keys["mlp_bias"] = json!(config.mlp_bias);
    keys
}

/// Reads the keys that all of the line have; no biases, no per-head norms, no window.
///
/// # Errors
/// A key that is missing or of the wrong kind, and options that are not implemented.
pub fn read_line(
    family: &'static DecoderFamily,
    hf: &mut HfConfig<'_>,
) -> Result<DecoderConfig, ModelError> {
    hf.refuse_unless("hidden_act", &[json!("silu")], "only silu is");
    hf.refuse_unless("attention_dropout", &[json!(0.0), json!(0)], "set it to 0");
    let hidden_size: usize = hf.get("hidden_size", None)?;
    let num_attention_heads: usize = hf.get("num_attention_heads", None)?;
    let max_position_embeddings = hf.get("max_position_embeddings", None)?;
    Ok(DecoderConfig {
        family,
        vocab_size: hf.get("vocab_size", None)?,
        hidden_size,
        word_embed_proj_dim: hidden_size,
        num_hidden_layers: hf.get("num_hidden_layers", None)?,
        num_attention_heads,
        num_key_value_heads: hf.get("num_key_value_heads", Some(num_attention_heads))?,
        head_dim: hf.get("head_dim", hidden_size.checked_div(num_attention_heads))?,
        intermediate_size: hf.get("intermediate_size", None)?,
        max_position_embeddings,
        positions: Positions::Rotary(rope_config::read(hf, max_position_embeddings)?),
        norm_eps: hf.get("rms_norm_eps", None)?,
        initializer_range: hf.get("initializer_range", Some(0.02))?,
        ..plain(family)
    })
}

/// The keys that all of the line write.
pub fn write_line(config: &DecoderConfig) -> Value {
    let mut keys = json!({
        "hidden_act": "silu",
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.norm_eps,
        "initializer_range": config.initializer_range,
    });
    if let Positions::Rotary(rope) = &config.positions {
        rope_config::write(&mut keys, rope);
    }
    keys
}

/// A decoder of the line from scratch; no biases, no per-head norms, no window.
pub fn scratch_line(
    family: &'static DecoderFamily,
    settings: &LlmSettings,
    vocab_size: usize,
) -> DecoderConfig {
    DecoderConfig {
        vocab_size,
        hidden_size: settings.hidden_size,
        word_embed_proj_dim: settings.hidden_size,
        num_hidden_layers: settings.num_hidden_layers,
        num_attention_heads: settings.num_attention_heads,
        num_key_value_heads: settings.resolved_num_key_value_heads(),
        head_dim: settings.resolved_head_dim(),
        intermediate_size: settings.intermediate_size,
        max_position_embeddings: settings.max_position_embeddings,
        positions: Positions::Rotary(Rope {
            theta: settings.rope_theta,
            scaling: RopeScaling::Default,
        }),
        norm_eps: settings.rms_norm_eps,
        initializer_range: settings.initializer_range,
        ..plain(family)
    }
}

/// The options of the shared core that Llama leaves alone; sizes of 0.
pub fn plain(family: &'static DecoderFamily) -> DecoderConfig {
    DecoderConfig {
        family,
        vocab_size: 0,
        hidden_size: 0,
        word_embed_proj_dim: 0,
        num_hidden_layers: 0,
        num_attention_heads: 0,
        num_key_value_heads: 0,
        head_dim: 0,
        intermediate_size: 0,
        max_position_embeddings: 0,
        positions: Positions::Learnt,
        sliding_window: None,
        layer_kinds: Vec::new(),
        local_rope: None,
        multimodal_rope: None,
        word_scale: 1.0,
        input_scale: 1.0,
        residual_scale: 1.0,
        score_scale: None,
        score_cap: None,
        sandwich_norms: false,
        norm: NormKind::Rms,
        do_layer_norm_before: true,
        norm_eps: 0.0,
        feed_forward: FeedForwardKind::SwiGlu,
        fused_qkv: false,
        head_norm: false,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        use_dynamic_ntk: false,
        use_logn_attn: false,
        initializer_range: 0.0,
        // What Hugging Face takes where config.json does not say.
        tie_word_embeddings: false,
        lm_head: serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read, refused};
    use super::*;

    /// As published with Llama 3.1 8B, but for the sizes.
    const LLAMA_3_1: &str = r#"{
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu",
        "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 100,
        "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": 8, "num_hidden_layers": 3, "num_key_value_heads": 2,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"
        },
        "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 128256
    }"#;

    #[test]
    fn a_published_config() {
        let config = read(LLAMA_3_1);
        assert_eq!(config.head_dim, 8);
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let theta = 500_000.0;
        assert_eq!(config.positions, Positions::Rotary(Rope { theta, scaling }));
    }

    #[test]
    fn rotary_angles_in_each_spelling() {
        let with = |rope: Value| {
            let mut keys: Value = serde_json::from_str(LLAMA_3_1).expect("JSON");
            for (key, value) in rope.as_object().expect("keys") {
                keys[key] = value.clone();
            }
            read(&keys.to_string()).positions
        };
        let rope = |theta, scaling| Positions::Rotary(Rope { theta, scaling });
        let linear = RopeScaling::Linear { factor: 2.0 };
        let old = json!({"rope_scaling": {"type": "linear", "factor": 2.0}});
        assert_eq!(with(old), rope(500_000.0, linear));
        let new = json!({"rope_scaling": null, "rope_theta": null,
            "rope_parameters": {"rope_type": "linear", "factor": 2, "rope_theta": 7.0}});
        assert_eq!(with(new), rope(7.0, linear));
        let none = json!({"rope_scaling": null, "rope_theta": null});
        assert_eq!(with(none), rope(10_000.0, RopeScaling::Default));
        let dynamic = json!({"rope_scaling": {"type": "dynamic", "factor": 3.0}});
        let scaling = RopeScaling::Dynamic {
            factor: 3.0,
            max_position_embeddings: 131_072,
        };
        assert_eq!(with(dynamic), rope(500_000.0, scaling));
    }

    #[test]
    fn what_is_not_implemented() {
        let no = |key, value, words| refused(LLAMA_3_1, key, value, words);
        no("hidden_act", json!("gelu"), "only silu is");
        no("pretraining_tp", json!(2), "only 1 is");
        no("attention_dropout", json!(0.1), "set it to 0");
        no("num_experts", json!(8), "experts");
        no("surprise", json!(8), "does not know this key");
        no("partial_rotary_factor", json!(0.5), "only 1 is");
        no("rope_theta", json!(-1.0), "positive number");
        no("rope_scaling", json!("linear"), "a JSON object");
        no(
            "rope_scaling",
            json!({"type": "yarn", "factor": 4.0}),
            "llama3",
        );
        no("rope_scaling", json!({"type": "linear"}), "`factor`");
        no(
            "rope_scaling",
            json!({"type": "linear", "factor": 0}),
            "`factor`",
        );
        let unknown = json!({"rope_type": "linear", "factor": 2.0, "beta_fast": 32});
        no("rope_scaling", unknown, "`beta_fast`");
        let two = json!({"rope_type": "default", "rope_theta": 5.0});
        no("rope_parameters", two, "");
        let crossed = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        no("rope_scaling", crossed, "below");
        no("num_key_value_heads", json!(3), "must divide");
        no("head_dim", json!(7), "even");
        no("vocab_size", json!(0), "at least 1");
    }
}
