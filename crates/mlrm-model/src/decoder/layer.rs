//! One layer of a decoder.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use super::attention::{PassContext, SelfAttention, WantedRows};
use super::{DecoderConfig, FeedForwardKind, NormKind};
use crate::nn::{AttentionProbe, LayerNorm, Linear, Norm, RmsNorm, SwiGlu, linear};

/// One pre-norm transformer layer.
#[derive(Module, Debug)]
pub struct DecoderLayer {
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
        let normal = self.input_layernorm.forward(x.clone());
        let x = x + self.self_attn.forward(normal, None, context, probe);
        self.feed_forward(x)
    }

    /// The layer's output at a few positions only: keys and values of the whole sequence, but
    /// attention, output projection and feed-forward network of the wanted rows alone.
    pub(super) fn forward_rows(
        &self,
        x: Tensor<3>,
        wanted: &WantedRows,
        context: &PassContext,
    ) -> Tensor<3> {
        let normal = self.input_layernorm.forward(x.clone());
        let out = self.self_attn.forward(normal, Some(wanted), context, None);
        self.feed_forward(wanted.pick(x) + out)
    }

    fn feed_forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, seq, hidden] = x.dims();
        let normal = self.post_attention_layernorm.forward(x.clone());
        let y = self.mlp.forward(normal.reshape([batch * seq, hidden]));
        x + y.reshape([batch, seq, hidden])
    }
}
