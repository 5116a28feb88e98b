//! Objective, trainer, checkpoints and corpus encoding of mlrm.

pub mod objective;
pub mod verify;
