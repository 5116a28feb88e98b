//! The contrastive objective (method §3).

mod exclusions;

use std::ops::Range;

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Gradients, Int, Tensor, TensorData};
use mlrm_config::{ObjectiveKind, ObjectiveSettings};
use mlrm_model::embedder::Embeddings;

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

    /// `(α_m L(E_m) + α_v L(E_v)) / (α_m + α_v)`, or L(E_m) alone without mICL; in f32.
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
            let blocks = of_all.blocks(usize::MAX).into_iter();
            let parts = blocks.map(|rows| of_all.of_rows(e.clone(), temperature.clone(), rows));
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
            for rows in of_all.blocks(rows) {
                let leaf = e.clone().autodiff().require_grad();
                let of_block = of_all.of_rows(leaf.clone(), temperature.clone(), rows);
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
        let partner = Tensor::<2, Int>::from_data(partner, &device);
        let weights = TensorData::new(self.weights[rows].to_vec(), shape);
        let weights = Tensor::<2>::from_data(weights, &device).cast(DType::F32);
        (log_softmax(logits, 1).gather(1, partner) * weights)
            .sum()
            .neg()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

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
        let exclusions = Exclusions::false_negatives(&[7, 1, 7, 2, 3, 4], |note| match note {
            1 => &[4],
            _ => &[],
        });
        let excluded: Vec<bool> = (0..36).map(|n| exclusions.excludes(n / 6, n % 6)).collect();
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

    /// Rows at a time give the losses and the gradients of all at once, whatever divides whom.
    #[test]
    fn rows_at_a_time_are_all_rows() {
        let (notes, width) = (22, 5);
        let device = Device::flex();
        let values = |seed: usize| {
            let value = |n: usize| ((n * 7919 + seed * 104_729) % 1000) as f32 / 500.0 - 1.0;
            let data = TensorData::new(
                (0..notes * width).map(value).collect::<Vec<_>>(),
                [notes, width],
            );
            let all = Tensor::<2>::from_data(data, &device);
            let norms = all.clone().powi_scalar(2).sum_dim(1).sqrt();
            all / norms
        };
        let embeddings = Embeddings {
            multimodal: values(1),
            visual: Some(values(2)),
            gate: None,
        };
        let ids: Vec<u32> = (0..notes as u32).map(|n| n * n % 17).collect();
        let exclusions =
            Exclusions::false_negatives(&ids, |note| if note == 4 { &[1, 9] } else { &[] })
                .corrected((0..notes).map(|n| -(n as f32) / 9.0).collect())
                .without_pictures((0..notes).map(|n| n % 6 == 1).collect());
        for kind in [ObjectiveKind::OneTower, ObjectiveKind::Dual] {
            let objective = Objective {
                kind,
                multimodal_weight: 9.0,
                visual_weight: 1.0,
            };
            let run = |rows: usize| -> Vec<f32> {
                let t = Tensor::from_data([3.0_f32], &device)
                    .autodiff()
                    .require_grad();
                let mut of_t = 0.0;
                let mut others = |gradients: Gradients| {
                    of_t += t.grad(&gradients).unwrap().into_scalar::<f32>();
                };
                let (losses, gradients) =
                    objective.backward(&embeddings, t.clone(), &exclusions, rows, &mut others);
                let flat = |all: Tensor<2>| all.try_into_vec_as::<f32>().unwrap();
                let mut all = flat(gradients.multimodal);
                all.extend(flat(gradients.visual.unwrap()));
                let numbers = [losses.total, losses.multimodal, losses.visual.unwrap()];
                all.extend(numbers.map(|number| number.into_scalar::<f32>()));
                all.push(of_t);
                all
            };
            // The graph of all rows at once, by the other way.
            let leaf = |e: &Tensor<2>| e.clone().autodiff().require_grad();
            let leaves = Embeddings {
                multimodal: leaf(&embeddings.multimodal),
                visual: embeddings.visual.as_ref().map(leaf),
                gate: None,
            };
            let t = Tensor::from_data([3.0_f32], &device)
                .autodiff()
                .require_grad();
            let losses = objective.losses(&leaves, t.clone(), &exclusions);
            let gradients = losses.total.backward();
            let flat = |all: Tensor<2>| {
                all.grad(&gradients)
                    .unwrap()
                    .try_into_vec_as::<f32>()
                    .unwrap()
            };
            let mut expected = flat(leaves.multimodal);
            expected.extend(flat(leaves.visual.unwrap()));
            let numbers = [losses.total, losses.multimodal, losses.visual.unwrap()];
            expected.extend(numbers.map(|number| number.inner().into_scalar::<f32>()));
            expected.push(t.grad(&gradients).unwrap().into_scalar::<f32>());
            let largest = |all: &[f32]| all.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
            let of_gradients = largest(&expected[..2 * notes * width]);
            for rows in [1, 3, 4, 7, 11, 22, 100] {
                let found = run(rows);
                assert_eq!(found.len(), expected.len());
                for (at, (a, b)) in found.iter().zip(&expected).enumerate() {
                    let scale = if at < 2 * notes * width {
                        of_gradients
                    } else {
                        b.abs()
                    };
                    let error = (a - b).abs() / scale;
                    assert!(error <= 1e-6, "{kind:?}, {rows} rows, {at}: {a}, {b}");
                }
            }
        }
    }

    #[test]
    fn large_batches_hold_few_rows_of_their_logits() {
        assert_eq!(rows_at_a_time(2048), 2048);
        assert_eq!(rows_at_a_time(8192), 8192);
        assert_eq!(rows_at_a_time(16_384), 1024);
        assert_eq!(rows_at_a_time(1 << 25), 1);
    }
}
