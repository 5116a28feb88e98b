//! What vision transformers are made of: patches, attention, pre-norm layers.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::{AttentionKind, MlpKind, VisionConfig};
use crate::nn::{
    Activation, FusedSwiGlu, LayerNorm, Linear, PreparedMask, RotaryTable, SwiGlu, TwoLayerMlp,
    attend, linear, zeros,
};
use crate::ops;

/// Cuts a picture into patches and projects each.
#[derive(Module, Debug)]
pub struct PatchEmbedding {
    /// `[hidden, 3, patch, patch]`: a convolution whose stride is its kernel.
    weight: Param<Tensor<4>>,
    /// `[hidden]`
    bias: Option<Param<Tensor<1>>>,
}

impl PatchEmbedding {
    /// A projection of zeros.
    pub fn new(config: &VisionConfig, device: &Device) -> Self {
        let (width, patch) = (config.hidden_size, config.patch_size);
        Self {
            weight: zeros([width, 3, patch, patch], device),
            bias: config.patch_bias.then(|| zeros([width], device)),
        }
    }

    /// `[batch, 3, side, side]` → `[batch, patches, hidden]`, row by row of the picture.
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let weight = self.weight.val();
        let [width, channels, patch, _] = weight.dims();
        let [batch, _, side, _] = pixels.dims();
        // A remainder at the right and lower edges is left out, as a convolution does.
        let grid = side / patch;
        // Patches do not overlap, so the convolution is one matrix product over cut-out patches.
        let patches = ops::patches(pixels.cast(weight.dtype()), patch);
        let weight = weight.reshape([width, channels * patch * patch]);
        let bias = self.bias.as_ref().map(Param::val);
        let patches = ops::linear(patches, weight.transpose(), bias);
        patches.reshape([batch, grid * grid, width])
    }
}

/// Self-attention; which kind it is names no tensor.
#[derive(Module, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a layer has one of it, whose weights are elsewhere"
)]
pub enum SelfAttention {
    /// Three projections.
    Separate(SeparateAttention),
    /// One projection for query, key and value.
    Fused(FusedAttention),
}

impl SelfAttention {
    fn new(config: &VisionConfig, device: &Device) -> Self {
        let fused = |by_head| Self::Fused(FusedAttention::new(config, by_head, device));
        match config.attention {
            AttentionKind::Separate => Self::Separate(SeparateAttention::new(config, device)),
            AttentionKind::Fused => fused(false),
            AttentionKind::FusedByHead => fused(true),
        }
    }

    /// `[batch, seq, hidden]` → the same
    fn forward(&self, x: Tensor<3>, context: &LayerContext<'_>) -> Tensor<3> {
        match self {
            Self::Separate(attention) => attention.forward(x, context),
            Self::Fused(attention) => attention.forward(x, context.mask),
        }
    }
}

/// Self-attention of three projections.
#[derive(Module, Debug)]
pub struct SeparateAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: usize,
}

impl SeparateAttention {
    fn new(config: &VisionConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        let projection = |bias: bool| linear(width, width, bias, device);
        Self {
            q_proj: projection(config.qkv_bias),
            k_proj: projection(config.qkv_bias && config.key_bias),
            v_proj: projection(config.qkv_bias),
            out_proj: linear(width, width, true, device),
            heads: config.num_attention_heads,
        }
    }

    fn forward(&self, x: Tensor<3>, context: &LayerContext<'_>) -> Tensor<3> {
        let [batch, seq, width] = x.dims();
        let heads = |layer: &Linear| {
            layer
                .forward(x.clone())
                .reshape([batch, seq, self.heads, width / self.heads])
        };
        let (q, k, v) = (
            heads(&self.q_proj),
            heads(&self.k_proj),
            heads(&self.v_proj),
        );
        let (q, k) = match context.rotary {
            Some(table) => (table.apply(q), table.apply(k)),
            None => (q, k),
        };
        self.out_proj.forward(attend(q, k, v, context.mask, None))
    }
}

/// Self-attention of one projection.
#[derive(Module, Debug)]
pub struct FusedAttention {
    qkv: Linear,
    projection: Linear,
    heads: usize,
    /// [`AttentionKind::FusedByHead`]
    by_head: bool,
}

impl FusedAttention {
    fn new(config: &VisionConfig, by_head: bool, device: &Device) -> Self {
        let width = config.hidden_size;
        Self {
            qkv: linear(width, 3 * width, config.qkv_bias, device),
            projection: linear(width, width, true, device),
            heads: config.num_attention_heads,
            by_head,
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &PreparedMask) -> Tensor<3> {
        let [batch, seq, width] = x.dims();
        let (heads, head_dim) = (self.heads, width / self.heads);
        let qkv = self.qkv.forward(x);
        let part = |index: usize| {
            let part = if self.by_head {
                let by_head = qkv.clone().reshape([batch, seq, heads, 3, head_dim]);
                by_head.narrow(3, index, 1)
            } else {
                let by_part = qkv.clone().reshape([batch, seq, 3, heads, head_dim]);
                by_part.narrow(2, index, 1)
            };
            part.reshape([batch, seq, heads, head_dim])
        };
        let mixed = attend(part(0), part(1), part(2), mask, None);
        self.projection.forward(mixed)
    }
}

/// The feed-forward network; which kind it is names no tensor.
#[derive(Module, Debug)]
enum FeedForward {
    TwoLayers(TwoLayerMlp),
    SwiGlu(FusedSwiGlu),
    SeparateSwiGlu(SwiGlu),
}

impl FeedForward {
    fn new(config: &VisionConfig, device: &Device) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        match config.mlp {
            MlpKind::TwoLayers => Self::TwoLayers(TwoLayerMlp::new(width, inner, device)),
            MlpKind::SwiGlu => Self::SwiGlu(FusedSwiGlu::new(width, inner, true, device)),
            MlpKind::SeparateSwiGlu => {
                Self::SeparateSwiGlu(SwiGlu::new(width, inner, true, device))
            }
        }
    }

    /// `[rows, hidden]` → `[rows, hidden]`
    fn forward(&self, x: Tensor<2>, activation: Activation) -> Tensor<2> {
        match self {
            Self::TwoLayers(mlp) => mlp.forward(x, activation),
            Self::SwiGlu(mlp) => mlp.forward(x),
            Self::SeparateSwiGlu(mlp) => mlp.forward(x),
        }
    }
}

/// What every layer of a pass reads beside its input.
#[derive(Debug)]
pub struct LayerContext<'a> {
    /// Hides no position.
    pub mask: &'a PreparedMask,
    /// How queries and keys turn, where positions are rotary.
    pub rotary: Option<&'a RotaryTable>,
    /// Activation of the feed-forward network.
    pub activation: Activation,
}

/// A pre-norm layer: attention, then a feed-forward network, each added to its input.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    self_attn: SelfAttention,
    layer_norm1: LayerNorm,
    /// Scales of what attention adds, `[hidden]`.
    layer_scale1: Option<Param<Tensor<1>>>,
    mlp: FeedForward,
    layer_norm2: LayerNorm,
    /// Scales of what the feed-forward network adds, `[hidden]`.
    layer_scale2: Option<Param<Tensor<1>>>,
}

impl EncoderLayer {
    /// A layer of zeros.
    pub fn new(config: &VisionConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        let norm = || LayerNorm::new(width, config.layer_norm_eps, device);
        let scale = || config.layer_scale.then(|| zeros([width], device));
        Self {
            self_attn: SelfAttention::new(config, device),
            layer_norm1: norm(),
            layer_scale1: scale(),
            mlp: FeedForward::new(config, device),
            layer_norm2: norm(),
            layer_scale2: scale(),
        }
    }

    /// `[batch, seq, hidden]` → the same
    pub fn forward(&self, x: Tensor<3>, context: &LayerContext<'_>) -> Tensor<3> {
        let [batch, seq, width] = x.dims();
        let normal = self.layer_norm1.forward(x.clone());
        let x = x + scaled(self.self_attn.forward(normal, context), &self.layer_scale1);
        let normal = self.layer_norm2.forward(x.clone());
        let rows = normal.reshape([batch * seq, width]);
        let y = self.mlp.forward(rows, context.activation);
        x + scaled(y.reshape([batch, seq, width]), &self.layer_scale2)
    }
}

/// `x` times the scale of each channel, where there are any.
fn scaled(x: Tensor<3>, scale: &Option<Param<Tensor<1>>>) -> Tensor<3> {
    match scale {
        Some(scale) => x * scale.val().unsqueeze(),
        None => x,
    }
}
