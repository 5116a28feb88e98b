//! Workers in threads of one process, each on a device of its own. Tensors go from one to the other as
//! they are: between devices of one backend as the backend does it, else through the host.

use std::any::Any;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use burn::tensor::{Device, Tensor};
use mlrm_config::{BackendName, DeviceName};
use mlrm_model::embedder::Embedder;

use super::worker::{Member, Worker};
use super::{Group, Order, Share, Speeds, Summand, all_or_error, deal};
use crate::device::panic_message;
use crate::error::TrainError;
use crate::optimiser::{FlatGradients, GradientSum};
use crate::step::most_notes;

/// A leader and workers in threads of their own.
pub struct Threads {
    /// The devices by name, the leader's first.
    names: Vec<String>,
    workers: Vec<Thread>,
    /// Where the workers are not of one kind.
    speeds: Option<Speeds>,
    /// The shares of the batch that is on its way: what each costs, and what it took so far.
    dealt: Vec<(usize, f64)>,
}

/// The leader's end of a worker.
struct Thread {
    /// Gone once the worker is to end.
    orders: Option<Sender<Order>>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
}

#[allow(clippy::large_enum_variant, reason = "a few a step, each moved once")]
enum Answer {
    Share(Result<Share, TrainError>),
    Summand(Result<Summand, TrainError>),
}

/// The worker's end of itself.
struct End {
    rank: usize,
    orders: Receiver<Order>,
    answers: Sender<Answer>,
}

impl Threads {
    /// Starts a worker on each of `others`, beside the leader on the device that is called `leader`. Each
    /// gets a copy of `embedder`.
    ///
    /// # Errors
    /// A system that gives no threads.
    pub fn start(
        embedder: &Embedder,
        leader: &str,
        others: &[(String, Device)],
    ) -> Result<Self, TrainError> {
        let names: Vec<String> = std::iter::once(leader)
            .chain(others.iter().map(|(name, _)| name.as_str()))
            .map(str::to_owned)
            .collect();
        let mixed = names.iter().any(|name| kind(name) != kind(leader));
        let start = |(index, (name, device)): (usize, &(String, Device))| {
            let worker = Worker {
                embedder: embedder.fork(device),
                device: device.clone(),
                may_run_out_of_memory: may_run_out_of_memory(name),
                timed: mixed,
            };
            Thread::start(index + 1, worker)
        };
        Ok(Self {
            workers: others
                .iter()
                .enumerate()
                .map(start)
                .collect::<Result<_, _>>()?,
            speeds: mixed.then(|| Speeds::unknown(names.len())),
            dealt: Vec::new(),
            names,
        })
    }

    fn name(&self, rank: usize) -> String {
        format!("worker {rank} ({})", self.names[rank])
    }

    /// The next answer of each worker but the leader.
    fn answers<T>(
        &mut self,
        own: Result<T, TrainError>,
        of: impl Fn(Answer) -> Option<Result<T, TrainError>>,
    ) -> Result<Vec<T>, TrainError> {
        let mut answers = vec![own];
        for rank in 1..self.names.len() {
            let answer = self.workers[rank - 1].answers.recv();
            answers.push(match answer.ok().and_then(&of) {
                Some(answer) => answer,
                None => Err(self.gone(rank)),
            });
        }
        all_or_error(answers, |rank| self.name(rank))
    }

    /// Why a worker answers no more.
    fn gone(&mut self, rank: usize) -> TrainError {
        TrainError::Worker(self.workers[rank - 1].end())
    }

    fn took(&mut self, seconds: impl Iterator<Item = f64>) {
        for ((_, sum), seconds) in self.dealt.iter_mut().zip(seconds) {
            *sum += seconds;
        }
    }
}

/// The backend that a device's name means.
fn kind(name: &str) -> Option<BackendName> {
    let name: Option<DeviceName> = name.parse().ok();
    name.map(|name| name.backend)
}

/// Whether a step on the device that is called so may fail for want of memory. On the host the system ends
/// a process that takes too much, without asking.
pub(crate) fn may_run_out_of_memory(device: &str) -> bool {
    most_notes().is_some() || kind(device) != Some(BackendName::Flex)
}

impl Group for Threads {
    fn size(&self) -> usize {
        self.names.len()
    }

    fn broadcast(&mut self, order: Order) -> Result<(), TrainError> {
        if let Order::Embed(embed) = &order {
            let costs = embed.batch.lengths.as_slice();
            let cost = |notes: &Range<usize>| costs[notes.clone()].iter().sum();
            self.dealt = embed
                .shares
                .iter()
                .map(|notes| (cost(notes), 0.0))
                .collect();
        }
        for rank in 1..self.names.len() {
            let orders = self.workers[rank - 1].orders.as_ref();
            let sent = orders.is_some_and(|orders| orders.send(order.clone()).is_ok());
            if !sent {
                let name = self.name(rank);
                return Err(TrainError::Worker(format!("{name}: {}", self.gone(rank))));
            }
        }
        Ok(())
    }

    fn gather(
        &mut self,
        own: Result<Share, TrainError>,
        device: &Device,
    ) -> Result<Vec<Share>, TrainError> {
        let mut shares = self.answers(own, |answer| match answer {
            Answer::Share(share) => Some(share),
            Answer::Summand(_) => None,
        })?;
        self.took(shares.iter().map(|share| share.seconds));
        for share in &mut shares[1..] {
            share.embeddings = share.embeddings.take().map(|all| all.to_device(device));
        }
        Ok(shares)
    }

    fn reduce(
        &mut self,
        own: Result<Summand, TrainError>,
        device: &Device,
    ) -> Result<FlatGradients, TrainError> {
        let summands = self.answers(own, |answer| match answer {
            Answer::Summand(summand) => Some(summand),
            Answer::Share(_) => None,
        })?;
        self.took(summands.iter().map(|summand| summand.seconds));
        if let Some(speeds) = &mut self.speeds {
            let (costs, seconds): (Vec<usize>, Vec<f64>) = self.dealt.iter().copied().unzip();
            speeds.measure(&costs, &seconds);
        }
        let mut sum = GradientSum::default();
        for summand in summands {
            let here = |(path, gradient): (String, Tensor<1>)| (path, gradient.to_device(device));
            sum.add(summand.gradients.into_iter().map(here).collect());
        }
        Ok(sum.total())
    }

    fn shares(&self, costs: &[usize]) -> Vec<Range<usize>> {
        match &self.speeds {
            Some(speeds) => deal(costs, speeds.per_second()),
            None => deal(costs, &vec![1.0; self.size()]),
        }
    }

    fn timed(&self) -> bool {
        self.speeds.is_some()
    }
}

impl Thread {
    fn start(rank: usize, worker: Worker) -> Result<Self, TrainError> {
        let (orders, to_do) = channel();
        let (done, answers) = channel();
        let mut end = End {
            rank,
            orders: to_do,
            answers: done,
        };
        let thread = thread::Builder::new()
            .name(format!("mlrm-worker-{rank}"))
            .spawn(move || {
                // A leader that is gone wants nothing more.
                let _gone = worker.serve(&mut end);
            });
        let thread = thread.map_err(|e| {
            TrainError::Worker(format!("the system gives no thread for worker {rank}: {e}"))
        })?;
        Ok(Self {
            orders: Some(orders),
            answers,
            thread: Some(thread),
        })
    }

    /// Waits for the worker to end; why it did so by itself, where it did.
    fn end(&mut self) -> String {
        drop(self.orders.take());
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Err(panic)) => {
                let panic: &(dyn Any + Send) = panic.as_ref();
                format!(
                    "it ended in the midst of its work: {}",
                    panic_message(panic)
                )
            }
            _ => "it ended in the midst of its work".into(),
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.end();
    }
}

impl Member for End {
    fn rank(&self) -> usize {
        self.rank
    }

    fn receive(&mut self) -> Result<Order, TrainError> {
        self.orders.recv().map_err(|_| left())
    }

    fn embedded(&mut self, share: Result<Share, TrainError>) -> Result<(), TrainError> {
        let sent = self.answers.send(Answer::Share(share));
        sent.map_err(|_| left())
    }

    fn gradients(&mut self, summand: Result<Summand, TrainError>) -> Result<(), TrainError> {
        let sent = self.answers.send(Answer::Summand(summand));
        sent.map_err(|_| left())
    }
}

fn left() -> TrainError {
    TrainError::Worker("the first worker is gone".into())
}
