//! The learning rate over a run: linear warm-up, then linear or cosine decay to 0, or none.

use mlrm_config::{Schedule, TrainSettings};

/// The learning rate of every step of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct LearningRate {
    peak: f64,
    warmup_steps: usize,
    total_steps: usize,
    schedule: Schedule,
}

impl LearningRate {
    /// The schedule of `settings` over `total_steps`.
    pub fn new(settings: &TrainSettings, total_steps: usize) -> Self {
        Self {
            peak: settings.learning_rate,
            warmup_steps: (settings.warmup_ratio * total_steps as f64).round() as usize,
            total_steps,
            schedule: settings.schedule,
        }
    }

    /// The rate of step `step`, the first being 0 (as Hugging Face's schedules count): the warm-up
    /// rises from 0, and the last step is one short of 0.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let falling = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let done = ((step - self.warmup_steps) as f64 / falling).min(1.0);
        self.peak
            * match self.schedule {
                Schedule::Linear => 1.0 - done,
                Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
                Schedule::Constant => 1.0,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule) -> Vec<f64> {
        let settings = TrainSettings {
            learning_rate: 1.0,
            warmup_ratio: 0.2,
            schedule,
            ..TrainSettings::default()
        };
        let rate = LearningRate::new(&settings, 10);
        (0..10).map(|step| rate.at(step)).collect()
    }

    #[test]
    fn linear_is_that_of_hugging_face() {
        // get_linear_schedule_with_warmup(num_warmup_steps=2, num_training_steps=10)
        let expected = [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125];
        for (found, expected) in rates(Schedule::Linear).iter().zip(expected) {
            assert!(
                (found - expected).abs() < 1e-12,
                "{found} is not {expected}"
            );
        }
    }

    #[test]
    fn cosine_is_that_of_hugging_face() {
        // get_cosine_schedule_with_warmup(num_warmup_steps=2, num_training_steps=10)
        let found = rates(Schedule::Cosine);
        assert!((found[2] - 1.0).abs() < 1e-12);
        assert!((found[6] - 0.5).abs() < 1e-12);
        assert!((found[9] - 0.038_060_233_744_356_6).abs() < 1e-12);
    }

    #[test]
    fn constant_keeps_the_peak() {
        assert_eq!(rates(Schedule::Constant)[9], 1.0);
    }
}
