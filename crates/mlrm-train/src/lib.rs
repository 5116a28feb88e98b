//! Training of multimodal embedding models, and what goes with it: [`run()`] takes settings to a finished run folder, and
//! whoever listens hears [events](mlrm_events). No screen, no formatting.
//!
//! In this order it is read best:
//!
//! | module | what is there |
//! | --- | --- |
//! | [`run()`] | a run from end to end: folder, plan, trainer, evaluation |
//! | [`plan`], [`corpus`] | notes, pairs and model as the settings name them, opened and checked |
//! | [`preflight`], [`memory`] | whether it fits into memory, before it begins |
//! | [`trainer`] | the loop: steps, validation, probes, checkpoints, requests |
//! | [`step`] | one step: embeddings, loss, gradients, update; in slices where a batch is large |
//! | [`objective`], [`loss_scale`] | the contrastive loss and its gradient |
//! | [`optimiser`], [`schedule`], [`sampling`] | AdamW, learning rate, visual sampling |
//! | [`encode`], [`features`], [`phases`] | from batches to embeddings, features of a frozen vision encoder, the clock |
//! | [`group`] | workers: threads of one process, or processes of many machines |
//! | [`checkpoint`], [`run_folder`], [`folders`], [`changes`] | what a run writes, and going on from it |
//! | [`evaluate`], [`examples`], [`probe`] | retrieval, pictures of what it finds, saliency |
//! | [`device`], [`system`] | device names, and what the machine does meanwhile |

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
pub mod folders;
pub mod group;
pub mod loss_scale;
pub mod memory;
pub mod objective;
pub mod optimiser;
mod parts;
pub mod phases;
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
mod states;
pub mod step;
pub mod system;
pub mod trainer;
mod watch;

pub use data_record::DataRecord;
pub use error::TrainError;
pub use run::{Finished, Run, run};
