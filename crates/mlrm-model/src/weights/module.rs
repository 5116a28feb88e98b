//! A module's parameters under their checkpoint names.

use burn::module::Module;
use burn::tensor::{DType, Gradients, TensorData};

use super::walk::{Tensors, each_parameter, map_parameters};
use crate::error::ModelError;

/// How a module's own paths become checkpoint names.
#[derive(Debug, Clone, Copy)]
pub struct NameTable {
    /// Renames the exceptions in a path; identity elsewhere.
    pub rename: fn(&str) -> String,
    /// Checkpoint tensors that are left unread, each with the reason: by the start of the name where
    /// the pattern ends in a dot, else by its end.
    pub ignored: &'static [(&'static str, &'static str)],
}

impl NameTable {
    /// Why the checkpoint tensor `name` is left unread; `None` where it must have a place.
    pub fn ignores(&self, name: &str) -> Option<&'static str> {
        let matches = |pattern: &str| match pattern.ends_with('.') {
            true => name.starts_with(pattern),
            false => name.ends_with(pattern),
        };
        let found = self.ignored.iter().find(|(pattern, _)| matches(pattern));
        found.map(|&(_, reason)| reason)
    }
}

/// A path of the core with its parts renamed after `table`, whose entries are (the core's, the
/// family's) beginnings of a path, at the top and below `layers.N.`.
pub fn renamed(path: &str, table: &[(&str, &str)]) -> String {
    let replace = |part: &str| {
        let entry = |(own, theirs): &(&str, &str)| {
            let rest = part.strip_prefix(own)?;
            Some(format!("{theirs}{rest}"))
        };
        table.iter().find_map(entry).unwrap_or_else(|| part.into())
    };
    let layer = path.strip_prefix("layers.");
    match layer.and_then(|rest| rest.split_once('.')) {
        Some((index, rest)) => format!("{}{index}.{}", replace("layers."), replace(rest)),
        None => replace(path),
    }
}

/// A parameter under its checkpoint name.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// The module's own path.
    pub path: String,
    /// Name in the checkpoint, without the checkpoint's prefix.
    pub name: String,
    /// Shape in the checkpoint (linear weights `[outputs, inputs]`).
    pub shape: Vec<usize>,
}

fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (r, row) in values.chunks_exact(columns.max(1)).enumerate() {
        for (c, &value) in row.iter().enumerate() {
            out[c * rows + r] = value;
        }
    }
    out
}

/// A tensor as a checkpoint stores it: name, shape, row-major f32 values.
pub type ExportedTensor = (String, Vec<usize>, Vec<f32>);

/// What a traversal reads of each parameter.
#[derive(Clone, Copy)]
enum Reading<'a> {
    Values,
    Gradients(&'a Gradients),
}

/// Told of one tensor after another, in checkpoint layout; may refuse to go on.
type Receive<'a> = &'a mut dyn FnMut(NamedTensor, TensorData) -> Result<(), ModelError>;

fn read<M: Module>(
    module: &M,
    which: Tensors,
    rename: fn(&str) -> String,
    reading: Reading<'_>,
    receive: Receive<'_>,
) -> Result<(), ModelError> {
    let mut result = Ok(());
    each_parameter(module, &mut |param| {
        if result.is_err() || param.tensors() != which {
            return;
        }
        let values = match reading {
            Reading::Values => Some(param.values()),
            Reading::Gradients(gradients) => param.gradient(gradients),
        };
        let Some(values) = values else { return };
        let named = param.named(rename);
        let values = match param.transposed() {
            true => {
                let turned = values.reshape([named.shape[1], named.shape[0]]);
                turned.swap_dims(0, 1).try_into_data()
            }
            false => values.try_into_data(),
        };
        result = match values {
            Ok(data) => receive(named, data),
            Err(error) => {
                let what = format!("tensor `{}`", named.name);
                Err(ModelError::unreadable(what, error))
            }
        };
    });
    result
}

/// Hands the values of `module` to `receive`, one tensor after another in checkpoint layout and in
/// the module's order, in the number format that they are held in (f32 where they are held
/// quantised), without those of adapters.
pub(crate) fn each_value<M: Module>(
    module: &M,
    rename: fn(&str) -> String,
    receive: Receive<'_>,
) -> Result<(), ModelError> {
    read(module, Tensors::Base, rename, Reading::Values, receive)
}

fn collect<M: Module>(
    module: &M,
    which: Tensors,
    prefix: &str,
    rename: fn(&str) -> String,
    reading: Reading<'_>,
) -> Result<Vec<ExportedTensor>, ModelError> {
    let mut tensors = Vec::new();
    read(module, which, rename, reading, &mut |tensor, data| {
        let name = format!("{prefix}{}", tensor.name);
        let values = data
            .try_cast_as::<f32>()
            .and_then(|data| data.try_into_vec());
        let values = values.map_err(|e| ModelError::Values {
            tensor: name.clone(),
            reason: e.to_string(),
        })?;
        tensors.push((name, tensor.shape, values));
        Ok(())
    })?;
    Ok(tensors)
}

/// The parameters of `module` under their checkpoint names, in the module's order, without those of
/// adapters. Parameters that have no values yet get none.
pub fn named_tensors<M: Module>(module: &M, rename: fn(&str) -> String) -> Vec<NamedTensor> {
    tensors_of(module, Tensors::Base, rename)
}

pub(super) fn tensors_of<M: Module>(
    module: &M,
    which: Tensors,
    rename: fn(&str) -> String,
) -> Vec<NamedTensor> {
    let mut tensors = Vec::new();
    each_parameter(module, &mut |param| {
        if param.tensors() == which {
            tensors.push(param.named(rename));
        }
    });
    tensors
}

/// The values of `module` as a checkpoint stores them, in f32, names behind `prefix`,
/// without those of adapters.
///
/// # Errors
/// A tensor that cannot be read back.
pub fn export<M: Module>(
    module: &M,
    prefix: &str,
    rename: fn(&str) -> String,
) -> Result<Vec<ExportedTensor>, ModelError> {
    collect(module, Tensors::Base, prefix, rename, Reading::Values)
}

/// The factors of `module`'s adapters in PEFT's layout, names behind `prefix`.
///
/// # Errors
/// A tensor that cannot be read back.
pub fn export_adapters<M: Module>(
    module: &M,
    prefix: &str,
    rename: fn(&str) -> String,
) -> Result<Vec<ExportedTensor>, ModelError> {
    collect(module, Tensors::Adapters, prefix, rename, Reading::Values)
}

/// The gradients of `module`'s parameters in checkpoint layout; parameters without one are left
/// out. The adapters' come last.
///
/// # Errors
/// A tensor that cannot be read back.
pub fn export_gradients<M: Module>(
    module: &M,
    gradients: &Gradients,
    prefix: &str,
    rename: fn(&str) -> String,
) -> Result<Vec<ExportedTensor>, ModelError> {
    let reading = Reading::Gradients(gradients);
    let mut all = collect(module, Tensors::Base, prefix, rename, reading)?;
    all.extend(collect(module, Tensors::Adapters, prefix, rename, reading)?);
    Ok(all)
}

/// `module` with new values in number format `dtype`; `value` gives them in checkpoint layout, or
/// `None` to leave a parameter as it is. `which` of the module's tensors it is asked for; a factor
/// of an adapter has the name that PEFT gives it.
pub fn fill<M: Module>(
    module: M,
    which: Tensors,
    rename: fn(&str) -> String,
    dtype: DType,
    value: &mut dyn FnMut(&NamedTensor) -> Option<Vec<f32>>,
) -> M {
    map_parameters(module, &mut |param| {
        if param.tensors() != which {
            return;
        }
        let own = param.shape();
        if let Some(mut values) = value(&param.named(rename)) {
            if param.transposed() {
                values = transpose(&values, own[1], own[0]);
            }
            param.set(TensorData::new(values, own), dtype);
        }
    })
}
