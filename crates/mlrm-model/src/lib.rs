//! Decoders, vision towers, connectors and the multimodal embedder of mlrm, on Burn.

pub mod adapter;
mod bounds;
pub mod checksums;
pub mod connector;
pub mod decoder;
pub mod embedder;
mod error;
pub mod fusion;
pub mod hf_config;
pub mod nn;
pub mod ops;
mod registry;
pub mod saliency;
pub mod source;
pub mod system;
pub mod transfer;
pub mod vision;
pub mod weights;

pub use error::ModelError;
