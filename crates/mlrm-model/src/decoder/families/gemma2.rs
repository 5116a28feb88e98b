//! Gemma 2 (arXiv 2408.00118): Llama with norms on both sides of each half of a layer, stored as what
//! differs from 1; a GELU network; capped scores; a window in every other layer; words scaled by the
//! root of their width.

use mlrm_config::LlmFamily;
use serde_json::{Value, json};

use super::{DecoderFamily, layer_types, llama, write_layer_types};
use crate::decoder::{DecoderConfig, FeedForwardKind, LayerKind, NormKind};
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::weights::{NameTable, renamed};

pub(super) static FAMILY: DecoderFamily = DecoderFamily {
    name: LlmFamily::Gemma2.name(),
    architecture: "Gemma2Model",
    prefix: "model.",
    names: NAMES,
    read,
    write,
    scratch: |settings, words| {
        let line = llama::scratch_line(&FAMILY, settings, words);
        // The class would put one where the config has none.
        DecoderConfig {
            lm_head: head(&[("final_logit_softcapping", Value::Null)]),
            ..gemma(line)
        }
    },
};

/// Names of both Gemmas.
pub(super) const NAMES: NameTable = NameTable {
    rename: |path| renamed(path, TABLE),
    ignored: llama::NAMES.ignored,
};

const TABLE: &[(&str, &str)] = &[
    ("self_attn.qkv.", "self_attn."),
    ("post_attention_layernorm.", "pre_feedforward_layernorm."),
    ("attention_out_norm.", "post_attention_layernorm."),
    ("feed_forward_out_norm.", "post_feedforward_layernorm."),
];

fn read(hf: &mut HfConfig<'_>) -> Result<DecoderConfig, ModelError> {
    let cap = hf.get_nullable("attn_logit_softcapping", Some(50.0))?;
    let last_cap: Option<f64> = hf.get_nullable("final_logit_softcapping", Some(30.0))?;
    let line = read_gemma(&FAMILY, hf)?;
    let every_other = |index: usize| match index % 2 {
        0 => LayerKind::Sliding,
        _ => LayerKind::Full,
    };
    Ok(DecoderConfig {
        score_cap: cap,
        layer_kinds: layer_types(hf, line.num_hidden_layers, every_other)?,
        lm_head: head(&[("final_logit_softcapping", json!(last_cap))]),
        ..line
    })
}

fn write(config: &DecoderConfig) -> Value {
    let mut keys = write_gemma(config);
    keys["attn_logit_softcapping"] = json!(config.score_cap);
    keys
}

/// Keys about the LM head.
pub(super) fn head(keys: &[(&str, Value)]) -> serde_json::Map<String, Value> {
    let keys = keys.iter().cloned();
    keys.map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Reads the keys that both Gemmas have.
pub(super) fn read_gemma(
    family: &'static DecoderFamily,
    hf: &mut HfConfig<'_>,
) -> Result<DecoderConfig, ModelError> {
    let gelu = [json!("gelu_pytorch_tanh")];
    hf.refuse_unless("hidden_activation", &gelu, "only gelu_pytorch_tanh is");
    // Older files call it so; the class does not read it.
    hf.refuse_unless("hidden_act", &gelu, "only gelu_pytorch_tanh is");
    let both_ways = "only causal attention is";
    hf.refuse_unless("use_bidirectional_attention", &[json!(false)], both_ways);
    hf.refuse_unless("attention_bias", &[json!(false)], "only false is");
    // How the class keeps keys and values while it writes text.
    hf.take("cache_implementation");
    let head_dim = hf.get("head_dim", Some(256))?;
    let scalar: f64 = hf.get("query_pre_attn_scalar", Some(256.0))?;
    let sliding_window = hf.get_nullable("sliding_window", Some(4096))?;
    let line = llama::read_line(family, hf)?;
    Ok(DecoderConfig {
        head_dim,
        score_scale: Some(scalar.powf(-0.5)),
        sliding_window,
        tie_word_embeddings: true,
        ..gemma(line)
    })
}

/// What both Gemmas have in common, around the sizes of `line`.
pub(super) fn gemma(line: DecoderConfig) -> DecoderConfig {
    DecoderConfig {
        norm: NormKind::RmsFromOne,
        sandwich_norms: true,
        feed_forward: FeedForwardKind::GeGlu,
        word_scale: (line.hidden_size as f64).sqrt(),
        score_scale: Some((line.head_dim as f64).powf(-0.5)),
        layer_kinds: vec![LayerKind::Full; line.num_hidden_layers],
        ..line
    }
}

/// The keys that both Gemmas write.
pub(super) fn write_gemma(config: &DecoderConfig) -> Value {
    let mut keys = llama::write_line(config);
    if let Some(keys) = keys.as_object_mut() {
        keys.remove("hidden_act");
    }
    let scale = config.score_scale.unwrap_or(1.0);
    keys["hidden_activation"] = json!("gelu_pytorch_tanh");
    keys["query_pre_attn_scalar"] = whole(scale.powi(-2));
    keys["sliding_window"] = json!(config.sliding_window);
    keys["use_bidirectional_attention"] = json!(false);
    keys["attention_bias"] = json!(false);
    write_layer_types(&mut keys, config);
    keys
}

/// A number that is whole but for rounding, as `transformers` wants it.
fn whole(number: f64) -> Value {
    let near = number.round();
    match (number - near).abs() <= 1e-9 * number {
        true => json!(near as u64),
        false => json!(number),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read, refused};
    use super::*;

    /// As published with Gemma 2 2B, but for the sizes.
    const GEMMA2: &str = r#"{
        "architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid",
        "eos_token_id": 1, "final_logit_softcapping": 30.0, "head_dim": 16,
        "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 36, "initializer_range": 0.02, "intermediate_size": 92,
        "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 8,
        "num_hidden_layers": 3, "num_key_value_heads": 4, "pad_token_id": 0,
        "query_pre_attn_scalar": 224, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
        "sliding_window": 4096, "torch_dtype": "float32", "transformers_version": "4.42.4",
        "use_cache": true, "vocab_size": 256000
    }"#;

    #[test]
    fn a_published_config() {
        use LayerKind::{Full, Sliding};
        let config = read(GEMMA2);
        assert_eq!(config.layer_kinds, [Sliding, Full, Sliding]);
        assert_eq!((config.word_scale, config.score_cap), (6.0, Some(50.0)));
        assert!(config.tie_word_embeddings);
        let written = config.to_json();
        assert_eq!(written["query_pre_attn_scalar"], 224);
        assert_eq!(written["final_logit_softcapping"], 30.0);
    }

    #[test]
    fn what_is_not_implemented() {
        refused(GEMMA2, "hidden_activation", json!("gelu"), "only gelu_py");
        let causal = "only causal attention is";
        refused(GEMMA2, "use_bidirectional_attention", json!(true), causal);
        let types = json!(["full_attention", "chunked_attention", "full_attention"]);
        refused(GEMMA2, "layer_types", types, "sliding_attention are");
    }
}
