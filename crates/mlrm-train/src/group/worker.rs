//! A worker that does not lead: it holds a copy of the model, and does what it is asked.

use std::ops::Range;
use std::time::Instant;

use burn::tensor::Device;
use mlrm_data::batch::NoteBatch;
use mlrm_model::embedder::Embedder;

use super::{EmbedOrder, Order, Share, Summand, with_weights};
use crate::device;
use crate::error::TrainError;
use crate::objective::EmbeddingGradients;
use crate::optimiser::FlatGradients;
use crate::phases::PhaseClock;
use crate::step::{EmbeddedBatch, Passes, Work};

/// How a worker that does not lead hears of the leader.
pub trait Member {
    /// Its place among all workers; the leader's is 0.
    fn rank(&self) -> usize;

    /// What it is asked next; waits for it.
    ///
    /// # Errors
    /// A leader that is gone.
    fn receive(&mut self) -> Result<Order, TrainError>;

    /// Answers [`Order::Embed`].
    ///
    /// # Errors
    /// A leader that is gone.
    fn embedded(&mut self, share: Result<Share, TrainError>) -> Result<(), TrainError>;

    /// Answers [`Order::Backward`].
    ///
    /// # Errors
    /// A leader that is gone.
    fn gradients(&mut self, summand: Result<Summand, TrainError>) -> Result<(), TrainError>;
}

/// A worker that does not lead.
pub struct Worker {
    /// Its copy of the model.
    pub embedder: Embedder,
    /// Where it computes.
    pub device: Device,
    /// As [`crate::step::StepContext::may_run_out_of_memory`].
    pub may_run_out_of_memory: bool,
    /// Whether it waits for its device to say what a share took.
    pub timed: bool,
}

/// A share between its two passes.
struct Held {
    work: Work,
    notes: Range<usize>,
    batch: EmbeddedBatch,
}

impl Worker {
    /// Does what `member` is asked, until it is asked to end.
    ///
    /// # Errors
    /// A leader that is gone. Errors of the work are answers.
    pub fn serve(mut self, member: &mut dyn Member) -> Result<(), TrainError> {
        let (mut held, mut failed) = (None, None);
        loop {
            match member.receive()? {
                Order::Embed(order) => {
                    // What an abandoned step left goes first.
                    drop(held.take());
                    let embedded = match failed.take() {
                        Some(error) => Err(error),
                        None => self.embed(&order, member.rank()),
                    };
                    let share = embedded.map(|(share, batch)| {
                        held = Some(batch);
                        share
                    });
                    member.embedded(share)?;
                }
                Order::Backward(gradients) => {
                    let nothing =
                        || TrainError::Worker("there is no share to go back through".into());
                    let held = held.take().ok_or_else(nothing);
                    let summand = held.and_then(|held| self.backward(held, &gradients));
                    member.gradients(summand)?;
                }
                Order::Weights(weights) => {
                    let core = self.embedder.core.clone();
                    match with_weights(core, &weights, &self.device) {
                        Ok(core) => self.embedder.core = core,
                        // The next answer tells of it.
                        Err(error) => failed = Some(error),
                    }
                }
                Order::End => return Ok(()),
            }
        }
    }

    fn embed(&self, order: &EmbedOrder, rank: usize) -> Result<(Share, Held), TrainError> {
        let (work, notes) = (order.work, order.shares[rank].clone());
        let batch = order.batch.slice(notes.clone());
        let mut clock = PhaseClock::new(&self.device, false);
        let (share, batch) = self.own(&work).embed(batch, notes.start, &mut clock)?;
        Ok((share, Held { work, notes, batch }))
    }

    fn backward(&self, held: Held, gradients: &EmbeddingGradients) -> Result<Summand, TrainError> {
        if held.notes.is_empty() {
            return Ok(Summand {
                gradients: FlatGradients::new(),
                seconds: 0.0,
            });
        }
        let gradients = gradients.slice(held.notes).to_device(&self.device);
        let mut clock = PhaseClock::new(&self.device, false);
        let own = self.own(&held.work);
        own.backward(held.batch, &gradients, &mut clock)
    }

    fn own(&self, work: &Work) -> OwnPart<'_> {
        OwnPart {
            passes: Passes::new(&self.embedder, work),
            device: &self.device,
            may_run_out_of_memory: self.may_run_out_of_memory,
            timed: self.timed,
        }
    }
}

/// A worker's own part of a step.
pub(crate) struct OwnPart<'a> {
    /// How notes pass through its model.
    pub passes: Passes<'a>,
    /// Where it computes.
    pub device: &'a Device,
    /// As [`Worker::may_run_out_of_memory`], where others wait for it.
    pub may_run_out_of_memory: bool,
    /// As [`Worker::timed`].
    pub timed: bool,
}

impl OwnPart<'_> {
    /// Embeds `batch`, which begins at the note `first` of the whole one: what the group is told, and what
    /// is kept for the backward pass.
    ///
    /// # Errors
    /// A batch that the model cannot read, or a device that failed.
    pub fn embed(
        &self,
        batch: NoteBatch,
        first: usize,
        clock: &mut PhaseClock<'_>,
    ) -> Result<(Share, EmbeddedBatch), TrainError> {
        let embedder = self.passes.embedder();
        let (begin, before) = (Instant::now(), embedder.pictures_encoded());
        let embedded = self.guarded(|| EmbeddedBatch::new(&self.passes, batch, first, clock))?;
        let share = Share {
            embeddings: embedded.embeddings.clone(),
            pictures_encoded: embedder.pictures_encoded() - before,
            seconds: begin.elapsed().as_secs_f64(),
        };
        Ok((share, embedded))
    }

    /// Carries `gradients` of the share's embeddings to the parameters.
    ///
    /// # Errors
    /// A device that failed.
    pub fn backward(
        &self,
        embedded: EmbeddedBatch,
        gradients: &EmbeddingGradients,
        clock: &mut PhaseClock<'_>,
    ) -> Result<Summand, TrainError> {
        let begin = Instant::now();
        let gradients = self.guarded(|| embedded.backward(&self.passes, gradients, clock))?;
        Ok(Summand {
            gradients,
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// Does a part of a step, which others wait for: where it may run out of memory, it says so by an error
    /// once its device is done.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, TrainError>) -> Result<T, TrainError> {
        let all = || {
            let done = work()?;
            if self.may_run_out_of_memory || self.timed {
                let synced = self.device.sync();
                synced.map_err(|e| TrainError::device("the device failed during the step", e))?;
            }
            Ok(done)
        };
        if !self.may_run_out_of_memory {
            return all();
        }
        let done = device::within_memory(all);
        if let Err(TrainError::OutOfMemory(_)) = &done {
            self.device.memory_cleanup();
        }
        done
    }
}
