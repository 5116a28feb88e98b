//! Workers that train together: each embeds a share of every batch and carries its gradients back.
//!
//! The first worker leads: it holds the run, draws the batches, computes the loss of all embeddings
//! together and updates the weights, which it sends to the others. These hold a copy of the model and
//! nothing else that lasts, so that a checkpoint knows nothing of them. A step is
//!
//! 1. each worker embeds its share, and the leader [gathers](Group::gather) the embeddings;
//! 2. the leader computes the loss, whose negatives are those of the whole batch, and
//!    [broadcasts](Group::broadcast) its gradients;
//! 3. each worker carries those of its share to the parameters, and the leader gets the
//!    [sum](Group::reduce), added up in the order of the workers.

#[cfg(not(feature = "mpi"))]
mod absent;
mod launched;
#[cfg(feature = "mpi")]
mod ranks;
mod shares;
mod threads;
mod weights;
mod worker;

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Device;
use mlrm_data::batch::NoteBatch;
use mlrm_data::order::Cursor;
use mlrm_model::embedder::Embeddings;

#[cfg(not(feature = "mpi"))]
pub use absent::World;
pub use launched::{LAUNCH_MARKS, launched_by_mpi, started_by_mpirun};
#[cfg(feature = "mpi")]
pub use ranks::World;
pub use shares::{Speeds, deal};
pub use threads::Threads;
pub(crate) use threads::may_run_out_of_memory;
pub use weights::{Weights, learnt_weights, with_weights};
pub(crate) use worker::OwnPart;
pub use worker::{Member, Worker};

use crate::error::TrainError;
use crate::objective::EmbeddingGradients;
use crate::optimiser::FlatGradients;
use crate::step::Work;

/// What the leader asks of the other workers.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a few a step, each moved once")]
pub enum Order {
    /// To embed their shares of a batch; answered with a [`Share`].
    Embed(EmbedOrder),
    /// The gradients of the batch's embeddings, `[notes, e]`, to be carried to the parameters; answered
    /// with a [`Summand`].
    Backward(EmbeddingGradients),
    /// To go on with these weights.
    Weights(Arc<Weights>),
    /// To end.
    End,
}

/// A batch that is to be embedded.
#[derive(Debug, Clone)]
pub struct EmbedOrder {
    /// How.
    pub work: Work,
    /// The notes of each worker.
    pub shares: Vec<Range<usize>>,
    /// Where the order of the data stands before the batch.
    pub cursor: Cursor,
    /// The batch.
    pub batch: Arc<NoteBatch>,
}

/// What a worker made of its share of a batch.
#[derive(Debug)]
pub struct Share {
    /// Outside the autodiff graph; `None` of no notes.
    pub embeddings: Option<Embeddings>,
    /// Pictures that passed through its vision encoder.
    pub pictures_encoded: u64,
    /// What it took, where that is [timed](Group::timed).
    pub seconds: f64,
}

/// What a worker adds to the gradients of a batch.
#[derive(Debug)]
pub struct Summand {
    /// Of the parameters that its share depends on.
    pub gradients: FlatGradients,
    /// What it took, where that is [timed](Group::timed).
    pub seconds: f64,
}

/// The workers of a run, as their leader sees them, who is the first of them.
pub trait Group {
    /// How many there are.
    fn size(&self) -> usize;

    /// Tells all others what comes next.
    ///
    /// # Errors
    /// A worker that is gone.
    fn broadcast(&mut self, order: Order) -> Result<(), TrainError>;

    /// What all workers embedded, in their order, on `device`. All of them are waited for, whatever
    /// became of one.
    ///
    /// # Errors
    /// The first error of a worker, [`TrainError::OutOfMemory`] only where there is no other; a worker
    /// that is gone.
    fn gather(
        &mut self,
        own: Result<Share, TrainError>,
        device: &Device,
    ) -> Result<Vec<Share>, TrainError>;

    /// The sum of what all workers add, in their order, on `device`.
    ///
    /// # Errors
    /// As [`Self::gather`].
    fn reduce(
        &mut self,
        own: Result<Summand, TrainError>,
        device: &Device,
    ) -> Result<FlatGradients, TrainError>;

    /// Which of the notes of a batch, that cost so much each, each worker gets.
    fn shares(&self, costs: &[usize]) -> Vec<Range<usize>> {
        deal(costs, &vec![1.0; self.size()])
    }

    /// Whether workers wait for their devices to say what a share took.
    fn timed(&self) -> bool {
        false
    }
}

/// A leader without others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Group for Alone {
    fn size(&self) -> usize {
        1
    }

    fn broadcast(&mut self, _order: Order) -> Result<(), TrainError> {
        Ok(())
    }

    fn gather(
        &mut self,
        own: Result<Share, TrainError>,
        _device: &Device,
    ) -> Result<Vec<Share>, TrainError> {
        Ok(vec![own?])
    }

    fn reduce(
        &mut self,
        own: Result<Summand, TrainError>,
        _device: &Device,
    ) -> Result<FlatGradients, TrainError> {
        Ok(own?.gradients)
    }
}

/// What all workers answered, or what is to be done about those that failed. `name` says who a worker is.
///
/// # Errors
/// As [`Group::gather`].
fn all_or_error<T>(
    answers: Vec<Result<T, TrainError>>,
    name: impl Fn(usize) -> String,
) -> Result<Vec<T>, TrainError> {
    let (mut found, mut full) = (Vec::with_capacity(answers.len()), None);
    for (rank, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(answer) => found.push(answer),
            Err(TrainError::OutOfMemory(reason)) => {
                full.get_or_insert(format!("{}: {reason}", name(rank)));
            }
            Err(error) if rank == 0 => return Err(error),
            Err(error) => return Err(TrainError::Worker(format!("{}: {error}", name(rank)))),
        }
    }
    match full {
        Some(reason) => Err(TrainError::OutOfMemory(reason)),
        None => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_device_is_no_reason_to_end_but_others_are() {
        let name = |rank: usize| format!("worker {rank}");
        let full = || Err(TrainError::OutOfMemory("full".into()));
        assert_eq!(all_or_error(vec![Ok(1), Ok(2)], name).unwrap(), [1, 2]);
        let error = all_or_error(vec![Ok(1), full(), full()], name).unwrap_err();
        assert!(matches!(error, TrainError::OutOfMemory(text) if text == "worker 1: full"));
        let gone = Err(TrainError::Worker("gone".into()));
        let error = all_or_error(vec![full(), Ok(1), gone], name).unwrap_err();
        assert!(matches!(error, TrainError::Worker(text) if text == "worker 2: gone"));
    }
}
