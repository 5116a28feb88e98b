//! `[model.llm]`: the decoder and how it learns.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LlmFamily;
use super::words::words;
use crate::ModelPath;

/// `[model.llm]`: the decoder. Sizes are read only when `path` is not set and carry the names of a
/// Hugging Face `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "Hugging Face config.json"))]
pub struct LlmSettings {
    /// A Hugging Face folder: config.json, model*.safetensors, tokenizer.json. Or its name on the Hub:
    /// `hf:owner/name`, or `hf:owner/name@revision` with a branch, tag or commit.
    pub path: Option<ModelPath>,
    /// Keys of its config.json that mlrm does not know and that do not change the forward pass.
    pub accept_keys: Vec<String>,
    /// Layers that a pre-trained language model keeps, from its first on; its last norm follows them. The others are not
    /// read: a step costs as much less. Not set: all.
    #[schemars(range(min = 1, max = 4096))]
    pub keep_layers: Option<usize>,
    /// Architecture when built from scratch (HF `model_type`).
    pub family: LlmFamily,
    /// Rows of the embedding table; default one a token. More rows pad it: no token reads them.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub vocab_size: Option<usize>,
    /// Width of the hidden states.
    #[schemars(range(min = 1, max = 1048576))]
    pub hidden_size: usize,
    /// Transformer layers.
    #[schemars(range(min = 1, max = 4096))]
    pub num_hidden_layers: usize,
    /// Query heads.
    #[schemars(range(min = 1, max = 4096))]
    pub num_attention_heads: usize,
    /// Key/value heads (grouped-query attention); default num_attention_heads, the only choice of
    /// `qwen` and `opt`.
    #[schemars(range(min = 1, max = 4096))]
    pub num_key_value_heads: Option<usize>,
    /// Width of one head; default hidden_size / num_attention_heads, the only choice of `qwen` and
    /// `opt`.
    #[schemars(range(min = 1, max = 16384))]
    pub head_dim: Option<usize>,
    /// Inner width of the feed-forward network; for `qwen` twice that, as in its config.json.
    #[schemars(range(min = 1, max = 1048576))]
    pub intermediate_size: usize,
    /// Longest sequence in positions. `opt` learns a vector for each, and refuses longer input.
    #[schemars(range(min = 1, max = 2147483647))]
    pub max_position_embeddings: usize,
    /// Base of the rotary angles; not for `opt`.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rope_theta: f64,
    /// Added to the mean square inside RMSNorm; not for `opt`.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rms_norm_eps: f64,
    /// Standard deviation of the initial weights.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub initializer_range: f64,
    /// Which of its weights learn.
    #[schemars(extend("x-source" = "method §3"))]
    pub tune: Tune,
    /// How the matrices of a language model that does not learn itself (`lora`, `frozen`) are held
    /// in memory.
    #[schemars(extend("x-source" = "QLoRA (arXiv 2305.14314)"))]
    pub quantisation: Quantisation,
    /// The adapters of `tune = "lora"`.
    pub lora: LoraSettings,
}

impl LlmSettings {
    /// Width of one head: `head_dim` where the family leaves it free, or hidden_size /
    /// num_attention_heads.
    pub fn resolved_head_dim(&self) -> usize {
        self.head_dim
            .filter(|_| !self.family.traits().plain_heads)
            .unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Key/value heads: `num_key_value_heads`, or as many as query heads.
    pub fn resolved_num_key_value_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }
}

impl Default for LlmSettings {
    fn default() -> Self {
        Self {
            path: None,
            accept_keys: Vec::new(),
            keep_layers: None,
            family: LlmFamily::Qwen2,
            vocab_size: None,
            hidden_size: 256,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            num_key_value_heads: None,
            head_dim: None,
            intermediate_size: 704,
            max_position_embeddings: 4096,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            initializer_range: 0.02,
            tune: Tune::Full,
            quantisation: Quantisation::None,
            lora: LoraSettings::default(),
        }
    }
}

words! {
    /// Which weights of the language model learn.
    #[derive(Default)]
    pub enum Tune {
        /// All of them.
        #[default]
        Full = "full",
        /// Low-rank adapters beside its linear maps; the weights themselves stay as they are.
        Lora = "lora",
        /// None: only connector, fusion, head and temperature learn.
        Frozen = "frozen",
    }
}

/// How the matrices of a language model that does not learn itself are held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Quantisation {
    /// In `backend.dtype`.
    #[default]
    None,
    /// One byte per value, with a scale for every block of up to 64 values.
    Q8,
    /// Four bits per value, in the same blocks.
    Q4,
}

/// `[model.llm.lora]`: low-rank adapters, computed as `x·W + scale · (x·A)·B`. Names and defaults
/// are those of PEFT's `LoraConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "LoRA (arXiv 2106.09685); PEFT"))]
pub struct LoraSettings {
    /// An adapter folder in PEFT's layout (adapter_config.json, adapter_model.safetensors) to start
    /// from. It brings rank, alpha and targets. Or `hf:owner/name@revision`.
    pub path: Option<ModelPath>,
    /// Width of the product between A and B (PEFT: `r`).
    #[schemars(range(min = 1, max = 65536))]
    pub rank: usize,
    /// The adapter's output is multiplied by alpha / rank (PEFT: `lora_alpha`).
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub alpha: f64,
    /// Share of the adapter's inputs that each training step leaves out.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub dropout: f64,
    /// Linear maps by their Hugging Face names (`q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`,
    /// `up_proj`, `down_proj`), or `all-linear`.
    #[schemars(length(min = 1))]
    pub target_modules: Vec<String>,
    /// Multiply by alpha / sqrt(rank) instead, so that higher ranks learn as fast.
    #[schemars(extend("x-source" = "rsLoRA (arXiv 2312.03732)"))]
    pub rslora: bool,
}

/// Stands for every linear map in [`LoraSettings::target_modules`].
pub const ALL_LINEAR: &str = "all-linear";

impl Default for LoraSettings {
    fn default() -> Self {
        Self {
            path: None,
            rank: 8,
            alpha: 8.0,
            dropout: 0.0,
            target_modules: vec![ALL_LINEAR.into()],
            rslora: false,
        }
    }
}
