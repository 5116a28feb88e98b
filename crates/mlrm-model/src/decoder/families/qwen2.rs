//! Qwen 2 and 2.5 (arXiv 2407.10671, 2412.15115): Llama with biases on query, key and value.

use mlrm_config::LlmFamily;
use serde_json::{Value, json};

use super::{DecoderFamily, llama};
use crate::decoder::DecoderConfig;
use crate::error::ModelError;
use crate::hf_config::HfConfig;

pub(super) static FAMILY: DecoderFamily = DecoderFamily {
    name: LlmFamily::Qwen2.name(),
    architecture: "Qwen2Model",
    prefix: "model.",
    names: llama::NAMES,
    read,
    write: llama::write_line,
    scratch: |settings, words| DecoderConfig {
        qkv_bias: true,
        ..llama::scratch_line(&FAMILY, settings, words)
    },
};

fn read(hf: &mut HfConfig<'_>) -> Result<DecoderConfig, ModelError> {
    refuse_sliding_window(hf)?;
    hf.refuse_unless("use_mrope", &[json!(false)], "only false is");
    Ok(DecoderConfig {
        qkv_bias: true,
        ..llama::read_line(&FAMILY, hf)?
    })
}

/// Qwen's window covers the upper layers only; no published checkpoint turns it on.
pub(super) fn refuse_sliding_window(hf: &mut HfConfig<'_>) -> Result<(), ModelError> {
    let hint = "only full attention is";
    hf.refuse_unless("use_sliding_window", &[json!(false)], hint);
    // Both describe the window that the line above has seen to be off.
    hf.take("sliding_window");
    hf.take("max_window_layers");
    let Some(types) = hf.take("layer_types") else {
        return Ok(());
    };
    let full = |value: &Value| value.as_str() == Some("full_attention");
    match types.as_array() {
        Some(list) if list.iter().all(full) => Ok(()),
        _ => Err(hf.unsupported("layer_types", &types, "only full_attention is")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{read, refused};

    /// As published with Qwen2.5 0.5B, but for the sizes.
    const QWEN2: &str = r#"{
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 56,
        "initializer_range": 0.02, "intermediate_size": 100, "max_position_embeddings": 32768,
        "max_window_layers": 24, "model_type": "qwen2", "num_attention_heads": 14,
        "num_hidden_layers": 3, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": true,
        "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": true,
        "use_mrope": false, "use_sliding_window": false, "vocab_size": 151936
    }"#;

    #[test]
    fn a_published_config() {
        let config = read(QWEN2);
        assert!(config.qkv_bias && !config.output_bias);
        assert_eq!(config.sliding_window, None);
    }

    #[test]
    fn tied_embeddings_stay_tied() {
        let tied = |text: &str| read(text).to_json()["tie_word_embeddings"].clone();
        assert_eq!(tied(QWEN2), true);
        let untied = QWEN2.replace(
            "\"tie_word_embeddings\": true",
            "\"tie_word_embeddings\": false",
        );
        assert_eq!(tied(&untied), false);
        let unsaid = QWEN2.replace("\"tie_word_embeddings\": true,", "");
        assert_eq!(tied(&unsaid), false);
    }

    #[test]
    fn what_is_not_implemented() {
        refused(
            QWEN2,
            "use_sliding_window",
            json!(true),
            "only full attention is",
        );
        refused(QWEN2, "use_mrope", json!(true), "only false is");
        let types = json!(["full_attention", "sliding_attention", "full_attention"]);
        refused(QWEN2, "layer_types", types, "only full_attention is");
    }
}
