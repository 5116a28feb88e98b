//! Tensors on disk and in modules: names, strict loading, initial values and export.
//!
//! A module's own path (`encoder.layer.0.output.layer_norm.weight`) becomes a checkpoint name
//! through a [`NameTable`], which lists only the exceptions. Both directions use it: the names that
//! a module expects are enumerated from the module, so loading finds what is missing *and* what is
//! left over. Linear weights are `[outputs, inputs]` in checkpoints and `[inputs, outputs]` here.
//!
//! Neither direction holds a second copy of a model: files are mapped into memory and each tensor
//! is converted straight into its parameter, whose zeros were never allocated; exported tensors are
//! written one after another.

mod checkpoint;
mod convert;
mod init;
mod load;
mod maps;
mod module;
mod shard;
#[cfg(test)]
mod tests;
mod walk;
mod write;

pub use checkpoint::{Checkpoint, INDEX_FILE, SINGLE_FILE, StoredIntegers, StoredTensor};
pub use convert::NewRows;
pub(crate) use init::stable_hash;
pub use init::{InitRule, initial_values};
pub use load::{Fit, LoadOptions, Mismatch, fit, fit_only, load, load_adapters};
pub use maps::{
    LinearMap, linear_maps, parameter_count, quantise_linear_maps, trained_parameter_count,
};
pub(crate) use module::each_value;
pub use module::{
    ExportedTensor, NameTable, NamedTensor, export, export_adapters, export_gradients, fill,
    named_tensors, renamed,
};
pub use walk::{Kind, Parameter, ParameterMut, Place, Tensors, each_parameter, map_parameters};
pub use write::{WriteOptions, Written, write_each, write_module, write_safetensors};
