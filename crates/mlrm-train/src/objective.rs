//! The contrastive objective (method §3).

mod exclusions;
#[cfg(test)]
mod tests;

use std::ops::Range;

use mlrm_model::transfer::upload;

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Gradients, Int, Tensor, TensorData};
use mlrm_config::{ObjectiveKind, ObjectiveSettings};
use mlrm_model::embedder::{Embeddings, normalise};

pub use exclusions::Exclusions;

/// What stands in for an excluded cosine: far below −1, and finite, because −∞ · exp(t) would make
/// the gradient of t NaN.
const EXCLUDED: f64 = -1e4;

/// The losses of a batch, scalars `[1]`.
#[derive(Debug, Clone)]
pub struct Losses {
    /// What is minimised.
    pub total: Tensor<1>,
    /// L(E_m).
    pub multimodal: Tensor<1>,
    /// L(E_v), with mICL only.
    pub visual: Option<Tensor<1>>,
}

/// dL/dE, outside the autodiff graph.
#[derive(Debug, Clone)]
pub struct EmbeddingGradients {
    /// Of the multimodal embeddings, `[notes, e]`.
    pub multimodal: Tensor<2>,
    /// Of the visual ones, `[notes, e]`.
    pub visual: Option<Tensor<2>>,
}

impl EmbeddingGradients {
    /// Those of some notes.
    pub fn slice(&self, notes: Range<usize>) -> Self {
        let slice = |all: &Tensor<2>| all.clone().narrow(0, notes.start, notes.len());
        Self {
            multimodal: slice(&self.multimodal),
            visual: self.visual.as_ref().map(slice),
        }
    }

    /// The same on `device`.
    pub fn to_device(self, device: &Device) -> Self {
        Self {
            multimodal: self.multimodal.to_device(device),
            visual: self.visual.map(|all| all.to_device(device)),
        }
    }
}

/// The objective with its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// Which notes are negatives.
    pub kind: ObjectiveKind,
    /// α_m.
    pub multimodal_weight: f64,
    /// α_v.
    pub visual_weight: f64,
    /// Leading parts of the embeddings that are trained as embeddings of their own (Matryoshka).
    pub prefixes: Vec<Prefix>,
}

/// The first dimensions of an embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prefix {
    /// How many.
    pub dim: usize,
    /// Weight of their loss; that of the whole embedding has 1, unless it is listed too.
    pub weight: f64,
}

impl Objective {
    /// The objective of a config section.
    pub fn from_settings(settings: &ObjectiveSettings) -> Self {
        Self {
            kind: settings.kind,
            multimodal_weight: settings.multimodal_weight,
            visual_weight: settings.visual_weight,
            prefixes: Prefix::of_settings(settings),
        }
    }

    /// Each prefix of embeddings of `size` dimensions, the whole included, with its share in a loss.
    fn prefixes(&self, size: usize) -> Vec<Prefix> {
        let mut all = self.prefixes.clone();
        if all.iter().all(|prefix| prefix.dim != size) {
            all.push(Prefix {
                dim: size,
                weight: 1.0,
            });
        }
        let sum: f64 = all.iter().map(|prefix| prefix.weight).sum();
        for prefix in &mut all {
            prefix.weight /= sum;
        }
        all
    }

    /// L(E_m) of `multimodal` alone, `[notes, e]`, where all other notes are negatives; `temperature`: t, `[1]`.
    pub fn alone(&self, multimodal: Tensor<2>, temperature: Tensor<1>) -> Tensor<1> {
        let exclusions = Exclusions::diagonal(multimodal.dims()[0]);
        let alone = Embeddings {
            multimodal,
            visual: None,
            gate: None,
        };
        self.losses(&alone, temperature, &exclusions).total
    }

    /// `(α_m L(E_m) + α_v L(E_v)) / (α_m + α_v)`, or L(E_m) alone without mICL; in f32. With several sizes of
    /// embeddings (Matryoshka) each L(E) is the weighted mean over them.
    ///
    /// `temperature`: t, `[1]`.
    pub fn losses(
        &self,
        embeddings: &Embeddings,
        temperature: Tensor<1>,
        exclusions: &Exclusions,
    ) -> Losses {
        let loss = |e: &Tensor<2>, visual| {
            let of_all = OneLoss::new(self.kind, exclusions, visual, e.dims()[0]);
            let blocks = of_all.blocks(usize::MAX);
            let prefixes = self.prefixes(e.dims()[1]).into_iter();
            let parts = prefixes.flat_map(|prefix| {
                let cut = prefix.of(e.clone());
                let part = |rows: &Range<usize>| {
                    of_all.of_rows(cut.clone(), temperature.clone(), rows.clone()) * prefix.weight
                };
                blocks.iter().map(part).collect::<Vec<_>>()
            });
            parts
                .reduce(|a, b| a + b)
                .unwrap_or_else(|| temperature.zeros_like())
        };
        let multimodal = loss(&embeddings.multimodal, false);
        let visual = embeddings.visual.as_ref().map(|e| loss(e, true));
        let total = self.total(multimodal.clone(), visual.clone());
        Losses {
            total,
            multimodal,
            visual,
        }
    }

    /// [`Self::losses`], and their gradients: those of the embeddings are given back, `others` is given
    /// what else they are gradients of. Nothing of `[notes, notes]` is held: the logits are computed
    /// for `rows` notes at a time, and again for the next ones.
    ///
    /// `embeddings`: outside the autodiff graph; `temperature`: t, `[1]`, inside it.
    pub fn backward(
        &self,
        embeddings: &Embeddings,
        temperature: Tensor<1>,
        exclusions: &Exclusions,
        rows: usize,
        others: &mut dyn FnMut(Gradients),
    ) -> (Losses, EmbeddingGradients) {
        let mut backward = |e: &Tensor<2>, visual, share: f64| {
            let of_all = OneLoss::new(self.kind, exclusions, visual, e.dims()[0]);
            let mut loss = temperature.clone().inner().cast(DType::F32).zeros_like();
            let mut sum = e.zeros_like();
            let blocks = of_all.blocks(rows);
            let prefixes = self.prefixes(e.dims()[1]);
            let parts = prefixes
                .iter()
                .flat_map(|p| blocks.iter().map(move |rows| (p, rows)));
            for (prefix, rows) in parts {
                let leaf = e.clone().autodiff().require_grad();
                let cut = prefix.of(leaf.clone());
                let of_block =
                    of_all.of_rows(cut, temperature.clone(), rows.clone()) * prefix.weight;
                loss = loss + of_block.clone().inner();
                let mut gradients = (of_block * share).backward();
                if let Some(gradient) = leaf.grad_remove(&mut gradients) {
                    sum = sum + gradient;
                }
                others(gradients);
            }
            (loss, sum)
        };
        let [share, visual_share] = self.shares(embeddings.visual.is_some());
        let (multimodal, of_multimodal) = backward(&embeddings.multimodal, false, share);
        let visual = embeddings.visual.as_ref();
        let visual = visual.map(|e| backward(e, true, visual_share));
        let (visual, of_visual) = visual.unzip();
        let losses = Losses {
            total: self.total(multimodal.clone(), visual.clone()),
            multimodal,
            visual,
        };
        let gradients = EmbeddingGradients {
            multimodal: of_multimodal,
            visual: of_visual,
        };
        (losses, gradients)
    }

    fn total(&self, multimodal: Tensor<1>, visual: Option<Tensor<1>>) -> Tensor<1> {
        let [share, visual_share] = self.shares(visual.is_some());
        match visual {
            None => multimodal,
            Some(visual) => multimodal * share + visual * visual_share,
        }
    }

    /// Of the two losses in what is minimised.
    fn shares(&self, has_visual: bool) -> [f64; 2] {
        let sum = self.multimodal_weight + self.visual_weight;
        match has_visual {
            true => [self.multimodal_weight / sum, self.visual_weight / sum],
            false => [1.0, 0.0],
        }
    }
}

impl Prefix {
    /// Those of a config section.
    fn of_settings(settings: &ObjectiveSettings) -> Vec<Self> {
        let weights = settings.matryoshka_weights.iter().flatten().copied();
        let weights = weights.chain(std::iter::repeat(1.0));
        let dims = settings.matryoshka_dims.iter().zip(weights);
        dims.map(|(&dim, weight)| Self { dim, weight }).collect()
    }

    /// `[notes, e]` → `[notes, dim]`, normalised
    fn of(&self, embeddings: Tensor<2>) -> Tensor<2> {
        match embeddings.dims()[1] == self.dim {
            true => embeddings,
            false => normalise(embeddings.narrow(1, 0, self.dim)),
        }
    }
}

/// Rows of logits that fit into what a loss may hold of them (64 MiB a tensor), once a batch has more
/// than 8,192 notes; all of them before.
pub fn rows_at_a_time(notes: usize) -> usize {
    const DIRECT_NOTES: usize = 8192;
    const LOGITS: usize = 1 << 24;
    match notes > DIRECT_NOTES {
        true => (LOGITS / notes).max(1),
        false => notes,
    }
}

/// One of the two losses of a batch: the mean cross entropy of each note toward its partner among the
/// notes that count as negatives.
struct OneLoss<'a> {
    kind: ObjectiveKind,
    exclusions: &'a Exclusions,
    visual: bool,
    /// What the loss of each note is multiplied by, so that the sum is the mean. `[notes]`
    weights: Vec<f32>,
}

impl<'a> OneLoss<'a> {
    fn new(kind: ObjectiveKind, exclusions: &'a Exclusions, visual: bool, notes: usize) -> Self {
        let mut weights = exclusions.weights(visual);
        // Each direction is a mean of its own, 0 where nothing counts in it.
        let (means, share) = match kind {
            ObjectiveKind::OneTower => (notes, 1.0),
            ObjectiveKind::Dual => (notes / 2, 0.5),
        };
        for weights in weights.chunks_mut(means.max(1)) {
            let sum: f32 = weights.iter().sum();
            for weight in weights {
                *weight *= share / sum.max(1.0);
            }
        }
        Self {
            kind,
            exclusions,
            visual,
            weights,
        }
    }

    /// All notes, `rows` at a time; those of a block have the same candidates.
    fn blocks(&self, rows: usize) -> Vec<Range<usize>> {
        let notes = self.weights.len();
        let ends = match self.kind {
            ObjectiveKind::OneTower => [0, notes],
            ObjectiveKind::Dual => [notes / 2, notes],
        };
        let mut blocks = Vec::new();
        let mut start = 0;
        for end in ends {
            while start < end {
                let block = start..end.min(start.saturating_add(rows.max(1)));
                start = block.end;
                blocks.push(block);
            }
        }
        blocks
    }

    /// The share of `rows` in the loss, `[1]`, in f32: rounding of logits is multiplied by exp(t).
    ///
    /// # Shapes
    /// `embeddings`: normalised, `[notes, e]`, queries first
    fn of_rows(
        &self,
        embeddings: Tensor<2>,
        temperature: Tensor<1>,
        rows: Range<usize>,
    ) -> Tensor<1> {
        let [notes, _] = embeddings.dims();
        let pairs = notes / 2;
        let device = embeddings.device().without_autodiff();
        let candidates = match self.kind {
            ObjectiveKind::OneTower => 0..notes,
            ObjectiveKind::Dual if rows.start < pairs => pairs..notes,
            ObjectiveKind::Dual => 0..pairs,
        };
        let embeddings = embeddings.cast(DType::F32);
        let of = |range: &Range<usize>| embeddings.clone().narrow(0, range.start, range.len());
        let excluded = self
            .exclusions
            .mask(rows.clone(), candidates.clone(), self.visual, &device);
        let cosines = of(&rows).matmul(of(&candidates).transpose());
        let scale = temperature.cast(DType::F32).exp().reshape([1, 1]);
        let mut logits = cosines.mask_fill(excluded, EXCLUDED) * scale;
        if let Some(offsets) = self.exclusions.offsets(candidates.clone(), &device) {
            logits = logits - offsets;
        }
        let partner = rows
            .clone()
            .map(|row| ((row + pairs) % notes - candidates.start) as i64);
        let shape = [rows.len(), 1];
        let partner = TensorData::new(partner.collect::<Vec<_>>(), shape);
        let partner = upload::<2, Int>(partner, &device);
        let weights = TensorData::new(self.weights[rows].to_vec(), shape);
        let weights = upload::<2, burn::tensor::Float>(weights, &device).cast(DType::F32);
        (log_softmax(logits, 1).gather(1, partner) * weights)
            .sum()
            .neg()
    }
}
