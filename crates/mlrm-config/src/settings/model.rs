//! `[model]`: the parts of the embedder (method §2).

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[model]`: a model folder to start from, or the parts to build one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "method §2; NoteLLM-2 (KDD 2025)"))]
pub struct ModelSettings {
    /// A model folder that mlrm wrote, to start from; the sections below are then not read.
    pub path: Option<PathBuf>,
    /// A whole multimodal model as others published it, to start from: BLIP-2 or Qwen-VL in Hugging
    /// Face's layout, or what NoteLLM-2's released code saves. It brings the language model, the vision
    /// encoder and the connector; what the variant has beside them starts from scratch. NoteLLM-2's
    /// brings all weights, but its config.json describes the language model alone: `vision.path` names
    /// the encoder's folder, `connector` and `head` the sizes.
    #[schemars(extend("x-source" = "Hugging Face config.json; NoteLLM-2 released code"))]
    pub checkpoint: Option<PathBuf>,
    /// Which of the paper's models to build.
    pub variant: Variant,
    /// Take weights that are NaN or infinite as they are; they are refused otherwise, with the names
    /// of their tensors.
    #[schemars(extend("x-source" = "mlrm"))]
    pub allow_nan: bool,
    /// The language model.
    pub llm: LlmSettings,
    /// The frozen vision encoder.
    pub vision: VisionSettings,
    /// From vision features to visual tokens.
    pub connector: ConnectorSettings,
    /// Late fusion of the picture into the pooled state.
    pub fusion: FusionSettings,
    /// The last projection.
    pub head: HeadSettings,
}

/// The variants of the paper's ablation (method §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Text only.
    Text,
    /// Image only.
    Image,
    /// Visual tokens in the prompt, pooled at the end.
    Basic,
    /// `basic` with the mICL prompt and its visual loss.
    Micl,
    /// No visual tokens; the gate is the only visual path.
    LateFusion,
    /// Visual tokens and gate, no mICL.
    LateEarly,
    /// Everything: visual tokens, mICL and gate.
    #[default]
    NoteLlm2,
}

impl Variant {
    /// All seven, in the order of the method.
    pub const ALL: [Self; 7] = [
        Self::Text,
        Self::Image,
        Self::Basic,
        Self::Micl,
        Self::LateFusion,
        Self::LateEarly,
        Self::NoteLlm2,
    ];

    /// Whether visual tokens stand in the prompt.
    pub fn image_tokens(self) -> bool {
        !matches!(self, Self::Text | Self::LateFusion)
    }

    /// Whether the prompt is the mICL one, with a second, visual embedding.
    pub fn micl(self) -> bool {
        matches!(self, Self::Micl | Self::NoteLlm2)
    }

    /// Whether the gate fuses the picture into the pooled state.
    pub fn late_fusion(self) -> bool {
        matches!(self, Self::LateFusion | Self::LateEarly | Self::NoteLlm2)
    }

    /// Whether the vision encoder is needed at all.
    pub fn vision(self) -> bool {
        self != Self::Text
    }

    /// The name used in configs and golden cases.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Basic => "basic",
            Self::Micl => "micl",
            Self::LateFusion => "latefusion",
            Self::LateEarly => "lateearly",
            Self::NoteLlm2 => "notellm2",
        }
    }
}

/// `[model.llm]`: the decoder. Sizes are read only when `path` is not set and carry the names of a
/// Hugging Face `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "Hugging Face config.json"))]
pub struct LlmSettings {
    /// A Hugging Face folder: config.json, model*.safetensors, tokenizer.json.
    pub path: Option<PathBuf>,
    /// Architecture when built from scratch (HF `model_type`).
    pub family: LlmFamily,
    /// Rows of the embedding table; default one a token. More rows pad it: no token reads them.
    #[schemars(range(min = 1))]
    pub vocab_size: Option<usize>,
    /// Width of the hidden states.
    #[schemars(range(min = 1))]
    pub hidden_size: usize,
    /// Transformer layers.
    #[schemars(range(min = 1))]
    pub num_hidden_layers: usize,
    /// Query heads.
    #[schemars(range(min = 1))]
    pub num_attention_heads: usize,
    /// Key/value heads (grouped-query attention); default num_attention_heads, the only choice of
    /// `qwen` and `opt`.
    #[schemars(range(min = 1))]
    pub num_key_value_heads: Option<usize>,
    /// Width of one head; default hidden_size / num_attention_heads, the only choice of `qwen` and
    /// `opt`.
    #[schemars(range(min = 1))]
    pub head_dim: Option<usize>,
    /// Inner width of the feed-forward network; for `qwen` twice that, as in its config.json.
    #[schemars(range(min = 1))]
    pub intermediate_size: usize,
    /// Longest sequence in positions. `opt` learns a vector for each, and refuses longer input.
    #[schemars(range(min = 1))]
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
            .filter(|_| !self.family.plain_heads())
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

/// Decoder architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LlmFamily {
    /// Llama 1/2/3.
    Llama,
    /// Mistral; its sliding window comes with `path`.
    Mistral,
    /// Qwen 1: one matrix for query, key and value.
    Qwen,
    /// Qwen 2 and 2.5: biases on query, key and value.
    #[default]
    Qwen2,
    /// Qwen 3: per-head RMSNorm on queries and keys.
    Qwen3,
    /// OPT: learnt positions, LayerNorm, ReLU.
    Opt,
}

impl LlmFamily {
    /// All of them, in the order of the reference.
    pub const ALL: [Self; 6] = [
        Self::Llama,
        Self::Mistral,
        Self::Qwen,
        Self::Qwen2,
        Self::Qwen3,
        Self::Opt,
    ];

    /// The name in configs, and the `model_type` of a Hugging Face `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen => "qwen",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Opt => "opt",
        }
    }

    /// Whether its heads always fill `hidden_size`, each with a key/value head of its own.
    pub fn plain_heads(self) -> bool {
        matches!(self, Self::Qwen | Self::Opt)
    }
}

/// Which weights of the language model learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tune {
    /// All of them.
    #[default]
    Full,
    /// Low-rank adapters beside its linear maps; the weights themselves stay as they are.
    Lora,
    /// None: only connector, fusion, head and temperature learn.
    Frozen,
}

/// How the matrices of a language model that does not learn itself are held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Quantisation {
    /// In `backend.dtype`.
    #[default]
    None,
    /// One byte a value, with a scale for every block of up to 64 values.
    Q8,
    /// Four bits a value, in the same blocks.
    Q4,
}

/// `[model.llm.lora]`: low-rank adapters, computed as `x·W + scale · (x·A)·B`. Names and defaults
/// are those of PEFT's `LoraConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "LoRA (arXiv 2106.09685); PEFT"))]
pub struct LoraSettings {
    /// An adapter folder in PEFT's layout (adapter_config.json, adapter_model.safetensors) to start
    /// from. It brings rank, alpha and targets.
    pub path: Option<PathBuf>,
    /// Width of the product between A and B (PEFT: `r`).
    #[schemars(range(min = 1))]
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

impl LoraSettings {
    /// What the adapter's output is multiplied by.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }
}

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

/// `[model.vision]`: the frozen vision encoder. Sizes are read only when `path` is not set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "Hugging Face config.json"))]
pub struct VisionSettings {
    /// A Hugging Face folder: config.json, model*.safetensors, preprocessor_config.json. Of a whole
    /// model (clip, siglip, blip-2, Qwen-VL) the vision half is read.
    pub path: Option<PathBuf>,
    /// Architecture when built from scratch (HF `model_type`).
    pub family: VisionFamily,
    /// Width of the hidden states.
    #[schemars(range(min = 1))]
    pub hidden_size: usize,
    /// Transformer layers.
    #[schemars(range(min = 1))]
    pub num_hidden_layers: usize,
    /// Attention heads.
    #[schemars(range(min = 1))]
    pub num_attention_heads: usize,
    /// Inner width of the feed-forward network.
    #[schemars(range(min = 1))]
    pub intermediate_size: usize,
    /// Side of the square input in pixels.
    #[schemars(range(min = 1))]
    pub image_size: usize,
    /// Side of a patch in pixels.
    #[schemars(range(min = 1))]
    pub patch_size: usize,
    /// Activation of the feed-forward network.
    pub hidden_act: VisionActivation,
    /// Hidden state that is read, counted like HF's `hidden_states`: -1 is the last layer's output,
    /// before the post-layernorm.
    #[schemars(extend("x-source" = "method §2.1"))]
    pub select_layer: i32,
    /// Which positions the connector reads; without a class token both mean the patches.
    #[schemars(extend("x-source" = "method §2.1"))]
    pub select_feature: SelectFeature,
    /// Whether the encoder's last norm is applied to the state that is read, as BLIP-2 does.
    #[schemars(extend("x-source" = "BLIP-2 (ICML 2023)"))]
    pub post_layernorm: bool,
}

impl Default for VisionSettings {
    fn default() -> Self {
        Self {
            path: None,
            family: VisionFamily::Clip,
            hidden_size: 192,
            num_hidden_layers: 2,
            num_attention_heads: 3,
            intermediate_size: 768,
            image_size: 64,
            patch_size: 16,
            hidden_act: VisionActivation::QuickGelu,
            select_layer: -1,
            select_feature: SelectFeature::ClsPatch,
            post_layernorm: false,
        }
    }
}

/// Vision encoder architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum VisionFamily {
    /// CLIP and OpenCLIP: a class token, a norm before the first layer.
    #[default]
    #[serde(rename = "clip_vision_model")]
    Clip,
    /// SigLIP: no class token; an attention head pools the patches for late fusion.
    #[serde(rename = "siglip_vision_model")]
    Siglip,
    /// BLIP-2's EVA ViT: a class token, no norm before the first layer.
    #[serde(rename = "blip_2_vision_model")]
    Blip2,
    /// Qwen-VL's: no class token; late fusion reads the mean of the patches.
    #[serde(rename = "qwen_vl_visual")]
    QwenVl,
}

/// Activation of the vision encoder's feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VisionActivation {
    /// x * sigmoid(1.702 x) (OpenAI's CLIP).
    #[default]
    QuickGelu,
    /// The exact (erf) GELU (OpenCLIP, BLIP-2, Qwen-VL).
    Gelu,
    /// GELU with the tanh approximation (SigLIP).
    GeluPytorchTanh,
}

/// Which positions of the vision features the connector reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SelectFeature {
    /// Class token and patches.
    #[default]
    ClsPatch,
    /// Patches only.
    Patch,
}

/// `[model.connector]`: from vision features to visual tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "method §2.2; NoteLLM-2 released code"))]
pub struct ConnectorSettings {
    /// A folder with a whole BLIP-2 or Qwen-VL whose Q-Former or resampler to start from; it brings the
    /// sizes. The projector behind a Q-Former starts from scratch.
    pub path: Option<PathBuf>,
    /// The kind of connector.
    pub kind: ConnectorKind,
    /// Visual tokens (V) of a Q-Former or resampler. Paper: 16; BLIP-2: 32; Qwen-VL: 256.
    #[schemars(range(min = 1))]
    pub queries: usize,
    /// Q-Former layers. Paper: 6.
    #[schemars(range(min = 1))]
    pub layers: usize,
    /// Width of the Q-Former.
    #[schemars(range(min = 1))]
    pub hidden_size: usize,
    /// Attention heads of the Q-Former or resampler.
    #[schemars(range(min = 1))]
    pub num_attention_heads: usize,
    /// Inner width of the Q-Former's feed-forward network.
    #[schemars(range(min = 1))]
    pub intermediate_size: usize,
    /// Every how many layers, from layer 0 on, the queries read the picture.
    #[schemars(range(min = 1))]
    pub cross_attention_frequency: usize,
    /// The map to the LLM's width: `linear`, or `mlp{n}x_gelu`: n (1 to 8) linear layers with the exact
    /// GELU between.
    pub projector: String,
    /// Standard deviation of the Q-Former's initial queries; the released code starts at 0.
    #[schemars(range(min = 0))]
    pub query_init_std: f64,
}

impl ConnectorSettings {
    /// Linear layers of the projector: 1 for `linear`, n for `mlp{n}x_gelu`; `None` when the key
    /// holds neither.
    pub fn projector_layers(&self) -> Option<usize> {
        if self.projector == "linear" {
            return Some(1);
        }
        let layers = self.projector.strip_prefix("mlp")?.strip_suffix("x_gelu")?;
        // `parse` alone would accept a sign.
        if !layers.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        layers
            .parse()
            .ok()
            .filter(|layers| (1..=8).contains(layers))
    }
}

impl Default for ConnectorSettings {
    fn default() -> Self {
        Self {
            path: None,
            kind: ConnectorKind::QFormer,
            queries: 16,
            layers: 6,
            hidden_size: 768,
            num_attention_heads: 12,
            intermediate_size: 3072,
            cross_attention_frequency: 2,
            projector: "mlp2x_gelu".into(),
            query_init_std: 0.0,
        }
    }
}

/// The kind of connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConnectorKind {
    /// BERT-style layers over learnt queries that cross-attend to the features, then a projector.
    #[default]
    QFormer,
    /// The projector alone: every position becomes a visual token (LLaVA).
    Mlp,
    /// One cross-attention layer from a square of learnt queries to the patches, as wide as the LLM
    /// (Qwen-VL).
    Resampler,
}

/// `[model.fusion]`: late fusion of the picture into the pooled state; used by the variants
/// `latefusion`, `lateearly` and `notellm2`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "method §2.5; NoteLLM-2 (KDD 2025)"))]
pub struct FusionSettings {
    /// The gate.
    pub kind: FusionKind,
    /// Inner width of the scalar gate.
    #[schemars(range(min = 1))]
    pub hidden_size: usize,
    /// Initial weight of the LLM state in the scalar gate, in (0, 1).
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub initial_weight: f64,
}

impl Default for FusionSettings {
    fn default() -> Self {
        Self {
            kind: FusionKind::Vector,
            hidden_size: 16,
            initial_weight: 0.5,
        }
    }
}

/// The gate of late fusion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FusionKind {
    /// One weight a channel (paper and released code).
    #[default]
    Vector,
    /// One weight a note.
    Scalar,
}

/// `[model.head]`: the last projection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "method §2.6; NoteLLM-2 released code (64)"))]
pub struct HeadSettings {
    /// Embedding size; 0 leaves the projection out and the embedding is as wide as the LLM.
    pub dim: usize,
}

impl Default for HeadSettings {
    fn default() -> Self {
        Self { dim: 64 }
    }
}
