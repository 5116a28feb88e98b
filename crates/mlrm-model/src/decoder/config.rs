//! Sizes and options of a decoder: what the shared core is built from.
//!
//! A family reads them from its Hugging Face `config.json` and writes them back; see
//! [`super::DecoderFamily`].

use std::path::Path;

use mlrm_config::LlmSettings;
use serde_json::{Value, json};

use super::families::{self, DecoderFamily};
use crate::bounds;
use crate::error::{InvalidConfig, ModelError};
use crate::hf_config::{Accepted, HfConfig, Noted};
use crate::nn::{MultimodalRope, Rope};

/// Sizes and options of a decoder; names are those of Hugging Face's configs where these agree.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Which family it is of (HF `model_type`).
    pub family: &'static DecoderFamily,
    /// Words, padding included.
    pub vocab_size: usize,
    /// Width of the hidden states between the layers.
    pub hidden_size: usize,
    /// Width of token embeddings, and of the states that leave the decoder (d). That of the layers
    /// in every family but OPT, which may project in and out.
    pub word_embed_proj_dim: usize,
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
    /// Longest sequence that the model was made for.
    pub max_position_embeddings: usize,
    /// How positions enter.
    pub positions: Positions,
    /// Keys that a query of a [`LayerKind::Sliding`] layer reads at most, its own included; absent: all
    /// before it.
    pub sliding_window: Option<usize>,
    /// What each layer attends to; empty: all alike, with the window if there is one.
    pub layer_kinds: Vec<LayerKind>,
    /// Rotary angles of [`LayerKind::Sliding`] layers where these have others.
    pub local_rope: Option<Rope>,
    /// Rotary angles of visual tokens by row and column of their picture, where these are told apart.
    pub multimodal_rope: Option<MultimodalRope>,
    /// What the vectors of words are multiplied with.
    pub word_scale: f64,
    /// What everything that enters the first layer is multiplied with.
    pub input_scale: f64,
    /// What both halves of a layer are multiplied with before they are added to its input.
    pub residual_scale: f64,
    /// What products of queries and keys are multiplied with; absent: `head_dim`^-1/2.
    pub score_scale: Option<f64>,
    /// Scores are bent so that they stay within ± this: `cap * tanh(score / cap)`.
    pub score_cap: Option<f64>,
    /// There is a norm behind each half of a layer as well, before it is added to the layer's input.
    pub sandwich_norms: bool,
    /// The kind of all norms.
    pub norm: NormKind,
    /// Norms stand before attention, before the feed-forward network and at the end; else behind
    /// attention and network, what was added included, and none at the end (OPT-350m).
    pub do_layer_norm_before: bool,
    /// Added to the variance (or mean square) inside the norms.
    pub norm_eps: f64,
    /// The feed-forward network.
    pub feed_forward: FeedForwardKind,
    /// Queries, keys and values come from one matrix.
    pub fused_qkv: bool,
    /// RMSNorm on each head of queries and keys.
    pub head_norm: bool,
    /// Biases on query, key and value.
    pub qkv_bias: bool,
    /// A bias on the attention output.
    pub output_bias: bool,
    /// Biases in the feed-forward network.
    pub mlp_bias: bool,
    /// Qwen-1: input longer than `max_position_embeddings` has other rotary angles.
    pub use_dynamic_ntk: bool,
    /// Qwen-1: queries past `max_position_embeddings` are scaled by a logarithm.
    pub use_logn_attn: bool,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// The LM head, which is never computed, is the table of words: other tools that load what is
    /// written find it there.
    pub tie_word_embeddings: bool,
    /// Other keys about the LM head, for these tools.
    pub lm_head: serde_json::Map<String, Value>,
}

/// What a layer of a decoder attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// All positions before, rotated.
    Full,
    /// Those within the window.
    Sliding,
    /// All positions before, not rotated.
    Unrotated,
}

impl LayerKind {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Full, Self::Sliding, Self::Unrotated];
}

/// How positions enter a decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Positions {
    /// Queries and keys are rotated.
    Rotary(Rope),
    /// A learnt vector is added to the token embedding (OPT).
    Learnt,
}

/// The norm of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// RMSNorm: a scale.
    Rms,
    /// RMSNorm whose scale is stored as what it differs from 1 by (Gemma).
    RmsFromOne,
    /// LayerNorm: a scale and a shift.
    Layer,
}

/// The feed-forward network of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedForwardKind {
    /// `down(silu(gate(x)) * up(x))`
    SwiGlu,
    /// The same, with gate and up in one matrix.
    FusedSwiGlu,
    /// `down(gelu(gate(x)) * up(x))`, the GELU by its tanh approximation.
    GeGlu,
    /// `fc2(relu(fc1(x)))`
    Relu,
}

impl DecoderConfig {
    /// Reads `config.json`; refuses options that are not implemented, by name.
    ///
    /// # Errors
    /// A file that cannot be read, or describes a decoder that is not supported.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        Ok(Self::read_accepting(path, &[])?.config)
    }

    /// [`Self::read`] that passes over the unknown keys of `accept_keys`.
    ///
    /// # Errors
    /// A file that cannot be read, sizes that do not fit, and every option that is not implemented.
    pub fn read_accepting(path: &Path, accept_keys: &[String]) -> Result<Noted<Self>, ModelError> {
        Self::from_hf(path, HfConfig::read(path)?, accept_keys)
    }

    pub(crate) fn from_hf<'a>(
        path: &Path,
        hf: HfConfig<'a>,
        accept_keys: &'a [String],
    ) -> Result<Noted<Self>, ModelError> {
        let mut hf = hf.accepting(Accepted {
            keys: accept_keys,
            setting: "model.llm.accept_keys",
        });
        let model_type: String = hf.get("model_type", None)?;
        let Some(family) = families::of_type(&model_type) else {
            let hint = format!("decoders that mlrm implements: {}", families::types());
            return Err(hf.unsupported("model_type", &json!(model_type), &hint));
        };
        Self::of_family(family, path, hf)
    }

    /// What the keys `hf` of the file `path` say of a decoder of `family`.
    pub(crate) fn of_family(
        family: &DecoderFamily,
        path: &Path,
        mut hf: HfConfig<'_>,
    ) -> Result<Noted<Self>, ModelError> {
        let mut config = (family.read)(&mut hf)?;
        let default = Some(config.tie_word_embeddings);
        config.tie_word_embeddings = hf.get("tie_word_embeddings", default)?;
        let notes = hf.finish()?;
        config
            .check()
            .map_err(|e| ModelError::format(path, e.message))?;
        Ok(Noted { config, notes })
    }

    /// The sizes of a config section, for a decoder from scratch with `vocab_size` words.
    pub fn from_settings(settings: &LlmSettings, vocab_size: usize) -> Self {
        (families::of(settings.family).scratch)(settings, vocab_size)
    }

    /// The same decoder with its first `layers` layers alone, and its last norm behind them.
    ///
    /// # Errors
    /// No layer, or more than there are.
    pub fn keep_layers(mut self, layers: usize) -> Result<Self, ModelError> {
        let all = self.num_hidden_layers;
        if !(1..=all).contains(&layers) {
            let message = format!(
                "model.llm.keep_layers = {layers}: the language model has {all} layers; set it to 1 to {all}, or leave it out"
            );
            return Err(ModelError::config(&["model.llm.keep_layers"], message));
        }
        self.num_hidden_layers = layers;
        self.layer_kinds.truncate(layers);
        Ok(self)
    }

    /// The `config.json` that Hugging Face tools read.
    pub fn to_json(&self) -> Value {
        let family = self.family();
        let mut config = (family.write)(self);
        config["architectures"] = json!([family.architecture]);
        config["model_type"] = json!(family.name);
        config["vocab_size"] = json!(self.vocab_size);
        config["hidden_size"] = json!(self.hidden_size);
        config["num_hidden_layers"] = json!(self.num_hidden_layers);
        config["num_attention_heads"] = json!(self.num_attention_heads);
        config["tie_word_embeddings"] = json!(self.tie_word_embeddings);
        for (key, value) in &self.lm_head {
            config[key.as_str()] = value.clone();
        }
        config["torch_dtype"] = json!("float32");
        config
    }

    /// The family's entry: its tensor names among others.
    pub fn family(&self) -> &'static DecoderFamily {
        self.family
    }

    /// What layer `index` attends to.
    pub fn layer_kind(&self, index: usize) -> LayerKind {
        let alike = match self.sliding_window {
            Some(_) => LayerKind::Sliding,
            None => LayerKind::Full,
        };
        self.layer_kinds.get(index).copied().unwrap_or(alike)
    }

    /// Whether the attention half of a layer is no more than `x + attention(rms_norm(x))`, rotated, without biases, and its
    /// feed-forward half no more than `x + swiglu(rms_norm(x))`.
    pub fn plain_halves(&self) -> [bool; 2] {
        let norms = self.norm == NormKind::Rms && self.do_layer_norm_before && !self.sandwich_norms;
        let plain = norms && self.residual_scale == 1.0;
        let usual = self.score_scale.is_none() && self.score_cap.is_none() && !self.head_norm;
        let separate = !self.fused_qkv && !self.qkv_bias && !self.output_bias;
        let rotated = self.positions != Positions::Learnt;
        [
            plain && usual && separate && rotated,
            plain && self.feed_forward == FeedForwardKind::SwiGlu && !self.mlp_bias,
        ]
    }

    /// Refuses input of `seq` positions where the decoder has none so long.
    ///
    /// # Errors
    /// More positions than the decoder has.
    pub fn check_length(&self, seq: usize) -> Result<(), ModelError> {
        let limit = self.max_position_embeddings;
        let why = if self.positions == Positions::Learnt {
            "its positions are learnt, and there are no more"
        } else if self.use_dynamic_ntk || self.use_logn_attn {
            "past that `use_dynamic_ntk` and `use_logn_attn` change its attention, which is not \
             implemented"
        } else {
            return Ok(());
        };
        if seq <= limit {
            return Ok(());
        }
        Err(ModelError::batch(format!(
            "an input of {seq} positions is longer than the {limit} of this `{}` model: {why}; \
             lower prompt.max_tokens",
            self.family.name
        )))
    }

    fn check(&self) -> Result<(), InvalidConfig> {
        let wrong = |keys: &[_], message: String| Err(InvalidConfig::new(keys, message));
        let positions = self.max_position_embeddings;
        let (heads, shared) = (self.num_attention_heads, self.num_key_value_heads);
        bounds::check(&[
            ("vocab_size", self.vocab_size, bounds::WORDS),
            ("hidden_size", self.hidden_size, bounds::WIDTH),
            (
                "word_embed_proj_dim",
                self.word_embed_proj_dim,
                bounds::WIDTH,
            ),
            ("num_hidden_layers", self.num_hidden_layers, bounds::LAYERS),
            ("num_attention_heads", heads, bounds::HEADS),
            ("num_key_value_heads", shared, bounds::HEADS),
            ("head_dim", self.head_dim, bounds::HEAD_WIDTH),
            ("intermediate_size", self.intermediate_size, bounds::WIDTH),
            ("max_position_embeddings", positions, bounds::POSITIONS),
            (
                "sliding_window",
                self.sliding_window.unwrap_or(1),
                usize::MAX,
            ),
        ])?;
        if !heads.is_multiple_of(shared) {
            let message = format!(
                "`num_key_value_heads` = {shared} must divide `num_attention_heads` = {heads}"
            );
            return wrong(&["num_key_value_heads", "num_attention_heads"], message);
        }
        let (kinds, layers) = (self.layer_kinds.len(), self.num_hidden_layers);
        if kinds != 0 && kinds != layers {
            let message = format!("{kinds} kinds of layers are given for {layers} layers");
            return wrong(&["layer_types", "num_hidden_layers"], message);
        }
        let scales = [self.word_scale, self.input_scale, self.residual_scale];
        let optional = [self.score_scale, self.score_cap].into_iter().flatten();
        if !scales
            .into_iter()
            .chain(optional)
            .all(|s| s.is_finite() && s > 0.0)
        {
            let message = "multipliers and caps must be positive numbers".into();
            return wrong(&[], message);
        }
        if let Some(rope) = self.multimodal_rope {
            let (pairs, [time, row, column]) = (self.head_dim / 2, rope.sections);
            let fits = time
                .checked_add(row)
                .and_then(|sum| sum.checked_add(column))
                == Some(pairs);
            if !fits {
                let message = format!(
                    "`mrope_section` = {:?} must add up to half of `head_dim` = {}",
                    rope.sections, self.head_dim
                );
                return wrong(&["mrope_section", "head_dim"], message);
            }
        }
        let rotary = matches!(self.positions, Positions::Rotary(_));
        if rotary && !self.head_dim.is_multiple_of(2) {
            let message = format!("`head_dim` = {} must be even", self.head_dim);
            return wrong(&["head_dim"], message);
        }
        Ok(())
    }
}
