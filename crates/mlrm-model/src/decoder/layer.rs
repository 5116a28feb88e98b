//! One layer of a decoder.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use super::attention::{PassContext, SelfAttention, WantedRows};
use super::{DecoderConfig, FeedForwardKind, NormKind};
use crate::nn::{AttentionProbe, LayerNorm, Linear, Norm, RmsNorm, SwiGlu, linear};

/// One transformer layer.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Norms stand before attention and network, else behind what they add to.
    pre_norm: bool,
    input_layernorm: Norm,
    self_attn: SelfAttention,
    post_attention_layernorm: Norm,
    mlp: FeedForward,
}

/// The feed-forward network.
#[derive(Module, Debug)]
enum FeedForward {
    SwiGlu(SwiGlu),
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
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        match config.feed_forward {
            FeedForwardKind::SwiGlu => {
                Self::SwiGlu(SwiGlu::new(hidden, inner, config.mlp_bias, device))
            }
            FeedForwardKind::Relu => Self::Relu(ReluMlp {
                fc1: linear(hidden, inner, config.mlp_bias, device),
                fc2: linear(inner, hidden, config.mlp_bias, device),
            }),
        }
    }

    /// `[rows, hidden]` → `[rows, hidden]`
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::SwiGlu(mlp) => mlp.forward(x),
            Self::Relu(mlp) => mlp.fc2.forward(relu(mlp.fc1.forward(x))),
        }
    }
}

/// The norm that the family has, over `width` channels.
pub(super) fn norm(config: &DecoderConfig, width: usize, device: &Device) -> Norm {
    match config.norm {
        NormKind::Rms => Norm::Rms(RmsNorm::new(width, config.norm_eps, device)),
        NormKind::Layer => Norm::Layer(LayerNorm::new(width, config.norm_eps, device)),
    }
}

impl DecoderLayer {
    pub(super) fn new(config: &DecoderConfig, device: &Device) -> Self {
        Self {
            pre_norm: config.do_layer_norm_before,
            input_layernorm: norm(config, config.hidden_size, device),
            self_attn: SelfAttention::new(config, device),
            post_attention_layernorm: norm(config, config.hidden_size, device),
            mlp: FeedForward::new(config, device),
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
        let out = self.self_attn.forward(read, None, context, probe);
        self.feed_forward(self.behind(&self.input_layernorm, x + out))
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
        let out = self.self_attn.forward(read, Some(wanted), context, None);
        self.feed_forward(self.behind(&self.input_layernorm, wanted.pick(x) + out))
    }

    fn feed_forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, seq, hidden] = x.dims();
        let norm = &self.post_attention_layernorm;
        let read = self.before(norm, &x);
        let y = self.mlp.forward(read.reshape([batch * seq, hidden]));
        self.behind(norm, x + y.reshape([batch, seq, hidden]))
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
