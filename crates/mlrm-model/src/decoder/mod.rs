//! Decoders of the Llama line: `llama`, `qwen2` and `qwen3` share this core and differ only in
//! biases and per-head norms (see [`DecoderConfig`]).

mod config;

pub use config::DecoderConfig;

use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData};
use mlrm_config::LlmFamily;

use crate::nn::{
    AttentionMask, AttentionProbe, PreparedMask, RmsNorm, RotaryTable, SwiGlu, attend, embedding,
    linear, rows_linear,
};

/// Self-attention with grouped queries and rotary positions.
#[derive(Module, Debug)]
pub struct SelfAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
}

/// One pre-norm transformer layer.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    input_layernorm: RmsNorm,
    self_attn: SelfAttention,
    post_attention_layernorm: RmsNorm,
    mlp: SwiGlu,
}

/// A decoder without its LM head: token ids or embeddings in, hidden states out.
///
/// Field names are those of a Hugging Face checkpoint below the prefix `model.`.
#[derive(Module, Debug)]
pub struct Decoder {
    /// `[vocab, hidden]`
    pub embed_tokens: Embedding,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    rope_theta: f64,
}

/// What a forward pass leaves behind for those who look at it.
#[derive(Debug, Default)]
pub struct DecoderTrace {
    /// Input embeddings, then each layer's output; the last after the final norm (as in HF).
    pub hidden_states: Vec<Tensor<3>>,
    /// Taps on every layer's attention.
    pub probe: Option<AttentionProbe>,
}

impl SelfAttention {
    fn new(config: &DecoderConfig, device: &Device) -> Self {
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        let head_norm = || {
            (config.family == LlmFamily::Qwen3)
                .then(|| RmsNorm::new(config.head_dim, config.rms_norm_eps, device))
        };
        Self {
            q_proj: linear(config.hidden_size, queries, config.qkv_bias, device),
            k_proj: linear(config.hidden_size, keys, config.qkv_bias, device),
            v_proj: linear(config.hidden_size, keys, config.qkv_bias, device),
            o_proj: linear(queries, config.hidden_size, config.output_bias, device),
            q_norm: head_norm(),
            k_norm: head_norm(),
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        }
    }

    /// `[batch, seq, hidden]` → `[batch, seq, heads, head_dim]`, normalised per head where the
    /// family does.
    fn heads(
        &self,
        x: &Tensor<3>,
        layer: &Linear,
        heads: usize,
        norm: &Option<RmsNorm>,
    ) -> Tensor<4> {
        let [batch, seq, _] = x.dims();
        let y = rows_linear(layer, x.clone()).reshape([batch, seq, heads, self.head_dim]);
        match norm {
            Some(norm) => norm.forward(y),
            None => y,
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        rope: &RotaryTable,
        mask: &PreparedMask,
        probe: Option<&mut AttentionProbe>,
    ) -> Tensor<3> {
        let q = self.heads(&x, &self.q_proj, self.num_attention_heads, &self.q_norm);
        let (k, v) = self.keys_values(&x, rope);
        let out = attend(rope.apply(q), k, v, mask, probe);
        rows_linear(&self.o_proj, out)
    }

    /// Attention of a few query rows `[batch, rows, hidden]` at `positions` over all of `x`.
    fn forward_rows(
        &self,
        rows: Tensor<3>,
        positions: &Tensor<1, Int>,
        x: &Tensor<3>,
        rope: &RotaryTable,
        mask: &PreparedMask,
    ) -> Tensor<3> {
        let q = self.heads(&rows, &self.q_proj, self.num_attention_heads, &self.q_norm);
        let (k, v) = self.keys_values(x, rope);
        let q = rope.apply_at(q, positions.clone());
        rows_linear(&self.o_proj, attend(q, k, v, mask, None))
    }

    fn keys_values(&self, x: &Tensor<3>, rope: &RotaryTable) -> (Tensor<4>, Tensor<4>) {
        let k = self.heads(x, &self.k_proj, self.num_key_value_heads, &self.k_norm);
        let v = self.heads(x, &self.v_proj, self.num_key_value_heads, &None);
        (rope.apply(k), v)
    }
}

impl DecoderLayer {
    fn new(config: &DecoderConfig, device: &Device) -> Self {
        let norm = || RmsNorm::new(config.hidden_size, config.rms_norm_eps, device);
        Self {
            input_layernorm: norm(),
            self_attn: SelfAttention::new(config, device),
            post_attention_layernorm: norm(),
            mlp: SwiGlu::new(
                config.hidden_size,
                config.intermediate_size,
                config.mlp_bias,
                device,
            ),
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        rope: &RotaryTable,
        mask: &PreparedMask,
        probe: Option<&mut AttentionProbe>,
    ) -> Tensor<3> {
        let normal = self.input_layernorm.forward(x.clone());
        let x = x + self.self_attn.forward(normal, rope, mask, probe);
        self.feed_forward(x)
    }

    fn feed_forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, seq, hidden] = x.dims();
        let normal = self.post_attention_layernorm.forward(x.clone());
        let y = self.mlp.forward(normal.reshape([batch * seq, hidden]));
        x + y.reshape([batch, seq, hidden])
    }

    /// The layer's output at a few positions only: keys and values of the whole sequence, but
    /// queries, output projection and feed-forward network of the wanted rows alone.
    fn forward_rows(
        &self,
        x: Tensor<3>,
        flat_rows: Tensor<1, Int>,
        positions: &Tensor<1, Int>,
        rope: &RotaryTable,
        mask: &PreparedMask,
    ) -> Tensor<3> {
        let [batch, seq, hidden] = x.dims();
        let wanted = flat_rows.dims()[0] / batch;
        let pick = |t: Tensor<3>| {
            t.reshape([batch * seq, hidden])
                .select(0, flat_rows.clone())
                .reshape([batch, wanted, hidden])
        };
        let normal = self.input_layernorm.forward(x.clone());
        let out = self
            .self_attn
            .forward_rows(pick(normal.clone()), positions, &normal, rope, mask);
        self.feed_forward(pick(x) + out)
    }
}

impl Decoder {
    /// A decoder of zeros; see [`crate::weights`] for its values.
    pub fn new(config: &DecoderConfig, device: &Device) -> Self {
        Self {
            embed_tokens: embedding(config.vocab_size, config.hidden_size, device),
            layers: (0..config.num_hidden_layers)
                .map(|_| DecoderLayer::new(config, device))
                .collect(),
            norm: RmsNorm::new(config.hidden_size, config.rms_norm_eps, device),
            rope_theta: config.rope_theta,
        }
    }

    /// Token embeddings, `[batch, seq]` → `[batch, seq, hidden]`.
    pub fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.embed_tokens.forward(ids)
    }

    /// Hidden states after the final norm at every position, `[batch, seq, hidden]` → the same.
    /// States at padding are not defined.
    pub fn forward(&self, embeds: Tensor<3>, mut trace: Option<&mut DecoderTrace>) -> Tensor<3> {
        let (rope, mask) = self.positions(&embeds);
        let mut x = embeds;
        for layer in &self.layers {
            record(&mut trace, &x);
            let probe = trace.as_deref_mut().and_then(|t| t.probe.as_mut());
            x = layer.forward(x, &rope, &mask, probe);
        }
        let x = self.norm.forward(x);
        record(&mut trace, &x);
        x
    }

    /// Hidden states after the final norm at the wanted positions only: the same numbers as
    /// [`Self::forward`] there, without the last layer's work at all others.
    ///
    /// # Shapes
    /// `embeds`: `[batch, seq, hidden]`; `wanted`: positions, row-major `[batch, count]`;
    /// result `[batch, count, hidden]`
    pub fn forward_pooled(&self, embeds: Tensor<3>, wanted: &[usize]) -> Tensor<3> {
        let [batch, seq, _] = embeds.dims();
        let device = embeds.device();
        let (rope, mask) = self.positions(&embeds);
        let mut x = embeds;
        let Some((last, before)) = self.layers.split_last() else {
            return x;
        };
        for layer in before {
            x = layer.forward(x, &rope, &mask, None);
        }
        let count = wanted.len() / batch;
        let index = |values: Vec<i64>| {
            let len = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [len]), &device)
        };
        let positions = index(wanted.iter().map(|&p| p as i64).collect());
        let flat = wanted.iter().enumerate();
        let flat_rows = index(flat.map(|(n, &p)| (n / count * seq + p) as i64).collect());
        let mask = AttentionMask::UpTo {
            last: wanted.to_vec(),
            keys: seq,
        };
        let mask = mask.prepare(batch, self.groups(), &device);
        let x = last.forward_rows(x, flat_rows, &positions, &rope, &mask);
        self.norm.forward(x)
    }

    fn groups(&self) -> usize {
        self.layers.first().map_or(1, |layer| {
            layer.self_attn.num_attention_heads / layer.self_attn.num_key_value_heads
        })
    }

    fn positions(&self, embeds: &Tensor<3>) -> (RotaryTable, PreparedMask) {
        let [batch, seq, _] = embeds.dims();
        // Constants stay outside the autodiff graph.
        let device = embeds.device().without_autodiff();
        let head_dim = self.layers.first().map_or(2, |l| l.self_attn.head_dim);
        let rope = RotaryTable::new(seq, head_dim, self.rope_theta, &device);
        let mask = AttentionMask::Causal { seq }.prepare(batch, self.groups(), &device);
        (rope, mask)
    }
}

fn record(trace: &mut Option<&mut DecoderTrace>, x: &Tensor<3>) {
    if let Some(trace) = trace.as_deref_mut() {
        trace.hidden_states.push(x.clone());
    }
}
