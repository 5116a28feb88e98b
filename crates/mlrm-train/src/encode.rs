//! Embeddings of a whole corpus.

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{DType, Tensor};
use mlrm_data::batch::NoteBatch;
use mlrm_data::loader::{Corpus, CorpusBatch, NoteEncoder};
use mlrm_eval::Embeddings;
use mlrm_model::embedder::{Embedder, EmbedderConfig, EmbedderCore, TokenBatch};
use mlrm_model::transfer;

use crate::corpus::Modality;
use crate::error::TrainError;
use crate::features::vision_features;

/// The prompts of a host batch, as the model takes them.
pub fn token_batch(batch: &NoteBatch) -> TokenBatch {
    TokenBatch {
        seq: batch.seq,
        input_ids: batch.input_ids.clone(),
        lengths: batch.lengths.clone(),
        image_index: batch.image_index.clone(),
        image_emb_index: batch.image_emb_index.clone(),
        by_text: batch.by_text.clone(),
    }
}

/// A model that only infers: no gradients are kept.
pub struct Inference {
    embedder: Embedder,
    core: EmbedderCore,
}

impl Inference {
    /// The current weights of `embedder`.
    pub fn new(embedder: &Embedder) -> Self {
        Self {
            embedder: embedder.clone(),
            core: embedder.inference(),
        }
    }

    /// The model.
    pub fn embedder(&self) -> &Embedder {
        &self.embedder
    }

    /// Sizes and options of the model.
    pub fn config(&self) -> &EmbedderConfig {
        &self.embedder.config
    }

    /// τ = exp(−t): logits are cosines over it (method §3).
    ///
    /// # Errors
    /// A device that cannot be read.
    pub fn temperature(&self) -> Result<f64, TrainError> {
        let logit = self.core.head.temperature.val().cast(DType::F32);
        let logit = logit
            .try_into_vec_as::<f32>()
            .map_err(|e| TrainError::device("the temperature cannot be read from the device", e))?;
        Ok((-f64::from(logit[0])).exp())
    }

    /// Multimodal and, with mICL, visual embeddings of a batch, row-major.
    ///
    /// # Errors
    /// Inputs that the model does not take; a device that fails.
    pub fn embed(
        &self,
        mut batch: NoteBatch,
        modality: Modality,
    ) -> Result<(Vec<f32>, Option<Vec<f32>>), TrainError> {
        let features = vision_features(&self.embedder, &mut batch)?;
        let config = self.config();
        let picture_only = modality == Modality::ImageOnly && !config.variant.image_tokens();
        if let (true, Some(features)) = (picture_only, &features) {
            return Ok((read(self.core.forward_picture(features.clone())?)?, None));
        }
        let embeddings = self
            .core
            .forward(config, &token_batch(&batch), features, None)?;
        let visual = embeddings.visual.map(read).transpose()?;
        Ok((read(embeddings.multimodal)?, visual))
    }

    /// Embeddings of `rows` of the encoder's notes, in that order. Rows are encoded in the order of
    /// their length, so that little is padded, and read, decoded and prepared while the batches before are
    /// computed; `progress` hears how many are done, and where the time went.
    ///
    /// # Errors
    /// Notes that cannot be encoded, a device that fails, and embeddings that are not finite
    /// ([`TrainError::Diverged`]).
    pub fn embed_corpus(
        &self,
        encoder: &Arc<NoteEncoder>,
        rows: &[u32],
        batch_notes: usize,
        modality: Modality,
        progress: &mut dyn FnMut(usize, &EmbedSeconds),
    ) -> Result<CorpusEmbeddings, TrainError> {
        let width = self.config().embedding_size();
        let mut multimodal = vec![0.0; rows.len() * width];
        let mut visual = None;
        let mut done = 0;
        let batches = Corpus::batches(encoder, rows, batch_notes)?;
        let seconds = each_timed(batches, |CorpusBatch { places, notes }, seconds| {
            let (batch, batch_visual) = self.embed(notes, modality)?;
            place(&mut multimodal, &batch, &places, width);
            if let Some(batch) = batch_visual {
                let all = visual.get_or_insert_with(|| vec![0.0; rows.len() * width]);
                place(all, &batch, &places, width);
            }
            done += places.len();
            progress(done, seconds);
            Ok(())
        })?;
        let ids = || {
            rows.iter()
                .map(|&row| encoder.notes()[row].id.clone())
                .collect()
        };
        Ok(CorpusEmbeddings {
            multimodal: embeddings(ids(), width, multimodal)?,
            visual: visual
                .map(|values| embeddings(ids(), width, values))
                .transpose()?,
            seconds,
        })
    }
}

/// Where the time of embedding goes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EmbedSeconds {
    /// Seconds in which the device waited for notes: their texts and pictures were not read, decoded and
    /// prepared yet.
    pub waiting: f64,
    /// Seconds in which it computed, or was handed what it computes.
    pub computing: f64,
}

impl EmbedSeconds {
    /// The share of the time in which the device waited for notes.
    pub fn share_waiting(&self) -> f64 {
        match self.waiting + self.computing {
            0.0 => 0.0,
            all => self.waiting / all,
        }
    }
}

impl std::ops::AddAssign for EmbedSeconds {
    fn add_assign(&mut self, other: Self) {
        self.waiting += other.waiting;
        self.computing += other.computing;
    }
}

/// Hands every batch to `compute`, with the seconds up to it, and tells where the time went.
fn each_timed<T, E>(
    mut batches: impl Iterator<Item = Result<T, E>>,
    mut compute: impl FnMut(T, &EmbedSeconds) -> Result<(), TrainError>,
) -> Result<EmbedSeconds, TrainError>
where
    TrainError: From<E>,
{
    let mut seconds = EmbedSeconds::default();
    let mut last = Instant::now();
    let mut lap = || {
        let begun = std::mem::replace(&mut last, Instant::now());
        last.duration_since(begun).as_secs_f64()
    };
    loop {
        let batch = batches.next();
        seconds.waiting += lap();
        let Some(batch) = batch else {
            return Ok(seconds);
        };
        compute(batch?, &seconds)?;
        seconds.computing += lap();
    }
}

/// [`Embeddings::new`] for what a model gave: numbers that are none are the model's fault, and said so.
fn embeddings(ids: Vec<String>, width: usize, values: Vec<f32>) -> Result<Embeddings, TrainError> {
    Embeddings::new(ids, width, values).map_err(|error| match error {
        mlrm_eval::Error::NotFinite { id, value, .. } => TrainError::Diverged(format!(
            "the model has diverged: the embedding of note {id:?} is {value}; go back to an earlier \
             checkpoint, or train with a lower `train.learning_rate`, a larger `train.warmup_ratio` \
             or a smaller `train.clip_norm`"
        )),
        other => other.into(),
    })
}

/// Embeddings of a corpus.
#[derive(Debug, Clone)]
pub struct CorpusEmbeddings {
    /// What retrieval uses.
    pub multimodal: Embeddings,
    /// The visual ones, with mICL.
    pub visual: Option<Embeddings>,
    /// Where the time went.
    pub seconds: EmbedSeconds,
}

fn place(all: &mut [f32], batch: &[f32], rows: &[usize], width: usize) {
    for (values, &row) in batch.chunks_exact(width).zip(rows) {
        all[row * width..(row + 1) * width].copy_from_slice(values);
    }
}

fn read(tensor: Tensor<2>) -> Result<Vec<f32>, TrainError> {
    transfer::read(tensor)
        .map_err(|e| TrainError::device("embeddings cannot be read from the device", e))
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use mlrm_data::DataError;
    use mlrm_data::loader::Ahead;

    use super::*;

    #[test]
    fn reading_that_is_no_slower_than_the_device_is_not_waited_for() {
        let pause = Duration::from_millis(8);
        let seconds = |read_ahead: usize| {
            let reading = (0..25).map(move |batch| {
                sleep(pause);
                Ok::<usize, DataError>(batch)
            });
            let batches = Ahead::new(reading, read_ahead, Arc::default()).unwrap();
            let mut heard = Vec::new();
            let seconds = each_timed(batches, |batch, _| {
                sleep(pause + pause / 2);
                heard.push(batch);
                Ok(())
            });
            assert_eq!(heard, (0..25).collect::<Vec<_>>());
            seconds.unwrap()
        };
        // Read when it is needed, all of the reading is waited for; ahead of it, that of the first batch.
        let (apart, ahead) = (seconds(0), seconds(3));
        assert!(apart.waiting >= 25.0 * pause.as_secs_f64(), "{apart:?}");
        assert!(ahead.waiting < 0.4 * apart.waiting, "{ahead:?} {apart:?}");
        assert!(ahead.share_waiting() < 0.25, "{ahead:?}");
        assert!(ahead.computing >= 37.5 * pause.as_secs_f64(), "{ahead:?}");
    }
}
