//! What a run looks like now: a pure fold over its events, in bounded memory.

mod log;
mod pace;
mod retrieval;
mod series;

use std::sync::Arc;

use mlrm_events::{
    Action, AttentionMass, CheckpointSaved, EmbeddingProbe, EndReason, Evaluation, Event,
    GateHistogram, Log, ModalityShares, Named, Preflight, RunEnded, RunStarted, Saliency, Stamped,
    System, TrainStep,
};

pub use log::LogEntry;
pub use pace::Pace;
pub use retrieval::{main_metric, metric_names};
pub use series::{Bucket, History, Series};

use crate::format;

/// A run, folded from its events.
#[derive(Debug, Clone, Default)]
pub struct RunState {
    /// The newest `run_started` and its time.
    pub started: Option<(f64, Arc<RunStarted>)>,
    /// How the newest process ended, unless it goes on.
    pub ended: Option<RunEnded>,
    /// Whether the trainer waits on request.
    pub paused: bool,
    /// The newest step.
    pub step: u64,
    /// Time of the log's first event (Unix seconds).
    pub first_time: Option<f64>,
    /// Time of the newest event (Unix seconds).
    pub last_time: Option<f64>,
    /// Events folded.
    pub events: u64,
    /// The newest step's figures.
    pub last_step: Option<TrainStep>,
    /// What the steps measured.
    pub train: TrainSeries,
    /// Speed and time left.
    pub pace: Pace,
    /// Phase → seconds, summed over the steps of this process.
    pub seconds_by_phase: Named<f64>,
    /// The machine's newest figures.
    pub system: Option<System>,
    /// Gate values.
    pub gates: History<GateHistogram>,
    /// Retrieval.
    pub evaluations: History<Evaluation>,
    /// Full saliency probes.
    pub saliency: History<Saliency>,
    /// Live probes between them.
    pub attention_mass: History<AttentionMass>,
    /// The newest look at the embeddings of the fixed batch.
    pub last_probe: Option<EmbeddingProbe>,
    /// How these embeddings lay over the steps.
    pub embeddings: EmbeddingSeries,
    /// Seconds that this process spent on probes.
    pub probe_seconds: f64,
    /// What the run was predicted to take, the newest word on it.
    pub preflight: Option<Preflight>,
    /// Checkpoints.
    pub checkpoints: History<CheckpointSaved>,
    /// Warnings, counted.
    pub warnings: u64,
    /// Lines of the log that are no events, counted; the fold goes on without them.
    pub unreadable_lines: u64,
    log: log::Log,
}

/// Series of the numbers of one kind of event: the name of each, and what is drawn.
macro_rules! series {
    ($(#[$about:meta])* $kind:ident of $event:ident: $events:ty {
        $($(#[$doc:meta])* $name:ident = $value:expr;)*
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default)]
        #[allow(missing_docs, reason = "the fields are those of the event")]
        pub struct $kind {
            $($(#[$doc])* pub $name: Series,)*
        }

        impl $kind {
            fn push(&mut self, $event: &$events) {
                $(if let Some(value) = Option::<f64>::from($value) {
                    self.$name.push($event.step, value);
                })*
            }

            fn forget_after(&mut self, step: u64) {
                $(self.$name.forget_after(step);)*
            }
        }
    };
}

series! {
    /// What the steps measured.
    TrainSeries of event: TrainStep {
        loss = event.loss;
        loss_multimodal = event.loss_multimodal;
        loss_visual = event.loss_visual;
        learning_rate = event.learning_rate;
        /// τ = exp(−t).
        temperature = (-event.temperature_logit).exp();
        gate_mean = event.gate_mean;
        gradient_norm = event.gradient_norm;
        notes_per_second = event.notes_per_second;
    }
}

series! {
    /// How the embeddings of a fixed batch lie, over the steps.
    EmbeddingSeries of event: EmbeddingProbe {
        positive_similarity = event.positive_similarity;
        negative_similarity = event.negative_similarity;
        effective_rank = event.effective_rank;
        uniformity = event.uniformity;
        alignment = event.alignment;
        picture_share = event.picture_share;
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// No event yet.
    Waiting,
    /// Steps come in.
    Running,
    /// Waits on request.
    Paused,
    /// Over.
    Ended(EndReason),
}

impl RunState {
    /// Folds what is left of a log: its events, and a count of the lines that are none.
    pub fn from_log(log: &Log) -> Self {
        let mut state = Self::from_events(&log.events);
        state.unreadable_lines = log.malformed.len() as u64;
        state
    }

    /// Folds all of `events`.
    pub fn from_events<'a>(events: impl IntoIterator<Item = &'a Stamped>) -> Self {
        let mut state = Self::default();
        events.into_iter().for_each(|event| state.apply(event));
        state
    }

    /// Folds one event.
    pub fn apply(&mut self, stamped: &Stamped) {
        self.first_time.get_or_insert(stamped.time_seconds);
        self.last_time = Some(stamped.time_seconds);
        self.log.push(self.events, stamped);
        self.events += 1;
        match &stamped.event {
            Event::RunStarted(started) => self.start(stamped.time_seconds, started),
            Event::TrainStep(step) => self.train_step(stamped.time_seconds, step),
            Event::GateHistogram(gate) => self.gates.push(gate.clone()),
            Event::Evaluation(evaluation) => self.evaluations.push(evaluation.clone()),
            Event::Saliency(saliency) => {
                self.probe_seconds += saliency.seconds;
                self.saliency.push(saliency.clone());
            }
            Event::AttentionMass(mass) => {
                self.probe_seconds += mass.seconds;
                self.attention_mass.push(mass.clone());
            }
            Event::EmbeddingProbe(probe) => {
                self.probe_seconds += probe.seconds;
                self.embeddings.push(probe);
                self.last_probe = Some(probe.clone());
            }
            Event::System(system) => self.system = Some(system.clone()),
            Event::Preflight(preflight) => self.preflight = Some(preflight.clone()),
            Event::CheckpointSaved(saved) => self.checkpoints.push(saved.clone()),
            Event::Warning(_) => self.warnings += 1,
            Event::Control(control) => self.control(stamped.time_seconds, control.action),
            Event::RunEnded(ended) => {
                self.step = self.step.max(ended.step);
                self.paused = false;
                self.ended = Some(ended.clone());
            }
            Event::Unknown(_) => {}
        }
    }

    /// A process begins: at 0, or at the checkpoint that it resumes.
    fn start(&mut self, time_seconds: f64, started: &RunStarted) {
        let from = started.resumed_from_step.unwrap_or(0);
        self.train.forget_after(from);
        self.embeddings.forget_after(from);
        // A new run in an old log starts with nothing; a resumed one keeps what its checkpoint saw.
        let keeps = |step: u64| started.resumed_from_step.is_some() && step <= from;
        self.gates.retain(|gate| keeps(gate.step));
        self.evaluations.retain(|evaluation| keeps(evaluation.step));
        self.saliency.retain(|saliency| keeps(saliency.step));
        self.attention_mass.retain(|mass| keeps(mass.step));
        self.checkpoints.retain(|saved| keeps(saved.step));
        self.ended = None;
        self.paused = false;
        self.step = from;
        self.last_step = None;
        self.last_probe = None;
        self.seconds_by_phase.clear();
        self.probe_seconds = 0.0;
        self.pace = Pace::started(time_seconds);
        self.started = Some((time_seconds, Arc::new(started.clone())));
    }

    fn train_step(&mut self, time_seconds: f64, step: &TrainStep) {
        self.step = step.step;
        self.pace.step(time_seconds, step.step);
        self.train.push(step);
        for (phase, seconds) in &step.seconds_by_phase {
            *self.seconds_by_phase.entry(phase.clone()).or_default() += seconds;
        }
        self.last_step = Some(step.clone());
    }

    fn control(&mut self, time_seconds: f64, action: Action) {
        match action {
            Action::Pause => {
                self.paused = true;
                self.pace.pause(time_seconds);
            }
            Action::Resume => {
                self.paused = false;
                self.pace.resume(time_seconds);
            }
            Action::Save | Action::Stop | Action::Other => {}
        }
    }

    /// `1,234 of 5,000`; without the total where it is not known.
    pub fn steps(&self) -> String {
        let step = format::count(self.step);
        match self.total_steps() {
            Some(total) => format!("{step} of {}", format::count(total)),
            None => step,
        }
    }

    /// Where the run stands.
    pub fn status(&self) -> Status {
        match (&self.ended, self.paused, self.events) {
            (Some(ended), _, _) => Status::Ended(ended.reason),
            (None, true, _) => Status::Paused,
            (None, false, 0) => Status::Waiting,
            (None, false, _) => Status::Running,
        }
    }

    /// Steps of the whole run, where they are known.
    pub fn total_steps(&self) -> Option<u64> {
        self.started
            .as_ref()
            .map(|(_, started)| started.total_steps)
            .filter(|&total| total > 0)
    }

    /// Share of the run that is done, 0 to 1.
    pub fn progress(&self) -> Option<f64> {
        self.total_steps()
            .map(|total| (self.step as f64 / total as f64).clamp(0.0, 1.0))
    }

    /// Seconds that the run has trained for, pauses left out: over all of its processes once it has
    /// ended, of this process up to its newest event until then.
    pub fn active_seconds(&self) -> Option<f64> {
        match &self.ended {
            Some(ended) => Some(ended.seconds),
            None => self.last_time.and_then(|now| self.pace.active_seconds(now)),
        }
    }

    /// Seconds that the remaining steps will take, evaluation and saving included, at the pace of
    /// this process.
    pub fn seconds_left(&self) -> Option<f64> {
        if self.ended.is_some() {
            return None;
        }
        let remaining = self
            .total_steps()?
            .checked_sub(self.step)
            .filter(|&steps| steps > 0)?;
        Some(self.pace.seconds_per_step()? * remaining as f64)
    }

    /// Share of this process's time that saliency probes took.
    pub fn probe_share(&self) -> Option<f64> {
        let seconds = self.pace.active_seconds(self.last_time?);
        let seconds = seconds.filter(|&seconds| seconds > 0.0)?;
        Some(self.probe_seconds / seconds)
    }

    /// Of the evaluations of the newest one's split, the best by `metric` over all queries; the
    /// first of equals. One that has no such number (or a NaN, of a run that diverged) is none.
    pub fn best_evaluation(&self, metric: &str) -> Option<&Evaluation> {
        let split = self.evaluations.last()?.split;
        let same = self
            .evaluations
            .iter()
            .filter(|evaluation| evaluation.split == split);
        let valued = same.filter_map(|evaluation| {
            let value = *evaluation.slices.get("all")?.get(metric)?;
            (!value.is_nan()).then_some((value, evaluation))
        });
        // `max_by` takes the last of equals.
        let best = valued.rev().max_by(|(a, _), (b, _)| a.total_cmp(b));
        best.map(|(_, evaluation)| evaluation)
    }

    /// The entries of the log view, the newest first.
    pub fn log(&self) -> impl Iterator<Item = &LogEntry> {
        self.log.newest_first()
    }

    /// The newest warnings, the newest first.
    pub fn newest_warnings(&self) -> impl Iterator<Item = &LogEntry> {
        self.log
            .newest_others()
            .filter(|entry| entry.name == "warning")
    }
}

/// A layer's three values divided by their sum, for display (method §4). All zero where the sum is
/// zero or not finite.
pub fn normalised(layer: ModalityShares) -> ModalityShares {
    let sum: f64 = layer.iter().sum();
    if sum.is_finite() && sum > 0.0 {
        layer.map(|value| value / sum)
    } else {
        [0.0; 3]
    }
}
