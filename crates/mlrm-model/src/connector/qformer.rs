//! The Q-Former of BLIP-2 (arXiv 2301.12597): learnt queries that read the vision features.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use mlrm_config::ConnectorSettings;
use serde::{Deserialize, Serialize};

use crate::bounds;
use crate::error::InvalidConfig;
use crate::nn::{Activation, AttentionMask, LayerNorm, Linear, PreparedMask, attend, linear};
use crate::ops::{self, gelu};

/// Sizes of a Q-Former, as `mlrm.toml` stores them; keys are those of HF's `qformer_config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QFormerConfig {
    /// Learnt queries, which become visual tokens (V).
    pub num_query_tokens: usize,
    /// Width of the queries.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Inner width of the feed-forward network.
    pub intermediate_size: usize,
    /// Width of the vision features (v).
    pub encoder_hidden_size: usize,
    /// Every how many layers, from layer 0 on, the queries read the features.
    pub cross_attention_frequency: usize,
    /// Added to the variance inside LayerNorm.
    pub layer_norm_eps: f64,
}

impl QFormerConfig {
    /// The sizes of a config section, for features of width `encoder_hidden_size`.
    pub fn from_settings(settings: &ConnectorSettings, encoder_hidden_size: usize) -> Self {
        Self {
            num_query_tokens: settings.queries,
            hidden_size: settings.hidden_size,
            num_hidden_layers: settings.layers,
            num_attention_heads: settings.num_attention_heads,
            intermediate_size: settings.intermediate_size,
            encoder_hidden_size,
            cross_attention_frequency: settings.cross_attention_frequency,
            layer_norm_eps: 1e-12,
        }
    }

    /// Refuses sizes that do not fit each other.
    ///
    /// # Errors
    /// Says which size does not fit.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        bounds::check(&[
            ("hidden_size", self.hidden_size, bounds::WIDTH),
            ("intermediate_size", self.intermediate_size, bounds::WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, bounds::LAYERS),
            ("num_query_tokens", self.num_query_tokens, bounds::QUERIES),
        ])
        .map_err(|sizes| sizes.of("connector"))?;
        let heads = self.num_attention_heads;
        if heads == 0 || !self.hidden_size.is_multiple_of(heads) {
            let message = format!(
                "connector: {heads} heads must divide hidden_size = {}",
                self.hidden_size
            );
            let keys = ["num_attention_heads", "hidden_size"];
            return Err(InvalidConfig::new(&keys, message));
        }
        if self.num_query_tokens == 0 || self.cross_attention_frequency == 0 {
            return Err(InvalidConfig::new(
                &["num_query_tokens", "cross_attention_frequency"],
                "connector: queries and cross_attention_frequency start at 1",
            ));
        }
        Ok(())
    }
}

#[derive(Module, Debug)]
struct BertSelfAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    heads: usize,
}

#[derive(Module, Debug)]
struct BertOutput {
    dense: Linear,
    layer_norm: LayerNorm,
}

#[derive(Module, Debug)]
struct BertAttention {
    attention: BertSelfAttention,
    output: BertOutput,
}

#[derive(Module, Debug)]
struct BertIntermediate {
    dense: Linear,
}

#[derive(Module, Debug)]
struct QFormerLayer {
    attention: BertAttention,
    crossattention: Option<BertAttention>,
    intermediate_query: BertIntermediate,
    output_query: BertOutput,
}

impl QFormerLayer {
    /// `norm(dense(gelu(dense(x))) + x)`
    fn feed_forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (inner, output) = (&self.intermediate_query.dense, &self.output_query);
        let (Some(first), Some(second)) = (inner.layer(), output.dense.layer()) else {
            return output.forward(gelu(inner.forward(x.clone())), x);
        };
        let [batch, seq, width] = x.dims();
        let rows = x.clone().reshape([batch * seq, width]);
        let y = ops::two_layers(rows, [first, second], Activation::Gelu);
        output
            .layer_norm
            .forward(y.reshape([batch, seq, width]) + x)
    }
}

#[derive(Module, Debug)]
struct QFormerEncoder {
    layer: Vec<QFormerLayer>,
}

/// BERT-style layers over learnt queries that cross-attend to the vision features.
#[derive(Module, Debug)]
pub struct QFormer {
    layernorm: LayerNorm,
    encoder: QFormerEncoder,
}

impl BertAttention {
    fn new(config: &QFormerConfig, key_width: usize, device: &Device) -> Self {
        let width = config.hidden_size;
        Self {
            attention: BertSelfAttention {
                query: linear(width, width, true, device),
                key: linear(key_width, width, true, device),
                value: linear(key_width, width, true, device),
                heads: config.num_attention_heads,
            },
            output: BertOutput::new(width, config, device),
        }
    }

    /// Post-norm attention: `norm(dense(attention(x, source)) + x)`.
    fn forward(&self, x: Tensor<3>, source: Tensor<3>, mask: &PreparedMask) -> Tensor<3> {
        let parts = &self.attention;
        let heads = |layer: &Linear, t: Tensor<3>| {
            let [batch, seq, _] = t.dims();
            let y = layer.forward(t);
            let width = y.dims()[2];
            y.reshape([batch, seq, parts.heads, width / parts.heads])
        };
        let q = heads(&parts.query, x.clone());
        let k = heads(&parts.key, source.clone());
        let v = heads(&parts.value, source);
        self.output.forward(attend(q, k, v, mask, None), x)
    }
}

impl BertOutput {
    fn new(inputs: usize, config: &QFormerConfig, device: &Device) -> Self {
        Self {
            dense: linear(inputs, config.hidden_size, true, device),
            layer_norm: LayerNorm::new(config.hidden_size, config.layer_norm_eps, device),
        }
    }

    fn forward(&self, y: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        self.layer_norm.forward(self.dense.forward(y) + residual)
    }
}

impl QFormer {
    /// A Q-Former of zeros; see [`crate::weights`] for its values.
    pub fn new(config: &QFormerConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        let layer = |index: usize| QFormerLayer {
            attention: BertAttention::new(config, width, device),
            crossattention: index
                .is_multiple_of(config.cross_attention_frequency)
                .then(|| BertAttention::new(config, config.encoder_hidden_size, device)),
            intermediate_query: BertIntermediate {
                dense: linear(width, config.intermediate_size, true, device),
            },
            output_query: BertOutput::new(config.intermediate_size, config, device),
        };
        Self {
            layernorm: LayerNorm::new(width, config.layer_norm_eps, device),
            encoder: QFormerEncoder {
                layer: (0..config.num_hidden_layers).map(layer).collect(),
            },
        }
    }

    /// # Shapes
    /// `queries`: `[1, queries, width]`, shared by the batch; `features`: `[batch, positions, v]`;
    /// result `[batch, queries, width]`
    pub fn forward(&self, queries: Tensor<3>, features: Tensor<3>) -> Tensor<3> {
        let batch = features.dims()[0];
        let mask = AttentionMask::None.prepare(1, 1, &features.device());
        // They are the same for every note until they first read a picture. What is computed of them before is
        // computed for each note all the same: the share of a note in their gradient does not depend on the notes
        // beside it then, and does not pass in a sum through the norm, which multiplies it by fifty.
        let mut x = self.layernorm.forward(ops::repeat(queries, batch));
        for layer in &self.encoder.layer {
            x = layer.attention.forward(x.clone(), x, &mask);
            if let Some(cross) = &layer.crossattention {
                x = cross.forward(x, features.clone(), &mask);
            }
            x = layer.feed_forward(x);
        }
        x
    }
}
