//! Workers in processes of their own, which exchange what they have by MPI.
//!
//! The leader tells what comes next by a short message, for which the others look now and then, so that
//! they take no processor while it evaluates or saves. Embeddings go to the leader, their gradients and
//! the weights from it to all. Gradients of the parameters are added up in buckets: of each bucket every
//! rank gets a part from all, adds them up in their order, and sends the sum to the leader.

mod buckets;
mod member;
mod messages;
mod world;

pub use world::World;

use burn::tensor::Device;
use mpi::collective::Root;
use mpi::point_to_point::{Destination, Source};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::Equivalence;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Group, Order, Share, Summand, all_or_error};
use crate::error::TrainError;
use crate::optimiser::FlatGradients;
use buckets::{Layout, sum_gradients};
use messages::{Head, ShareHead, Tensors, Told};

/// Tags of messages.
const ORDER: i32 = 1;
const ANSWER: i32 = 2;
const VALUES: i32 = 3;

/// Most bytes of a message to all.
const CHUNK_BYTES: usize = 16 << 20;

/// All processes of the run, as the leader sees them.
struct Ranks {
    world: SimpleCommunicator,
    /// What each is called.
    names: Vec<String>,
    /// What learns.
    layout: Layout,
    /// Whether gradients travel in bf16.
    short: bool,
}

impl Ranks {
    fn tell(&self, head: &Head) -> Result<(), TrainError> {
        (1..self.names.len()).try_for_each(|rank| send(&self.world, rank, ORDER, head))
    }

    /// Sends weights to all, in the order of their paths.
    fn send_weights(&mut self, weights: &super::Weights) -> Result<(), TrainError> {
        self.layout = Layout::of(weights);
        self.tell(&Head::Weights {
            model: self.layout.fingerprint(),
        })?;
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        for (path, tensor) in weights {
            let data = tensor.clone().try_into_data();
            let data = data.map_err(|e| unreadable(path, e))?;
            let mut bytes: &[u8] = data.as_bytes();
            while !bytes.is_empty() {
                let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - chunk.len()));
                chunk.extend_from_slice(now);
                bytes = later;
                if chunk.len() == CHUNK_BYTES {
                    to_all(&self.world, &mut chunk);
                    chunk.clear();
                }
            }
        }
        if !chunk.is_empty() {
            to_all(&self.world, &mut chunk);
        }
        Ok(())
    }
}

impl Group for Ranks {
    fn size(&self) -> usize {
        self.names.len()
    }

    fn broadcast(&mut self, order: Order) -> Result<(), TrainError> {
        match order {
            Order::Embed(order) => self.tell(&Head::embed(&order)),
            Order::Weights(weights) => self.send_weights(&weights),
            Order::End => self.tell(&Head::End),
            Order::Backward(gradients) => {
                let parts = [Some(gradients.multimodal), gradients.visual, None];
                let (tensors, mut values) = Tensors::read(parts)?;
                self.tell(&Head::Backward(tensors))?;
                to_all(&self.world, &mut values);
                Ok(())
            }
        }
    }

    fn gather(
        &mut self,
        own: Result<Share, TrainError>,
        device: &Device,
    ) -> Result<Vec<Share>, TrainError> {
        let mut answers = vec![own];
        for rank in 1..self.names.len() {
            let told: Told<ShareHead> = receive(&self.world, rank, ANSWER)?;
            answers.push(match told.answer() {
                Ok(head) => head.share(receive_values(&self.world, rank), device),
                Err(error) => Err(error),
            });
        }
        all_or_error(answers, |rank| self.names[rank].clone())
    }

    fn reduce(
        &mut self,
        own: Result<Summand, TrainError>,
        device: &Device,
    ) -> Result<FlatGradients, TrainError> {
        let mut answers = vec![own];
        for rank in 1..self.names.len() {
            let told: Told<()> = receive(&self.world, rank, ANSWER)?;
            answers.push(told.answer().map(|()| Summand {
                gradients: FlatGradients::new(),
                seconds: 0.0,
            }));
        }
        let answers = all_or_error(answers, |rank| self.names[rank].clone());
        to_all(&self.world, &mut [u8::from(answers.is_ok())]);
        let own = answers?.into_iter().next();
        let own = own.map(|own| own.gradients).unwrap_or_default();
        sum_gradients(&self.world, &self.layout, self.short, own, device)
    }
}

/// From the first rank to all, into `values` of the others.
fn to_all<T: Equivalence>(world: &SimpleCommunicator, values: &mut [T]) {
    for values in values.chunks_mut(CHUNK_BYTES) {
        world.process_at_rank(0).broadcast_into(values);
    }
}

fn send<T: Serialize>(
    world: &SimpleCommunicator,
    rank: usize,
    tag: i32,
    message: &T,
) -> Result<(), TrainError> {
    let bytes = serde_json::to_vec(message)
        .map_err(|e| TrainError::Worker(format!("a message cannot be written: {e}")))?;
    world
        .process_at_rank(rank as i32)
        .send_with_tag(bytes.as_slice(), tag);
    Ok(())
}

fn receive<T: DeserializeOwned>(
    world: &SimpleCommunicator,
    rank: usize,
    tag: i32,
) -> Result<T, TrainError> {
    let process = world.process_at_rank(rank as i32);
    let (bytes, _) = process.receive_vec_with_tag::<u8>(tag);
    serde_json::from_slice(&bytes)
        .map_err(|e| TrainError::Worker(format!("a message of rank {rank} cannot be read: {e}")))
}

/// Numbers that follow a message.
fn receive_values(world: &SimpleCommunicator, rank: usize) -> Vec<f32> {
    let process = world.process_at_rank(rank as i32);
    process.receive_vec_with_tag::<f32>(VALUES).0
}

fn unreadable(what: &str, said: impl std::fmt::Debug) -> TrainError {
    TrainError::device(format!("`{what}` cannot be read from the device"), said)
}
