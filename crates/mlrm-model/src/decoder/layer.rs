//! One layer of a decoder.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use super::attention::{PassContext, SelfAttention, WantedRows};
use super::{DecoderConfig, FeedForwardKind, LayerKind, NormKind};
use crate::nn::{AttentionProbe, FusedSwiGlu, LayerNorm, Linear, Norm, RmsNorm, SwiGlu, linear};

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
        let read = self.before(&self.input_layernorm, &x);
        let context = context.of(self.kind);
        let out = self.self_attn.forward(read, None, context, probe);
        let sum = x + self.added(out, &self.attention_out_norm);
        self.feed_forward(self.behind(&self.input_layernorm, sum))
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
