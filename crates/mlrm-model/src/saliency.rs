//! Modality saliency (method §4): how much each layer reads the picture, the text and the rest.
//!
//! For layer l with attention A_l `[notes, heads, T, T]` and a loss L,
//! `I_l = Σ_heads |A_l ⊙ ∂L/∂A_l|` with its diagonal set to 0, and of row f (the final position)
//! and the inclusive image span [s, e]:
//!
//! - `S_v = Σ_{j ∈ [s, e]} I_l[f, j] / n_v`, `n_v = e − s + 1`
//! - `S_t = Σ_{j ∉ [s, e]} I_l[f, j] / n_t`, `n_t = f − n_v`
//! - `S_o = everything else in I_l / n_o`, `n_o = f (f − 1) / 2`
//!
//! `A ⊙ ∂L/∂A` is the gradient of a tensor of ones that multiplies A (see
//! [`crate::nn::AttentionProbe`]).

use burn::tensor::Tensor;

use crate::embedder::{EmbedderConfig, EmbedderCore, EmbedderTrace, ImageSpan, TokenBatch};
use crate::error::ModelError;
use crate::nn::{AttentionProbe, ProbeSite};
use crate::vision::VisionFeatures;

/// How the heads of `A ⊙ ∂L/∂A` become one map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadReduction {
    /// `Σ_h |·|`: the published formula.
    AbsThenSum,
    /// `|Σ_h ·|`: the released code.
    SumThenAbs,
}

/// Which formula is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formula {
    /// Where the attention is tapped.
    pub site: ProbeSite,
    /// How heads are reduced.
    pub reduction: HeadReduction,
}

impl Formula {
    /// The published formula (NoteLLM-2, section 3.2): probabilities, absolute values summed.
    pub const PUBLISHED: Self = Self {
        site: ProbeSite::Probabilities,
        reduction: HeadReduction::AbsThenSum,
    };
}

/// One layer's map of a batch.
#[derive(Debug, Clone)]
pub struct SaliencyMap {
    /// Sequence length (T).
    pub seq: usize,
    /// `[notes, T, T]`, diagonal 0.
    pub values: Vec<f32>,
}

/// Scores and maps of a batch.
#[derive(Debug, Clone)]
pub struct Saliency {
    /// Of each note, of each layer: `[S_v, S_t, S_o]`.
    pub scores: Vec<Vec<[f64; 3]>>,
    /// One map a layer.
    pub maps: Vec<SaliencyMap>,
}

/// Saliency of a batch under `formula`; `loss` makes the scalar that is differentiated from the
/// multimodal embeddings.
///
/// `core` must be on an autodiff device. `features` as in [`EmbedderCore::forward`].
///
/// # Errors
/// A device that cannot be read.
pub fn saliency(
    core: &EmbedderCore,
    config: &EmbedderConfig,
    tokens: &TokenBatch,
    features: Option<VisionFeatures>,
    formula: Formula,
    loss: impl FnOnce(Tensor<2>) -> Tensor<1>,
) -> Result<Saliency, ModelError> {
    let spans = config.layout(tokens, features.as_ref())?.image_spans()?;
    let mut trace = EmbedderTrace::default();
    trace.decoder.probe = Some(AttentionProbe::new(formula.site));
    let embeddings = core.forward(config, tokens, features, Some(&mut trace))?;
    let gradients = loss(embeddings.multimodal).backward();
    let leaves = trace.decoder.probe.map_or(Vec::new(), |probe| probe.leaves);
    let mut maps = Vec::with_capacity(leaves.len());
    for leaf in leaves {
        let [notes, _, seq, _] = leaf.dims();
        let values = match leaf.grad(&gradients) {
            Some(gradient) => reduce_heads(gradient, formula.reduction)?,
            // No path from the loss to this layer's attention.
            None => vec![0.0; notes * seq * seq],
        };
        maps.push(without_diagonal(SaliencyMap { seq, values }));
    }
    Ok(Saliency {
        scores: flow_scores(&maps, &spans),
        maps,
    })
}

/// The same three scores of the attention probabilities alone, without the gradient: a cheap live
/// probe (`attention mass`, heads averaged).
///
/// # Errors
/// A device that cannot be read.
pub fn attention_mass(
    core: &EmbedderCore,
    config: &EmbedderConfig,
    tokens: &TokenBatch,
    features: Option<VisionFeatures>,
) -> Result<Vec<Vec<[f64; 3]>>, ModelError> {
    let spans = config.layout(tokens, features.as_ref())?.image_spans()?;
    let mut trace = EmbedderTrace::default();
    trace.decoder.probe = Some(AttentionProbe::new(ProbeSite::Probabilities));
    core.forward(config, tokens, features, Some(&mut trace))?;
    let layers = trace
        .decoder
        .probe
        .map_or(Vec::new(), |probe| probe.attention);
    let mut maps = Vec::with_capacity(layers.len());
    for attention in layers {
        let [_, heads, seq, _] = attention.dims();
        let mean = attention.sum_dim(1).div_scalar(heads as f64);
        let values = read(mean)?;
        maps.push(without_diagonal(SaliencyMap { seq, values }));
    }
    Ok(flow_scores(&maps, &spans))
}

/// Means over notes, `[layers]` of `[S_v, S_t, S_o]`.
pub fn mean_over_notes(scores: &[Vec<[f64; 3]>]) -> Vec<[f64; 3]> {
    let layers = scores.first().map_or(0, Vec::len);
    let mean = |layer: usize, part: usize| {
        scores.iter().map(|note| note[layer][part]).sum::<f64>() / scores.len() as f64
    };
    (0..layers)
        .map(|layer| [0, 1, 2].map(|part| mean(layer, part)))
        .collect()
}

fn reduce_heads(gradient: Tensor<4>, reduction: HeadReduction) -> Result<Vec<f32>, ModelError> {
    read(match reduction {
        HeadReduction::AbsThenSum => gradient.abs().sum_dim(1),
        HeadReduction::SumThenAbs => gradient.sum_dim(1).abs(),
    })
}

fn read(tensor: Tensor<4>) -> Result<Vec<f32>, ModelError> {
    tensor
        .inner()
        .try_into_vec_as::<f32>()
        .map_err(|e| ModelError::unreadable("saliency", e))
}

fn without_diagonal(mut map: SaliencyMap) -> SaliencyMap {
    let seq = map.seq;
    for note in map.values.chunks_exact_mut(seq * seq) {
        for (index, value) in note.iter_mut().enumerate() {
            if index / seq == index % seq || value.is_nan() {
                *value = 0.0;
            }
        }
    }
    map
}

/// Sums in f64, so that the subtractions cost no precision.
fn flow_scores(maps: &[SaliencyMap], spans: &[ImageSpan]) -> Vec<Vec<[f64; 3]>> {
    let of = |map: &SaliencyMap, note: usize, span: &ImageSpan| {
        let size = map.seq * map.seq;
        let values = &map.values[note * size..(note + 1) * size];
        let sum = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>();
        let row = &values[span.final_position * map.seq..][..map.seq];
        let visual = sum(&row[span.start..=span.end]);
        let text = sum(row) - visual;
        let other = sum(values) - visual - text;
        let n_visual = (span.end - span.start + 1) as f64;
        let f = span.final_position as f64;
        [
            visual / n_visual,
            text / (f - n_visual),
            other / (f * (f - 1.0) / 2.0),
        ]
    };
    let note = |(note, span)| maps.iter().map(|map| of(map, note, span)).collect();
    spans.iter().enumerate().map(note).collect()
}
