//! The resampler of Qwen-VL (arXiv 2308.12966): one cross-attention layer from learnt queries to the
//! patches, with fixed 2-d sine and cosine positions on both sides.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use mlrm_config::ConnectorSettings;
use serde::{Deserialize, Serialize};

use crate::bounds;
use crate::error::InvalidConfig;
use crate::nn::{
    CrossAttention, Interpolation, LayerNorm, Linear, fixed_zeros, linear, resize_positions,
    sin_cos_2d, zeros,
};
use crate::ops;
use crate::weights::InitRule;

/// Sizes of a resampler, as `mlrm.toml` stores them. It is as wide as the language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResamplerConfig {
    /// Learnt queries, which become visual tokens (V): a square number. Qwen-VL: 256.
    pub num_query_tokens: usize,
    /// Attention heads. Qwen-VL: 32, of 128 channels.
    pub num_attention_heads: usize,
    /// Width of the vision features (v).
    pub encoder_hidden_size: usize,
    /// Added to the variance inside LayerNorm.
    pub layer_norm_eps: f64,
}

impl ResamplerConfig {
    /// The sizes of a config section, for features of width `encoder_hidden_size`.
    pub fn from_settings(settings: &ConnectorSettings, encoder_hidden_size: usize) -> Self {
        Self {
            num_query_tokens: settings.queries,
            num_attention_heads: settings.num_attention_heads,
            encoder_hidden_size,
            layer_norm_eps: 1e-6,
        }
    }

    /// Refuses sizes that do not fit each other or the model: `width` is the language model's,
    /// `positions` the number of patches.
    ///
    /// # Errors
    /// Says which size does not fit.
    pub fn check(&self, width: usize, positions: usize) -> Result<(), InvalidConfig> {
        let (heads, queries) = (self.num_attention_heads, self.num_query_tokens);
        bounds::check(&[("num_query_tokens", queries, bounds::QUERIES)])
            .map_err(|sizes| sizes.of("connector"))?;
        if heads == 0 || !width.is_multiple_of(heads) || !width.is_multiple_of(4) {
            return Err(InvalidConfig::new(
                &["num_attention_heads"],
                format!(
                    "connector: the resampler is as wide as the language model, and {width} must be a \
                     multiple of 4 and of its {heads} heads"
                ),
            ));
        }
        if queries == 0 || queries.isqrt().pow(2) != queries {
            return Err(InvalidConfig::new(
                &["num_query_tokens"],
                format!(
                    "connector: the queries of a resampler stand in a square, and {queries} is not a \
                     square number"
                ),
            ));
        }
        if positions.isqrt().pow(2) != positions {
            return Err(InvalidConfig::new(
                &["select_feature"],
                format!(
                    "connector: the resampler reads a square of patches, and {positions} positions are \
                     none; with a class token set select_feature = \"patch\""
                ),
            ));
        }
        Ok(())
    }
}

/// The resampler; field names are those of `attn_pool` in the published checkpoint, with the norm and
/// the projection that follow it there.
#[derive(Module, Debug)]
pub struct Resampler {
    /// `[queries, d]`
    query: Param<Tensor<2>>,
    /// Fixed, but stored in checkpoints: `[queries, d]`.
    pos_embed: Param<Tensor<2>>,
    /// `[v, d]`; absent where both are the same.
    kv_proj: Option<Linear>,
    attn: CrossAttention,
    ln_q: LayerNorm,
    ln_kv: LayerNorm,
    ln_post: LayerNorm,
    /// `[d, d]`, applied from the right.
    proj: Param<Tensor<2>>,
}

impl Resampler {
    /// A resampler of zeros for a language model of `width` channels.
    pub fn new(config: &ResamplerConfig, width: usize, device: &Device) -> Self {
        let (queries, inputs) = (config.num_query_tokens, config.encoder_hidden_size);
        let norm = || LayerNorm::new(width, config.layer_norm_eps, device);
        Self {
            query: zeros([queries, width], device),
            pos_embed: fixed_zeros([queries, width], device),
            kv_proj: (inputs != width).then(|| linear(inputs, width, false, device)),
            attn: CrossAttention::new(width, config.num_attention_heads, device),
            ln_q: norm(),
            ln_kv: norm(),
            ln_post: norm(),
            proj: zeros([width, width], device),
        }
    }

    /// `[batch, patches, v]` → `[batch, queries, d]`
    pub fn forward(&self, features: Tensor<3>) -> Tensor<3> {
        let [batch, patches, _] = features.dims();
        let features = match &self.kv_proj {
            Some(map) => map.forward(features),
            None => features,
        };
        let features = self.ln_kv.forward(features);
        let own = self.pos_embed.val();
        let [queries, width] = own.dims();
        let theirs = resize_positions(own.clone(), [patches.isqrt(); 2], Interpolation::Bicubic);
        let each = |x: Tensor<2>| ops::repeat(x.unsqueeze::<3>(), batch);
        let query = self.ln_q.forward(each(self.query.val())) + each(own);
        let key = features.clone() + theirs.unsqueeze();
        let x = self
            .ln_post
            .forward(self.attn.forward(query, key, features));
        let x = ops::linear(x.reshape([batch * queries, width]), self.proj.val(), None);
        x.reshape([batch, queries, width])
    }

    /// Qwen-VL's initial values, by name; `None` for the fixed positions.
    pub(crate) fn initial(name: &str, width: usize) -> Option<InitRule> {
        Some(match name {
            "pos_embed" => return None,
            "proj" => InitRule::Normal((width as f64).powf(-0.5)),
            _ if name.starts_with("ln_") && name.ends_with(".weight") => InitRule::Constant(1.0),
            _ if name.ends_with("bias") => InitRule::Constant(0.0),
            _ => InitRule::Normal(0.02),
        })
    }

    /// The fixed positions of `queries` queries, `[queries, width]` row-major.
    pub(crate) fn positions(queries: usize, width: usize) -> Vec<f32> {
        sin_cos_2d(width, queries.isqrt())
    }
}
