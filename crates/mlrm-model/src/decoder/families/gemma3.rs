//! Gemma 3's language model (arXiv 2503.19786; Hugging Face `gemma3_text`): Gemma 2 without caps, with
//! norms on queries and keys; five of six layers have a window, and angles of their own.

use mlrm_config::LlmFamily;
use serde_json::{Value, json};

use super::gemma2::{self, head};
use super::{DecoderFamily, layer_types, llama};
use crate::decoder::{DecoderConfig, LayerKind, Positions, rope_config};
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::{Rope, RopeScaling};

pub(super) static FAMILY: DecoderFamily = DecoderFamily {
    name: LlmFamily::Gemma3.name(),
    architecture: "Gemma3TextModel",
    prefix: "model.",
    names: gemma2::NAMES,
    read,
    write,
    scratch: |settings, words| DecoderConfig {
        head_norm: true,
        local_rope: Some(Rope {
            theta: LOCAL_THETA,
            scaling: RopeScaling::Default,
        }),
        ..gemma2::gemma(llama::scratch_line(&FAMILY, settings, words))
    },
};

/// Bases of the angles that `Gemma3TextConfig` has where a config.json does not tell them.
const THETA: f64 = 1_000_000.0;
const LOCAL_THETA: f64 = 10_000.0;
/// One layer of so many has no window where a config.json does not tell.
const PATTERN: usize = 6;

fn read(hf: &mut HfConfig<'_>) -> Result<DecoderConfig, ModelError> {
    let cap = hf.get_nullable("attn_logit_softcapping", None)?;
    let last_cap: Option<f64> = hf.get_nullable("final_logit_softcapping", None)?;
    let pattern: usize = hf.get("sliding_window_pattern", Some(PATTERN))?;
    // The class keeps it under this name as well.
    let pattern: usize = hf.get("_sliding_window_pattern", Some(pattern))?;
    let [global, local] = rotary(hf)?;
    let line = gemma2::read_gemma(&FAMILY, hf)?;
    let usual = |index: usize| match (index + 1).checked_rem(pattern) {
        Some(0) => LayerKind::Full,
        _ => LayerKind::Sliding,
    };
    Ok(DecoderConfig {
        score_cap: cap,
        head_norm: true,
        layer_kinds: layer_types(hf, line.num_hidden_layers, usual)?,
        positions: Positions::Rotary(global),
        local_rope: Some(local),
        lm_head: match last_cap {
            Some(cap) => head(&[("final_logit_softcapping", json!(cap))]),
            None => head(&[]),
        },
        ..line
    })
}

/// Angles of the layers without a window, and of those with one: `rope_theta`, `rope_scaling` and
/// `rope_local_base_freq` (published), or `rope_parameters` that holds both (transformers 5).
fn rotary(hf: &mut HfConfig<'_>) -> Result<[Rope; 2], ModelError> {
    let limit = hf.peek("max_position_embeddings").and_then(Value::as_u64);
    let limit = limit.unwrap_or(0) as usize;
    let (theta, local) = (hf.take("rope_theta"), hf.take("rope_local_base_freq"));
    let scaling = hf.take("rope_scaling");
    let both = hf.take("rope_parameters").unwrap_or_else(|| json!({}));
    let part = |name: &str| both.get(name).cloned();
    let global = part("full_attention")
        .or(scaling)
        .unwrap_or_else(|| json!({}));
    let sliding = part("sliding_attention").unwrap_or_else(|| json!({}));
    let known = |key: &String| matches!(key.as_str(), "full_attention" | "sliding_attention");
    if !both.as_object().is_some_and(|keys| keys.keys().all(known)) {
        let hint = "it holds `full_attention` and `sliding_attention`";
        return Err(hf.unsupported("rope_parameters", &both, hint));
    }
    let global = rope_config::of(hf, "rope_parameters", &global, theta, THETA, limit)?;
    let local = rope_config::of(hf, "rope_parameters", &sliding, local, LOCAL_THETA, limit)?;
    if local.scaling != RopeScaling::Default {
        let hint = "angles of layers with a window are not stretched";
        return Err(hf.unsupported("rope_parameters", &both, hint));
    }
    Ok([global, local])
}

fn write(config: &DecoderConfig) -> Value {
    let mut keys = gemma2::write_gemma(config);
    keys["attn_logit_softcapping"] = json!(config.score_cap);
    if let Some(local) = config.local_rope {
        keys["rope_local_base_freq"] = json!(local.theta);
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read, refused};
    use super::*;

    /// As published with Gemma 3 1B, but for the sizes.
    const GEMMA3: &str = r#"{
        "architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "attn_logit_softcapping": null, "bos_token_id": 2, "cache_implementation": "hybrid",
        "eos_token_id": [1, 106], "final_logit_softcapping": null, "head_dim": 16,
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 36, "initializer_range": 0.02,
        "intermediate_size": 69, "max_position_embeddings": 32768, "model_type": "gemma3_text",
        "num_attention_heads": 4, "num_hidden_layers": 7, "num_key_value_heads": 1,
        "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000, "rope_scaling": null, "rope_theta": 1000000,
        "sliding_window": 512, "sliding_window_pattern": 6, "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0", "use_cache": true, "vocab_size": 262144
    }"#;

    #[test]
    fn a_published_config() {
        let config = read(GEMMA3);
        let full: Vec<usize> = (0..7)
            .filter(|&i| config.layer_kind(i) == LayerKind::Full)
            .collect();
        assert_eq!(full, [5]);
        assert_eq!(config.local_rope.map(|rope| rope.theta), Some(LOCAL_THETA));
        let Positions::Rotary(rope) = config.positions else {
            panic!("{config:?}");
        };
        assert_eq!(rope.theta, THETA);
    }

    #[test]
    fn what_is_not_implemented() {
        let causal = "only causal attention is";
        refused(GEMMA3, "use_bidirectional_attention", json!(true), causal);
        refused(
            GEMMA3,
            "rope_parameters",
            json!({"rope_type": "default"}),
            "full_attention",
        );
        let yarn = json!({"rope_type": "yarn", "factor": 8.0});
        refused(
            GEMMA3,
            "rope_parameters",
            json!({"full_attention": yarn}),
            "default",
        );
    }
}
