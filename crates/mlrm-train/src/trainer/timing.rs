//! How long a run will take.

use std::time::Duration;

use mlrm_config::Baseline;
use mlrm_events::Event;

use super::Trainer;
use crate::error::TrainError;

/// The first steps of a process, timed.
#[derive(Default)]
pub(super) struct TimedSteps {
    seen: usize,
    seconds: f64,
}

impl TimedSteps {
    /// Steps that are timed, after the first, which makes moments and fills caches.
    const COUNT: usize = 5;

    /// Takes one more step; the mean of all once there are enough.
    fn take(&mut self, step: Duration) -> Option<f64> {
        self.seen += 1;
        if self.seen > 1 {
            self.seconds += step.as_secs_f64();
        }
        (self.seen > Self::COUNT).then(|| self.seconds / Self::COUNT as f64)
    }
}

impl Trainer<'_> {
    /// Once enough steps are timed, tells what is left at their speed.
    pub(super) fn tell_time(&mut self, step: Duration) -> Result<(), TrainError> {
        let Some((_, timed)) = &mut self.preflight else {
            return Ok(());
        };
        let Some(seconds_per_step) = timed.take(step) else {
            return Ok(());
        };
        let seconds = self.seconds_left(seconds_per_step);
        let Some((preflight, _)) = self.preflight.take() else {
            return Ok(());
        };
        let timed = Some((TimedSteps::COUNT, seconds));
        self.emit(Event::Preflight(preflight.event(self.state.step, timed)))
    }

    /// Seconds of the steps, validations and final table that are left. To embed a note takes about a
    /// third of training on it: the forward pass without the backward pass.
    fn seconds_left(&self, seconds_per_step: f64) -> f64 {
        let train = &self.plan.config.train;
        let steps = self.plan.total_steps - self.state.step;
        let corpus = self.plan.notes.set.len() as f64;
        let corpus = corpus * seconds_per_step / (2 * train.batch_pairs) as f64 / 3.0;
        let mut corpora = 0;
        if self.retrieval.is_some() {
            let due = steps.checked_div(train.eval_every_steps).unwrap_or(0);
            corpora += due.max(1);
        }
        if !self.plan.pairs.pairs.test.is_empty() {
            let embedded = |baseline: &&Baseline| {
                matches!(
                    baseline,
                    Baseline::TextOnly | Baseline::ImageOnly | Baseline::ZeroShot
                )
            };
            corpora += 1 + self
                .plan
                .config
                .eval
                .baselines
                .iter()
                .filter(embedded)
                .count();
        }
        steps as f64 * seconds_per_step + corpora as f64 * corpus
    }
}
