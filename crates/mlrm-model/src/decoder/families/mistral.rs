//! Mistral (arXiv 2310.06825): Llama without biases, each query reading a window of keys.

use mlrm_config::LlmFamily;
use serde_json::{Value, json};

use super::{DecoderFamily, llama};
use crate::decoder::DecoderConfig;
use crate::error::ModelError;
use crate::hf_config::HfConfig;

pub(super) static FAMILY: DecoderFamily = DecoderFamily {
    name: LlmFamily::Mistral.name(),
    architecture: "MistralModel",
    prefix: "model.",
    names: llama::NAMES,
    read,
    write,
    scratch: |settings, words| llama::scratch_line(&FAMILY, settings, words),
};

/// The window of a `config.json` that does not mention it, as `MistralConfig` has it.
const DEFAULT_WINDOW: usize = 4096;

fn read(hf: &mut HfConfig<'_>) -> Result<DecoderConfig, ModelError> {
    Ok(DecoderConfig {
        sliding_window: hf.get_nullable("sliding_window", Some(DEFAULT_WINDOW))?,
        ..llama::read_line(&FAMILY, hf)?
    })
}

fn write(config: &DecoderConfig) -> Value {
    let mut keys = llama::write_line(config);
    keys["sliding_window"] = json!(config.sliding_window);
    keys
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read, refused};
    use super::*;

    /// As published with Mistral 7B v0.1, but for the sizes.
    const MISTRAL: &str = r#"{
        "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02,
        "intermediate_size": 100, "max_position_embeddings": 32768, "model_type": "mistral",
        "num_attention_heads": 8, "num_hidden_layers": 3, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 100,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "transformers_version": "4.34.0.dev0", "use_cache": true, "vocab_size": 32000
    }"#;

    #[test]
    fn a_published_config() {
        assert_eq!(read(MISTRAL).sliding_window, Some(100));
        // v0.3 turns the window off; `MistralConfig` has one where the key is absent.
        let off = MISTRAL.replace("\"sliding_window\": 100", "\"sliding_window\": null");
        assert_eq!(read(&off).sliding_window, None);
        let absent = MISTRAL.replace("\"sliding_window\": 100,", "");
        assert_eq!(read(&absent).sliding_window, Some(4096));
    }

    #[test]
    fn the_guide_shows_this_file_and_that_of_dinov2() {
        let guide = include_str!("../../../../../docs/src/adding-a-model.md");
        let blocks: Vec<&str> = guide.split("```rust\n").skip(1).collect();
        let (own, dinov2) = (
            include_str!("mistral.rs"),
            include_str!("../../vision/families/dinov2.rs"),
        );
        assert_eq!(blocks.len(), 3);
        for (block, file) in blocks.into_iter().zip([own, own, dinov2]) {
            let code = block.split("```").next().unwrap_or_default();
            // `…` stands for lines that are left out.
            for part in code.split("// …\n") {
                assert!(file.contains(part), "{part}");
            }
        }
    }

    #[test]
    fn what_is_not_implemented() {
        refused(MISTRAL, "sliding_window", json!(0), "at least 1");
        refused(
            MISTRAL,
            "attention_bias",
            json!(true),
            "does not know this key",
        );
        refused(
            MISTRAL,
            "layer_types",
            json!(["full_attention"]),
            "does not know this key",
        );
    }
}
