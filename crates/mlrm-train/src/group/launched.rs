//! Whether this process was started as one of several, by what starts MPI programs.

use std::env::{var, var_os};

/// What `mpirun` and `srun` tell the processes that they start: Open MPI, PMIx, and PMI.
pub const LAUNCH_MARKS: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"];

/// Whether this process was started as an MPI program, be it as the only one.
pub fn launched_by_mpi() -> bool {
    LAUNCH_MARKS.iter().any(|mark| var_os(mark).is_some())
}

/// The processes that Open MPI's `mpirun` started beside this one, itself included. `srun` starts many
/// programs that do not know each other.
pub fn started_by_mpirun() -> usize {
    let size = var(LAUNCH_MARKS[0]).ok();
    size.and_then(|size| size.parse().ok()).unwrap_or(1)
}
