//! Sizes and options of a decoder, read from the Hugging Face `config.json` itself.

use std::path::Path;

use serde_json::{Value, json};

use crate::error::ModelError;
use crate::hf_config::HfConfig;
use mlrm_config::{LlmFamily, LlmSettings};

/// A decoder of the Llama line: RMSNorm, rotary positions, grouped-query attention, SwiGLU.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Which member of the line (HF `model_type`).
    pub family: LlmFamily,
    /// Words, padding included.
    pub vocab_size: usize,
    /// Width of the hidden states (d).
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Inner width of the feed-forward network.
    pub intermediate_size: usize,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// Added to the mean square inside RMSNorm.
    pub rms_norm_eps: f64,
    /// Longest sequence that the model was made for.
    pub max_position_embeddings: usize,
    /// Biases on query, key and value (`qkv_bias`) and on the attention output (`output_bias`).
    pub qkv_bias: bool,
    /// See `qkv_bias`.
    pub output_bias: bool,
    /// Biases in the feed-forward network.
    pub mlp_bias: bool,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
}

impl DecoderConfig {
    /// Reads `config.json`; refuses options that are not implemented, by name.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let mut hf = HfConfig::read(path)?;
        let model_type: String = hf.get("model_type", None)?;
        let family = match model_type.as_str() {
            "llama" => LlmFamily::Llama,
            "qwen2" => LlmFamily::Qwen2,
            "qwen3" => LlmFamily::Qwen3,
            other => {
                let hint = "decoders that mlrm implements: llama, qwen2, qwen3";
                return Err(hf.unsupported("model_type", &json!(other), hint));
            }
        };
        hf.refuse_unless("hidden_act", &[json!("silu")], "only silu is")?;
        hf.refuse_unless("attention_dropout", &[json!(0.0), json!(0)], "set it to 0")?;
        hf.refuse_unless(
            "use_sliding_window",
            &[json!(false)],
            "only full attention is",
        )?;
        hf.refuse_unless("pretraining_tp", &[json!(1)], "only 1 is")?;
        // Both describe the sliding window that the line above has seen to be off.
        hf.take("sliding_window");
        hf.take("max_window_layers");
        refuse_windowed_layers(&mut hf)?;

        let hidden_size = hf.get("hidden_size", None)?;
        let num_attention_heads = hf.get("num_attention_heads", None)?;
        let attention_bias = hf.get("attention_bias", Some(false))?;
        let config = Self {
            family,
            vocab_size: hf.get("vocab_size", None)?,
            hidden_size,
            num_hidden_layers: hf.get("num_hidden_layers", None)?,
            num_attention_heads,
            num_key_value_heads: hf.get("num_key_value_heads", Some(num_attention_heads))?,
            head_dim: hf.get("head_dim", hidden_size.checked_div(num_attention_heads))?,
            intermediate_size: hf.get("intermediate_size", None)?,
            rope_theta: read_rope(&mut hf)?,
            rms_norm_eps: hf.get("rms_norm_eps", None)?,
            max_position_embeddings: hf.get("max_position_embeddings", None)?,
            qkv_bias: family == LlmFamily::Qwen2 || attention_bias,
            output_bias: attention_bias,
            mlp_bias: hf.get("mlp_bias", Some(false))?,
            initializer_range: hf.get("initializer_range", Some(0.02))?,
        };
        hf.finish()?;
        config.check().map_err(|m| ModelError::format(path, m))?;
        Ok(config)
    }

    /// The sizes of a config section, for a decoder from scratch with `vocab_size` words.
    pub fn from_settings(settings: &LlmSettings, vocab_size: usize) -> Self {
        Self {
            family: settings.family,
            vocab_size,
            hidden_size: settings.hidden_size,
            num_hidden_layers: settings.num_hidden_layers,
            num_attention_heads: settings.num_attention_heads,
            num_key_value_heads: settings.num_key_value_heads,
            head_dim: settings
                .head_dim
                .unwrap_or(settings.hidden_size / settings.num_attention_heads.max(1)),
            intermediate_size: settings.intermediate_size,
            rope_theta: settings.rope_theta,
            rms_norm_eps: settings.rms_norm_eps,
            max_position_embeddings: 4096,
            qkv_bias: settings.family == LlmFamily::Qwen2,
            output_bias: false,
            mlp_bias: false,
            initializer_range: settings.initializer_range,
        }
    }

    /// The `config.json` that Hugging Face tools read.
    pub fn to_json(&self) -> Value {
        let (model_type, class) = match self.family {
            LlmFamily::Llama => ("llama", "LlamaModel"),
            LlmFamily::Qwen2 => ("qwen2", "Qwen2Model"),
            LlmFamily::Qwen3 => ("qwen3", "Qwen3Model"),
        };
        let mut config = json!({
            "architectures": [class],
            "model_type": model_type,
            "hidden_act": "silu",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": self.rms_norm_eps,
            "max_position_embeddings": self.max_position_embeddings,
            "initializer_range": self.initializer_range,
            "tie_word_embeddings": false,
            "torch_dtype": "float32",
        });
        if self.family != LlmFamily::Qwen2 {
            config["attention_bias"] = json!(self.qkv_bias);
        }
        if self.family == LlmFamily::Llama {
            config["mlp_bias"] = json!(self.mlp_bias);
        }
        config
    }

    fn check(&self) -> Result<(), String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("intermediate_size", self.intermediate_size),
        ];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(format!("`{key}` must be at least 1"));
        }
        if !self
            .num_attention_heads
            .is_multiple_of(self.num_key_value_heads)
        {
            return Err(format!(
                "`num_key_value_heads` = {} must divide `num_attention_heads` = {}",
                self.num_key_value_heads, self.num_attention_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(format!("`head_dim` = {} must be even", self.head_dim));
        }
        Ok(())
    }
}

fn refuse_windowed_layers(hf: &mut HfConfig<'_>) -> Result<(), ModelError> {
    let Some(types) = hf.take("layer_types") else {
        return Ok(());
    };
    let full = |value: &Value| value.as_str() == Some("full_attention");
    match types.as_array() {
        Some(list) if list.iter().all(full) => Ok(()),
        _ => Err(hf.unsupported("layer_types", &types, "only full_attention is")),
    }
}

/// `rope_theta`, from the top level (published checkpoints) or `rope_parameters` (transformers 5).
fn read_rope(hf: &mut HfConfig<'_>) -> Result<f64, ModelError> {
    let mut theta = hf.take("rope_theta").and_then(|value| value.as_f64());
    for key in ["rope_parameters", "rope_scaling"] {
        let Some(rope) = hf.take(key) else { continue };
        let kind = rope.get("rope_type").or(rope.get("type"));
        if kind.is_some_and(|kind| kind != "default") {
            return Err(hf.unsupported(key, &rope, "only the default rotary positions are"));
        }
        theta = theta.or(rope.get("rope_theta").and_then(Value::as_f64));
    }
    Ok(theta.unwrap_or(10_000.0))
}
