//! OPT (arXiv 2205.01068), the language model of BLIP-2: learnt positions, LayerNorm, biases
//! everywhere, a ReLU network, as many key/value heads as heads.

use mlrm_config::{LlmFamily, LlmSettings};
use serde_json::{Value, json};

use super::{DecoderFamily, llama};
use crate::decoder::{DecoderConfig, FeedForwardKind, NormKind, Positions};
use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::weights::{NameTable, renamed};

pub(super) static FAMILY: DecoderFamily = DecoderFamily {
    name: LlmFamily::Opt.name(),
    architecture: "OPTModel",
    prefix: "model.",
    names: NameTable {
        rename,
        ignored: llama::NAMES.ignored,
    },
    read,
    write,
    scratch,
};

/// The core's names and OPT's, below `decoder.`.
const NAMES: [(&str, &str); 7] = [
    ("norm.", "final_layer_norm."),
    ("input_layernorm.", "self_attn_layer_norm."),
    ("post_attention_layernorm.", "final_layer_norm."),
    ("self_attn.qkv.", "self_attn."),
    ("self_attn.o_proj.", "self_attn.out_proj."),
    ("mlp.fc1.", "fc1."),
    ("mlp.fc2.", "fc2."),
];

/// Added to the variance by PyTorch's LayerNorm; the config has no key for it.
const NORM_EPS: f64 = 1e-5;

fn rename(path: &str) -> String {
    format!("decoder.{}", renamed(path, &NAMES))
}

fn read(hf: &mut HfConfig<'_>) -> Result<DecoderConfig, ModelError> {
    let off = [json!(0.0), json!(0)];
    hf.refuse_unless("_remove_final_layer_norm", &[json!(false)], "only false is");
    hf.refuse_unless(
        "layer_norm_elementwise_affine",
        &[json!(true)],
        "only true is",
    );
    hf.refuse_unless("activation_function", &[json!("relu")], "only relu is");
    hf.refuse_unless("attention_dropout", &off, "set it to 0");
    hf.refuse_unless("activation_dropout", &off, "set it to 0");
    hf.refuse_unless("layerdrop", &off, "set it to 0");
    // Every published OPT says 0.1, which is of its own training; here none is applied.
    hf.take("dropout");
    // Put before a text by the tokenizer of old versions.
    hf.take("prefix");
    let hidden_size: usize = hf.get("hidden_size", None)?;
    let num_attention_heads: usize = hf.get("num_attention_heads", None)?;
    if num_attention_heads == 0 || !hidden_size.is_multiple_of(num_attention_heads) {
        let hint = format!("`hidden_size` = {hidden_size} must split into the heads");
        return Err(hf.unsupported("num_attention_heads", &json!(num_attention_heads), &hint));
    }
    let bias = hf.get("enable_bias", Some(true))?;
    Ok(DecoderConfig {
        vocab_size: hf.get("vocab_size", None)?,
        hidden_size,
        word_embed_proj_dim: hf.get("word_embed_proj_dim", Some(hidden_size))?,
        num_hidden_layers: hf.get("num_hidden_layers", None)?,
        num_attention_heads,
        num_key_value_heads: num_attention_heads,
        head_dim: hidden_size / num_attention_heads,
        intermediate_size: hf.get("ffn_dim", None)?,
        max_position_embeddings: hf.get("max_position_embeddings", None)?,
        do_layer_norm_before: hf.get("do_layer_norm_before", Some(true))?,
        qkv_bias: bias,
        output_bias: bias,
        mlp_bias: bias,
        initializer_range: hf.get("init_std", Some(0.02))?,
        ..plain()
    })
}

fn write(config: &DecoderConfig) -> Value {
    json!({
        "activation_function": "relu",
        "do_layer_norm_before": config.do_layer_norm_before,
        "enable_bias": config.qkv_bias,
        "ffn_dim": config.intermediate_size,
        "word_embed_proj_dim": config.word_embed_proj_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "layerdrop": 0.0,
        "init_std": config.initializer_range,
    })
}

fn scratch(settings: &LlmSettings, vocab_size: usize) -> DecoderConfig {
    DecoderConfig {
        vocab_size,
        hidden_size: settings.hidden_size,
        word_embed_proj_dim: settings.hidden_size,
        num_hidden_layers: settings.num_hidden_layers,
        num_attention_heads: settings.num_attention_heads,
        num_key_value_heads: settings.num_attention_heads,
        head_dim: settings.resolved_head_dim(),
        intermediate_size: settings.intermediate_size,
        max_position_embeddings: settings.max_position_embeddings,
        initializer_range: settings.initializer_range,
        qkv_bias: true,
        output_bias: true,
        mlp_bias: true,
        ..plain()
    }
}

fn plain() -> DecoderConfig {
    DecoderConfig {
        positions: Positions::Learnt,
        norm: NormKind::Layer,
        norm_eps: NORM_EPS,
        feed_forward: FeedForwardKind::Relu,
        // What Hugging Face takes where config.json does not say.
        tie_word_embeddings: true,
        ..llama::plain(&FAMILY)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read, refused};
    use super::*;

    /// As published with OPT-2.7B, but for the sizes.
    const OPT: &str = r#"{
        "_name_or_path": "facebook/opt-2.7b", "_remove_final_layer_norm": false,
        "activation_dropout": 0.0, "activation_function": "relu",
        "architectures": ["OPTForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 2,
        "do_layer_norm_before": true, "dropout": 0.1, "eos_token_id": 2, "ffn_dim": 100,
        "hidden_size": 64, "init_std": 0.02, "layerdrop": 0.0, "max_position_embeddings": 2048,
        "model_type": "opt", "num_attention_heads": 8, "num_hidden_layers": 3,
        "pad_token_id": 1, "prefix": "</s>", "torch_dtype": "float16",
        "transformers_version": "4.21.0.dev0", "use_cache": true, "vocab_size": 50272,
        "word_embed_proj_dim": 64
    }"#;

    #[test]
    fn a_published_config() {
        let config = read(OPT);
        assert_eq!(config.positions, Positions::Learnt);
        assert_eq!((config.head_dim, config.word_embed_proj_dim), (8, 64));
        let narrow = OPT.replace("\"word_embed_proj_dim\": 64", "\"word_embed_proj_dim\": 48");
        assert_eq!(read(&narrow).word_embed_proj_dim, 48);
        let behind = OPT.replace(
            "\"do_layer_norm_before\": true",
            "\"do_layer_norm_before\": false",
        );
        assert!(config.do_layer_norm_before && !read(&behind).do_layer_norm_before);
        config.check_length(2048).expect("as many as there are");
        let error = config.check_length(2049).expect_err("longer").to_string();
        assert!(
            error.contains("learnt") && error.contains("2048"),
            "{error}"
        );
    }

    #[test]
    fn what_is_not_implemented() {
        let no = |key, value, words| refused(OPT, key, value, words);
        no("_remove_final_layer_norm", json!(true), "only false is");
        no(
            "layer_norm_elementwise_affine",
            json!(false),
            "only true is",
        );
        no("activation_function", json!("gelu"), "only relu is");
        no("attention_dropout", json!(0.1), "set it to 0");
        no("layerdrop", json!(0.1), "set it to 0");
        no("num_attention_heads", json!(7), "must split");
    }
}
