//! Decoders, vision encoders, connectors and the multimodal embedder of mlrm, on Burn.
//!
//! In this order it is read best:
//!
//! | module | what is there |
//! | --- | --- |
//! | [`embedder`] | the whole model: its parts, how they are built and opened, from pixels and ids to embeddings |
//! | [`decoder`] | the language model, a file a family |
//! | [`vision`] | the vision encoder, a file a family; features that are kept |
//! | [`connector`], [`fusion`] | from a picture's features to visual tokens; the gate of late fusion |
//! | [`nn`] | layers that these share: attention, linear maps with adapters, norms, rotary positions, dropout |
//! | [`ops`] | the operations that layers are made of ([`mlrm_kernels`]) |
//! | [`source`], [`hf_config`], [`system`] | model folders: Hugging Face's, mlrm's own, and systems such as BLIP-2 |
//! | [`weights`], [`transfer`], [`adapter`], [`checksums`] | reading and writing tensors by checkpoint names; LoRA in PEFT's layout |
//! | [`saliency`] | how much each layer reads the picture and the text |

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
pub use mlrm_kernels as ops;
mod registry;
pub mod saliency;
pub mod source;
pub mod system;
pub mod transfer;
pub mod vision;
pub mod weights;

pub use error::{InvalidConfig, ModelError};
