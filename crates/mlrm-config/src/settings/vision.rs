//! `[model.vision]`: the frozen vision encoder.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::VisionFamily;
use crate::ModelPath;

/// `[model.vision]`: the frozen vision encoder. Sizes are read only when `path` is not set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-source" = "Hugging Face config.json"))]
pub struct VisionSettings {
    /// A Hugging Face folder: config.json, model*.safetensors, preprocessor_config.json. Of a whole
    /// model (clip, siglip, blip-2, Qwen-VL, Qwen2.5-VL, Qwen3-VL) the vision half is read. Or `hf:owner/name@revision`.
    pub path: Option<ModelPath>,
    /// Keys of its config.json that mlrm does not know and that do not change the forward pass.
    pub accept_keys: Vec<String>,
    /// Architecture when built from scratch (HF `model_type`).
    pub family: VisionFamily,
    /// Width of the hidden states.
    #[schemars(range(min = 1, max = 1048576))]
    pub hidden_size: usize,
    /// Transformer layers.
    #[schemars(range(min = 1, max = 4096))]
    pub num_hidden_layers: usize,
    /// Attention heads.
    #[schemars(range(min = 1, max = 4096))]
    pub num_attention_heads: usize,
    /// Inner width of the feed-forward network.
    #[schemars(range(min = 1, max = 1048576))]
    pub intermediate_size: usize,
    /// Side of the square input in pixels.
    #[schemars(range(min = 1, max = 65536))]
    pub image_size: usize,
    /// In which grids of patches the vision encoders of Qwen2.5-VL and Qwen3-VL read pictures. Not set: `own` for a whole
    /// model (`model.checkpoint`), unless its preprocessor_config.json asks for one size; else `square`.
    pub grid: Option<PictureGrid>,
    /// Most pixels of a picture, for the vision encoders of Qwen2.5-VL and Qwen3-VL, which read any size. Larger ones become
    /// smaller. Not set: what the preprocessor_config.json allows; with `grid = "square"` no more than 448 by 448.
    #[schemars(range(min = 1))]
    pub max_pixels: Option<usize>,
    /// Side in pixels of the square that a pre-trained encoder reads, where its positions stretch (dinov2, dinov3_vit and
    /// the like). Fewer pixels cost less. Not set: that of its preprocessor_config.json.
    #[schemars(range(min = 1, max = 8192))]
    pub input_size: Option<usize>,
    /// How a picture becomes that square. Not set: as preprocessor_config.json says, which for most encoders cuts off what
    /// is outside the middle.
    #[schemars(extend("x-source" = "open_clip"))]
    pub resize_mode: Option<ResizeMode>,
    /// Side of a patch in pixels.
    #[schemars(range(min = 1, max = 65536))]
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
            accept_keys: Vec::new(),
            family: VisionFamily::Clip,
            hidden_size: 192,
            num_hidden_layers: 2,
            num_attention_heads: 3,
            intermediate_size: 768,
            image_size: 64,
            grid: None,
            max_pixels: None,
            input_size: None,
            resize_mode: None,
            patch_size: 16,
            hidden_act: VisionActivation::QuickGelu,
            select_layer: -1,
            select_feature: SelectFeature::ClsPatch,
            post_layernorm: false,
        }
    }
}

/// In which grid of patches a vision encoder that reads any size reads a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PictureGrid {
    /// Each in one of its own, by its size and proportions, as published: the number of visual tokens varies.
    Own,
    /// All in one square, into which they are squeezed: the largest one within `max_pixels`.
    Square,
}

/// How a picture that is not square becomes one; the words are those of open_clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMode {
    /// The shorter edge gets the square's side, then the middle is cut out; with the margin that the encoder's own
    /// preprocessing has (DINOv2: 256 to 224).
    Shortest,
    /// The whole picture is squeezed into the square; nothing is cut off.
    Squash,
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
