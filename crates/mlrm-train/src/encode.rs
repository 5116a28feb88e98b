//! Embeddings of a whole corpus.

use burn::tensor::{DType, Tensor};
use mlrm_data::batch::NoteBatch;
use mlrm_data::loader::NoteEncoder;
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
    /// their length, so that little is padded; `progress` hears how many are done.
    ///
    /// # Errors
    /// Notes that cannot be encoded, a device that fails, and embeddings that are not finite
    /// ([`TrainError::Diverged`]).
    pub fn embed_corpus(
        &self,
        encoder: &NoteEncoder,
        rows: &[u32],
        batch_notes: usize,
        modality: Modality,
        progress: &mut dyn FnMut(usize),
    ) -> Result<CorpusEmbeddings, TrainError> {
        let width = self.config().embedding_size();
        let mut by_length: Vec<usize> = (0..rows.len()).collect();
        let text_length = |index: &usize| {
            let note = &encoder.notes()[rows[*index]];
            let topics: usize = note.topics.iter().map(String::len).sum();
            note.content.len() + note.title.len() + topics
        };
        by_length.sort_by_key(text_length);
        let mut multimodal = vec![0.0; rows.len() * width];
        let mut visual = None;
        let mut done = 0;
        for chunk in by_length.chunks(batch_notes.max(1)) {
            let chunk_rows: Vec<u32> = chunk.iter().map(|&index| rows[index]).collect();
            let (batch, batch_visual) = self.embed(encoder.encode_rows(&chunk_rows)?, modality)?;
            place(&mut multimodal, &batch, chunk, width);
            if let Some(batch) = batch_visual {
                let all = visual.get_or_insert_with(|| vec![0.0; rows.len() * width]);
                place(all, &batch, chunk, width);
            }
            done += chunk.len();
            progress(done);
        }
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
        })
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
