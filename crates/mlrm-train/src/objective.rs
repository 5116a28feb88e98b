//! The contrastive objective (method §3).

use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use mlrm_config::{ObjectiveKind, ObjectiveSettings};
use mlrm_model::embedder::Embeddings;

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

/// Which notes are not negatives of which, `[notes, notes]`, true where a pair does not count.
#[derive(Debug, Clone)]
pub struct Exclusions {
    mask: Vec<bool>,
    notes: usize,
}

impl Exclusions {
    /// Only each note itself is excluded (the released code).
    pub fn diagonal(notes: usize) -> Self {
        let mask = (0..notes * notes).map(|n| n / notes == n % notes).collect();
        Self { mask, notes }
    }

    /// Each note itself, its duplicates, its known partners and their duplicates are excluded; the
    /// row's own partner always counts.
    ///
    /// `notes`: identity of each row, queries first, then their targets in the same order;
    /// `partners(a, b)`: whether b is a known partner of a, in either order.
    pub fn false_negatives(notes: &[u32], partners: impl Fn(u32, u32) -> bool) -> Self {
        let count = notes.len();
        let excluded = |row: usize, column: usize| {
            let partner = (row + count / 2) % count;
            let (a, b) = (notes[row], notes[column]);
            let duplicate = a == b || b == notes[partner];
            row == column || (column != partner && (duplicate || partners(a, b)))
        };
        let mask = (0..count * count)
            .map(|n| excluded(n / count, n % count))
            .collect();
        Self { mask, notes: count }
    }

    fn tensor(&self, device: &Device) -> Tensor<2, Bool> {
        let data = TensorData::new(self.mask.clone(), [self.notes, self.notes]);
        Tensor::from_data(data, device)
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
}

impl Objective {
    /// The objective of a config section.
    pub fn from_settings(settings: &ObjectiveSettings) -> Self {
        Self {
            kind: settings.kind,
            multimodal_weight: settings.multimodal_weight,
            visual_weight: settings.visual_weight,
        }
    }

    /// `(α_m L(E_m) + α_v L(E_v)) / (α_m + α_v)`, or L(E_m) alone without mICL.
    ///
    /// `temperature`: t, `[1]`.
    pub fn losses(
        &self,
        embeddings: &Embeddings,
        temperature: Tensor<1>,
        exclusions: &Exclusions,
    ) -> Losses {
        let device = embeddings.multimodal.device().without_autodiff();
        let mask = exclusions.tensor(&device);
        let loss = |e: &Tensor<2>| self.contrastive(e.clone(), temperature.clone(), mask.clone());
        let multimodal = loss(&embeddings.multimodal);
        let visual = embeddings.visual.as_ref().map(loss);
        let total = match &visual {
            None => multimodal.clone(),
            Some(visual) => {
                let sum = self.multimodal_weight + self.visual_weight;
                multimodal.clone() * (self.multimodal_weight / sum)
                    + visual.clone() * (self.visual_weight / sum)
            }
        };
        Losses {
            total,
            multimodal,
            visual,
        }
    }

    /// Cross entropy of each note toward its partner among the notes that count as negatives.
    ///
    /// # Shapes
    /// `embeddings`: normalised, `[notes, e]`, queries first; `excluded`: `[notes, notes]`;
    /// result `[1]`
    pub fn contrastive(
        &self,
        embeddings: Tensor<2>,
        temperature: Tensor<1>,
        excluded: Tensor<2, Bool>,
    ) -> Tensor<1> {
        let [notes, width] = embeddings.dims();
        let pairs = notes / 2;
        // t stays in f32 whatever the model's number format is.
        let scale = temperature.cast(embeddings.dtype()).exp().reshape([1, 1]);
        match self.kind {
            ObjectiveKind::OneTower => {
                let cosines = embeddings.clone().matmul(embeddings.transpose());
                let logits = cosines.mask_fill(excluded, EXCLUDED) * scale;
                let partner = (0..notes).map(|row| (row + pairs) % notes).collect();
                cross_entropy(logits, partner)
            }
            ObjectiveKind::Dual => {
                let queries = embeddings.clone().slice([0..pairs, 0..width]);
                let targets = embeddings.slice([pairs..notes, 0..width]);
                let cosines = queries.matmul(targets.transpose());
                let forward = excluded.clone().slice([0..pairs, pairs..notes]);
                let backward = excluded.slice([pairs..notes, 0..pairs]);
                let partner: Vec<usize> = (0..pairs).collect();
                let logits = cosines.clone().mask_fill(forward, EXCLUDED) * scale.clone();
                let back = cosines.transpose().mask_fill(backward, EXCLUDED) * scale;
                (cross_entropy(logits, partner.clone()) + cross_entropy(back, partner)) * 0.5
            }
        }
    }
}

/// Mean cross entropy of `logits` `[rows, classes]` toward one class a row.
fn cross_entropy(logits: Tensor<2>, class: Vec<usize>) -> Tensor<1> {
    let rows = class.len();
    let device = logits.device();
    let class: Vec<i64> = class.into_iter().map(|c| c as i64).collect();
    let class = Tensor::<2, Int>::from_data(TensorData::new(class, [rows, 1]), &device);
    log_softmax(logits, 1).gather(1, class).mean().neg()
}
