//! Self-attention of a decoder layer.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use super::layer::rms_norm;
use super::{DecoderConfig, LayerKind};
use crate::nn::{
    AttentionProbe, Linear, PreparedMask, RmsNorm, RotaryTable, attend, attend_capped, linear,
};
use crate::ops;

/// Self-attention with grouped queries.
#[derive(Module, Debug)]
pub struct SelfAttention {
    qkv: Qkv,
    o_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    /// What queries are multiplied with beside the usual `head_dim`^-1/2 of the scores.
    query_scale: f64,
    score_cap: Option<f64>,
}

/// The maps to queries, keys and values.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one a layer, and small beside the weights that it holds"
)]
enum Qkv {
    /// One each.
    Separate(SeparateQkv),
    /// One for all three, which follow each other in its outputs.
    Fused(Linear),
}

#[derive(Module, Debug)]
struct SeparateQkv {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
}

/// What the layers of one pass share.
pub(super) struct PassContext {
    /// For each kind, in the order of [`LayerKind::ALL`].
    pub kinds: [LayerContext; 3],
}

impl PassContext {
    pub fn of(&self, kind: LayerKind) -> &LayerContext {
        &self.kinds[kind as usize]
    }
}

/// What the layers of one kind share in a pass.
pub(super) struct LayerContext {
    /// Rotary angles, where the family has them.
    pub rope: Option<RotaryTable>,
    /// What each query may read.
    pub mask: PreparedMask,
}

/// A few positions of each sequence.
pub(super) struct WantedRows {
    /// Rows of `[batch * seq]`, item after item, as many of each.
    pub flat: Tensor<1, Int>,
    /// The same within their sequences.
    pub positions: Tensor<1, Int>,
}

impl WantedRows {
    /// `[batch, seq, width]` → `[batch, rows, width]`
    pub fn pick(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, seq, width] = x.dims();
        let rows = self.flat.dims()[0] / batch;
        x.reshape([batch * seq, width])
            .select(0, self.flat.clone())
            .reshape([batch, rows, width])
    }
}

impl Qkv {
    fn new(config: &DecoderConfig, queries: usize, keys: usize, device: &Device) -> Self {
        let map = |outputs| linear(config.hidden_size, outputs, config.qkv_bias, device);
        if config.fused_qkv {
            Self::Fused(map(queries + 2 * keys))
        } else {
            Self::Separate(SeparateQkv {
                q_proj: map(queries),
                k_proj: map(keys),
                v_proj: map(keys),
            })
        }
    }

    /// Queries (of the wanted rows only, if any are named), keys and values of `x`
    /// `[batch, seq, hidden]`; the queries are `queries` wide.
    fn forward(&self, x: Tensor<3>, queries: usize, wanted: Option<&WantedRows>) -> [Tensor<3>; 3] {
        let pick = |t: Tensor<3>| match wanted {
            Some(rows) => rows.pick(t),
            None => t,
        };
        match self {
            Self::Separate(maps) => [
                maps.q_proj.forward(pick(x.clone())),
                maps.k_proj.forward(x.clone()),
                maps.v_proj.forward(x),
            ],
            Self::Fused(map) => {
                let all = map.forward(x);
                let keys = (all.dims()[2] - queries) / 2;
                [
                    pick(all.clone().narrow(2, 0, queries)),
                    all.clone().narrow(2, queries, keys),
                    all.narrow(2, queries + keys, keys),
                ]
            }
        }
    }
}

impl SelfAttention {
    pub(super) fn new(config: &DecoderConfig, device: &Device) -> Self {
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        let head_norm = || {
            config
                .head_norm
                .then(|| rms_norm(config, config.head_dim, device))
        };
        let usual = (config.head_dim as f64).powf(-0.5);
        Self {
            qkv: Qkv::new(config, queries, keys, device),
            o_proj: linear(queries, config.hidden_size, config.output_bias, device),
            q_norm: head_norm(),
            k_norm: head_norm(),
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            query_scale: config.score_scale.map_or(1.0, |scale| scale / usual),
            score_cap: config.score_cap,
        }
    }

    /// The maps to queries, keys and values and to the output, as parts of a larger operation; `None` where attention is
    /// more than these, rotations and the usual scores.
    pub(super) fn plain(&self) -> Option<[ops::Map; 4]> {
        let Qkv::Separate(maps) = &self.qkv else {
            return None;
        };
        let usual = self.query_scale == 1.0 && self.score_cap.is_none();
        let plain = usual && self.q_norm.is_none() && self.k_norm.is_none();
        plain.then_some(())?;
        Some([
            maps.q_proj.plain()?,
            maps.k_proj.plain()?,
            maps.v_proj.plain()?,
            self.o_proj.plain()?,
        ])
    }

    /// `[batch, seq, hidden]` → the same, or `[batch, rows, hidden]` of the wanted rows; then the
    /// mask of `context` must be that of those rows.
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        wanted: Option<&WantedRows>,
        context: &LayerContext,
        probe: Option<&mut AttentionProbe>,
    ) -> Tensor<3> {
        let heads = self.num_attention_heads;
        let [q, k, v] = self.qkv.forward(x, heads * self.head_dim, wanted);
        let mut q = self.heads(q, heads, self.q_norm.as_ref());
        let mut k = self.heads(k, self.num_key_value_heads, self.k_norm.as_ref());
        let v = self.heads(v, self.num_key_value_heads, None);
        if let Some(rope) = &context.rope {
            q = match wanted {
                Some(rows) if rope.is_by_item() => rope.apply_at(q, rows.flat.clone()),
                Some(rows) => rope.apply_at(q, rows.positions.clone()),
                None => rope.apply(q),
            };
            k = rope.apply(k);
        }
        if self.query_scale != 1.0 {
            q = q.mul_scalar(self.query_scale);
        }
        let mask = &context.mask;
        self.o_proj.forward(match self.score_cap {
            Some(cap) => attend_capped(q, k, v, mask, cap, probe),
            None => attend(q, k, v, mask, probe),
        })
    }

    /// `[batch, seq, heads * head_dim]` → `[batch, seq, heads, head_dim]`, normalised per head
    /// where the family does.
    fn heads(&self, x: Tensor<3>, heads: usize, norm: Option<&RmsNorm>) -> Tensor<4> {
        let [batch, seq, _] = x.dims();
        let x = x.reshape([batch, seq, heads, self.head_dim]);
        match norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }
}
