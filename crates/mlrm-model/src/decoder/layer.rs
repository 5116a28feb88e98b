//! One layer of a decoder.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use super::attention::{LayerContext, PassContext, SelfAttention, WantedRows};
use super::{DecoderConfig, FeedForwardKind, LayerKind, NormKind};
use crate::nn::{AttentionProbe, FusedSwiGlu, LayerNorm, Linear, Norm, RmsNorm, SwiGlu, linear};
use crate::ops;

/// One transformer layer.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Norms stand before attention and network, else behind what they add to.
    pre_norm: bool,
    input_layernorm: Norm,
    self_attn: SelfAttention,
    /// Over what attention adds.
    attention_out_norm: Option<Norm>,
    post_attention_layernorm: Norm,
    mlp: FeedForward,
    /// Over what the feed-forward network adds.
    feed_forward_out_norm: Option<Norm>,
    residual_scale: f64,
    #[module(skip)]
    kind: LayerKind,
}

/// Scale and epsilon of an RMSNorm.
type PlainNorm = (Tensor<1>, f64);

/// The feed-forward network.
#[derive(Module, Debug)]
enum FeedForward {
    SwiGlu(SwiGlu),
    FusedSwiGlu(FusedSwiGlu),
    GeGlu(SwiGlu),
    Relu(ReluMlp),
}

/// `fc2(relu(fc1(x)))`
#[derive(Module, Debug)]
struct ReluMlp {
    fc1: Linear,
    fc2: Linear,
}

impl FeedForward {
    fn new(config: &DecoderConfig, device: &Device) -> Self {
        let (hidden, inner, bias) = (
            config.hidden_size,
            config.intermediate_size,
            config.mlp_bias,
        );
        match config.feed_forward {
            FeedForwardKind::SwiGlu => Self::SwiGlu(SwiGlu::new(hidden, inner, bias, device)),
            FeedForwardKind::GeGlu => Self::GeGlu(SwiGlu::new(hidden, inner, bias, device)),
            FeedForwardKind::FusedSwiGlu => {
                Self::FusedSwiGlu(FusedSwiGlu::new(hidden, inner, bias, device))
            }
            FeedForwardKind::Relu => Self::Relu(ReluMlp {
                fc1: linear(hidden, inner, bias, device),
                fc2: linear(inner, hidden, bias, device),
            }),
        }
    }

    /// `[rows, hidden]` → `[rows, hidden]`
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::SwiGlu(mlp) => mlp.forward(x),
            Self::FusedSwiGlu(mlp) => mlp.forward(x),
            Self::GeGlu(mlp) => mlp.forward_gelu(x),
            Self::Relu(mlp) => mlp.fc2.forward(relu(mlp.fc1.forward(x))),
        }
    }
}

/// The norm that the family has, over `width` channels.
pub(super) fn norm(config: &DecoderConfig, width: usize, device: &Device) -> Norm {
    match config.norm {
        NormKind::Rms | NormKind::RmsFromOne => Norm::Rms(rms_norm(config, width, device)),
        NormKind::Layer => Norm::Layer(LayerNorm::new(width, config.norm_eps, device)),
    }
}

/// The RMSNorm that the family has, over `width` channels.
pub(super) fn rms_norm(config: &DecoderConfig, width: usize, device: &Device) -> RmsNorm {
    match config.norm {
        NormKind::RmsFromOne => RmsNorm::from_one(width, config.norm_eps, device),
        NormKind::Rms | NormKind::Layer => RmsNorm::new(width, config.norm_eps, device),
    }
}

impl DecoderLayer {
    pub(super) fn new(config: &DecoderConfig, kind: LayerKind, device: &Device) -> Self {
        let norm = || norm(config, config.hidden_size, device);
        Self {
            pre_norm: config.do_layer_norm_before,
            input_layernorm: norm(),
            self_attn: SelfAttention::new(config, device),
            attention_out_norm: config.sandwich_norms.then(norm),
            post_attention_layernorm: norm(),
            mlp: FeedForward::new(config, device),
            feed_forward_out_norm: config.sandwich_norms.then(norm),
            residual_scale: config.residual_scale,
            kind,
        }
    }

    /// The layer's output, `[batch, seq, hidden]` → the same.
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        context: &PassContext,
        probe: Option<&mut AttentionProbe>,
    ) -> Tensor<3> {
        let context = context.of(self.kind);
        let plain = match (&context.rope, &probe) {
            (Some(rope), None) if !rope.is_by_item() => self.plain_attention().zip(Some(rope)),
            _ => None,
        };
        let sum = match plain {
            Some(((norm, maps), rope)) => {
                let (tables, readable) = (rope.tables(), context.mask.readable());
                let generic = |x| self.attention(x, context, None);
                ops::attention_half(x, norm, maps, tables, readable, generic)
            }
            None => self.attention(x, context, probe),
        };
        self.feed_forward(self.behind(&self.input_layernorm, sum))
    }

    /// `x` and what attention adds to it.
    fn attention(
        &self,
        x: Tensor<3>,
        context: &LayerContext,
        probe: Option<&mut AttentionProbe>,
    ) -> Tensor<3> {
        let read = self.before(&self.input_layernorm, &x);
        let out = self.self_attn.forward(read, None, context, probe);
        x + self.added(out, &self.attention_out_norm)
    }

    /// Norm and maps of an attention half that is no more than `x + attention(rms_norm(x))`.
    fn plain_attention(&self) -> Option<(PlainNorm, [ops::Map; 4])> {
        let norm = self.plain_norm(&self.input_layernorm, &self.attention_out_norm)?;
        Some((norm, self.self_attn.plain()?))
    }

    /// The same of the feed-forward half.
    fn plain_feed_forward(&self) -> Option<(PlainNorm, [ops::Map; 3])> {
        let norm = self.plain_norm(&self.post_attention_layernorm, &self.feed_forward_out_norm)?;
        match &self.mlp {
            FeedForward::SwiGlu(mlp) => Some((norm, mlp.plain()?)),
            _ => None,
        }
    }

    /// The norm of a half that adds to its input what was made of the norm's output, and nothing else.
    fn plain_norm(&self, norm: &Norm, behind: &Option<Norm>) -> Option<PlainNorm> {
        let plain = self.pre_norm && behind.is_none() && self.residual_scale == 1.0;
        match norm {
            Norm::Rms(norm) if plain => norm.plain(),
            _ => None,
        }
    }

    /// The layer's output at a few positions only: keys and values of the whole sequence, but
    /// attention, output projection and feed-forward network of the wanted rows alone.
    pub(super) fn forward_rows(
        &self,
        x: Tensor<3>,
        wanted: &WantedRows,
        context: &PassContext,
    ) -> Tensor<3> {
        let read = self.before(&self.input_layernorm, &x);
        let context = context.of(self.kind);
        let out = self.self_attn.forward(read, Some(wanted), context, None);
        let sum = wanted.pick(x) + self.added(out, &self.attention_out_norm);
        self.feed_forward(self.behind(&self.input_layernorm, sum))
    }

    /// What half a layer adds to its input.
    fn added(&self, out: Tensor<3>, norm: &Option<Norm>) -> Tensor<3> {
        let out = match norm {
            Some(norm) => norm.forward(out),
            None => out,
        };
        match self.residual_scale {
            1.0 => out,
            scale => out.mul_scalar(scale),
        }
    }

    fn feed_forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, seq, hidden] = x.dims();
        let norm = &self.post_attention_layernorm;
        if let Some(((scale, epsilon), maps)) = self.plain_feed_forward() {
            let x = x.reshape([batch * seq, hidden]);
            let y = ops::gated_mlp(x, scale, epsilon, maps);
            return y.reshape([batch, seq, hidden]);
        }
        let read = self.before(norm, &x);
        let y = self.mlp.forward(read.reshape([batch * seq, hidden]));
        let y = y.reshape([batch, seq, hidden]);
        self.behind(norm, x + self.added(y, &self.feed_forward_out_norm))
    }

    /// What attention or network read of `x`.
    fn before(&self, norm: &Norm, x: &Tensor<3>) -> Tensor<3> {
        match self.pre_norm {
            true => norm.forward(x.clone()),
            false => x.clone(),
        }
    }

    /// What becomes of the sum of `x` and what was computed of it.
    fn behind(&self, norm: &Norm, sum: Tensor<3>) -> Tensor<3> {
        match self.pre_norm {
            true => sum,
            false => norm.forward(sum),
        }
    }
}
