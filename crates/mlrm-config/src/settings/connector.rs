//! `[model.connector]`, `[model.fusion]`, `[model.head]`: what is between and behind the two.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ModelPath;

/// `[model.connector]`: from vision features to visual tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "method §2.2; NoteLLM-2 released code"))]
pub struct ConnectorSettings {
    /// A folder with a whole BLIP-2 or Qwen-VL whose Q-Former or resampler to start from; it brings the
    /// sizes. The projector behind a Q-Former starts from scratch. Or `hf:owner/name@revision`.
    pub path: Option<ModelPath>,
    /// Keys of its section of config.json that mlrm does not know and that do not change the forward pass.
    #[schemars(extend("x-source" = "Hugging Face config.json"))]
    pub accept_keys: Vec<String>,
    /// The kind of connector.
    pub kind: ConnectorKind,
    /// Visual tokens (V) of a Q-Former or resampler. Paper: 16; BLIP-2: 32; Qwen-VL: 256.
    #[schemars(range(min = 1, max = 65536))]
    pub queries: usize,
    /// Q-Former layers. Paper: 6.
    #[schemars(range(min = 1, max = 4096))]
    pub layers: usize,
    /// Width of the Q-Former.
    #[schemars(range(min = 1, max = 1048576))]
    pub hidden_size: usize,
    /// Attention heads of the Q-Former or resampler.
    #[schemars(range(min = 1, max = 4096))]
    pub num_attention_heads: usize,
    /// Inner width of the Q-Former's feed-forward network.
    #[schemars(range(min = 1, max = 1048576))]
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
            accept_keys: Vec::new(),
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
    #[schemars(range(min = 1, max = 1048576))]
    pub hidden_size: usize,
    /// Initial weight of the LLM state, in (0, 1). Beside a pre-trained language model more than a half lets what it knows
    /// outweigh what is new. Other than 0.5 it gives the vector gate a bias, which the paper's has not.
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
    #[schemars(range(max = 1048576))]
    pub dim: usize,
}

impl Default for HeadSettings {
    fn default() -> Self {
        Self { dim: 64 }
    }
}
