//! The processes of a run, from their start to their end.

use mlrm_config::{BackendSettings, ReduceDType, RunConfig};
use mpi::environment::{Threading, Universe, initialize_with_threading, processor_name};
use mpi::topology::{Communicator, SimpleCommunicator};

use super::buckets::Layout;
use super::member::{Batches, Rank, next_head};
use super::messages::Head;
use super::{ANSWER, ORDER, Ranks, receive, send};
use crate::error::TrainError;
use crate::group::{Group, Worker, launched_by_mpi, learnt_weights, may_run_out_of_memory};
use crate::plan::{Computes, RunPlan};
use crate::states::StatesPass;

/// All processes that were started together.
pub struct World {
    world: SimpleCommunicator,
    computes: Computes,
    /// Ends MPI when it goes.
    _universe: Universe,
}

impl World {
    /// Joins the other processes; `None` where this one was started alone.
    ///
    /// # Errors
    /// An MPI library that does not start.
    pub fn join() -> Result<Option<Self>, TrainError> {
        if !launched_by_mpi() {
            return Ok(None);
        }
        // One thread alone speaks to the others.
        let Some((universe, _)) = initialize_with_threading(Threading::Funneled) else {
            return Err(TrainError::Worker("MPI was started already".into()));
        };
        let world = universe.world();
        let here = world.split_shared(world.rank());
        Ok(Some(Self {
            computes: Computes::OnOneOf {
                process: here.rank() as usize,
                processes: here.size() as usize,
                all: world.size() as usize,
            },
            world,
            _universe: universe,
        }))
    }

    /// This process among all; the first one leads.
    pub fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    /// Processes.
    pub fn size(&self) -> usize {
        self.world.size() as usize
    }

    /// Which devices this process computes on.
    pub fn computes(&self) -> Computes {
        self.computes
    }

    /// All processes, for the one that leads; has the others open their data and models.
    ///
    /// # Errors
    /// A message that cannot be written.
    pub fn group(&self, backend: &BackendSettings) -> Result<Box<dyn Group>, TrainError> {
        let mut names = vec![name(0)];
        for rank in 1..self.size() {
            names.push(receive(&self.world, rank, ANSWER)?);
            send(&self.world, rank, ORDER, &Head::Begin)?;
        }
        Ok(Box::new(Ranks {
            world: SimpleCommunicator::world(),
            names,
            layout: Layout::default(),
            short: is_short(backend),
        }))
    }

    /// Takes part in a run that another process leads, until it says that it is over.
    ///
    /// # Errors
    /// Data, model or devices that cannot train.
    pub fn follow<E: From<TrainError>>(
        &self,
        config: impl FnOnce() -> Result<RunConfig, E>,
    ) -> Result<(), E> {
        send(&self.world, 0, ANSWER, &name(self.rank()))?;
        // What the leader draws or downloads is there then.
        if !matches!(next_head(&self.world)?, Head::Begin) {
            return Ok(());
        }
        Ok(self.serve(config()?)?)
    }

    fn serve(&self, config: RunConfig) -> Result<(), TrainError> {
        let mut plan = RunPlan::prepare_on(config, &self.computes, &|_, _| {})?;
        plan.keep_features()?;
        // Beside the leader, which does the same.
        if let Some(mut pass) = StatesPass::new(&plan)? {
            while pass.go_on()?.is_some() {}
        }
        let mut rank = Rank {
            world: &self.world,
            batches: Batches::new(&plan)?,
            layout: Layout::of(&learnt_weights(&plan.embedder.core)),
            short: is_short(&plan.config.backend),
            device: plan.device.clone(),
        };
        let worker = Worker {
            may_run_out_of_memory: may_run_out_of_memory(&plan.device_name),
            embedder: plan.embedder,
            device: plan.device,
            timed: false,
        };
        worker.serve(&mut rank)
    }

    /// Tells all others that the run is over.
    ///
    /// # Errors
    /// A message that cannot be written.
    pub fn end(&self) -> Result<(), TrainError> {
        (1..self.size()).try_for_each(|rank| send(&self.world, rank, ORDER, &Head::End))
    }

    /// Ends all processes at once, because this one failed.
    pub fn abort(&self) -> ! {
        self.world.abort(1)
    }
}

/// What a rank is called.
fn name(rank: usize) -> String {
    match processor_name() {
        Ok(host) if !host.is_empty() => format!("rank {rank} on {host}"),
        _ => format!("rank {rank}"),
    }
}

fn is_short(backend: &BackendSettings) -> bool {
    backend.reduce_dtype == ReduceDType::Bf16
}
