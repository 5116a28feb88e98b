//! The training loop.

mod events;
mod probing;
mod requests;
mod resume;
mod saving;
mod states;
mod stepping;
#[cfg(test)]
mod tests;
mod timing;
mod validation;

pub use events::event_slices;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use mlrm_data::loader::{NoteEncoder, PairBatches};
use mlrm_events::{Action, Event, EventSink, Warning};

use crate::checkpoint::RunState;
use crate::data_record::DataRecord;
use crate::device;
use crate::error::TrainError;
use crate::evaluate::Retrieval;
use crate::group::{Alone, Group, Threads};
use crate::loss_scale::LossScale;
use crate::optimiser::AdamW;
use crate::plan::RunPlan;
use crate::preflight::Preflight;
use crate::probe::SaliencyProbe;
use crate::run_folder::RunFolder;
use crate::step::{StepContext, StepStats};
use crate::system::SystemProbe;
use crate::watch::{EmbeddingProbe, Watch};
use resume::resume;
use timing::TimedSteps;

/// Refused steps in a row after which a run goes back to a checkpoint.
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
    /// Who takes the steps.
    group: Box<dyn Group>,
    /// Whether all workers have the weights of the model.
    weights_are_shared: bool,
    retrieval: Option<Retrieval>,
    probe: Option<SaliencyProbe>,
    embedding_probe: Option<EmbeddingProbe>,
    watch: Watch,
    system: SystemProbe,
    state: RunState,
    /// When this process began to train, later by every pause.
    begun: Instant,
    /// Seconds that earlier processes trained, up to the checkpoint that this one goes on from.
    earlier_seconds: f64,
    /// Refused steps in a row.
    refused: usize,
    /// Step and best score of the newest checkpoint.
    saved: Option<(usize, Option<(f64, usize)>)>,
    /// When it was written.
    saved_at: Instant,
    /// The model folder that this model was last written to or read from.
    previous: Option<PathBuf>,
    /// Whether model and place do not belong together, in the midst of a step or past repair.
    in_step: bool,
    /// What the run is predicted to take, and the steps that its time is told from.
    preflight: Option<(Preflight, TimedSteps)>,
    /// Whether the run went back to a checkpoint, and its batches with it.
    retreated: bool,
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
    /// A trainer at the beginning of a run, or at the checkpoint that `folder` continues. It leads
    /// `group`, or else the devices of `plan`.
    ///
    /// # Errors
    /// No checkpoint that is whole, or one that is not of this run.
    pub fn new(
        mut plan: RunPlan,
        mut folder: RunFolder,
        group: Option<Box<dyn Group>>,
        sink: &'a mut dyn EventSink,
        requests: Receiver<Action>,
    ) -> Result<Self, TrainError> {
        let mut optimiser = AdamW::new(&plan.config.train);
        let resumed = match folder.resumes {
            true => resume(&mut folder, &mut plan, &mut optimiser)?,
            false => None,
        };
        let config = &plan.config;
        let encoder = plan.encoder()?;
        let validation = &plan.pairs.pairs.validation;
        let probed = if validation.is_empty() {
            &plan.pairs.pairs.train
        } else {
            validation
        };
        let probe = SaliencyProbe::new(&encoder, probed, &config.train)?;
        let embedding_probe = EmbeddingProbe::new(&encoder, probed, &plan.pairs, config)?;
        let watch = Watch::new(config, plan.total_steps);
        let retrieval = (!validation.is_empty())
            .then(|| Retrieval::new(&plan.notes.set, &plan.pairs, validation, &config.eval))
            .transpose()?;
        let context = StepContext::new(&plan);
        let group = match group {
            Some(group) => group,
            None if plan.others.is_empty() => Box::new(Alone),
            None => {
                let leader = &plan.device_name;
                Box::new(Threads::start(&plan.embedder, leader, &plan.others)?)
            }
        };
        let mut trainer = Self {
            encoder,
            begun: Instant::now(),
            earlier_seconds: 0.0,
            system: SystemProbe::new(),
            refused: 0,
            saved: None,
            saved_at: Instant::now(),
            previous: None,
            in_step: false,
            preflight: None,
            retreated: false,
            stopping: false,
            plan,
            folder,
            sink,
            requests,
            optimiser,
            context,
            group,
            weights_are_shared: false,
            retrieval,
            probe,
            embedding_probe,
            watch,
            state: RunState::default(),
        };
        if let Some(mut resumed) = resumed {
            trainer.folder.notes.append(&mut resumed.notes);
            trainer.earlier_seconds = resumed.state.seconds;
            trainer.watch.recall(resumed.state.watched.clone());
            trainer.take_up(resumed);
            let held = trainer.hold_what_fits();
            trainer.folder.notes.extend(held);
        }
        let accepted = std::mem::take(&mut trainer.folder.accepted);
        trainer.state.accepted.extend(accepted);
        // Another format may have been accepted.
        let initial = LossScale::of(device::dtype(trainer.plan.config.backend.dtype));
        let kept = trainer.state.loss_scale;
        trainer.state.loss_scale = initial.map(|initial| kept.unwrap_or(initial));
        trainer.state.accepted.sort();
        trainer.state.accepted.dedup();
        Ok(trainer)
    }

    /// Writes down what the run goes on with.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn record(&self, data: &DataRecord) -> Result<(), TrainError> {
        self.folder.record(&self.plan.config, data)
    }

    /// Has the run tell at its beginning what it is predicted to take.
    pub fn announce(&mut self, preflight: Preflight) {
        self.preflight = Some((preflight, TimedSteps::default()));
    }

    /// Trains to the end, or until a stop is asked for. What was learnt before an error is saved.
    ///
    /// # Errors
    /// Data, device or files that failed, or a run that diverged.
    pub fn run(&mut self) -> Result<Trained, TrainError> {
        let trained = self.run_to_end();
        trained.map_err(|error| self.rescue(error))
    }

    fn run_to_end(&mut self) -> Result<Trained, TrainError> {
        self.emit(events::run_started(&self.plan, self.state.step))?;
        if let Some((preflight, _)) = &self.preflight {
            self.emit(Event::Preflight(preflight.event(self.state.step, None)))?;
        }
        for message in std::mem::take(&mut self.folder.notes) {
            self.warn(message)?;
        }
        self.begun = Instant::now();
        loop {
            self.run_steps()?;
            if let Some(chosen_step) = self.finish()? {
                return Ok(Trained {
                    chosen_step,
                    stopped: self.stopping,
                });
            }
        }
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

    /// Takes the steps that are left; after a retreat, from there.
    fn run_steps(&mut self) -> Result<(), TrainError> {
        if let Some(message) = self.plan.notes.without_picture.summary() {
            self.warn(message)?;
        }
        while self.state.step < self.plan.total_steps && !self.stopping {
            self.compute_states()?;
            let mut batches = self.plan.batches(&self.encoder, self.state.cursor)?;
            self.retreated = false;
            // Where the process before this one ended between a step and its evaluation.
            self.validate_due()?;
            while self.state.step < self.plan.total_steps && !self.stopping && !self.retreated {
                self.take_step(&mut batches)?;
            }
        }
        Ok(())
    }

    fn take_step(&mut self, batches: &mut PairBatches) -> Result<(), TrainError> {
        let begin = Instant::now();
        let (cursor, batch) = batches.next().ok_or_else(no_batches)??;
        let data_seconds = begin.elapsed().as_secs_f64();
        let step = self.state.step + 1;
        let learning_rate = self.learning_rate();
        self.in_step = true;
        let stats = self.step_that_fits(batch, learning_rate)?;
        self.state.step = step;
        self.state.cursor = cursor;
        self.state.updates = self.optimiser.updates;
        self.state.validation_due = due(step, self.plan.config.train.eval_every_steps);
        self.in_step = false;
        let updated = stats.updated;
        let overflowed = self.count_for_scale(&stats);
        let refusal = format!(
            "step {step} was refused: loss {}, gradient norm {}; the weights stay as they were",
            stats.loss, stats.gradient_norm
        );
        let warnings = self.watch.step(step, &stats);
        self.emit_step(stats, learning_rate, data_seconds, begin.elapsed())?;
        self.warn_all(warnings)?;
        self.tell_time(begin.elapsed())?;
        match updated {
            true => self.refused = 0,
            false => match overflowed {
                Some(message) => self.warn(message)?,
                None => self.refuse_step(refusal)?,
            },
        }
        if !self.retreated {
            self.probe_saliency()?;
            self.probe_embeddings(false)?;
            self.validate_due()?;
        }
        if !self.retreated && self.save_due() {
            self.save("interval")?;
        }
        for message in self.plan.news() {
            self.warn(message)?;
        }
        self.take_requests()
    }

    /// Of the next step.
    fn learning_rate(&self) -> f64 {
        self.plan.learning_rate.at(self.state.step) * self.state.rate_factor
    }

    /// Counts a step that changed nothing; after too many in a row the run goes back.
    fn refuse_step(&mut self, message: String) -> Result<(), TrainError> {
        self.refused += 1;
        self.warn(message)?;
        if self.refused < MOST_REFUSED_STEPS {
            return Ok(());
        }
        self.retreat(&format!(
            "{MOST_REFUSED_STEPS} steps in a row had a loss or gradient that is not finite"
        ))
    }

    fn warn_all(&mut self, messages: impl IntoIterator<Item = String>) -> Result<(), TrainError> {
        messages
            .into_iter()
            .try_for_each(|message| self.warn(message))
    }

    fn warn(&mut self, message: String) -> Result<(), TrainError> {
        let step = Some(self.state.step as u64);
        self.emit(Event::Warning(Warning { step, message }))
    }

    fn emit(&mut self, event: Event) -> Result<(), TrainError> {
        self.sink.emit_now(event).map_err(TrainError::Event)
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

fn no_batches() -> TrainError {
    TrainError::Batch("the data loader ended before the run did".into())
}
