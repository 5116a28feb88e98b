//! The language model of Qwen3-VL (arXiv 2511.21631): Qwen 3 whose visual tokens turn with row and column of their
//! picture, the three taking turns over the channels.

use serde_json::{Value, json};

use super::qwen2_5_vl::{put_multimodal, take_multimodal};
use super::{DecoderFamily, llama};
use crate::decoder::DecoderConfig;
use crate::error::ModelError;
use crate::hf_config::HfConfig;

pub(crate) static FAMILY: DecoderFamily = DecoderFamily {
    name: "qwen3_vl_text",
    architecture: "Qwen3VLTextModel",
    prefix: "model.",
    names: llama::NAMES,
    read,
    write,
    scratch: |settings, words| DecoderConfig {
        head_norm: true,
        ..llama::scratch_line(&FAMILY, settings, words)
    },
};

/// Those of `Qwen3VLTextConfig`, for keys that a file leaves out.
const SECTIONS: [usize; 3] = [24, 20, 20];
const HEAD_DIM: usize = 128;
const THETA: f64 = 500_000.0;

fn read(hf: &mut HfConfig<'_>) -> Result<DecoderConfig, ModelError> {
    let attention_bias = hf.get("attention_bias", Some(false))?;
    let rope = take_multimodal(hf, SECTIONS, true, THETA)?;
    Ok(DecoderConfig {
        head_norm: true,
        head_dim: hf.get("head_dim", Some(HEAD_DIM))?,
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        multimodal_rope: Some(rope),
        ..llama::read_line(&FAMILY, hf)?
    })
}

fn write(config: &DecoderConfig) -> Value {
    let mut keys = llama::write_line(config);
    keys["attention_bias"] = json!(config.qkv_bias);
    put_multimodal(&mut keys, config);
    keys
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read, refused};
    use super::*;

    /// The section of Qwen3-VL 4B as published, but for the sizes.
    const QWEN: &str = r#"{
        "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 151643, "dtype": "bfloat16",
        "eos_token_id": 151645, "head_dim": 16, "hidden_act": "silu", "hidden_size": 64,
        "initializer_range": 0.02, "intermediate_size": 100, "max_position_embeddings": 262144,
        "model_type": "qwen3_vl_text", "num_attention_heads": 8, "num_hidden_layers": 3,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_interleaved": true, "mrope_section": [4, 2, 2], "rope_type": "default"},
        "rope_theta": 5000000, "tie_word_embeddings": true, "use_cache": true, "vocab_size": 151936
    }"#;

    #[test]
    fn a_published_config() {
        let config = read(QWEN);
        assert!(config.head_norm && !config.qkv_bias);
        let rope = config.multimodal_rope.expect("sections");
        assert_eq!((rope.sections, rope.interleaved), ([4, 2, 2], true));
    }

    #[test]
    fn what_is_not_implemented() {
        let rope =
            json!({"mrope_interleaved": false, "mrope_section": [4, 2, 2], "rope_type": "default"});
        refused(QWEN, "rope_scaling", rope, "`mrope_interleaved` = true");
        refused(QWEN, "mlp_bias", json!(true), "does not know this key");
    }
}
