//! Granite 3 (IBM): Llama whose embeddings, scores and halves of layers are scaled by numbers of its
//! config.

use mlrm_config::LlmFamily;
use serde_json::{Value, json};

use super::gemma2::head;
use super::{DecoderFamily, llama};
use crate::decoder::DecoderConfig;
use crate::error::ModelError;
use crate::hf_config::HfConfig;

pub(super) static FAMILY: DecoderFamily = DecoderFamily {
    name: LlmFamily::Granite.name(),
    architecture: "GraniteModel",
    prefix: "model.",
    names: llama::NAMES,
    read,
    write,
    scratch: |settings, words| {
        let line = llama::scratch_line(&FAMILY, settings, words);
        DecoderConfig {
            score_scale: Some((line.head_dim as f64).powf(-0.5)),
            lm_head: head(&[("logits_scaling", json!(1.0))]),
            ..line
        }
    },
};

fn read(hf: &mut HfConfig<'_>) -> Result<DecoderConfig, ModelError> {
    let attention_bias = hf.get("attention_bias", Some(false))?;
    let mlp_bias = hf.get("mlp_bias", Some(false))?;
    // Every published Granite says 0.1, which is of its own training; here none is applied.
    hf.take("attention_dropout");
    let (input, scores, residual, logits) = (
        multiplier(hf, "embedding_multiplier")?,
        multiplier(hf, "attention_multiplier")?,
        multiplier(hf, "residual_multiplier")?,
        multiplier(hf, "logits_scaling")?,
    );
    Ok(DecoderConfig {
        input_scale: input,
        score_scale: Some(scores),
        residual_scale: residual,
        lm_head: head(&[("logits_scaling", json!(logits))]),
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias,
        ..llama::read_line(&FAMILY, hf)?
    })
}

/// A positive number, 1 where the key is absent.
fn multiplier(hf: &mut HfConfig<'_>, key: &str) -> Result<f64, ModelError> {
    let value: f64 = hf.get(key, Some(1.0))?;
    match value > 0.0 {
        true => Ok(value),
        false => Err(hf.unsupported(key, &json!(value), "it is a positive number")),
    }
}

fn write(config: &DecoderConfig) -> Value {
    let mut keys = llama::write_line(config);
    keys["embedding_multiplier"] = json!(config.input_scale);
    keys["attention_multiplier"] = json!(config.score_scale.unwrap_or(1.0));
    keys["residual_multiplier"] = json!(config.residual_scale);
    keys["attention_bias"] = json!(config.qkv_bias);
    keys["mlp_bias"] = json!(config.mlp_bias);
    keys
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read, refused};
    use super::*;

    /// As published with Granite 3.1 2B, but for the sizes.
    const GRANITE: &str = r#"{
        "architectures": ["GraniteForCausalLM"], "attention_bias": false, "attention_dropout": 0.1,
        "attention_multiplier": 0.015625, "bos_token_id": 0, "embedding_multiplier": 12.0,
        "eos_token_id": 0, "hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02,
        "intermediate_size": 100, "logits_scaling": 8.0, "max_position_embeddings": 131072,
        "mlp_bias": false, "model_type": "granite", "num_attention_heads": 8,
        "num_hidden_layers": 3, "num_key_value_heads": 2, "pad_token_id": 0,
        "residual_multiplier": 0.22, "rms_norm_eps": 1e-05, "rope_scaling": null,
        "rope_theta": 5000000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "transformers_version": "4.47.0.dev0", "use_cache": true, "vocab_size": 49155
    }"#;

    #[test]
    fn a_published_config() {
        let config = read(GRANITE);
        assert_eq!((config.input_scale, config.residual_scale), (12.0, 0.22));
        assert_eq!(config.score_scale, Some(0.015625));
        assert_eq!(config.to_json()["logits_scaling"], 8.0);
    }

    #[test]
    fn what_is_not_implemented() {
        refused(
            GRANITE,
            "residual_multiplier",
            json!(-1.0),
            "positive number",
        );
        refused(GRANITE, "num_local_experts", json!(40), "experts");
    }
}
