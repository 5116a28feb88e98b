//! Steps that are taken again in smaller parts, or left out.

use std::sync::Arc;

use mlrm_config::RunConfig;
use mlrm_data::batch::NoteBatch;

use super::{HISTOGRAM_EVERY_STEPS, Trainer, due, no_batches};
use crate::error::TrainError;
use crate::group::{Order, learnt_weights};
use crate::step::{StepStats, train_step};

impl Trainer<'_> {
    /// Takes a step, in smaller parts where the device has too little memory, from then on.
    pub(super) fn step_that_fits(
        &mut self,
        batch: NoteBatch,
        learning_rate: f64,
    ) -> Result<StepStats, TrainError> {
        let step = self.state.step + 1;
        self.context.loss_scale = self.state.loss_scale.map_or(1.0, |scale| scale.factor);
        self.context.cursor = self.state.cursor;
        self.share_weights()?;
        let mut next = Some(batch);
        while let Some(batch) = next.take() {
            let (notes, longest) = (batch.notes, batch.seq);
            if self.context.may_run_out_of_memory || self.group.size() > 1 {
                next = Some(batch.clone());
            }
            let taken = train_step(
                &mut self.plan.embedder,
                &mut self.optimiser,
                batch,
                learning_rate,
                &self.context,
                due(step, HISTOGRAM_EVERY_STEPS),
                self.group.as_mut(),
            );
            self.weights_are_shared = false;
            let reason = match taken {
                Err(TrainError::OutOfMemory(reason)) => reason,
                taken => return taken,
            };
            let share = notes.div_ceil(self.group.size());
            let held = match self.context.micro_batch_notes {
                0 => share,
                held => held.min(share),
            };
            if held <= 1 {
                return Err(TrainError::OutOfMemory(format!(
                    "{reason}; one note of {longest} ids does not fit: set train.checkpoint_layers, \
                     lower prompt.max_tokens, or train fewer parameters (model.llm.tune)"
                )));
            }
            let fewer = held.div_ceil(2);
            self.context.micro_batch_notes = fewer;
            self.state.most_notes_held = Some(fewer);
            self.context.device.memory_cleanup();
            self.warn(format!(
                "step {step}: the device has too little memory for {held} notes at a time ({reason}); \
                 from here on it holds {fewer}, as train.micro_batch_notes = {fewer} would"
            ))?;
        }
        Err(no_batches())
    }

    /// Sends the weights to the workers that do not have them.
    fn share_weights(&mut self) -> Result<(), TrainError> {
        if self.group.size() > 1 && !self.weights_are_shared {
            let weights = learnt_weights(&self.plan.embedder.core);
            self.group.broadcast(Order::Weights(Arc::new(weights)))?;
        }
        self.weights_are_shared = true;
        Ok(())
    }

    /// Holds no more notes at a time than the run came down to before it was stopped; what is to be said
    /// of it.
    pub(super) fn hold_what_fits(&mut self) -> Option<String> {
        let most = self.state.most_notes_held?;
        let set = |config: &RunConfig| {
            (
                config.backend.device.clone(),
                config.train.micro_batch_notes,
            )
        };
        let previous = self.folder.previous.as_ref().map(set);
        if previous.is_some_and(|previous| previous != set(&self.plan.config)) {
            self.state.most_notes_held = None;
            return None;
        }
        let held = self.context.micro_batch_notes;
        if (1..=most).contains(&held) {
            return None;
        }
        self.context.micro_batch_notes = most;
        Some(format!(
            "holds {most} notes at a time, as since the device ran out of memory with more; another \
             train.micro_batch_notes or backend.device sets it anew"
        ))
    }

    /// Counts a step for loss scaling; says so where it was left out because gradients overflowed.
    pub(super) fn count_for_scale(&mut self, stats: &StepStats) -> Option<String> {
        let step = self.state.step;
        let scale = self.state.loss_scale.as_mut()?;
        if stats.updated {
            scale.count_finite();
            return None;
        }
        let before = scale.factor;
        let overflowed = stats.loss.is_finite() && scale.count_overflow();
        overflowed.then(|| {
            format!(
                "step {step} is left out: its gradients overflow f16 at a loss scale of {before}; it is \
                 {} from here on ({} of the run's steps so far)",
                scale.factor, scale.overflows
            )
        })
    }
}
