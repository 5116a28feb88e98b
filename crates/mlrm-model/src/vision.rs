//! The CLIP vision transformer (Hugging Face `clip_vision_model`), frozen.

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use mlrm_config::{SelectFeature, VisionActivation, VisionSettings};
use serde_json::{Value, json};

use crate::error::ModelError;
use crate::hf_config::HfConfig;
use crate::nn::{
    Activation, AttentionMask, LayerNorm, Linear, PreparedMask, TwoLayerMlp, attend, linear,
    rows_linear,
};

/// Sizes of a CLIP vision tower, read from its Hugging Face `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Width of the hidden states (v).
    pub hidden_size: usize,
    /// Inner width of the feed-forward network.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Side of the square input in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Activation of the feed-forward network.
    pub hidden_act: Activation,
    /// Added to the variance inside LayerNorm.
    pub layer_norm_eps: f64,
}

impl VisionConfig {
    /// Reads `config.json` of a `clip_vision_model`; refuses what is not implemented, by name.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let mut hf = HfConfig::read(path)?;
        let model_type: String = hf.get("model_type", None)?;
        if model_type != "clip_vision_model" {
            let hint = "the vision encoder that mlrm implements: clip_vision_model";
            return Err(hf.unsupported("model_type", &json!(model_type), hint));
        }
        hf.refuse_unless("attention_dropout", &[json!(0.0), json!(0)], "set it to 0")?;
        hf.refuse_unless("dropout", &[json!(0.0), json!(0)], "set it to 0")?;
        hf.refuse_unless("num_channels", &[json!(3)], "only RGB is")?;
        let config = Self {
            hidden_size: hf.get("hidden_size", Some(768))?,
            intermediate_size: hf.get("intermediate_size", Some(3072))?,
            num_hidden_layers: hf.get("num_hidden_layers", Some(12))?,
            num_attention_heads: hf.get("num_attention_heads", Some(12))?,
            image_size: hf.get("image_size", Some(224))?,
            patch_size: hf.get("patch_size", Some(32))?,
            hidden_act: hf.get("hidden_act", Some(Activation::QuickGelu))?,
            layer_norm_eps: hf.get("layer_norm_eps", Some(1e-5))?,
        };
        hf.finish()?;
        config.check().map_err(|m| ModelError::format(path, m))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let heads = self.num_attention_heads;
        if heads == 0 || !self.hidden_size.is_multiple_of(heads) {
            return Err(format!(
                "`num_attention_heads` = {heads} must divide `hidden_size` = {}",
                self.hidden_size
            ));
        }
        let patch = self.patch_size;
        if patch == 0 || self.image_size < patch || !self.image_size.is_multiple_of(patch) {
            return Err(format!(
                "`patch_size` = {patch} must divide `image_size` = {}",
                self.image_size
            ));
        }
        if self.num_hidden_layers == 0 || self.intermediate_size == 0 {
            return Err("`num_hidden_layers` and `intermediate_size` must be at least 1".into());
        }
        Ok(())
    }

    /// The sizes of a config section, for an encoder from scratch.
    pub fn from_settings(settings: &VisionSettings) -> Self {
        Self {
            hidden_size: settings.hidden_size,
            intermediate_size: settings.intermediate_size,
            num_hidden_layers: settings.num_hidden_layers,
            num_attention_heads: settings.num_attention_heads,
            image_size: settings.image_size,
            patch_size: settings.patch_size,
            hidden_act: match settings.hidden_act {
                VisionActivation::QuickGelu => Activation::QuickGelu,
                VisionActivation::Gelu => Activation::Gelu,
            },
            layer_norm_eps: 1e-5,
        }
    }

    /// The `config.json` that Hugging Face tools read.
    pub fn to_json(&self) -> Value {
        json!({
            "architectures": ["CLIPVisionModel"],
            "model_type": "clip_vision_model",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_channels": 3,
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "hidden_act": self.hidden_act,
            "layer_norm_eps": self.layer_norm_eps,
            "attention_dropout": 0.0,
        })
    }

    /// Patches of one picture (P).
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }
}

#[derive(Module, Debug)]
struct PatchEmbedding {
    /// `[hidden, 3, patch, patch]`: a convolution whose stride is its kernel.
    weight: Param<Tensor<4>>,
}

#[derive(Module, Debug)]
struct PositionEmbedding {
    /// `[1 + patches, hidden]`
    weight: Param<Tensor<2>>,
}

#[derive(Module, Debug)]
struct VisionEmbeddings {
    /// `[hidden]`
    class_embedding: Param<Tensor<1>>,
    patch_embedding: PatchEmbedding,
    position_embedding: PositionEmbedding,
}

#[derive(Module, Debug)]
struct VisionAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: usize,
}

#[derive(Module, Debug)]
struct VisionLayer {
    self_attn: VisionAttention,
    layer_norm1: LayerNorm,
    mlp: TwoLayerMlp,
    layer_norm2: LayerNorm,
}

#[derive(Module, Debug)]
struct VisionEncoder {
    layers: Vec<VisionLayer>,
}

/// The vision tower; field names are those of a Hugging Face checkpoint below `vision_model.`.
#[derive(Module, Debug)]
pub struct ClipVision {
    embeddings: VisionEmbeddings,
    // The published checkpoints spell it so.
    pre_layrnorm: LayerNorm,
    encoder: VisionEncoder,
    /// Loaded and written so that checkpoints stay whole; the features are taken before it.
    post_layernorm: LayerNorm,
    patch_size: usize,
    #[module(skip)]
    hidden_act: Activation,
}

impl VisionEmbeddings {
    fn new(config: &VisionConfig, device: &Device) -> Self {
        let (width, patch) = (config.hidden_size, config.patch_size);
        Self {
            class_embedding: crate::nn::zeros([width], device),
            patch_embedding: PatchEmbedding {
                weight: crate::nn::zeros([width, 3, patch, patch], device),
            },
            position_embedding: PositionEmbedding {
                weight: crate::nn::zeros([1 + config.patches(), width], device),
            },
        }
    }

    /// `[batch, 3, side, side]` → `[batch, 1 + patches, hidden]`
    fn forward(&self, pixels: Tensor<4>, patch: usize) -> Tensor<3> {
        let [batch, channels, side, _] = pixels.dims();
        let grid = side / patch;
        let weight = self.patch_embedding.weight.val();
        let width = weight.dims()[0];
        let patch_values = channels * patch * patch;
        // Patches do not overlap, so the convolution is one matrix product over cut-out patches.
        let patches = pixels
            .cast(weight.dtype())
            .reshape([batch, channels, grid, patch, grid, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch * grid * grid, patch_values])
            .matmul(weight.reshape([width, patch_values]).transpose())
            .reshape([batch, grid * grid, width]);
        let class = self.class_embedding.val().reshape([1, 1, width]);
        let x = Tensor::cat(vec![class.expand([batch, 1, width]), patches], 1);
        x + self.position_embedding.weight.val().unsqueeze()
    }
}

impl VisionLayer {
    fn new(config: &VisionConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        let projection = || linear(width, width, true, device);
        let norm = || LayerNorm::new(width, config.layer_norm_eps, device);
        Self {
            self_attn: VisionAttention {
                q_proj: projection(),
                k_proj: projection(),
                v_proj: projection(),
                out_proj: projection(),
                heads: config.num_attention_heads,
            },
            layer_norm1: norm(),
            mlp: TwoLayerMlp::new(width, config.intermediate_size, device),
            layer_norm2: norm(),
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &PreparedMask, activation: Activation) -> Tensor<3> {
        let [batch, seq, width] = x.dims();
        let normal = self.layer_norm1.forward(x.clone());
        let x = x + self.self_attn.forward(normal, mask);
        let normal = self.layer_norm2.forward(x.clone());
        let y = self
            .mlp
            .forward(normal.reshape([batch * seq, width]), activation);
        x + y.reshape([batch, seq, width])
    }
}

impl VisionAttention {
    fn forward(&self, x: Tensor<3>, mask: &PreparedMask) -> Tensor<3> {
        let [batch, seq, width] = x.dims();
        let heads = |layer: &Linear| {
            rows_linear(layer, x.clone()).reshape([batch, seq, self.heads, width / self.heads])
        };
        let (q, k, v) = (
            heads(&self.q_proj),
            heads(&self.k_proj),
            heads(&self.v_proj),
        );
        rows_linear(&self.out_proj, attend(q, k, v, mask, None))
    }
}

impl ClipVision {
    /// A tower of zeros; see [`crate::weights`] for its values.
    pub fn new(config: &VisionConfig, device: &Device) -> Self {
        let norm = || LayerNorm::new(config.hidden_size, config.layer_norm_eps, device);
        Self {
            embeddings: VisionEmbeddings::new(config, device),
            pre_layrnorm: norm(),
            encoder: VisionEncoder {
                layers: (0..config.num_hidden_layers)
                    .map(|_| VisionLayer::new(config, device))
                    .collect(),
            },
            post_layernorm: norm(),
            patch_size: config.patch_size,
            hidden_act: config.hidden_act,
        }
    }

    /// The hidden state of `select_layer` (method §2.1), `[batch, 1 + patches, hidden]`.
    ///
    /// Layers above the selected one are not computed, unless `every` asks for all hidden states:
    /// 0 is the state after `pre_layrnorm`, i the output of layer i, as in Hugging Face.
    pub fn forward(
        &self,
        pixels: Tensor<4>,
        select_layer: i32,
        mut every: Option<&mut Vec<Tensor<3>>>,
    ) -> Tensor<3> {
        let depth = self.encoder.layers.len();
        let selected = selected_state(select_layer, depth).unwrap_or(depth);
        let mask = AttentionMask::None.prepare(1, 1, &pixels.device());
        let mut x = self.embeddings.forward(pixels, self.patch_size);
        x = self.pre_layrnorm.forward(x);
        let mut features = x.clone();
        for (index, layer) in self.encoder.layers.iter().enumerate() {
            if let Some(states) = every.as_deref_mut() {
                states.push(x.clone());
            } else if index >= selected {
                break;
            }
            x = layer.forward(x, &mask, self.hidden_act);
            if index + 1 == selected {
                features = x.clone();
            }
        }
        if let Some(states) = every {
            states.push(x);
        }
        features
    }
}

/// The index into `hidden_states` (0…depth) that `select_layer` means; negative counts from the
/// end, -1 being the last layer's output.
pub fn selected_state(select_layer: i32, depth: usize) -> Option<usize> {
    let states = depth as i64 + 1;
    let index = if select_layer < 0 {
        states + i64::from(select_layer)
    } else {
        i64::from(select_layer)
    };
    (0..states).contains(&index).then_some(index as usize)
}

/// The positions that the connector reads: all, or without the class token.
pub fn select_positions(features: Tensor<3>, select: SelectFeature) -> Tensor<3> {
    match select {
        SelectFeature::ClsPatch => features,
        SelectFeature::Patch => {
            let positions = features.dims()[1];
            features.narrow(1, 1, positions - 1)
        }
    }
}
