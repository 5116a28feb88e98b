//! The pass over all notes before the first step, where a language model that does not learn makes their states.

use super::Trainer;
use crate::error::TrainError;
use crate::states::StatesPass;

impl Trainer<'_> {
    /// Has states that are kept computed for every note, unless a stop is asked for.
    pub(super) fn compute_states(&mut self) -> Result<(), TrainError> {
        let Some(mut pass) = StatesPass::new(&self.plan)? else {
            return Ok(());
        };
        let notes = pass.notes();
        self.sink.say(&format!(
            "the language model does not learn: its states of {notes} notes are computed once"
        ));
        let mut told = 0;
        while let Some(done) = pass.go_on()? {
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
