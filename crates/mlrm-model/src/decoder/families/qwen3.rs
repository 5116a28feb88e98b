//! Qwen 3 (arXiv 2505.09388): Llama with RMSNorm on each head of queries and keys.

use mlrm_config::LlmFamily;
use serde_json::{Value, json};

use super::{DecoderFamily, llama, qwen2};
use crate::decoder::DecoderConfig;
use crate::error::ModelError;
use crate::hf_config::HfConfig;

pub(super) static FAMILY: DecoderFamily = DecoderFamily {
    name: LlmFamily::Qwen3.name(),
    architecture: "Qwen3Model",
    prefix: "model.",
    names: llama::NAMES,
    read,
    write,
    scratch: |settings, words| DecoderConfig {
        head_norm: true,
        ..llama::scratch_line(&FAMILY, settings, words)
    },
};

/// The head width of a `config.json` that does not mention it, as `Qwen3Config` has it.
const DEFAULT_HEAD_DIM: usize = 128;

fn read(hf: &mut HfConfig<'_>) -> Result<DecoderConfig, ModelError> {
    qwen2::refuse_sliding_window(hf)?;
    let attention_bias = hf.get("attention_bias", Some(false))?;
    Ok(DecoderConfig {
        head_norm: true,
        head_dim: hf.get("head_dim", Some(DEFAULT_HEAD_DIM))?,
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        ..llama::read_line(&FAMILY, hf)?
    })
}

fn write(config: &DecoderConfig) -> Value {
    let mut keys = llama::write_line(config);
    keys["attention_bias"] = json!(config.qkv_bias);
    keys
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read, refused};
    use super::*;

    /// As published with Qwen3 0.6B, but for the sizes.
    const QWEN3: &str = r#"{
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 16, "hidden_act": "silu",
        "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 100,
        "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
        "num_attention_heads": 8, "num_hidden_layers": 3, "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000,
        "sliding_window": null, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0", "use_cache": true, "use_sliding_window": false,
        "vocab_size": 151936
    }"#;

    #[test]
    fn a_published_config() {
        let config = read(QWEN3);
        assert!(config.head_norm && !config.qkv_bias);
        assert_eq!(config.head_dim, 16);
        assert_eq!(read(&QWEN3.replace("\"head_dim\": 16,", "")).head_dim, 128);
    }

    #[test]
    fn what_is_not_implemented() {
        refused(
            QWEN3,
            "use_sliding_window",
            json!(true),
            "only full attention is",
        );
        refused(QWEN3, "mlp_bias", json!(true), "does not know this key");
    }
}
