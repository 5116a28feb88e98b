//! Qwen 1 (arXiv 2309.16609): queries, keys and values from one matrix, as many key/value heads as
//! heads, and `intermediate_size` twice the width of the feed-forward network.
//!
//! Input longer than `seq_length` would get other rotary angles (`use_dynamic_ntk`) and scaled
//! queries (`use_logn_attn`). Both change nothing in shorter input, so they are accepted, and
//! longer input is refused.

use mlrm_config::{LlmFamily, LlmSettings};
use serde_json::{Value, json};

use super::{DecoderFamily, llama};
use crate::decoder::{DecoderConfig, Positions};
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::{Rope, RopeScaling};
use crate::weights::{NameTable, renamed};

pub(super) static FAMILY: DecoderFamily = DecoderFamily {
    name: LlmFamily::Qwen.name(),
    architecture: "QWenModel",
    prefix: "transformer.",
    names: NameTable {
        rename,
        ignored: llama::NAMES.ignored,
    },
    read,
    write,
    scratch,
};

/// The core's names and Qwen's.
const NAMES: [(&str, &str); 10] = [
    ("embed_tokens.", "wte."),
    ("layers.", "h."),
    ("norm.", "ln_f."),
    ("input_layernorm.", "ln_1."),
    ("post_attention_layernorm.", "ln_2."),
    ("self_attn.qkv.", "attn.c_attn."),
    ("self_attn.o_proj.", "attn.c_proj."),
    ("mlp.up_proj.", "mlp.w1."),
    ("mlp.gate_proj.", "mlp.w2."),
    ("mlp.down_proj.", "mlp.c_proj."),
];

fn rename(path: &str) -> String {
    renamed(path, &NAMES)
}

fn read(hf: &mut HfConfig<'_>) -> Result<DecoderConfig, ModelError> {
    refuse_options(hf)?;
    let hidden_size: usize = hf.get("hidden_size", None)?;
    let num_attention_heads: usize = hf.get("num_attention_heads", None)?;
    let head_dim = hf.get("kv_channels", hidden_size.checked_div(num_attention_heads))?;
    if head_dim * num_attention_heads != hidden_size {
        let hint =
            format!("the {num_attention_heads} heads must fill `hidden_size` = {hidden_size}");
        return Err(hf.unsupported("kv_channels", &json!(head_dim), &hint));
    }
    let intermediate_size: usize = hf.get("intermediate_size", None)?;
    if !intermediate_size.is_multiple_of(2) {
        let hint = "it is twice the width of the feed-forward network";
        return Err(hf.unsupported("intermediate_size", &json!(intermediate_size), hint));
    }
    // Newer configs widen `max_position_embeddings` but keep `seq_length`, the length of training.
    let max_position_embeddings = hf.get("max_position_embeddings", Some(0))?;
    let max_position_embeddings = hf.get("seq_length", Some(max_position_embeddings))?;
    let biased = !hf.get("no_bias", Some(true))?;
    Ok(DecoderConfig {
        vocab_size: hf.get("vocab_size", None)?,
        hidden_size,
        word_embed_proj_dim: hidden_size,
        num_hidden_layers: hf.get("num_hidden_layers", None)?,
        num_attention_heads,
        num_key_value_heads: num_attention_heads,
        head_dim,
        intermediate_size: intermediate_size / 2,
        max_position_embeddings,
        positions: rotary(hf.get("rotary_emb_base", Some(10_000.0))?),
        norm_eps: hf.get("layer_norm_epsilon", None)?,
        output_bias: biased,
        mlp_bias: biased,
        use_dynamic_ntk: hf.get("use_dynamic_ntk", Some(false))?,
        use_logn_attn: hf.get("use_logn_attn", Some(false))?,
        initializer_range: hf.get("initializer_range", Some(0.02))?,
        ..plain()
    })
}

/// Options that change the forward pass and are not implemented, and those that do not change it.
fn refuse_options(hf: &mut HfConfig<'_>) -> Result<(), ModelError> {
    let off = [json!(0.0), json!(0)];
    hf.refuse_unless("attn_dropout_prob", &off, "set it to 0");
    hf.refuse_unless("emb_dropout_prob", &off, "set it to 0");
    hf.refuse_unless("rotary_pct", &[json!(1.0), json!(1)], "only 1 is");
    hf.refuse_unless("scale_attn_weights", &[json!(true)], "only true is");
    hf.refuse_unless(
        "quantization_config",
        &[],
        "load the weights that were not quantised",
    );
    hf.refuse_unless(
        "visual",
        &[],
        "this is a whole Qwen-VL, not a decoder alone",
    );
    // Number formats, kernels, caches and export; the softmax is in f32 here in any case.
    for key in [
        "auto_map",
        "bf16",
        "fp16",
        "fp32",
        "onnx_safe",
        "softmax_in_fp32",
        "tokenizer_class",
        "tokenizer_type",
        "use_cache_kernel",
        "use_cache_quantization",
        "use_flash_attn",
    ] {
        hf.take(key);
    }
    Ok(())
}

fn write(config: &DecoderConfig) -> Value {
    let mut keys = json!({
        "kv_channels": config.head_dim,
        "intermediate_size": 2 * config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "seq_length": config.max_position_embeddings,
        "layer_norm_epsilon": config.norm_eps,
        "no_bias": !config.output_bias,
        "rotary_pct": 1.0,
        "scale_attn_weights": true,
        "use_dynamic_ntk": config.use_dynamic_ntk,
        "use_logn_attn": config.use_logn_attn,
        "attn_dropout_prob": 0.0,
        "emb_dropout_prob": 0.0,
        "initializer_range": config.initializer_range,
    });
    if let Positions::Rotary(rope) = &config.positions {
        keys["rotary_emb_base"] = json!(rope.theta);
    }
    keys
}

fn scratch(settings: &LlmSettings, vocab_size: usize) -> DecoderConfig {
    let line = llama::scratch_line(&FAMILY, settings, vocab_size);
    DecoderConfig {
        intermediate_size: line.intermediate_size / 2,
        fused_qkv: true,
        qkv_bias: true,
        ..line
    }
}

fn plain() -> DecoderConfig {
    DecoderConfig {
        fused_qkv: true,
        qkv_bias: true,
        ..llama::plain(&FAMILY)
    }
}

fn rotary(theta: f64) -> Positions {
    Positions::Rotary(Rope {
        theta,
        scaling: RopeScaling::Default,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read, refused};
    use super::*;

    /// As published with Qwen-7B-Chat, but for the sizes.
    const QWEN: &str = r#"{
        "architectures": ["QWenLMHeadModel"], "attn_dropout_prob": 0.0,
        "auto_map": {"AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel"}, "bf16": false,
        "emb_dropout_prob": 0.0, "fp16": false, "fp32": false, "hidden_size": 64,
        "initializer_range": 0.02, "intermediate_size": 200, "kv_channels": 8,
        "layer_norm_epsilon": 1e-06, "max_position_embeddings": 32768, "model_type": "qwen",
        "no_bias": true, "num_attention_heads": 8, "num_hidden_layers": 3, "onnx_safe": null,
        "rotary_emb_base": 10000, "rotary_pct": 1.0, "scale_attn_weights": true,
        "seq_length": 8192, "softmax_in_fp32": false, "tie_word_embeddings": false,
        "tokenizer_class": "QWenTokenizer", "transformers_version": "4.32.0",
        "use_cache": true, "use_cache_kernel": false, "use_cache_quantization": false,
        "use_dynamic_ntk": true, "use_flash_attn": "auto", "use_logn_attn": true,
        "vocab_size": 151936
    }"#;

    #[test]
    fn a_published_config() {
        let config = read(QWEN);
        assert_eq!(config.intermediate_size, 100);
        assert!(config.qkv_bias && !config.output_bias && !config.mlp_bias);
        assert_eq!(config.max_position_embeddings, 8192);
    }

    #[test]
    fn input_that_would_be_stretched_is_refused() {
        let config = read(QWEN);
        config.check_length(8192).expect("as long as in training");
        let error = config.check_length(8193).expect_err("longer").to_string();
        assert!(
            error.contains("use_dynamic_ntk") && error.contains("8192"),
            "{error}"
        );
        let off = QWEN.replace("\"use_dynamic_ntk\": true", "\"use_dynamic_ntk\": false");
        assert!(read(&off).check_length(8193).is_err());
        let off = off.replace("\"use_logn_attn\": true", "\"use_logn_attn\": false");
        read(&off).check_length(8193).expect("nothing changes");
    }

    #[test]
    fn what_is_not_implemented() {
        let no = |key, value, words| refused(QWEN, key, value, words);
        no("rotary_pct", json!(0.25), "only 1 is");
        no("scale_attn_weights", json!(false), "only true is");
        no("attn_dropout_prob", json!(0.1), "set it to 0");
        no("emb_dropout_prob", json!(0.1), "set it to 0");
        no("kv_channels", json!(16), "must fill `hidden_size`");
        no("intermediate_size", json!(201), "twice");
        no("quantization_config", json!({"bits": 4}), "not quantised");
        no("visual", json!({"layers": 48}), "Qwen-VL");
    }
}
