//! SmolLM 3: Llama of which every fourth layer has no rotary positions (arXiv 2501.18795).

use mlrm_config::LlmFamily;
use serde_json::{Value, json};

use super::{DecoderFamily, llama, qwen2};
use crate::decoder::{DecoderConfig, LayerKind};
use crate::error::ModelError;
use crate::hf_config::HfConfig;

pub(super) static FAMILY: DecoderFamily = DecoderFamily {
    name: LlmFamily::SmolLm3.name(),
    architecture: "SmolLM3Model",
    prefix: "model.",
    names: llama::NAMES,
    read,
    write,
    scratch: |settings, words| {
        let line = llama::scratch_line(&FAMILY, settings, words);
        DecoderConfig {
            layer_kinds: every(line.num_hidden_layers, INTERVAL),
            ..line
        }
    },
};

/// One layer of so many has no positions where a config.json does not tell.
const INTERVAL: usize = 4;
/// The base of angles where a config.json does not tell.
const THETA: f64 = 2_000_000.0;

fn every(layers: usize, interval: usize) -> Vec<LayerKind> {
    let kind = |index: usize| match (index + 1).checked_rem(interval) {
        Some(0) => LayerKind::Unrotated,
        _ => LayerKind::Full,
    };
    (0..layers).map(kind).collect()
}

fn read(hf: &mut HfConfig<'_>) -> Result<DecoderConfig, ModelError> {
    qwen2::refuse_sliding_window(hf)?;
    // Of training on several devices; the class does not read it.
    hf.take("pretraining_tp");
    let interval = hf.get("no_rope_layer_interval", Some(INTERVAL))?;
    // 1 where a layer has positions.
    let rotated: Option<Vec<usize>> = hf.get_nullable("no_rope_layers", None)?;
    let attention_bias = hf.get("attention_bias", Some(false))?;
    let mlp_bias = hf.get("mlp_bias", Some(false))?;
    let told = |key: &str| hf.peek(key).and_then(|rope| rope.get("rope_theta"));
    if told("rope_parameters").or(told("rope_scaling")).is_none() {
        hf.default_to("rope_theta", json!(THETA));
    }
    let line = llama::read_line(&FAMILY, hf)?;
    if let Some(rotated) = rotated
        .as_ref()
        .filter(|r| r.len() < line.num_hidden_layers)
    {
        let hint = "it has a number for each layer";
        return Err(hf.unsupported("no_rope_layers", &json!(rotated), hint));
    }
    let kind = |&rotated: &usize| match rotated {
        0 => LayerKind::Unrotated,
        _ => LayerKind::Full,
    };
    Ok(DecoderConfig {
        layer_kinds: match rotated {
            Some(rotated) => rotated
                .iter()
                .take(line.num_hidden_layers)
                .map(kind)
                .collect(),
            None => every(line.num_hidden_layers, interval),
        },
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias,
        tie_word_embeddings: true,
        ..line
    })
}

fn write(config: &DecoderConfig) -> Value {
    let mut keys = llama::write_line(config);
    let rotated = config.layer_kinds.iter();
    let rotated = rotated.map(|&kind| u8::from(kind != LayerKind::Unrotated));
    keys["no_rope_layers"] = rotated.collect();
    keys["layer_types"] = json!(vec!["full_attention"; config.num_hidden_layers]);
    keys["use_sliding_window"] = json!(false);
    keys["attention_bias"] = json!(config.qkv_bias);
    keys["mlp_bias"] = json!(config.mlp_bias);
    keys
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read, refused};
    use super::*;

    /// As published with SmolLM3 3B, but for the sizes.
    const SMOLLM3: &str = r#"{
        "architectures": ["SmolLM3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": null, "eos_token_id": 128012, "hidden_act": "silu", "hidden_size": 64,
        "initializer_range": 0.02, "intermediate_size": 100,
        "layer_types": ["full_attention", "full_attention", "full_attention", "full_attention",
            "full_attention"],
        "max_position_embeddings": 65536, "max_window_layers": 28, "mlp_bias": false,
        "model_type": "smollm3", "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0, 1],
        "num_attention_heads": 8, "num_hidden_layers": 5, "num_key_value_heads": 2,
        "pad_token_id": 128004, "pretraining_tp": 2, "rms_norm_eps": 1e-06, "rope_scaling": null,
        "rope_theta": 5000000.0, "sliding_window": null, "torch_dtype": "bfloat16",
        "transformers_version": "4.54.0.dev0", "use_cache": false, "use_sliding_window": false,
        "vocab_size": 128256
    }"#;

    #[test]
    fn a_published_config() {
        use LayerKind::{Full, Unrotated};
        let config = read(SMOLLM3);
        assert_eq!(config.layer_kinds, [Full, Full, Full, Unrotated, Full]);
        let unsaid = SMOLLM3.replace("\"no_rope_layers\": [1, 1, 1, 0, 1],", "");
        assert_eq!(read(&unsaid).layer_kinds, config.layer_kinds);
    }

    #[test]
    fn what_is_not_implemented() {
        let full = "only full attention is";
        refused(SMOLLM3, "use_sliding_window", json!(true), full);
        refused(SMOLLM3, "no_rope_layers", json!([1, 1]), "for each layer");
    }
}
