//! A rank that does not lead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::{Device, TensorData};
use mlrm_data::batch::NoteBatch;
use mlrm_data::loader::{LoaderSettings, NoteEncoder, PairBatches};
use mlrm_data::order::Cursor;
use mlrm_data::split::Pair;
use mlrm_model::transfer::upload;
use mpi::point_to_point::{Destination, Source};
use mpi::topology::{Communicator, SimpleCommunicator};

use super::buckets::{Layout, sum_gradients};
use super::messages::{Head, ShareHead, Tensors, Told, fingerprint};
use super::{ANSWER, CHUNK_BYTES, ORDER, VALUES, receive, send, to_all};
use crate::error::TrainError;
use crate::group::{EmbedOrder, Member, Order, Share, Summand, Weights};
use crate::objective::EmbeddingGradients;
use crate::plan::RunPlan;

/// The end of a rank that does not lead.
pub(super) struct Rank<'a> {
    pub(super) world: &'a SimpleCommunicator,
    pub(super) batches: Batches,
    pub(super) layout: Layout,
    pub(super) short: bool,
    pub(super) device: Device,
}

/// What the leader says next. A rank sleeps between looks, the longer the less is going on.
pub(super) fn next_head(world: &SimpleCommunicator) -> Result<Head, TrainError> {
    const BUSY: Duration = Duration::from_millis(20);
    const SHORT: Duration = Duration::from_micros(50);
    const LONG: Duration = Duration::from_millis(2);
    let (leader, begun) = (world.process_at_rank(0), Instant::now());
    while leader.immediate_probe_with_tag(ORDER).is_none() {
        std::thread::sleep(match begun.elapsed() < BUSY {
            true => SHORT,
            false => LONG,
        });
    }
    receive(world, 0, ORDER)
}

impl Rank<'_> {
    fn weights(&self, model: u64) -> Result<Weights, TrainError> {
        if self.layout.fingerprint() != model {
            return Err(TrainError::Worker(
                "the model here is not the one of the first process: give all of them the same config, \
                 and the same files of weights"
                    .into(),
            ));
        }
        let bytes = |elements: usize, size: usize| elements * size;
        let sizes = self.layout.0.iter();
        let mut left: usize = sizes.map(|(_, n, dtype)| bytes(*n, dtype.size())).sum();
        let mut ready: Vec<u8> = Vec::new();
        let mut weights = Weights::new();
        let device = self.device.clone().without_autodiff();
        for (path, elements, dtype) in &self.layout.0 {
            let mut own = Vec::with_capacity(bytes(*elements, dtype.size()));
            while own.len() < bytes(*elements, dtype.size()) {
                if ready.is_empty() {
                    ready = vec![0; left.min(CHUNK_BYTES)];
                    left -= ready.len();
                    to_all(self.world, &mut ready);
                }
                let missing = bytes(*elements, dtype.size()) - own.len();
                let rest = ready.split_off(ready.len().min(missing));
                own.append(&mut std::mem::replace(&mut ready, rest));
            }
            let data = TensorData::from_bytes_vec(own, [*elements], *dtype);
            weights.insert(path.clone(), upload(data, (&device, *dtype)));
        }
        Ok(weights)
    }

    fn gradients_of_embeddings(&self, tensors: Tensors) -> Result<EmbeddingGradients, TrainError> {
        let mut values = vec![0.0_f32; tensors.len()];
        to_all(self.world, &mut values);
        let device = self.device.clone().without_autodiff();
        let [multimodal, visual, _] = tensors.write(values, &device);
        let missing = || TrainError::Worker("gradients of no embeddings came".into());
        Ok(EmbeddingGradients {
            multimodal: multimodal.ok_or_else(missing)?,
            visual,
        })
    }
}

impl Member for Rank<'_> {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn receive(&mut self) -> Result<Order, TrainError> {
        loop {
            match next_head(self.world)? {
                Head::Begin => {}
                Head::End => return Ok(Order::End),
                Head::Weights { model } => {
                    return Ok(Order::Weights(Arc::new(self.weights(model)?)));
                }
                Head::Backward(tensors) => {
                    return Ok(Order::Backward(self.gradients_of_embeddings(tensors)?));
                }
                Head::Embed {
                    work,
                    shares,
                    cursor,
                    batch,
                } => match self.batches.at(cursor, batch) {
                    Ok(batch) => {
                        return Ok(Order::Embed(EmbedOrder {
                            work,
                            shares,
                            cursor,
                            batch,
                        }));
                    }
                    Err(error) => self.embedded(Err(error))?,
                },
            }
        }
    }

    fn embedded(&mut self, share: Result<Share, TrainError>) -> Result<(), TrainError> {
        let (head, values) = match share.and_then(ShareHead::read) {
            Ok((head, values)) => (Ok(head), values),
            Err(error) => (Err(error), Vec::new()),
        };
        send(self.world, 0, ANSWER, &Told::of(&head))?;
        if head.is_ok() {
            let leader = self.world.process_at_rank(0);
            leader.send_with_tag(values.as_slice(), VALUES);
        }
        Ok(())
    }

    fn gradients(&mut self, summand: Result<Summand, TrainError>) -> Result<(), TrainError> {
        let (told, own) = match summand {
            Ok(summand) => (Ok(()), summand.gradients),
            Err(error) => (Err(error), Default::default()),
        };
        send(self.world, 0, ANSWER, &Told::of(&told))?;
        let mut all_went_well = [0_u8];
        to_all(self.world, &mut all_went_well);
        if all_went_well == [1] {
            sum_gradients(self.world, &self.layout, self.short, own, &self.device)?;
        }
        Ok(())
    }
}

/// The batches of training, drawn here as the leader draws them.
pub(super) struct Batches {
    encoder: Arc<NoteEncoder>,
    pairs: Arc<[Pair]>,
    seed: u64,
    settings: LoaderSettings,
    /// What is drawn, and where its order stands.
    drawn: Option<(PairBatches, Cursor)>,
    /// The last batch, and where the order stood before it.
    last: Option<(Cursor, Arc<NoteBatch>)>,
}

impl Batches {
    pub(super) fn new(plan: &RunPlan) -> Result<Self, TrainError> {
        Ok(Self {
            encoder: plan.encoder()?,
            pairs: Arc::from(plan.pairs.pairs.train.as_slice()),
            seed: plan.config.run.seed,
            settings: LoaderSettings::new(&plan.config.data, &plan.config.train),
            drawn: None,
            last: None,
        })
    }

    /// The batch that begins at `cursor`, which must be the one that the leader has.
    fn at(&mut self, cursor: Cursor, expected: u64) -> Result<Arc<NoteBatch>, TrainError> {
        let batch = match &self.last {
            Some((begin, batch)) if *begin == cursor => Arc::clone(batch),
            _ => self.draw(cursor)?,
        };
        if fingerprint(&batch) != expected {
            return Err(TrainError::Worker(
                "the batch here is not the one of the first process: give all of them the same notes, \
                 pairs and pictures"
                    .into(),
            ));
        }
        Ok(batch)
    }

    fn draw(&mut self, cursor: Cursor) -> Result<Arc<NoteBatch>, TrainError> {
        let mut batches = match self.drawn.take() {
            Some((batches, place)) if place == cursor => batches,
            _ => PairBatches::new(
                Arc::clone(&self.encoder),
                Arc::clone(&self.pairs),
                self.seed,
                cursor,
                self.settings.clone(),
            )?,
        };
        let ended = || TrainError::Worker("the data loader ended before the run did".into());
        let (place, batch) = batches.next().ok_or_else(ended)??;
        let batch = Arc::new(batch);
        self.drawn = Some((batches, place));
        self.last = Some((cursor, Arc::clone(&batch)));
        Ok(batch)
    }
}
