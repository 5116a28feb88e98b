//! Phi 3 and 3.5 (arXiv 2404.14219): Llama with one matrix for query, key and value and one for both
//! halves of the network, and a window in some sizes. Those of 128k positions (`longrope`) are refused.

use mlrm_config::LlmFamily;
use serde_json::{Value, json};

use super::{DecoderFamily, llama};
use crate::decoder::{DecoderConfig, FeedForwardKind};
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::weights::{NameTable, renamed};

pub(super) static FAMILY: DecoderFamily = DecoderFamily {
    name: LlmFamily::Phi3.name(),
    architecture: "Phi3Model",
    prefix: "model.",
    names: NameTable {
        rename: |path| renamed(path, &[("self_attn.qkv.", "self_attn.qkv_proj.")]),
        ignored: llama::NAMES.ignored,
    },
    read,
    write,
    scratch: |settings, words| fused(llama::scratch_line(&FAMILY, settings, words)),
};

fn read(hf: &mut HfConfig<'_>) -> Result<DecoderConfig, ModelError> {
    let off = [json!(0.0), json!(0)];
    hf.refuse_unless("resid_pdrop", &off, "set it to 0");
    hf.refuse_unless("embd_pdrop", &off, "set it to 0");
    hf.refuse_unless("attention_bias", &[json!(false)], "only false is");
    // Of `longrope`, which is refused where it is asked for.
    hf.take("original_max_position_embeddings");
    let sliding_window = hf.get_nullable("sliding_window", None)?;
    Ok(DecoderConfig {
        sliding_window,
        ..fused(llama::read_line(&FAMILY, hf)?)
    })
}

fn fused(line: DecoderConfig) -> DecoderConfig {
    DecoderConfig {
        fused_qkv: true,
        feed_forward: FeedForwardKind::FusedSwiGlu,
        ..line
    }
}

fn write(config: &DecoderConfig) -> Value {
    let mut keys = llama::write_line(config);
    keys["sliding_window"] = json!(config.sliding_window);
    keys["original_max_position_embeddings"] = json!(config.max_position_embeddings);
    keys["resid_pdrop"] = json!(0.0);
    keys["embd_pdrop"] = json!(0.0);
    keys
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read, refused};
    use super::*;

    /// As published with Phi 3 mini 4k, but for the sizes.
    const PHI3: &str = r#"{
        "_name_or_path": "Phi-3-mini-4k-instruct", "architectures": ["Phi3ForCausalLM"],
        "attention_dropout": 0.0, "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"},
        "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 32000, "hidden_act": "silu",
        "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 100,
        "max_position_embeddings": 4096, "model_type": "phi3", "num_attention_heads": 8,
        "num_hidden_layers": 3, "num_key_value_heads": 8, "original_max_position_embeddings": 4096,
        "pad_token_id": 32000, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05, "rope_scaling": null,
        "rope_theta": 10000.0, "sliding_window": 2047, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.40.2", "use_cache": true,
        "attention_bias": false, "vocab_size": 32064
    }"#;

    #[test]
    fn a_published_config() {
        let config = read(PHI3);
        assert_eq!((config.head_dim, config.sliding_window), (8, Some(2047)));
        assert!(config.fused_qkv);
    }

    #[test]
    fn what_is_not_implemented() {
        let long = json!({"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]});
        refused(PHI3, "rope_scaling", long, "default");
        refused(PHI3, "partial_rotary_factor", json!(0.75), "only 1 is");
        refused(PHI3, "resid_pdrop", json!(0.1), "set it to 0");
    }
}
