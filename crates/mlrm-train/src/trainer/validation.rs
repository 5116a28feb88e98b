//! The choice of the best checkpoint.

use mlrm_events::{Evaluation, Event, Split};

use super::{Trainer, event_slices};
use crate::corpus::Modality;
use crate::encode::{EmbedSeconds, Inference};
use crate::error::TrainError;

impl Trainer<'_> {
    /// Measures the step on the validation notes, where that is due and was not done yet.
    pub(super) fn validate_due(&mut self) -> Result<(), TrainError> {
        match self.state.validation_due {
            true => self.validate(),
            false => Ok(()),
        }
    }

    /// Measures the model on the validation notes, where there are any, and saves it where it is the
    /// best so far.
    pub(super) fn validate(&mut self) -> Result<(), TrainError> {
        let Some(retrieval) = &self.retrieval else {
            self.state.validation_due = false;
            return Ok(());
        };
        let model = Inference::new(&self.plan.embedder);
        let eval = &self.plan.config.eval;
        let rows: Vec<u32> = (0..self.plan.notes.set.len() as u32).collect();
        let (batch, mut quiet) = (eval.batch_notes, |_, _: &EmbedSeconds| {});
        let embedded = model.embed_corpus(&self.encoder, &rows, batch, Modality::Both, &mut quiet);
        let embeddings = match embedded {
            Err(TrainError::Diverged(_)) => {
                return self.retreat("embeddings of the validation notes are not finite");
            }
            embeddings => embeddings?,
        };
        let slices = retrieval.measure(&model, &embeddings.multimodal, None)?;
        let geometry = retrieval.geometry(&embeddings.multimodal)?;
        let key = format!("recall@{}", selection_cutoff(&eval.k));
        let score = slices.get("all").and_then(|m| m.values.get(&key).copied());
        let step = self.state.step;
        let better = |score: f64| self.state.best.is_none_or(|(best, _)| score > best);
        let improved = score.is_some_and(better);
        self.emit(Event::Evaluation(Evaluation {
            step: step as u64,
            split: Split::Validation,
            pool: retrieval.pool() as u64,
            queries: retrieval.queries() as u64,
            slices: event_slices(&slices),
            uniformity: Some(geometry.uniformity),
            alignment: Some(geometry.alignment),
            ..Evaluation::default()
        }))?;
        self.state.validation_due = false;
        self.probe_embeddings(true)?;
        if let (true, Some(score)) = (improved, score) {
            self.state.best = Some((score, step));
            self.save("best")?;
        }
        Ok(())
    }
}

/// The cut-off whose recall chooses the best checkpoint: the one nearest to 10.
fn selection_cutoff(cutoffs: &[usize]) -> usize {
    cutoffs
        .iter()
        .copied()
        .min_by_key(|k| k.abs_diff(10))
        .unwrap_or(10)
}
