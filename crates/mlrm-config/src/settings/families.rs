//! The families of language models and vision encoders, one entry each: its name, what the
//! reference says of it, and what the checks of a config have to know of it. What it computes stands
//! in its file in `mlrm-model`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Declares the families of one kind of model: name, doc comment and traits of each.
macro_rules! families {
    ($(#[$about:meta])* $kind:ident, $traits:ty:
     $($(#[$meta:meta])* $family:ident = $name:literal, $known:expr;)+) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
        pub enum $kind {
            $($(#[$meta])* #[serde(rename = $name)] $family,)+
        }

        impl $kind {
            /// All of them, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$family),+];

            /// The name in configs, and the `model_type` of a Hugging Face `config.json`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$family => $name,)+
                }
            }

            /// What tells the family from the others before any model is made.
            pub const fn traits(self) -> $traits {
                match self {
                    $(Self::$family => $known,)+
                }
            }
        }
    };
}

/// What a config's checks know of a family of decoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LlmTraits {
    /// Whether its heads always fill `hidden_size`, each with a key/value head of its own.
    pub plain_heads: bool,
    /// Whether queries and keys are rotated by their positions, else these are learnt vectors.
    pub rotary: bool,
    /// Whether `intermediate_size` counts both halves of its feed-forward network.
    pub counts_both_halves: bool,
}

/// Rotary positions, heads as the config likes.
const LLAMA_LIKE: LlmTraits = LlmTraits {
    plain_heads: false,
    rotary: true,
    counts_both_halves: false,
};

families! {
    /// Decoder architectures.
    LlmFamily, LlmTraits:
    /// Llama 1/2/3.
    Llama = "llama", LLAMA_LIKE;
    /// Mistral; its sliding window comes with `path`.
    Mistral = "mistral", LLAMA_LIKE;
    /// Qwen 1: one matrix for query, key and value.
    Qwen = "qwen", LlmTraits { plain_heads: true, counts_both_halves: true, ..LLAMA_LIKE };
    /// Qwen 2 and 2.5: biases on query, key and value.
    #[default]
    Qwen2 = "qwen2", LLAMA_LIKE;
    /// Qwen 3: per-head RMSNorm on queries and keys.
    Qwen3 = "qwen3", LLAMA_LIKE;
    /// Gemma 2: norms around each half of a layer, capped scores, every other layer with a window.
    Gemma2 = "gemma2", LLAMA_LIKE;
    /// Gemma 3, text alone: norms around each half of a layer and on queries and keys, five of six layers
    /// with a window.
    Gemma3 = "gemma3_text", LLAMA_LIKE;
    /// Phi 3 and 3.5: one matrix for query, key and value, one for both halves of the network.
    Phi3 = "phi3", LLAMA_LIKE;
    /// SmolLM 3: every fourth layer without rotary positions.
    SmolLm3 = "smollm3", LLAMA_LIKE;
    /// Granite 3: embeddings, scores and layers scaled.
    Granite = "granite", LLAMA_LIKE;
    /// OPT: learnt positions, LayerNorm, ReLU.
    Opt = "opt", LlmTraits { plain_heads: true, rotary: false, ..LLAMA_LIKE };
}

/// What a config's checks and the preparation of pictures know of a family of vision encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisionTraits {
    /// Whether position 0 of its hidden states is a class token.
    pub class_token: bool,
    /// Whether its layers are followed by a norm that `post_layernorm` can ask for.
    pub post_layernorm: bool,
    /// Whether the inner width of its feed-forward network is a whole multiple of `hidden_size`, which is
    /// all that its config.json can say.
    pub whole_mlp_ratio: bool,
    /// Whether the channels of a head turn with row and column of a patch, two at a time: four divide them.
    pub rotary: bool,
    /// How pictures are prepared where no file says it.
    pub pictures: PictureDefaults,
}

/// How pictures are prepared where no file says it, by the first family that did so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureDefaults {
    /// The shorter side resized to that of the input, the middle cut out; CLIP's mean and deviation.
    Clip,
    /// Squeezed into the square; 0.5 for mean and deviation.
    Siglip,
    /// Squeezed into the square; CLIP's mean and deviation.
    Blip,
    /// The shorter side resized to 8/7 of that of the input, the middle cut out; ImageNet's mean and
    /// deviation.
    Dinov2,
    /// Squeezed into the square by a triangle filter; ImageNet's mean and deviation.
    Dinov3,
    /// Squeezed into the square by a triangle filter; 0.5 for mean and deviation.
    Vit,
}

/// A class token and a last norm.
const CLIP_LIKE: VisionTraits = VisionTraits {
    class_token: true,
    post_layernorm: true,
    whole_mlp_ratio: false,
    rotary: false,
    pictures: PictureDefaults::Clip,
};

const DINOV2_LIKE: VisionTraits = VisionTraits {
    whole_mlp_ratio: true,
    pictures: PictureDefaults::Dinov2,
    ..CLIP_LIKE
};

families! {
    /// Vision encoder architectures.
    VisionFamily, VisionTraits:
    /// CLIP and OpenCLIP: a class token, a norm before the first layer.
    #[default]
    Clip = "clip_vision_model", CLIP_LIKE;
    /// SigLIP: no class token; an attention head pools the patches for late fusion.
    Siglip = "siglip_vision_model", VisionTraits {
        class_token: false,
        pictures: PictureDefaults::Siglip,
        ..CLIP_LIKE
    };
    /// BLIP-2's EVA ViT: a class token, no norm before the first layer.
    Blip2 = "blip_2_vision_model", VisionTraits { pictures: PictureDefaults::Blip, ..CLIP_LIKE };
    /// Qwen-VL's: no class token; late fusion reads the mean of the patches.
    QwenVl = "qwen_vl_visual", VisionTraits {
        class_token: false,
        post_layernorm: false,
        pictures: PictureDefaults::Blip,
        ..CLIP_LIKE
    };
    /// DINOv2: a class token, scaled layers; positions stretch to the pictures.
    Dinov2 = "dinov2", DINOV2_LIKE;
    /// DINOv2 with registers, which nothing reads.
    Dinov2WithRegisters = "dinov2_with_registers", DINOV2_LIKE;
    /// DINOv3: a class token, registers, scaled layers; rotary positions of patches.
    Dinov3Vit = "dinov3_vit", VisionTraits {
        rotary: true,
        pictures: PictureDefaults::Dinov3,
        ..CLIP_LIKE
    };
    /// The first ViT, and DINO: a class token; positions stretch to the pictures.
    Vit = "vit", VisionTraits { pictures: PictureDefaults::Vit, ..CLIP_LIKE };
}
