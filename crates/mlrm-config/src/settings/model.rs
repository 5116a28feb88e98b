//! `[model]`: the parts of the embedder (method §2).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ModelPath;

use super::words::words;
use super::{ConnectorSettings, FusionSettings, HeadSettings, LlmSettings, VisionSettings};

/// `[model]`: a model folder to start from, or the parts to build one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "method §2; NoteLLM-2 (KDD 2025)"))]
pub struct ModelSettings {
    /// A model folder that mlrm wrote, to start from; the sections below are then not read. Or
    /// `hf:owner/name@revision`.
    pub path: Option<ModelPath>,
    /// A whole multimodal model as others published it, to start from: BLIP-2, Qwen-VL,
    /// Qwen2.5-VL or Qwen3-VL in Hugging Face's layout, or what NoteLLM-2's released code saves. It brings the language model, the vision
    /// encoder and the connector; what the variant has beside them starts from scratch. NoteLLM-2's
    /// brings all weights, but its config.json describes the language model alone: `vision.path` names
    /// the encoder's folder, `connector` and `head` the sizes. Or `hf:owner/name@revision`.
    #[schemars(extend("x-source" = "Hugging Face config.json; NoteLLM-2 released code"))]
    pub checkpoint: Option<ModelPath>,
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

words! {
    /// The variants of the paper's ablation (method §2).
    #[derive(Default)]
    pub enum Variant {
        /// Text only.
        Text = "text",
        /// Image only.
        Image = "image",
        /// Visual tokens in the prompt, pooled at the end.
        Basic = "basic",
        /// `basic` with the mICL prompt and its visual loss.
        Micl = "micl",
        /// No visual tokens; the gate is the only visual path.
        LateFusion = "latefusion",
        /// Visual tokens and gate, no mICL.
        LateEarly = "lateearly",
        /// Everything: visual tokens, mICL and gate.
        #[default]
        NoteLlm2 = "notellm2",
    }
}

impl Variant {
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
}
