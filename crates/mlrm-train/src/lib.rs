//! Objective, trainer, checkpoints and corpus encoding of mlrm.

pub mod bench;
pub mod changes;
pub mod checkpoint;
pub mod corpus;
mod data_record;
pub mod device;
pub mod encode;
mod error;
pub mod evaluate;
pub mod examples;
pub mod features;
mod flops;
pub mod folders;
pub mod group;
pub mod loss_scale;
pub mod measure;
pub mod memory;
pub mod objective;
pub mod optimiser;
mod parts;
mod phases;
pub mod plan;
pub mod preflight;
pub mod pretrained;
pub mod probe;
mod run;
pub mod run_folder;
pub mod sampling;
pub mod schedule;
#[cfg(test)]
#[path = "../tests/support/small.rs"]
mod small;
pub mod step;
pub mod system;
pub mod trainer;
pub mod verify;
mod watch;

pub use data_record::DataRecord;
pub use error::TrainError;
pub use run::{Finished, Run, run};
