//! Burn's training as events, for the dashboard and whoever else reads a run's events.

mod terminal;

use std::collections::HashMap;
use std::error::Error;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricAttributes, MetricDefinition, MetricId, NumericEntry};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};
use burn::train::{Interrupter, LearnerSummary};
use mlrm_events::{
    EndReason, Evaluation, Event, EventSink, Named, RunEnded, RunStarted, Split, TrainStep,
};
use terminal::Terminal;

/// A renderer of Burn's that tells a training, of any model, as the [events](Event) of a run: to the dashboard, to
/// a log that `mlrm watch` and `mlrm report` read, or to any other [`EventSink`].
///
/// ```
/// # use burn::train::{InferenceStep, SupervisedTraining, TrainStep, LearnerModel};
/// # fn with_dashboard<M: LearnerModel>(training: SupervisedTraining<M>) -> SupervisedTraining<M> {
/// let interrupter = training.interrupter();
/// training.renderer(Box::new(mlrm::EventRenderer::dashboard("my run", interrupter)))
/// # }
/// ```
///
/// Of the numeric metrics of training, `Loss`, `Learning Rate`, `Temperature` and `Gate mean` are drawn step by step.
/// Of the epoch's own numbers, those in per cent and those of [`PoolMetric`](crate::metrics::PoolMetric) are drawn
/// epoch by epoch; all others stand in the log, those of training with `train` before their name. Metrics without
/// numbers are not shown.
pub struct EventRenderer {
    sink: Mutex<Box<dyn EventSink + Send>>,
    definitions: HashMap<MetricId, MetricDefinition>,
    /// Whether it was told that the training began.
    told: bool,
    begun: Instant,
    /// When the newest step ended.
    stepped: Instant,
    epochs: usize,
    /// Whole epochs.
    epochs_done: usize,
    step: u64,
    split: Split,
    is_training: bool,
    items: usize,
    items_done: usize,
    /// What the newest training step measured.
    newest: Named<f64>,
    evaluation: Evaluation,
    /// Whether what shows the training stays until a person closes it.
    stays: Arc<AtomicBool>,
}

/// Metrics of training that every step is drawn of.
const DRAWN: [&str; 4] = ["Loss", "Learning Rate", "Temperature", "Gate mean"];

impl EventRenderer {
    /// Tells `sink`.
    pub fn new(sink: impl EventSink + Send + 'static) -> Self {
        Self::staying(sink, Arc::default())
    }

    fn staying(sink: impl EventSink + Send + 'static, stays: Arc<AtomicBool>) -> Self {
        let now = Instant::now();
        Self {
            stays,
            sink: Mutex::new(Box::new(sink)),
            definitions: HashMap::new(),
            told: false,
            begun: now,
            stepped: now,
            epochs: 0,
            epochs_done: 0,
            step: 0,
            split: Split::Validation,
            is_training: false,
            items: 0,
            items_done: 0,
            newest: Named::default(),
            evaluation: Evaluation::default(),
        }
    }

    /// The dashboard, where there is a terminal, else lines of text. Its key to stop a run stops the training
    /// by `interrupter`; the others, to pause and to save, are not Burn's to serve, and are told so.
    pub fn dashboard(run_name: impl Into<String>, interrupter: Interrupter) -> Self {
        let stays = Arc::default();
        let terminal = Terminal::open(run_name.into(), interrupter, Arc::clone(&stays));
        Self::staying(terminal, stays)
    }

    fn sink(&mut self) -> &mut (dyn EventSink + Send) {
        let sink = self.sink.get_mut();
        sink.unwrap_or_else(PoisonError::into_inner).as_mut()
    }

    /// A sink that fails is not the training's affair: Burn gives a renderer no way to tell of it.
    fn emit(&mut self, event: Event) {
        let _unkept = self.sink().emit_now(event);
    }

    fn summary(&mut self, summary: Option<LearnerSummary>) {
        if let Some(summary) = summary {
            self.sink().say(&summary.to_string());
        }
    }

    /// The name of a metric, and what its values are multiplied by to be shares, where they are.
    fn known(&self, id: &MetricId) -> Option<(String, Option<f64>)> {
        let definition = self.definitions.get(id)?;
        let name = definition.name.to_string();
        let unit = match &definition.attributes {
            MetricAttributes::Numeric(numeric) => numeric.unit.as_deref(),
            MetricAttributes::None => None,
        };
        let is_rank = name == "mrr" || name.contains('@');
        let share = match unit {
            Some("%") => Some(0.01),
            _ => is_rank.then_some(1.0),
        };
        Some((name, share))
    }

    /// Keeps the final number of a metric for the evaluation of the epoch.
    fn keep(&mut self, name: String, share: Option<f64>, value: f64, of_training: bool) {
        let evaluation = &mut self.evaluation;
        match (name.as_str(), share) {
            ("uniformity", _) if !of_training => evaluation.uniformity = Some(value),
            ("alignment", _) if !of_training => evaluation.alignment = Some(value),
            (_, Some(share)) if !of_training => {
                let all = evaluation.slices.entry("all".into()).or_default();
                all.insert(name, value * share);
            }
            (name, _) if of_training && DRAWN[1..].contains(&name) => {}
            _ if of_training => drop(evaluation.figures.insert(format!("train {name}"), value)),
            _ => drop(evaluation.figures.insert(name, value)),
        }
    }

    fn update(&mut self, state: MetricState, of_training: bool) {
        let MetricState::Numeric(entry, Some(number)) = state else {
            return;
        };
        let Some((name, share)) = self.known(&entry.metric_id) else {
            return;
        };
        match number {
            NumericEntry::Final(value) => self.keep(name, share, value, of_training),
            _ if of_training => drop(self.newest.insert(name, number.current())),
            _ => {}
        }
    }

    /// A training step has ended, `items_done` items into the epoch.
    fn train_step(&mut self, items_done: usize) {
        let items = items_done.saturating_sub(self.items_done).max(1);
        if !mem::replace(&mut self.told, true) {
            let steps = self.items.div_ceil(items) * (self.epochs - self.epochs_done);
            let started = RunStarted {
                device: "Burn".into(),
                total_steps: steps as u64,
                train_pairs: self.items as u64,
                ..RunStarted::default()
            };
            self.emit(Event::RunStarted(Box::new(started)));
        }
        self.step += 1;
        let seconds = mem::replace(&mut self.stepped, Instant::now()).elapsed();
        let newest = mem::take(&mut self.newest);
        let of = |name: &str| newest.get(name).copied();
        let loss = of("Loss").unwrap_or(f64::NAN);
        let epochs = self.epochs_done as f64;
        self.emit(Event::TrainStep(TrainStep {
            step: self.step,
            epoch: epochs + items_done as f64 / self.items.max(1) as f64,
            loss,
            loss_multimodal: loss,
            learning_rate: of("Learning Rate").unwrap_or(f64::NAN),
            temperature_logit: of("Temperature").map_or(f64::NAN, |t| -t.ln()),
            gate_mean: of("Gate mean"),
            gradient_norm: f64::NAN,
            notes_per_second: items as f64 / seconds.as_secs_f64().max(1e-9),
            ..TrainStep::default()
        }));
    }

    /// Tells what was measured since the last time, where anything was.
    fn evaluated(&mut self) {
        let evaluation = mem::take(&mut self.evaluation);
        if evaluation == Evaluation::default() {
            return;
        }
        self.emit(Event::Evaluation(Evaluation {
            step: self.step,
            split: self.split,
            ..evaluation
        }));
    }
}

impl TrainingProgressLogger for EventRenderer {
    fn start(
        &mut self,
        total_epochs: usize,
        starting_epoch: usize,
        _total_items: Option<usize>,
        _label: Option<&str>,
    ) {
        self.epochs = total_epochs;
        self.epochs_done = starting_epoch.saturating_sub(1);
        (self.begun, self.stepped) = (Instant::now(), Instant::now());
    }

    fn start_split(&mut self, split: &str, total_items: usize) {
        self.is_training = split == "train";
        (self.items, self.items_done) = (total_items, 0);
        self.stepped = Instant::now();
    }

    fn update_split(&mut self, items_processed: usize) {
        if self.is_training {
            self.train_step(items_processed);
        }
        self.items_done = items_processed;
    }

    fn end_split(&mut self) {
        if !self.is_training {
            self.split = Split::Validation;
            self.evaluated();
        }
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.epochs_done = epoch;
    }

    fn end(&mut self) {
        self.evaluated();
        let reason = match self.epochs_done < self.epochs {
            true => EndReason::Stopped,
            false => EndReason::Completed,
        };
        self.emit(Event::RunEnded(RunEnded {
            step: self.step,
            reason,
            seconds: self.begun.elapsed().as_secs_f64(),
            message: None,
            peak_host_bytes: None,
        }));
    }

    fn log_event_training(&mut self, _event: String) {}
}

impl MetricsRendererTraining for EventRenderer {
    fn update_train(&mut self, state: MetricState) {
        self.update(state, true);
    }

    fn update_valid(&mut self, state: MetricState) {
        self.update(state, false);
    }

    fn on_train_end(&mut self, summary: Option<LearnerSummary>) -> Result<(), Box<dyn Error>> {
        self.summary(summary);
        Ok(())
    }
}

impl EvaluationProgressLogger for EventRenderer {
    fn start_global_progress(&mut self, _total_tests: usize) {}

    fn start_test(&mut self, _name: &str, _total_items: usize) {
        self.is_training = false;
    }

    fn update_test_progress(&mut self, _items_processed: usize) {}

    fn end_test(&mut self) {
        self.split = Split::Test;
        self.evaluated();
    }

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for EventRenderer {
    fn update_test(&mut self, _name: EvaluationName, state: MetricState) {
        // Burn computes no final number of a test: the newest mean is it.
        let MetricState::Numeric(entry, Some(number)) = state else {
            return;
        };
        if let Some((name, share)) = self.known(&entry.metric_id) {
            self.keep(name, share, number.current(), false);
        }
    }

    fn on_test_end(&mut self, summary: Option<LearnerSummary>) -> Result<(), Box<dyn Error>> {
        self.summary(summary);
        Ok(())
    }
}

impl MetricsRenderer for EventRenderer {
    fn manual_close(&mut self) {
        self.stays.store(true, Ordering::Relaxed);
    }

    fn register_metric(&mut self, definition: MetricDefinition) {
        let id = definition.metric_id.clone();
        self.definitions.insert(id, definition);
    }
}
