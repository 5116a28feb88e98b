//! What passes through a model hold: bytes a note, from sizes.

use std::collections::BTreeMap;

use mlrm_config::Quantisation;
use mlrm_model::connector::ConnectorConfig;
use mlrm_model::decoder::{DecoderConfig, FeedForwardKind};
use mlrm_model::ops::MOST_SCORE_BYTES;
use mlrm_model::weights::LinearMap;

use super::TrainingShape;
use crate::device::Format;

/// Scores of a block, its probabilities, and the gradients of both.
const SCORE_COPIES: u64 = 4;

/// Bytes of one note in the language model.
pub(super) struct LlmActivations {
    /// What the backward pass keeps of an inner layer.
    layer: u64,
    inner_layers: u64,
    /// What it keeps of the last one.
    last: u64,
    /// What enters a layer.
    state: u64,
    /// What a layer at work holds besides.
    working: u64,
    /// Scores of a layer that are computed block by block.
    scores: u64,
    /// Attention maps of all layers, once.
    maps: u64,
    checkpoints: bool,
}

impl LlmActivations {
    /// The backward pass keeps the inputs of norms, attention and the activation function in the
    /// activations' format, attention's probabilities in f32, and the inputs of `maps`, whose weights
    /// or adapters learn; `low` numbers of a position between the factors of adapters. A half of a layer
    /// that is one kernel keeps its input, what its first maps gave, and what attention gave. The last
    /// layer works at few positions but for its keys and values.
    pub(super) fn new(shape: &TrainingShape<'_>, maps: &[&LinearMap], low: u64) -> Self {
        let llm = shape.llm;
        let (d, f) = (llm.hidden_size as u64, llm.intermediate_size as u64);
        let q = (llm.num_attention_heads * llm.head_dim) as u64;
        let k = (llm.num_key_value_heads * llm.head_dim) as u64;
        let inner = match llm.feed_forward {
            FeedForwardKind::SwiGlu | FeedForwardKind::FusedSwiGlu => 2 * f,
            // The GELU is an operation of its own.
            FeedForwardKind::GeGlu => 3 * f,
            FeedForwardKind::Relu => f,
        };
        let head_norms = if llm.head_norm { q + k } else { 0 };
        let layers = llm.num_hidden_layers.max(1) as u64;
        let inner_layers = layers - 1;
        let halves = kernel_halves(shape, low > 0);
        let [inputs, last_inputs] = map_inputs(llm, maps, halves);
        let number = shape.format.size() as u64;
        let norms = if llm.sandwich_norms { 4 * d } else { 2 * d };
        let [attention, network] = halves;
        let by_steps = [(attention, q + 2 * k), (network, inner)];
        let in_kernels = [(attention, 2 * q + 2 * k), (network, 2 * f)];
        let sum = |parts: [(bool, u64); 2], kernel: bool| -> u64 {
            let parts = parts.into_iter().filter(|part| part.0 == kernel);
            parts.map(|part| part.1).sum()
        };
        let kept = norms + sum(by_steps, false) + head_norms;
        let kept_by_kernels = sum(in_kernels, true) * if shape.short_products { 2 } else { number };
        let scores = llm.num_attention_heads as u64 * shape.positions * 4;
        // Capped scores alone are kept; the others are computed again, block by block where no kernel does it in the cache.
        let kept_scores = if llm.score_cap.is_some() { scores } else { 0 };
        let kernel = shape.kernels && shape.format == Format::F32;
        let low = low * 4 / layers;
        let each = |bytes: u64| bytes * shape.positions;
        Self {
            layer: each(
                (kept + inputs.checked_div(inner_layers).unwrap_or(0)) * number
                    + kept_by_kernels
                    + low
                    + kept_scores,
            ),
            inner_layers,
            last: each((d + 2 * k + last_inputs) * number + low),
            state: each(d * number),
            // The last layer alone works at few positions but for its keys and values.
            working: match inner_layers {
                0 => each((d + 2 * k) * number),
                _ => each((inner + f + 3 * d) * number),
            },
            scores: if kernel { 0 } else { each(scores) },
            maps: each(layers * scores),
            checkpoints: shape.checkpoint_layers,
        }
    }

    /// What the forward pass of `notes` leaves for the backward pass.
    pub(super) fn held(&self, notes: u64) -> u64 {
        match self.checkpoints {
            false => self.whole(notes),
            true => notes * (self.inner_layers + 1) * self.state,
        }
    }

    /// As [`Self::held`], where no layer is run again.
    pub(super) fn whole(&self, notes: u64) -> u64 {
        notes * (self.inner_layers * self.layer + self.last)
    }

    /// One layer that is run again, with its graph.
    pub(super) fn layer(&self, notes: u64) -> u64 {
        notes * self.layer.max(self.last)
    }

    /// What a layer at work holds for itself, forward or backward.
    pub(super) fn working(&self, notes: u64) -> u64 {
        notes * self.working + SCORE_COPIES * (notes * self.scores).min(MOST_SCORE_BYTES)
    }

    /// The attention of a saliency probe beside that of a step: maps times ones, and the gradients.
    pub(super) fn probe(&self, notes: u64) -> u64 {
        3 * notes * self.maps
    }
}

/// Whether the attention halves of layers, and the feed-forward halves, are one kernel each.
fn kernel_halves(shape: &TrainingShape<'_>, adapted: bool) -> [bool; 2] {
    let whole =
        shape.quantisation == Quantisation::None && !(adapted && shape.adapters.dropout > 0.0);
    let halves = shape.llm.plain_halves();
    halves.map(|plain| plain && whole && shape.kernels && shape.format == Format::F32)
}

/// Widths of what the maps take, added up, of all inner layers and of the last; what several take is
/// held once, and what a kernel computes again not at all.
fn map_inputs(
    llm: &DecoderConfig,
    maps: &[&LinearMap],
    [attention, network]: [bool; 2],
) -> [u64; 2] {
    let last = format!("layers.{}.", llm.num_hidden_layers.saturating_sub(1));
    let mut taken = [BTreeMap::new(), BTreeMap::new()];
    for map in maps {
        let place = match map.path.split_once(".qkv.") {
            Some((layer, _)) => format!("{layer}.qkv"),
            None => map.path.replace(".up_proj.", ".gate_proj."),
        };
        let in_last = map.path.starts_with(&last);
        let computed_again = match map.path.contains(".self_attn.") {
            true => attention,
            false => network,
        };
        if !in_last && computed_again {
            continue;
        }
        // Of the last layer, keys and values alone take every position.
        if !in_last || place.ends_with(".qkv") {
            taken[usize::from(in_last)].insert(place, map.inputs as u64);
        }
    }
    taken.map(|taken| taken.values().sum())
}

/// Bytes of one note's picture.
#[derive(Default)]
pub(super) struct PictureActivations {
    /// Its pixels, in f32.
    pub(super) pixels: u64,
    /// The vision encoder at work.
    pub(super) encoder: u64,
    /// What is read of the encoder.
    pub(super) features: u64,
    /// What the backward pass keeps of the connector.
    pub(super) connector: u64,
}

impl PictureActivations {
    pub(super) fn new(shape: &TrainingShape<'_>) -> Self {
        let Some((model, vision)) = shape.model.and_then(|m| Some((m, m.vision.as_ref()?))) else {
            return Self::default();
        };
        let number = shape.format.size() as u64;
        let (v, inner) = (vision.hidden_size as u64, vision.intermediate_size as u64);
        let positions = vision.positions(mlrm_config::SelectFeature::ClsPatch) as u64;
        let read = vision.positions(model.features.positions) as u64;
        let side = vision.image_size as u64;
        Self {
            pixels: 3 * side * side * 4,
            // In attention: state, its norm, queries, keys, values, result; in the network: state, its
            // norm, both sides of the activation.
            encoder: positions * (6 * v).max(2 * v + 2 * inner) * number,
            features: (read * vision.feature_width() as u64 + v) * number,
            connector: connector(model.connector.as_ref(), read, shape.llm.hidden_size as u64)
                * number,
        }
    }
}

/// Numbers of a note that the backward pass keeps of a connector that reads `read` positions, to a
/// language model that is `d` wide.
fn connector(config: Option<&ConnectorConfig>, read: u64, d: u64) -> u64 {
    match config {
        None => 0,
        Some(ConnectorConfig::Merger(config)) => {
            let unit = config.merge.pow(2) as u64;
            let tokens = (1 + config.deep as u64) * read / unit.max(1);
            tokens * (3 * unit * config.encoder_hidden_size as u64 + d)
        }
        Some(ConnectorConfig::Mlp(config)) => read * (config.encoder_hidden_size as u64 + 3 * d),
        Some(ConnectorConfig::Resampler(config)) => {
            let queries = config.num_query_tokens as u64;
            4 * read * d + 6 * queries * d
        }
        Some(ConnectorConfig::QFormer(config)) => {
            let (queries, width) = (config.num_query_tokens as u64, config.hidden_size as u64);
            let (inner, heads) = (
                config.intermediate_size as u64,
                config.num_attention_heads as u64,
            );
            let layers = config.num_hidden_layers as u64;
            let crossing = layers.div_ceil(config.cross_attention_frequency.max(1) as u64);
            let layer = queries * (8 * width + 2 * inner + heads * queries);
            let cross = queries * (5 * width + heads * read) + 2 * read * width;
            layers * layer + crossing * cross + 3 * queries * d
        }
    }
}
