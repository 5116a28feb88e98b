//! In place of the processes of a run, where this binary has no MPI.

use mlrm_config::{BackendSettings, RunConfig};

use super::{Group, started_by_mpirun};
use crate::error::TrainError;
use crate::plan::Computes;

/// All processes that were started together: there are none.
pub enum World {}

impl World {
    /// `None`: this binary cannot join others.
    ///
    /// # Errors
    /// It was started as one of several, which would all train the same run.
    pub fn join() -> Result<Option<Self>, TrainError> {
        match started_by_mpirun() {
            0 | 1 => Ok(None),
            processes => Err(TrainError::Refused(format!(
                "mpirun started {processes} processes, but this binary was built without MPI; build with \
                 `cargo build --release --features mpi`, or start it by itself"
            ))),
        }
    }

    /// This process among all.
    pub fn rank(&self) -> usize {
        match *self {}
    }

    /// Processes.
    pub fn size(&self) -> usize {
        match *self {}
    }

    /// Which devices this process computes on.
    pub fn computes(&self) -> Computes {
        match *self {}
    }

    /// All processes, for the one that leads.
    ///
    /// # Errors
    /// None.
    pub fn group(&self, _backend: &BackendSettings) -> Result<Box<dyn Group>, TrainError> {
        match *self {}
    }

    /// Takes part in a run that another process leads.
    ///
    /// # Errors
    /// None.
    pub fn follow<E: From<TrainError>>(
        &self,
        _config: impl FnOnce() -> Result<RunConfig, E>,
    ) -> Result<(), E> {
        match *self {}
    }

    /// Tells all others that the run is over.
    ///
    /// # Errors
    /// None.
    pub fn end(&self) -> Result<(), TrainError> {
        match *self {}
    }

    /// Ends all processes at once.
    pub fn abort(&self) -> ! {
        match *self {}
    }
}
