//! A worker that does not lead: it holds a copy of the model, and does what it is asked.

use std::ops::Range;
use std::time::Instant;

use burn::tensor::Device;
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
        let begin = Instant::now();
        let notes = order.shares[rank].clone();
        let batch = order.batch.slice(notes.clone());
        let encoded_before = self.embedder.pictures_encoded();
        let passes = Passes::new(&self.embedder, &order.work);
        let batch = self.guarded(|clock| EmbeddedBatch::new(&passes, batch, notes.start, clock))?;
        let share = Share {
            embeddings: batch.embeddings.clone(),
            pictures_encoded: self.embedder.pictures_encoded() - encoded_before,
            seconds: begin.elapsed().as_secs_f64(),
        };
        let work = order.work;
        Ok((share, Held { work, notes, batch }))
    }

    fn backward(&self, held: Held, gradients: &EmbeddingGradients) -> Result<Summand, TrainError> {
        let begin = Instant::now();
        if held.notes.is_empty() {
            return Ok(Summand {
                gradients: FlatGradients::new(),
                seconds: 0.0,
            });
        }
        let passes = Passes::new(&self.embedder, &held.work);
        let own = gradients.slice(held.notes).to_device(&self.device);
        let gradients = self.guarded(|clock| held.batch.backward(&passes, &own, clock))?;
        Ok(Summand {
            gradients,
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    fn guarded<T>(
        &self,
        work: impl FnOnce(&mut PhaseClock<'_>) -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        let mut clock = PhaseClock::new(&self.device, false);
        let work = || work(&mut clock);
        guarded(&self.device, self.may_run_out_of_memory, self.timed, work)
    }
}

/// Does a worker's part of a step, which others wait for: where it may run out of memory, it says so by
/// an error once its device is done. `timed`: its device is waited for in any case.
///
/// # Errors
/// As `work`, and a device that failed.
pub(crate) fn guarded<T>(
    device: &Device,
    may_run_out_of_memory: bool,
    timed: bool,
    work: impl FnOnce() -> Result<T, TrainError>,
) -> Result<T, TrainError> {
    let all = || {
        let done = work()?;
        if may_run_out_of_memory || timed {
            let synced = device.sync();
            synced.map_err(|e| TrainError::device("the device failed during the step", e))?;
        }
        Ok(done)
    };
    if !may_run_out_of_memory {
        return all();
    }
    let done = device::within_memory(all);
    if let Err(TrainError::OutOfMemory(_)) = &done {
        device.memory_cleanup();
    }
    done
}
