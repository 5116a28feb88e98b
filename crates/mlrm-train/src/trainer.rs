//! The training loop.

mod events;
mod saving;

pub use events::event_slices;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use mlrm_data::loader::{LoaderSettings, NoteEncoder, PairBatches};
use mlrm_data::order::Cursor;
use mlrm_events::{Action, Control, Evaluation, Event, EventSink, Split, Warning};

use crate::checkpoint::{self, RunState};
use crate::corpus::Modality;
use crate::encode::Inference;
use crate::error::TrainError;
use crate::evaluate::Retrieval;
use crate::features::prediction;
use crate::optimiser::AdamW;
use crate::plan::{RunPlan, open_model};
use crate::probe::SaliencyProbe;
use crate::run_folder::RunFolder;
use crate::step::{StepContext, StepStats, train_step};
use crate::system::SystemProbe;

/// Refused steps in a row after which a run gives up.
const MOST_REFUSED_STEPS: usize = 20;

/// A run in progress.
pub struct Trainer<'a> {
    plan: RunPlan,
    folder: RunFolder,
    sink: &'a mut dyn EventSink,
    requests: Receiver<Action>,
    encoder: Arc<NoteEncoder>,
    optimiser: AdamW,
    context: StepContext,
    retrieval: Option<Retrieval>,
    probe: Option<SaliencyProbe>,
    system: SystemProbe,
    state: RunState,
    /// When this process began to train, later by every pause.
    begun: Instant,
    /// Seconds that earlier processes trained, up to the checkpoint that this one goes on from.
    earlier_seconds: f64,
    refused: usize,
    saved_step: Option<usize>,
    /// The model folder that this model was last written to or read from.
    earlier: Option<PathBuf>,
    stopping: bool,
}

/// How training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trained {
    /// The step whose weights were chosen.
    pub chosen_step: usize,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

impl<'a> Trainer<'a> {
    /// A trainer at the beginning of a run, or at the checkpoint that `folder` continues.
    pub fn new(
        mut plan: RunPlan,
        folder: RunFolder,
        sink: &'a mut dyn EventSink,
        requests: Receiver<Action>,
    ) -> Result<Self, TrainError> {
        let config = &plan.config;
        let mut optimiser = AdamW::new(&config.train);
        let mut state = RunState {
            step: 0,
            updates: 0,
            cursor: Cursor::default(),
            best: None,
            seconds: 0.0,
        };
        if let Some(checkpoint) = &folder.resume_from {
            let model = open_model(&checkpoint.join("model"), &plan.device, config)?;
            (plan.embedder, plan.encoding) = (model.embedder, model.encoding);
            state = checkpoint::load(checkpoint, &mut optimiser, &plan.device)?;
        }
        let config = &plan.config;
        let variant = plan.embedder.config.variant;
        let encoder = plan
            .encoding
            .encoder(&plan.notes, variant, Modality::Both)?;
        let validation = &plan.pairs.pairs.validation;
        let probed = if validation.is_empty() {
            &plan.pairs.pairs.train
        } else {
            validation
        };
        let probe = SaliencyProbe::new(&encoder, probed, &config.train)?;
        let retrieval = (!validation.is_empty())
            .then(|| Retrieval::new(&plan.notes.set, &plan.pairs, validation, &config.eval))
            .transpose()?;
        let context = StepContext::new(&plan);
        Ok(Self {
            encoder: Arc::new(encoder),
            begun: Instant::now(),
            earlier_seconds: state.seconds,
            system: SystemProbe::new(),
            refused: 0,
            saved_step: None,
            earlier: folder.resume_from.as_ref().map(|c| c.join("model")),
            stopping: false,
            plan,
            folder,
            sink,
            requests,
            optimiser,
            context,
            retrieval,
            probe,
            state,
        })
    }

    /// Trains to the end, or until a stop is asked for.
    ///
    /// # Errors
    ///
    /// Data, device or files that failed, or a run that diverged.
    pub fn run(&mut self) -> Result<Trained, TrainError> {
        self.run_steps()?;
        let chosen_step = self.finish()?;
        Ok(Trained {
            chosen_step,
            stopped: self.stopping,
        })
    }

    /// The last step taken.
    pub fn step(&self) -> usize {
        self.state.step
    }

    /// Seconds that the run has trained, over all of its processes, pauses left out.
    pub fn seconds(&self) -> f64 {
        self.earlier_seconds + self.begun.elapsed().as_secs_f64()
    }

    /// The plan, with the chosen weights once training has ended, and the run folder.
    pub fn into_parts(self) -> (RunPlan, RunFolder) {
        (self.plan, self.folder)
    }

    fn run_steps(&mut self) -> Result<(), TrainError> {
        self.emit(events::run_started(&self.plan, self.state.step))?;
        let features = self.plan.embedder.features.as_deref();
        let notes = &self.plan.notes.set;
        if let Some(message) = features.and_then(|cache| prediction(cache, notes)) {
            self.warn(message)?;
        }
        let config = self.plan.config.clone();
        let pairs = Arc::from(self.plan.pairs.pairs.train.as_slice());
        let loader = LoaderSettings::new(&config.data, &config.train);
        let encoder = Arc::clone(&self.encoder);
        let mut batches =
            PairBatches::new(encoder, pairs, config.run.seed, self.state.cursor, loader)?;
        self.begun = Instant::now();
        while self.state.step < self.plan.total_steps && !self.stopping {
            let begin = Instant::now();
            let (cursor, batch) = batches.next().ok_or_else(no_batches)??;
            let data_seconds = begin.elapsed().as_secs_f64();
            let step = self.state.step + 1;
            let learning_rate = self.plan.learning_rate.at(self.state.step);
            let stats = train_step(
                &mut self.plan.embedder,
                &mut self.optimiser,
                batch,
                learning_rate,
                &self.context,
                due(step, HISTOGRAM_EVERY_STEPS),
            )?;
            self.state.step = step;
            self.state.cursor = cursor;
            self.state.updates = self.optimiser.updates;
            self.check_update(&stats)?;
            self.watch_features()?;
            self.emit_step(stats, learning_rate, data_seconds, begin.elapsed())?;
            self.probe_saliency()?;
            if due(step, config.train.eval_every_steps) {
                self.validate()?;
            }
            if due(step, config.train.save_every_steps) && self.saved_step != Some(step) {
                self.save("interval")?;
            }
            self.obey_requests()?;
        }
        Ok(())
    }

    fn check_update(&mut self, stats: &StepStats) -> Result<(), TrainError> {
        if stats.updated {
            self.refused = 0;
            return Ok(());
        }
        self.refused += 1;
        let step = self.state.step;
        self.emit(Event::Warning(Warning {
            step: Some(step as u64),
            message: format!(
                "step {step} was refused: loss {}, gradient norm {}; the weights stay as they were",
                stats.loss, stats.gradient_norm
            ),
        }))?;
        if self.refused < MOST_REFUSED_STEPS {
            return Ok(());
        }
        Err(TrainError::Run(format!(
            "{MOST_REFUSED_STEPS} steps in a row had a loss or gradient that is not finite; lower \
             train.learning_rate or use backend.dtype = \"f32\""
        )))
    }

    /// Says why no more features are kept.
    fn watch_features(&mut self) -> Result<(), TrainError> {
        let Some(cache) = &self.plan.embedder.features else {
            return Ok(());
        };
        let Some(reason) = cache.closed_reason() else {
            return Ok(());
        };
        let folder = cache.folder().display();
        let message = format!("no more features are kept in {folder}: {reason}");
        self.warn(message)
    }

    fn warn(&mut self, message: String) -> Result<(), TrainError> {
        let step = Some(self.state.step as u64);
        self.emit(Event::Warning(Warning { step, message }))
    }

    fn probe_saliency(&mut self) -> Result<(), TrainError> {
        let Some(probe) = &mut self.probe else {
            return Ok(());
        };
        // Of this process: so are the probes' seconds.
        let (step, elapsed) = (self.state.step, self.begun.elapsed().as_secs_f64());
        let model = &self.plan.embedder;
        match probe.measure_due(step, elapsed, model, &self.context.objective)? {
            Some(event) => self.emit(event),
            None => Ok(()),
        }
    }

    fn validate(&mut self) -> Result<(), TrainError> {
        let Some(retrieval) = &self.retrieval else {
            return Ok(());
        };
        let model = Inference::new(&self.plan.embedder);
        let eval = &self.plan.config.eval;
        let rows: Vec<u32> = (0..self.plan.notes.set.len() as u32).collect();
        let embeddings = model.embed_corpus(
            &self.encoder,
            &rows,
            eval.batch_notes,
            Modality::Both,
            &mut |_| {},
        )?;
        let slices = retrieval.measure(&model, &embeddings.multimodal, None)?;
        let geometry = retrieval.geometry(&embeddings.multimodal)?;
        let key = format!("recall@{}", selection_cutoff(&eval.k));
        let score = slices.get("all").and_then(|m| m.values.get(&key).copied());
        let step = self.state.step;
        let better = |score: f64| self.state.best.is_none_or(|(best, _)| score > best);
        let improved = score.is_some_and(better);
        self.emit(Event::Evaluation(Evaluation {
            step: step as u64,
            split: Split::Validation,
            pool: retrieval.pool() as u64,
            queries: retrieval.queries() as u64,
            slices: event_slices(&slices),
            uniformity: Some(geometry.uniformity),
            alignment: Some(geometry.alignment),
            ..Evaluation::default()
        }))?;
        if let (true, Some(score)) = (improved, score) {
            self.state.best = Some((score, step));
            self.save("best")?;
        }
        Ok(())
    }

    /// Obeys what was asked for since the last step; waits here while paused.
    fn obey_requests(&mut self) -> Result<(), TrainError> {
        let mut paused = None;
        loop {
            let action = match self.requests.try_recv() {
                Ok(action) => action,
                Err(TryRecvError::Empty) if paused.is_some() => {
                    std::thread::sleep(Duration::from_millis(50));
                    continue;
                }
                Err(_) => return Ok(()),
            };
            let step = self.state.step as u64;
            self.emit(Event::Control(Control { step, action }))?;
            match action {
                Action::Pause => paused = paused.or_else(|| Some(Instant::now())),
                Action::Resume => {
                    self.begun += paused.take().map_or(Duration::ZERO, |at| at.elapsed());
                }
                Action::Save => self.save("requested")?,
                Action::Stop => {
                    self.stopping = true;
                    return Ok(());
                }
                Action::Other => {}
            }
        }
    }

    fn emit(&mut self, event: Event) -> Result<(), TrainError> {
        self.sink.emit_now(event).map_err(TrainError::event)
    }

    fn emit_step(
        &mut self,
        stats: StepStats,
        learning_rate: f64,
        data_seconds: f64,
        whole: Duration,
    ) -> Result<(), TrainError> {
        let step = self.state.step;
        if let Some(values) = &stats.gate_values {
            self.emit(events::gate_histogram(step, values))?;
        }
        if let Some(event) = self.system.due(step) {
            self.emit(event)?;
        }
        if !due(step, self.plan.config.train.log_every_steps.max(1)) && step != 1 {
            return Ok(());
        }
        let cursor = self.state.cursor;
        let pairs = self.plan.pairs.pairs.train.len() as f64;
        let taken = events::StepTaken {
            step,
            epoch: cursor.epoch as f64 + cursor.position as f64 / pairs,
            notes: 2 * self.plan.config.train.batch_pairs,
            learning_rate,
            data_seconds,
            whole,
        };
        self.emit(taken.event(stats))
    }
}

/// Steps between two histograms of gate values.
const HISTOGRAM_EVERY_STEPS: usize = 20;

fn due(step: usize, every: usize) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// The cut-off whose recall chooses the best checkpoint: the one nearest to 10.
fn selection_cutoff(cutoffs: &[usize]) -> usize {
    cutoffs
        .iter()
        .copied()
        .min_by_key(|k| k.abs_diff(10))
        .unwrap_or(10)
}

fn no_batches() -> TrainError {
    TrainError::Run("the data loader ended before the run did".into())
}
