//! What a language model that does not learn makes of the notes, before the first step.

use super::Trainer;
use crate::corpus::Modality;
use crate::encode::Inference;
use crate::error::TrainError;

/// Notes between two looks at what was asked of the run.
const NOTES_AT_A_TIME: usize = 256;

impl Trainer<'_> {
    /// Has states that are kept computed for every note, unless a stop is asked for: in the order of the notes' lengths, so
    /// that no more is padded than by an evaluation, where those of a step's few notes would fill no batch.
    pub(super) fn compute_states(&mut self) -> Result<(), TrainError> {
        let plan = &self.plan;
        if plan.embedder.core.states.is_none() {
            return Ok(());
        }
        let model = Inference::new(&plan.embedder);
        let (notes, batch) = (plan.notes.set.len(), plan.config.eval.batch_notes);
        self.sink.say(&format!(
            "the language model does not learn: its states of {notes} notes are computed once"
        ));
        let rows: Vec<u32> = (0..notes as u32).collect();
        let (mut done, mut told) = (0, 0);
        for rows in rows.chunks(NOTES_AT_A_TIME) {
            model.embed_corpus(&self.encoder, rows, batch, Modality::Both, &mut |_, _| {})?;
            done += rows.len();
            let tenth = done * 10 / notes;
            if tenth > told {
                told = tenth;
                self.sink.say(&format!("states of {done} of {notes} notes"));
            }
            self.take_requests()?;
            if self.stopping {
                break;
            }
        }
        Ok(())
    }
}
