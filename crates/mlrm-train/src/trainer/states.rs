//! What a language model that does not learn makes of the notes, before the first step.

use super::Trainer;
use crate::corpus::Modality;
use crate::encode::Inference;
use crate::error::TrainError;

impl Trainer<'_> {
    /// Has states that are kept computed for every note: in the order of the notes' lengths, so that no more is padded
    /// than by an evaluation, where those of a step's few notes would fill no batch.
    pub(super) fn compute_states(&mut self) -> Result<(), TrainError> {
        let plan = &self.plan;
        if plan.embedder.core.states.is_none() {
            return Ok(());
        }
        let notes = plan.notes.set.len();
        self.sink.say(&format!(
            "the language model does not learn: its states of {notes} notes are computed once"
        ));
        let rows: Vec<u32> = (0..notes as u32).collect();
        let mut told = 0;
        let sink = &mut self.sink;
        let mut tell = |done: usize, _: &_| {
            let quarter = done * 4 / notes.max(1);
            if quarter > told {
                told = quarter;
                sink.say(&format!("states of {done} of {notes} notes"));
            }
        };
        let model = Inference::new(&plan.embedder);
        let (batch, modality) = (plan.config.eval.batch_notes, Modality::Both);
        model.embed_corpus(&self.encoder, &rows, batch, modality, &mut tell)?;
        Ok(())
    }
}
