//! Decoders: one shared core, and the families that differ from it in what [`DecoderConfig`] says.
//!
//! The core is the decoder of Llama: RMSNorm, rotary positions, grouped-query attention,
//! SwiGLU. A family's file ([`families`]) reads its `config.json` into a [`DecoderConfig`] and names
//! its tensors; the guide's "Adding a model" walks through one.

mod attention;
mod checkpointed;
mod config;
pub mod families;
mod input;
mod layer;
mod rope_config;

pub use attention::SelfAttention;
pub(crate) use checkpointed::leaf;
pub use checkpointed::{DecoderCheckpoints, along};
pub use config::{DecoderConfig, FeedForwardKind, LayerKind, NormKind, Positions};
pub use families::DecoderFamily;
pub use input::DecoderInput;
pub use layer::DecoderLayer;

use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::nn::{
    AttentionMask, AttentionProbe, Linear, MultimodalRope, Norm, Place, RotaryCache, RotaryTable,
    embedding, linear,
};
use crate::transfer::upload;
use attention::{LayerContext, PassContext, WantedRows};
use input::deepened;

/// Rows of a table of learnt positions before that of position 0 (HF's OPT).
const LEARNT_POSITIONS_OFFSET: usize = 2;

/// A decoder without its LM head: token ids or embeddings in, hidden states out.
///
/// Field names are those of a Hugging Face `LlamaModel`; the name tables of the families hold the
/// exceptions.
#[derive(Module, Debug)]
pub struct Decoder {
    /// `[vocab, width]`
    pub embed_tokens: Embedding,
    /// `[2 + positions, hidden]`
    embed_positions: Option<Embedding>,
    /// From the width of the embeddings to that of the layers.
    project_in: Option<Linear>,
    layers: Vec<DecoderLayer>,
    norm: Option<Norm>,
    /// Back to the width of the embeddings.
    project_out: Option<Linear>,
    #[module(skip)]
    rotary: Option<RotaryCache>,
    /// Of the layers with a window, where these have other angles.
    #[module(skip)]
    local_rotary: Option<RotaryCache>,
    /// How visual tokens turn, where that is otherwise than text does.
    #[module(skip)]
    multimodal_rope: Option<MultimodalRope>,
    groups: usize,
    sliding_window: Option<usize>,
    word_scale: f64,
    input_scale: f64,
}

/// What a forward pass leaves behind for those who look at it.
#[derive(Debug, Default)]
pub struct DecoderTrace {
    /// What the first layer reads, then each layer's output; the last as it leaves the decoder (as
    /// in HF).
    pub hidden_states: Vec<Tensor<3>>,
    /// Taps on every layer's attention.
    pub probe: Option<AttentionProbe>,
}

/// What the layers share in a pass to a few positions.
struct PooledPass {
    /// Of all layers but the last.
    all: PassContext,
    /// Of the last one.
    last: PassContext,
    rows: WantedRows,
}

impl Decoder {
    /// A decoder of zeros; see [`crate::weights`] for its values.
    pub fn new(config: &DecoderConfig, device: &Device) -> Self {
        let (width, hidden) = (config.word_embed_proj_dim, config.hidden_size);
        let projection = |from, to| (from != to).then(|| linear(from, to, false, device));
        let (rotary, learnt) = match config.positions {
            Positions::Rotary(rope) => (Some(RotaryCache::new(rope, config.head_dim)), None),
            Positions::Learnt => {
                let rows = config.max_position_embeddings + LEARNT_POSITIONS_OFFSET;
                (None, Some(embedding(rows, hidden, device)))
            }
        };
        Self {
            embed_tokens: embedding(config.vocab_size, width, device),
            embed_positions: learnt,
            project_in: projection(width, hidden),
            layers: (0..config.num_hidden_layers)
                .map(|index| DecoderLayer::new(config, config.layer_kind(index), device))
                .collect(),
            norm: config
                .do_layer_norm_before
                .then(|| layer::norm(config, hidden, device)),
            project_out: projection(hidden, width),
            rotary,
            local_rotary: config
                .local_rope
                .map(|rope| RotaryCache::new(rope, config.head_dim)),
            multimodal_rope: config.multimodal_rope,
            groups: config.num_attention_heads / config.num_key_value_heads.max(1),
            sliding_window: config.sliding_window,
            word_scale: config.word_scale,
            input_scale: config.input_scale,
        }
    }

    /// Token embeddings, `[batch, seq]` → `[batch, seq, width]`.
    pub fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        scaled(self.embed_tokens.forward(ids), self.word_scale)
    }

    /// States that leave the decoder at every position, `[batch, seq, width]` → the same. States at
    /// padding are not defined.
    pub fn forward(
        &self,
        input: impl Into<DecoderInput>,
        mut trace: Option<&mut DecoderTrace>,
    ) -> Tensor<3> {
        let DecoderInput {
            embeds,
            places,
            deep,
        } = input.into();
        let context = self.context(&embeds, places.as_deref());
        let mut x = self.enter(embeds);
        for (index, layer) in self.layers.iter().enumerate() {
            record(&mut trace, &x);
            let probe = trace.as_deref_mut().and_then(|t| t.probe.as_mut());
            x = deepened(layer.forward(x, &context, probe), &deep, index);
        }
        let x = self.leave(x);
        record(&mut trace, &x);
        x
    }

    /// States that leave the decoder at the wanted positions only: the same numbers as
    /// [`Self::forward`] there, without the last layer's work at all others.
    ///
    /// Of what is added to the layers' outputs nothing may be for the last one.
    ///
    /// # Shapes
    /// Embeddings: `[batch, seq, width]`; `wanted`: positions, row-major `[batch, count]`;
    /// result `[batch, count, width]`
    pub fn forward_pooled(&self, input: impl Into<DecoderInput>, wanted: &[usize]) -> Tensor<3> {
        let DecoderInput {
            embeds,
            places,
            deep,
        } = input.into();
        let pass = self.pooled_pass(&embeds, places.as_deref(), wanted);
        let mut x = self.enter(embeds);
        for (index, layer) in self.inner_layers().iter().enumerate() {
            x = deepened(layer.forward(x, &pass.all, None), &deep, index);
        }
        self.finish(x, &pass)
    }

    /// The layers before the last one.
    fn inner_layers(&self) -> &[DecoderLayer] {
        self.layers.split_last().map_or(&[], |(_, before)| before)
    }

    /// The last layer at the wanted positions, and what follows it.
    fn finish(&self, x: Tensor<3>, pass: &PooledPass) -> Tensor<3> {
        match self.layers.last() {
            Some(last) => self.leave(last.forward_rows(x, &pass.rows, &pass.last)),
            None => x,
        }
    }

    /// What a pass over `x` `[batch, seq, width]`, whose positions stand at `places`, to the `wanted` positions needs
    /// beside it.
    fn pooled_pass(&self, x: &Tensor<3>, places: Option<&[Place]>, wanted: &[usize]) -> PooledPass {
        let [batch, seq, _] = x.dims();
        let device = x.device();
        let count = wanted.len() / batch;
        let index = |values: Vec<i64>| {
            let len = values.len();
            upload::<1, Int>(TensorData::new(values, [len]), &device)
        };
        let flat = wanted.iter().enumerate();
        let rows = WantedRows {
            flat: index(flat.map(|(n, &p)| (n / count * seq + p) as i64).collect()),
            positions: index(wanted.iter().map(|&p| p as i64).collect()),
        };
        let mask = |window| AttentionMask::UpTo {
            last: wanted.to_vec(),
            keys: seq,
            window,
        };
        let all = self.context(x, places);
        let ropes = all.kinds.each_ref().map(|kind| kind.rope.clone());
        PooledPass {
            last: self.pass(batch, ropes, &device, mask),
            all,
            rows,
        }
    }

    /// From embeddings to what the first layer reads: projected, with learnt positions added.
    fn enter(&self, embeds: Tensor<3>) -> Tensor<3> {
        let seq = embeds.dims()[1];
        let x = match &self.project_in {
            Some(map) => map.forward(embeds),
            None => embeds,
        };
        let x = scaled(x, self.input_scale);
        match &self.embed_positions {
            Some(table) => {
                let rows = table.weight.val().narrow(0, LEARNT_POSITIONS_OFFSET, seq);
                x + rows.unsqueeze()
            }
            None => x,
        }
    }

    /// From the last layer's output to what leaves the decoder.
    fn leave(&self, x: Tensor<3>) -> Tensor<3> {
        let x = match &self.norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        match &self.project_out {
            Some(map) => map.forward(x),
            None => x,
        }
    }

    fn context(&self, embeds: &Tensor<3>, places: Option<&[Place]>) -> PassContext {
        let [batch, seq, _] = embeds.dims();
        let mask = |window| AttentionMask::Causal { seq, window };
        let device = embeds.device();
        let ropes = self.ropes(seq, places, &device);
        self.pass(batch, ropes, &device, mask)
    }

    /// The rotary angles of each kind of layer, in the order of [`LayerKind::ALL`], for `seq` positions.
    fn ropes(
        &self,
        seq: usize,
        places: Option<&[Place]>,
        device: &Device,
    ) -> [Option<RotaryTable>; 3] {
        // Constants stay outside the autodiff graph.
        let device = &device.clone().without_autodiff();
        LayerKind::ALL.map(|kind| {
            let rotary = match kind {
                LayerKind::Full => self.rotary.as_ref(),
                LayerKind::Sliding => self.local_rotary.as_ref().or(self.rotary.as_ref()),
                LayerKind::Unrotated => None,
            };
            rotary.map(|cache| match (places, self.multimodal_rope) {
                (Some(places), Some(rope)) => cache.table_at(places, seq, rope, device),
                _ => cache.table(seq, device),
            })
        })
    }

    /// What each kind of layer needs beside its input, `[batch, seq, hidden]`; `mask` makes the mask of
    /// a window.
    fn pass(
        &self,
        batch: usize,
        ropes: [Option<RotaryTable>; 3],
        device: &Device,
        mask: impl Fn(Option<usize>) -> AttentionMask,
    ) -> PassContext {
        // Constants stay outside the autodiff graph.
        let device = device.clone().without_autodiff();
        let mut ropes = ropes.into_iter();
        let kinds = LayerKind::ALL.map(|kind| {
            let window = match kind {
                LayerKind::Sliding => self.sliding_window,
                LayerKind::Full | LayerKind::Unrotated => None,
            };
            LayerContext {
                rope: ropes.next().flatten(),
                mask: mask(window).prepare(batch, self.groups, &device),
            }
        });
        PassContext { kinds }
    }
}

/// `x` times `scale`, untouched where that is 1.
fn scaled(x: Tensor<3>, scale: f64) -> Tensor<3> {
    match scale {
        1.0 => x,
        scale => x.mul_scalar(scale),
    }
}

fn record(trace: &mut Option<&mut DecoderTrace>, x: &Tensor<3>) {
    if let Some(trace) = trace.as_deref_mut() {
        trace.hidden_states.push(x.clone());
    }
}
