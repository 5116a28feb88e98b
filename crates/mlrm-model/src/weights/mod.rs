//! Tensors on disk and in modules: names, strict loading, initial values and export.
//!
//! A module's own path (`encoder.layer.0.output.layer_norm.weight`) becomes a checkpoint name
//! through a [`NameTable`], which lists only the exceptions. Both directions use it: the names that
//! a module expects are enumerated from the module, so loading finds what is missing *and* what is
//! left over. Linear weights are `[outputs, inputs]` in checkpoints and `[inputs, outputs]` here.

mod checkpoint;
mod init;
mod module;

pub use checkpoint::{Checkpoint, StoredIntegers, StoredTensor, write_safetensors};
pub use init::{InitRule, initial_values};
pub use module::{
    ExportedTensor, NameTable, NamedTensor, export, export_gradients, fill, load, named_tensors,
    parameter_count,
};
