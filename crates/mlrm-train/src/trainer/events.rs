//! What a run tells about itself, put together from its plan and its numbers.

use std::time::Duration;

use mlrm_events::{Event, GATE_BINS, GateHistogram, Interval, RunStarted, TrainStep, Transfers};
use mlrm_model::weights::{parameter_count, trained_parameter_count};

use crate::plan::RunPlan;
use crate::step::StepStats;

/// The beginning of training; `step` is that of the checkpoint it goes on from, 0 without one.
pub(super) fn run_started(plan: &RunPlan, step: usize) -> Event {
    let core = &plan.embedder.core;
    let vision = plan.embedder.vision.as_ref().map_or(0, parameter_count);
    let versions = [("mlrm", env!("CARGO_PKG_VERSION")), ("burn", "0.22.1")];
    Event::RunStarted(Box::new(RunStarted {
        config: serde_json::to_value(&plan.config).unwrap_or_default(),
        device: devices(plan),
        versions: versions
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into_iter()
            .collect(),
        total_steps: plan.total_steps as u64,
        train_pairs: plan.pairs.pairs.train.len() as u64,
        notes: plan.notes.set.len() as u64,
        parameters_total: (parameter_count(core) + vision) as u64,
        parameters_trained: trained_parameter_count(core) as u64,
        resumed_from_step: (step > 0).then_some(step as u64),
        feature_cache: plan.kept_features.clone(),
    }))
}

/// Where the run computes.
fn devices(plan: &RunPlan) -> String {
    let names = plan.config.backend.device.names().join(", ");
    match plan.workers > 1 + plan.others.len() {
        true => format!("{names} ({} processes)", plan.workers),
        false => names,
    }
}

/// A step and its circumstances.
pub(super) struct StepTaken {
    /// Counted from 1.
    pub(super) step: usize,
    /// Passes over the pairs so far.
    pub(super) epoch: f64,
    /// Notes of the batch.
    pub(super) notes: usize,
    pub(super) learning_rate: f64,
    /// Waiting for the batch.
    pub(super) data_seconds: f64,
    /// The step and the wait before it.
    pub(super) whole: Duration,
}

impl StepTaken {
    /// The event of the step with these numbers.
    pub(super) fn event(self, stats: StepStats) -> Event {
        let mut seconds_by_phase = stats.seconds_by_phase;
        seconds_by_phase.insert("data".into(), self.data_seconds);
        Event::TrainStep(TrainStep {
            step: self.step as u64,
            epoch: self.epoch,
            loss: stats.loss,
            loss_multimodal: stats.loss_multimodal,
            loss_visual: stats.loss_visual,
            learning_rate: self.learning_rate,
            temperature_logit: stats.temperature_logit,
            gate_mean: stats.gate_mean,
            gradient_norm: stats.gradient_norm,
            notes_per_second: self.notes as f64 / self.whole.as_secs_f64(),
            seconds_by_phase,
            pictures_encoded: stats.pictures_encoded,
            transfers: Some(Transfers {
                uploads: stats.transfers.uploads,
                uploaded_bytes: stats.transfers.uploaded_bytes,
                reads: stats.transfers.reads,
                read_bytes: stats.transfers.read_bytes,
            }),
        })
    }
}

/// How the gate's values, in [0, 1], are distributed.
pub(super) fn gate_histogram(step: usize, values: &[f32]) -> Event {
    let mut counts = [0; GATE_BINS];
    for value in values {
        let bin = (value * GATE_BINS as f32) as usize;
        counts[bin.min(GATE_BINS - 1)] += 1;
    }
    let step = step as u64;
    Event::GateHistogram(GateHistogram { step, counts })
}

/// Metrics as an event carries them.
pub fn event_slices(slices: &mlrm_eval::Slices) -> mlrm_events::Slices {
    let metrics = |(name, slice): (&String, &mlrm_eval::SliceMetrics)| {
        let mut metrics = mlrm_events::Metrics::default();
        for (metric, value) in &slice.values {
            metrics.insert(metric.clone(), *value);
            if let Some(bounds) = slice.intervals.get(metric) {
                metrics.extend(Interval::bound_names(metric).into_iter().zip(*bounds));
            }
        }
        (name.clone(), metrics)
    };
    slices.iter().map(metrics).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gate_value_is_in_one_bin() {
        let values = [0.0, 0.04, 0.05, 0.5, 0.999, 1.0];
        let Event::GateHistogram(histogram) = gate_histogram(7, &values) else {
            panic!("another event");
        };
        assert_eq!(histogram.step, 7);
        assert_eq!(histogram.counts.iter().sum::<u64>(), 6);
        let counts = [0, 1, 10, 19].map(|bin| histogram.counts[bin]);
        assert_eq!(counts, [2, 1, 1, 2]);
    }
}
