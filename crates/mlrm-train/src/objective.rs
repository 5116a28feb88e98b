//! The contrastive objective (method §3).

use std::ops::Range;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, Device, Gradients, Int, Tensor, TensorData};
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

/// dL/dE, outside the autodiff graph.
#[derive(Debug, Clone)]
pub struct EmbeddingGradients {
    /// Of the multimodal embeddings, `[notes, e]`.
    pub multimodal: Tensor<2>,
    /// Of the visual ones, `[notes, e]`.
    pub visual: Option<Tensor<2>>,
}

/// Embeddings whose gradients a loss can be asked for, wherever they came from.
pub fn leaves(embeddings: &Embeddings) -> Embeddings {
    let leaf = |values: &Tensor<2>| values.clone().inner().autodiff().require_grad();
    Embeddings {
        multimodal: leaf(&embeddings.multimodal),
        visual: embeddings.visual.as_ref().map(leaf),
        gate: None,
    }
}

impl EmbeddingGradients {
    /// Takes the gradients of [`leaves`] out of `gradients`; zeros for what the loss does not read.
    pub fn take(leaves: &Embeddings, gradients: &mut Gradients) -> Self {
        let mut take = |leaf: &Tensor<2>| {
            let gradient = leaf.grad_remove(gradients);
            gradient.unwrap_or_else(|| leaf.clone().inner().zeros_like())
        };
        Self {
            multimodal: take(&leaves.multimodal),
            visual: leaves.visual.as_ref().map(take),
        }
    }

    /// Those of some notes.
    pub fn slice(&self, notes: Range<usize>) -> Self {
        let slice = |all: &Tensor<2>| all.clone().narrow(0, notes.start, notes.len());
        Self {
            multimodal: slice(&self.multimodal),
            visual: self.visual.as_ref().map(slice),
        }
    }
}

/// Which notes are not negatives of which, `[notes, notes]`, true where a pair does not count; and
/// how often each of the others is drawn, where that is corrected.
#[derive(Debug, Clone)]
pub struct Exclusions {
    mask: Vec<bool>,
    notes: usize,
    log_shares: Option<Vec<f32>>,
    /// Which notes have no picture; empty where none is without.
    by_text: Vec<bool>,
}

impl Exclusions {
    /// Only each note itself is excluded (the released code).
    pub fn diagonal(notes: usize) -> Self {
        let mask = (0..notes * notes).map(|n| n / notes == n % notes).collect();
        Self {
            mask,
            notes,
            log_shares: None,
            by_text: Vec::new(),
        }
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
        Self {
            mask,
            notes: count,
            log_shares: None,
            by_text: Vec::new(),
        }
    }

    /// With the logarithm of how often each note is drawn, `[notes]`, which is taken off its logits
    /// as a candidate.
    pub fn corrected(self, log_shares: Vec<f32>) -> Self {
        Self {
            log_shares: Some(log_shares),
            ..self
        }
    }

    /// With notes that have no picture, `[notes]`, or none of them: their visual embeddings are neither
    /// rows nor candidates of L(E_v).
    pub fn without_pictures(self, by_text: Vec<bool>) -> Self {
        Self { by_text, ..self }
    }

    /// The loss of embeddings that all have the same cosine: for each note the logarithm of the
    /// candidates that count, N of them without correction, mean over the notes.
    pub fn chance_loss(&self, kind: ObjectiveKind) -> f64 {
        let (notes, half) = (self.notes, self.notes / 2);
        let weight = |column: usize| match &self.log_shares {
            Some(log_shares) => (-f64::from(log_shares[column])).exp(),
            None => 1.0,
        };
        let weights: Vec<f64> = (0..notes).map(weight).collect();
        let loss = |row: usize| {
            let columns = match kind {
                ObjectiveKind::OneTower => 0..notes,
                ObjectiveKind::Dual if row < half => half..notes,
                ObjectiveKind::Dual => 0..half,
            };
            let excluded = &self.mask[row * notes..(row + 1) * notes];
            let candidates = columns.filter(|&column| !excluded[column]);
            let sum: f64 = candidates.map(|column| weights[column]).sum();
            sum.ln() - weights[(row + half) % notes].ln()
        };
        (0..notes).map(loss).sum::<f64>() / notes as f64
    }

    fn tensor(&self, device: &Device) -> Tensor<2, Bool> {
        let data = TensorData::new(self.mask.clone(), [self.notes, self.notes]);
        Tensor::from_data(data, device)
    }

    /// What does not count for the visual loss, and the weight of each row's loss, 0 where the note or
    /// its partner has no picture.
    fn visual(&self, device: &Device) -> (Tensor<2, Bool>, Option<Vec<f32>>) {
        if self.by_text.is_empty() {
            return (self.tensor(device), None);
        }
        let notes = self.notes;
        let mask = self.mask.iter().enumerate();
        let mask: Vec<bool> = mask
            .map(|(n, out)| *out || self.by_text[n % notes])
            .collect();
        let shown = |row: usize| !self.by_text[row] && !self.by_text[(row + notes / 2) % notes];
        let weights = (0..notes)
            .map(|row| f32::from(u8::from(shown(row))))
            .collect();
        let data = TensorData::new(mask, [notes, notes]);
        (Tensor::from_data(data, device), Some(weights))
    }

    /// What is taken off the logits of each candidate, `[1, notes]`.
    fn offsets(&self, device: &Device) -> Option<Tensor<2>> {
        let log_shares = self.log_shares.clone()?;
        let data = TensorData::new(log_shares, [1, self.notes]);
        Some(Tensor::from_data(data, device))
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
        let offsets = exclusions.offsets(&device);
        let loss = |e: &Tensor<2>, mask, weights: Option<Vec<f32>>| {
            let (e, temperature) = (e.clone(), temperature.clone());
            self.weighted(e, temperature, mask, offsets.clone(), weights.as_deref())
        };
        let multimodal = loss(&embeddings.multimodal, exclusions.tensor(&device), None);
        let visual = embeddings.visual.as_ref().map(|e| {
            let (mask, weights) = exclusions.visual(&device);
            loss(e, mask, weights)
        });
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
    /// `offsets`: taken off the logits of each candidate, `[1, notes]`; result `[1]`
    pub fn contrastive(
        &self,
        embeddings: Tensor<2>,
        temperature: Tensor<1>,
        excluded: Tensor<2, Bool>,
        offsets: Option<Tensor<2>>,
    ) -> Tensor<1> {
        self.weighted(embeddings, temperature, excluded, offsets, None)
    }

    /// As [`Self::contrastive`], the mean weighted by `weights` `[notes]`, 0 where all of them are 0.
    fn weighted(
        &self,
        embeddings: Tensor<2>,
        temperature: Tensor<1>,
        excluded: Tensor<2, Bool>,
        offsets: Option<Tensor<2>>,
        weights: Option<&[f32]>,
    ) -> Tensor<1> {
        let [notes, width] = embeddings.dims();
        let pairs = notes / 2;
        // t stays in f32 whatever the model's number format is.
        let scale = temperature.cast(embeddings.dtype()).exp().reshape([1, 1]);
        let offsets = offsets.map(|offsets| offsets.cast(embeddings.dtype()));
        let corrected = |logits: Tensor<2>, from, to| match &offsets {
            Some(offsets) => logits - offsets.clone().slice([0..1, from..to]),
            None => logits,
        };
        match self.kind {
            ObjectiveKind::OneTower => {
                let cosines = embeddings.clone().matmul(embeddings.transpose());
                let logits = cosines.mask_fill(excluded, EXCLUDED) * scale;
                let logits = corrected(logits, 0, notes);
                let partner = (0..notes).map(|row| (row + pairs) % notes).collect();
                cross_entropy(logits, partner, weights)
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
                let logits = corrected(logits, pairs, notes);
                let back = corrected(back, 0, pairs);
                let (first, second) = weights.map(|weights| weights.split_at(pairs)).unzip();
                let forward = cross_entropy(logits, partner.clone(), first);
                (forward + cross_entropy(back, partner, second)) * 0.5
            }
        }
    }
}

/// Mean cross entropy of `logits` `[rows, classes]` toward one class a row, weighted by `weights`
/// `[rows]`.
fn cross_entropy(logits: Tensor<2>, class: Vec<usize>, weights: Option<&[f32]>) -> Tensor<1> {
    let rows = class.len();
    let device = logits.device();
    let class: Vec<i64> = class.into_iter().map(|c| c as i64).collect();
    let class = Tensor::<2, Int>::from_data(TensorData::new(class, [rows, 1]), &device);
    let likelihoods = log_softmax(logits, 1).gather(1, class);
    let Some(weights) = weights else {
        return likelihoods.mean().neg();
    };
    let sum: f32 = weights.iter().sum();
    let weights: Vec<f32> = weights.iter().map(|weight| weight / sum.max(1.0)).collect();
    let data = TensorData::new(weights, [rows, 1]);
    let weights = Tensor::<2>::from_data(data, &device).cast(likelihoods.dtype());
    (likelihoods * weights).sum().neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loss of method §3 with shares, written out note by note.
    fn naive(kind: ObjectiveKind, e: &[[f64; 2]], t: f64, excluded: &[bool], log_q: &[f64]) -> f64 {
        let notes = e.len();
        let pairs = notes / 2;
        let logit = |row: usize, column: usize| {
            (e[row][0] * e[column][0] + e[row][1] * e[column][1]) * t.exp() - log_q[column]
        };
        let row_loss = |row: usize| {
            let partner = (row + pairs) % notes;
            let candidate = |column: &usize| {
                let other_side = (*column < pairs) != (row < pairs);
                !excluded[row * notes + column] && (kind == ObjectiveKind::OneTower || other_side)
            };
            let sum: f64 = (0..notes)
                .filter(candidate)
                .map(|c| logit(row, c).exp())
                .sum();
            sum.ln() - logit(row, partner)
        };
        (0..notes).map(row_loss).sum::<f64>() / notes as f64
    }

    /// Notes without a picture are as if they and their partners were not in the visual loss: what is
    /// left of the batch has the loss and the gradients that it has alone.
    #[test]
    fn notes_without_a_picture_take_no_part_in_the_visual_loss() {
        let angles = [0.1_f32, 0.9, 2.0, 0.3, 1.4, 2.2];
        let device = Device::flex().autodiff();
        let rows = |rows: &[usize]| -> Tensor<2> {
            let values = rows
                .iter()
                .flat_map(|&row| [angles[row].cos(), angles[row].sin()]);
            let data = TensorData::new(values.collect::<Vec<f32>>(), [rows.len(), 2]);
            Tensor::from_data(data, &device).require_grad()
        };
        for kind in [ObjectiveKind::OneTower, ObjectiveKind::Dual] {
            let objective = Objective {
                kind,
                multimodal_weight: 0.0,
                visual_weight: 1.0,
            };
            let run = |which: &[usize], by_text: Vec<bool>| {
                let visual = rows(which);
                let embeddings = Embeddings {
                    multimodal: rows(which),
                    visual: Some(visual.clone()),
                    gate: None,
                };
                let exclusions = Exclusions::diagonal(which.len()).without_pictures(by_text);
                let t = Tensor::from_data([1.5_f32], &device);
                let losses = objective.losses(&embeddings, t, &exclusions);
                let loss = losses.visual.unwrap();
                let gradients = loss.backward();
                let gradient = visual.grad(&gradients).unwrap();
                (
                    loss.into_scalar::<f32>(),
                    gradient.try_into_vec_as::<f32>().unwrap(),
                )
            };
            // Pairs are (0, 3), (1, 4), (2, 5): the second has a note without a picture.
            let by_text = vec![false, false, false, false, true, false];
            let (found, gradient) = run(&[0, 1, 2, 3, 4, 5], by_text);
            assert!(
                gradient[8..10].iter().all(|&value| value == 0.0),
                "{kind:?}"
            );
            // Note 1 is a candidate of the others still: compare with a batch that has it alone.
            let mut both = vec![false; 6];
            (both[1], both[4]) = (true, true);
            let (without, gradient) = run(&[0, 1, 2, 3, 4, 5], both);
            let (alone, expected) = run(&[0, 2, 3, 5], Vec::new());
            assert!(
                (without - alone).abs() < 1e-6,
                "{kind:?}: {without}, {alone}"
            );
            for (place, row) in [0, 2, 3, 5].into_iter().enumerate() {
                for axis in 0..2 {
                    let difference = gradient[2 * row + axis] - expected[2 * place + axis];
                    assert!(difference.abs() < 1e-6, "{kind:?}: {difference}");
                }
            }
            assert!(found > without, "{kind:?}: {found}, {without}");
            let (none, gradient) = run(&[0, 1, 2, 3, 4, 5], vec![true; 6]);
            assert!(none == 0.0 && gradient.iter().all(|&value| value == 0.0));
        }
    }

    #[test]
    fn shares_are_taken_off_the_logits_of_candidates() {
        let angles = [0.1_f64, 0.9, 2.0, 0.3, 1.4, 2.2];
        let e = angles.map(|angle| [angle.cos(), angle.sin()]);
        let log_q = [-2.0, -1.0, -3.5, -0.5, -2.5, -4.0];
        let exclusions = Exclusions::false_negatives(&[7, 1, 7, 2, 3, 4], |a, b| (a, b) == (1, 4));
        let excluded = exclusions.mask.clone();
        let device = Device::flex();
        let flat: Vec<f32> = e.iter().flatten().map(|&x| x as f32).collect();
        let multimodal = Tensor::from_data(TensorData::new(flat, [6, 2]), &device);
        for kind in [ObjectiveKind::OneTower, ObjectiveKind::Dual] {
            let objective = Objective {
                kind,
                multimodal_weight: 1.0,
                visual_weight: 0.0,
            };
            let loss = |exclusions: &Exclusions| -> f64 {
                let embeddings = Embeddings {
                    multimodal: multimodal.clone(),
                    visual: None,
                    gate: None,
                };
                let t = Tensor::from_data([1.5_f32], &device);
                let losses = objective.losses(&embeddings, t, exclusions);
                f64::from(losses.total.into_scalar::<f32>())
            };
            let corrected = exclusions
                .clone()
                .corrected(log_q.map(|x| x as f32).to_vec());
            for (found, log_q) in [(loss(&exclusions), [0.0; 6]), (loss(&corrected), log_q)] {
                let expected = naive(kind, &e, 1.5, &excluded, &log_q);
                assert!(
                    (found - expected).abs() < 1e-5,
                    "{kind:?}: {found}, {expected}"
                );
            }
        }
    }
}
