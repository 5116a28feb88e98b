//! What a language model that does not learn makes of the notes, before the first step.

use std::sync::Arc;

use mlrm_data::loader::NoteEncoder;

use crate::corpus::Modality;
use crate::encode::Inference;
use crate::error::TrainError;
use crate::plan::RunPlan;

/// Notes between two looks at what was asked of the run.
const NOTES_AT_A_TIME: usize = 256;

/// The pass over all notes that computes the states that are kept.
pub(crate) struct StatesPass {
    model: Inference,
    encoder: Arc<NoteEncoder>,
    /// By the length of their prompts: states are computed for prompts of one length together, which a few notes of any
    /// length would not fill.
    rows: Vec<u32>,
    done: usize,
    batch_notes: usize,
}

impl StatesPass {
    /// The pass of `plan`; `None` where no states are kept.
    ///
    /// # Errors
    /// Notes that cannot be encoded.
    pub(crate) fn new(plan: &RunPlan) -> Result<Option<Self>, TrainError> {
        if plan.embedder.core.states.is_none() {
            return Ok(None);
        }
        // Of a note's prompt only: no picture is read.
        let encoding = &plan.encoding;
        let encoder = encoding.encoder(&plan.notes, &plan.embedder, Modality::TextOnly)?;
        let lengths = plan.notes.set.rows().iter().map(|note| {
            let prompt = encoder.prompts().encode(note)?;
            Ok(prompt.ids.len())
        });
        let lengths: Vec<usize> = lengths.collect::<Result<_, TrainError>>()?;
        let mut rows: Vec<u32> = (0..lengths.len() as u32).collect();
        rows.sort_by_key(|&row| lengths[row as usize]);
        Ok(Some(Self {
            model: Inference::new(&plan.embedder),
            encoder: Arc::new(encoder),
            rows,
            done: 0,
            batch_notes: plan.config.eval.batch_notes,
        }))
    }

    /// Notes of the pass.
    pub(crate) fn notes(&self) -> usize {
        self.rows.len()
    }

    /// Computes the states of some more notes, and says of how many they are there; `None` once all are.
    ///
    /// # Errors
    /// A device that fails.
    pub(crate) fn go_on(&mut self) -> Result<Option<usize>, TrainError> {
        let rows = &self.rows[self.done..];
        let rows = &rows[..rows.len().min(NOTES_AT_A_TIME)];
        if rows.is_empty() {
            return Ok(None);
        }
        let (encoder, batch) = (&self.encoder, self.batch_notes);
        let none = &mut |_, _: &_| {};
        self.model
            .embed_corpus(encoder, rows, batch, Modality::TextOnly, none)?;
        self.done += rows.len();
        Ok(Some(self.done))
    }
}
