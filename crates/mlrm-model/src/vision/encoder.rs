//! What vision transformers are made of: patches, attention, pre-norm layers.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};

use super::{AttentionKind, MlpKind, VisionConfig};
use crate::nn::{
    Activation, FusedSwiGlu, LayerNorm, Linear, Norm, PreparedMask, RmsNorm, RotaryTable, SwiGlu,
    TwoLayerMlp, attend, linear, zeros,
};
use crate::ops;

/// Cuts a picture into patches and projects each.
#[derive(Module, Debug)]
pub struct PatchEmbedding {
    weight: Kernel,
    /// `[hidden]`
    bias: Option<Param<Tensor<1>>>,
}

/// A convolution whose stride is its kernel.
#[derive(Module, Debug)]
enum Kernel {
    /// Over a picture, `[hidden, 3, patch, patch]`.
    Still(Param<Tensor<4>>),
    /// Over the pictures of a film, `[hidden, 3, frames, patch, patch]`.
    Film(Param<Tensor<5>>),
}

impl Kernel {
    /// `[hidden, 3, patch, patch]`: of a film the sum, since all its pictures are the same one.
    fn weight(&self) -> Tensor<4> {
        match self {
            Self::Still(weight) => weight.val(),
            Self::Film(weight) => {
                let weight = weight.val();
                let [width, channels, _, patch, _] = weight.dims();
                let sum = weight.clone().cast(DType::F32).sum_dim(2);
                sum.reshape([width, channels, patch, patch])
                    .cast(weight.dtype())
            }
        }
    }
}

impl PatchEmbedding {
    /// A projection of zeros.
    pub fn new(config: &VisionConfig, device: &Device) -> Self {
        let (width, patch) = (config.hidden_size, config.patch_size);
        Self {
            weight: match &config.blocks {
                Some(blocks) => {
                    Kernel::Film(zeros([width, 3, blocks.frames, patch, patch], device))
                }
                None => Kernel::Still(zeros([width, 3, patch, patch], device)),
            },
            bias: config.patch_bias.then(|| zeros([width], device)),
        }
    }

    /// `[batch, 3, height, width]` → `[batch, patches, hidden]`, row by row of the picture.
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let weight = self.weight.weight();
        let [width, channels, patch, _] = weight.dims();
        let [batch, _, height, wide] = pixels.dims();
        // A remainder at the right and lower edges is left out, as a convolution does.
        let count = (height / patch) * (wide / patch);
        // Patches do not overlap, so the convolution is one matrix product over cut-out patches.
        let patches = ops::patches(pixels.cast(weight.dtype()), patch);
        let weight = weight.reshape([width, channels * patch * patch]);
        let bias = self.bias.as_ref().map(Param::val);
        let patches = ops::linear(patches, weight.transpose(), bias);
        patches.reshape([batch, count, width])
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
            Self::Fused(attention) => attention.forward(x, context),
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
        self.out_proj.forward(context.attend(q, k, v))
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

    fn forward(&self, x: Tensor<3>, context: &LayerContext<'_>) -> Tensor<3> {
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
        let mixed = context.attend(part(0), part(1), part(2));
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
#[derive(Debug, Clone, Copy)]
pub struct LayerContext<'a> {
    /// Hides no position.
    pub mask: &'a PreparedMask,
    /// How queries and keys turn, where positions are rotary.
    pub rotary: Option<&'a RotaryTable>,
    /// Activation of the feed-forward network.
    pub activation: Activation,
    /// Positions of each window that queries attend within, in their order; `None`: they attend to all.
    pub windows: Option<&'a [usize]>,
}

impl LayerContext<'_> {
    /// `[batch, seq, heads, head_dim]` each → `[batch, seq, heads * head_dim]`
    fn attend(&self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<3> {
        let (q, k) = match self.rotary {
            Some(table) => (table.apply(q), table.apply(k)),
            None => (q, k),
        };
        let Some(windows) = self.windows else {
            return attend(q, k, v, self.mask, None);
        };
        let [batch, _, heads, head_dim] = q.dims();
        let mut start = 0;
        let mut parts = Vec::new();
        // Windows of one length that follow each other are a batch of their own.
        for run in windows.chunk_by(|a, b| a == b) {
            let (count, length) = (run.len(), run[0]);
            let part = |x: &Tensor<4>| {
                let part = x.clone().narrow(1, start, count * length);
                part.reshape([batch * count, length, heads, head_dim])
            };
            let mixed = attend(part(&q), part(&k), part(&v), self.mask, None);
            parts.push(mixed.reshape([batch, count * length, heads * head_dim]));
            start += count * length;
        }
        Tensor::cat(parts, 1)
    }
}

/// The norm of an encoder, over its width.
pub(super) fn norm(config: &VisionConfig, device: &Device) -> Norm {
    let (width, epsilon) = (config.hidden_size, config.layer_norm_eps);
    match config.blocks.is_some_and(|blocks| blocks.rms_norm) {
        true => Norm::Rms(RmsNorm::new(width, epsilon, device)),
        false => Norm::Layer(LayerNorm::new(width, epsilon, device)),
    }
}

/// A pre-norm layer: attention, then a feed-forward network, each added to its input.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    self_attn: SelfAttention,
    layer_norm1: Norm,
    /// Scales of what attention adds, `[hidden]`.
    layer_scale1: Option<Param<Tensor<1>>>,
    mlp: FeedForward,
    layer_norm2: Norm,
    /// Scales of what the feed-forward network adds, `[hidden]`.
    layer_scale2: Option<Param<Tensor<1>>>,
}

impl EncoderLayer {
    /// A layer of zeros.
    pub fn new(config: &VisionConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        let norm = || norm(config, device);
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
