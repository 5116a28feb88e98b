//! Figures of how the embeddings of a fixed batch of pairs lie to each other.

use std::time::Instant;

use burn::tensor::{DType, Tensor};
use mlrm_config::RunConfig;
use mlrm_data::batch::NoteBatch;
use mlrm_data::loader::NoteEncoder;
use mlrm_data::split::{Pair, PairData};
use mlrm_eval::spread;
use mlrm_events::EmbeddingProbe as Figures;
use mlrm_model::embedder::Embedder;
use mlrm_model::vision::VisionFeatures;

use crate::encode::token_batch;
use crate::error::TrainError;
use crate::features::vision_features;

/// Embeds a fixed set of pairs and measures how they lie.
pub struct EmbeddingProbe {
    /// Queries, then their targets.
    batch: NoteBatch,
    /// Whether two of the notes are the same or known partners, `[notes, notes]`.
    related: Vec<bool>,
    /// Notes embedded at a time.
    slice_notes: usize,
    every_steps: usize,
    /// What the frozen encoder makes of the pictures; read at first use.
    features: Option<VisionFeatures>,
}

impl EmbeddingProbe {
    /// A probe over pairs spread evenly over `pairs`; `None` where there are not two.
    ///
    /// # Errors
    /// Notes that make no batch.
    pub fn new(
        encoder: &NoteEncoder,
        pairs: &[Pair],
        data: &PairData,
        config: &RunConfig,
    ) -> Result<Option<Self>, TrainError> {
        let count = (config.train.probe_notes / 2).min(pairs.len());
        if count < 2 {
            return Ok(None);
        }
        let chosen: Vec<Pair> = (0..count)
            .map(|at| pairs[at * pairs.len() / count])
            .collect();
        let queries = chosen.iter().map(|pair| pair.query);
        let rows: Vec<u32> = queries
            .chain(chosen.iter().map(|pair| pair.target))
            .collect();
        let all = &data.pairs;
        let known = all.train.iter().chain(&all.validation).chain(&all.test);
        let among = |row: &u32| rows.contains(row);
        let known: std::collections::HashSet<(u32, u32)> = known
            .filter(|pair| among(&pair.query) && among(&pair.target))
            .map(|pair| (pair.query.min(pair.target), pair.query.max(pair.target)))
            .collect();
        let related = |a: u32, b: u32| a == b || known.contains(&(a.min(b), a.max(b)));
        let of_row = |&a: &u32| rows.iter().map(move |&b| (a, b));
        Ok(Some(Self {
            related: rows
                .iter()
                .flat_map(of_row)
                .map(|(a, b)| related(a, b))
                .collect(),
            batch: encoder.encode_rows(&rows)?,
            slice_notes: config.eval.batch_notes.max(1),
            every_steps: config.train.probe_every_steps,
            features: None,
        }))
    }

    /// Whether it is due after `step`.
    pub fn is_due(&self, step: usize) -> bool {
        self.every_steps > 0 && step.is_multiple_of(self.every_steps)
    }

    /// The figures of `embedder` after `step`; none where embeddings are not finite.
    ///
    /// # Errors
    /// A device that failed.
    pub fn measure(
        &mut self,
        step: usize,
        embedder: &Embedder,
    ) -> Result<Option<Figures>, TrainError> {
        let start = Instant::now();
        let features = self.features(embedder)?;
        let (own, gate_mean) = self.embed(embedder, features.clone())?;
        let width = embedder.config.embedding_size();
        if own.iter().any(|value| !value.is_finite()) {
            return Ok(None);
        }
        let found = spread(&own, width, &self.related);
        let picture_share = match features {
            None => None,
            Some(features) => {
                let (others, _) = self.embed(embedder, Some(shifted(features)))?;
                Some(picture_share(
                    &own,
                    &others,
                    width,
                    found.negative_similarity,
                ))
            }
        };
        let temperature = embedder.core.head.temperature.val().inner();
        let temperature_logit = read(temperature.reshape([1, 1]))?[0];
        Ok(Some(Figures {
            step: step as u64,
            notes: self.batch.notes as u64,
            positive_similarity: found.positive_similarity,
            negative_similarity: found.negative_similarity,
            effective_rank: found.effective_rank,
            uniformity: found.uniformity,
            alignment: found.alignment,
            picture_share,
            gate_mean,
            temperature_logit: f64::from(temperature_logit),
            seconds: start.elapsed().as_secs_f64(),
        }))
    }

    /// Features of all notes of the batch, computed once: the encoder is frozen.
    fn features(&mut self, embedder: &Embedder) -> Result<Option<VisionFeatures>, TrainError> {
        if self.features.is_none() {
            self.features = vision_features(embedder, &mut self.batch)?;
        }
        Ok(self.features.clone())
    }

    /// Embeddings `[notes, e]`, row-major, and the mean of the gate.
    fn embed(
        &self,
        embedder: &Embedder,
        features: Option<VisionFeatures>,
    ) -> Result<(Vec<f32>, Option<f64>), TrainError> {
        let core = embedder.inference();
        let (mut values, mut gates) = (Vec::new(), Vec::new());
        for start in (0..self.batch.notes).step_by(self.slice_notes) {
            let end = self.batch.notes.min(start + self.slice_notes);
            let tokens = token_batch(&self.batch.slice(start..end));
            let features = features.clone().map(|features| features.slice(start..end));
            let embedded = core.forward(&embedder.config, &tokens, features, None)?;
            values.extend(read(embedded.multimodal)?);
            if let Some(gate) = embedded.gate {
                gates.extend(read(gate)?);
            }
        }
        let sum: f64 = gates.iter().map(|&gate| f64::from(gate)).sum();
        let gate_mean = (!gates.is_empty()).then(|| sum / gates.len() as f64);
        Ok((values, gate_mean))
    }
}

/// The features of the note before, for each note: never those of a partner, where there are more than
/// two notes.
fn shifted(features: VisionFeatures) -> VisionFeatures {
    let notes = features.summary.dims()[0];
    let order: Vec<usize> = (0..notes).map(|note| (note + notes - 1) % notes).collect();
    features.select(&order)
}

/// How far embeddings move when notes show the pictures of others, as a share of how far notes that are
/// not related lie apart: `(1 − E cos(own, other's)) / (1 − E cos of negatives)`.
fn picture_share(own: &[f32], others: &[f32], width: usize, negative: f64) -> f64 {
    let rows = own.chunks_exact(width).zip(others.chunks_exact(width));
    let cosine = |(a, b): (&[f32], &[f32])| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    let (sum, count) = rows
        .map(cosine)
        .fold((0.0, 0), |(sum, count), c| (sum + c, count + 1));
    let moved = (1.0 - sum / f64::from(count.max(1))).max(0.0);
    moved / (1.0 - negative).max(f64::EPSILON)
}

fn read(tensor: Tensor<2>) -> Result<Vec<f32>, TrainError> {
    let values = tensor.cast(DType::F32).try_into_vec_as::<f32>();
    values.map_err(|e| TrainError::device("the probe cannot be read from the device", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_that_is_not_read_has_no_share() {
        let own = [1.0, 0.0, 0.0, 1.0];
        assert_eq!(picture_share(&own, &own, 2, 0.0), 0.0);
        // Embeddings that swap places with their pictures are those of the pictures.
        assert_eq!(picture_share(&own, &[0.0, 1.0, 1.0, 0.0], 2, 0.0), 1.0);
    }
}
