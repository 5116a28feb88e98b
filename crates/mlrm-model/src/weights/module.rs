//! Walking a module's parameters under their checkpoint names.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Gradients, Tensor, TensorData};

use super::checkpoint::Checkpoint;
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
    /// Whether the checkpoint tensor `name` is left unread.
    pub fn ignores(&self, name: &str) -> bool {
        self.ignored.iter().any(|(pattern, _)| {
            if pattern.ends_with('.') {
                name.starts_with(pattern)
            } else {
                name.ends_with(pattern)
            }
        })
    }
}

/// A parameter under its checkpoint name.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Name in the checkpoint, without the checkpoint's prefix.
    pub name: String,
    /// Shape in the checkpoint (linear weights `[outputs, inputs]`).
    pub shape: Vec<usize>,
}

/// Where a traversal stands: the path so far and the type that holds the current field.
#[derive(Default)]
struct Place {
    path: Vec<String>,
    containers: Vec<String>,
}

impl Place {
    fn enter(&mut self, name: &str, container: &str) {
        self.path.push(name.to_owned());
        self.containers.push(container.to_owned());
    }

    fn exit(&mut self) {
        self.path.pop();
        self.containers.pop();
    }

    /// The path without the variants of enums: which kind of a part it is names no tensor.
    fn name(&self, rename: fn(&str) -> String) -> String {
        let segments = self.path.iter().zip(&self.containers);
        let fields: Vec<&str> = segments
            .filter(|(_, container)| !container.starts_with("Enum:"))
            .map(|(field, _)| field.as_str())
            .collect();
        rename(&fields.join("."))
    }

    /// Whether the current parameter is stored transposed.
    fn transposed(&self) -> bool {
        self.containers.last().is_some_and(|c| c == "Struct:Linear")
            && self.path.last().is_some_and(|p| p == "weight")
    }
}

fn checkpoint_shape(mut shape: Vec<usize>, transposed: bool) -> Vec<usize> {
    if transposed {
        shape.reverse();
    }
    shape
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
    Shapes,
    Values,
    Gradients(&'a Gradients),
}

struct Reader<'a> {
    place: Place,
    prefix: &'a str,
    rename: fn(&str) -> String,
    reading: Reading<'a>,
    tensors: Vec<ExportedTensor>,
    error: Option<ModelError>,
}

impl ModuleVisitor for Reader<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.place.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.place.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let transposed = self.place.transposed();
        let own = param.val().dims();
        let name = format!("{}{}", self.prefix, self.place.name(self.rename));
        let tensor = match self.reading {
            Reading::Shapes => None,
            Reading::Values => Some(param.val().inner()),
            Reading::Gradients(gradients) => match param.val().grad(gradients) {
                Some(gradient) => Some(gradient),
                None => return,
            },
        };
        let values = match tensor.map(|t| t.cast(DType::F32).try_into_vec_as::<f32>()) {
            None => Vec::new(),
            Some(Ok(values)) if transposed => transpose(&values, own[0], own[1]),
            Some(Ok(values)) => values,
            Some(Err(error)) => {
                let message = format!("tensor `{name}` cannot be read from its device: {error:?}");
                self.error.get_or_insert(ModelError::Input(message));
                return;
            }
        };
        let shape = checkpoint_shape(own.to_vec(), transposed);
        self.tensors.push((name, shape, values));
    }
}

fn read<M: Module>(
    module: &M,
    prefix: &str,
    rename: fn(&str) -> String,
    reading: Reading<'_>,
) -> Result<Vec<ExportedTensor>, ModelError> {
    let mut reader = Reader {
        place: Place::default(),
        prefix,
        rename,
        reading,
        tensors: Vec::new(),
        error: None,
    };
    module.visit(&mut reader);
    match reader.error {
        Some(error) => Err(error),
        None => Ok(reader.tensors),
    }
}

/// The parameters of `module` under their checkpoint names, in the module's order.
pub fn named_tensors<M: Module>(module: &M, rename: fn(&str) -> String) -> Vec<NamedTensor> {
    let shapes = read(module, "", rename, Reading::Shapes).unwrap_or_default();
    let named = |(name, shape, _)| NamedTensor { name, shape };
    shapes.into_iter().map(named).collect()
}

/// Parameters of `module`, counted in elements.
pub fn parameter_count<M: Module>(module: &M) -> usize {
    let tensors = named_tensors(module, str::to_owned);
    tensors
        .iter()
        .map(|t| t.shape.iter().product::<usize>())
        .sum()
}

/// The values of `module` as a checkpoint stores them, names behind `prefix`.
pub fn export<M: Module>(
    module: &M,
    prefix: &str,
    rename: fn(&str) -> String,
) -> Result<Vec<ExportedTensor>, ModelError> {
    read(module, prefix, rename, Reading::Values)
}

/// The gradients of `module`'s parameters in checkpoint layout; parameters without one are left
/// out.
pub fn export_gradients<M: Module>(
    module: &M,
    gradients: &Gradients,
    prefix: &str,
    rename: fn(&str) -> String,
) -> Result<Vec<ExportedTensor>, ModelError> {
    read(module, prefix, rename, Reading::Gradients(gradients))
}

struct Filler<'a> {
    place: Place,
    rename: fn(&str) -> String,
    dtype: DType,
    value: &'a mut dyn FnMut(&NamedTensor) -> Option<Vec<f32>>,
}

impl ModuleMapper for Filler<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.place.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.place.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let transposed = self.place.transposed();
        let own = param.val().dims();
        let tensor = NamedTensor {
            name: self.place.name(self.rename),
            shape: checkpoint_shape(own.to_vec(), transposed),
        };
        let Some(mut values) = (self.value)(&tensor) else {
            return param;
        };
        if transposed {
            values = transpose(&values, own[1], own[0]);
        }
        let dtype = self.dtype;
        param.map(|old| {
            let learns = old.is_require_grad();
            let data = TensorData::new(values, own);
            let new = Tensor::from_data(data, (&old.device(), dtype));
            if learns { new.require_grad() } else { new }
        })
    }
}

/// `module` with new values in number format `dtype`; `value` gives them in checkpoint layout, or
/// `None` to leave a parameter as it is.
pub fn fill<M: Module>(
    module: M,
    rename: fn(&str) -> String,
    dtype: DType,
    value: &mut dyn FnMut(&NamedTensor) -> Option<Vec<f32>>,
) -> M {
    module.map(&mut Filler {
        place: Place::default(),
        rename,
        dtype,
        value,
    })
}

/// `module` with the values of `checkpoint`, strictly: a missing, left-over, mis-shaped or
/// non-finite tensor is an error that lists all of them.
///
/// `prefix` is what the checkpoint puts before the module's names.
pub fn load<M: Module>(
    module: M,
    checkpoint: &Checkpoint,
    prefix: &str,
    table: NameTable,
    dtype: DType,
) -> Result<M, ModelError> {
    let mut wrong = Vec::new();
    let mut failed = None;
    let mut read = BTreeSet::new();
    let module = fill(module, table.rename, dtype, &mut |tensor| {
        let name = format!("{prefix}{}", tensor.name);
        read.insert(name.clone());
        match checkpoint.get(&name) {
            Err(error) => {
                failed.get_or_insert(error);
                None
            }
            Ok(None) => {
                wrong.push(format!("missing: `{name}` {:?}", tensor.shape));
                None
            }
            Ok(Some(stored)) if stored.shape != tensor.shape => {
                wrong.push(format!(
                    "wrong shape: `{name}` is {:?}, the config means {:?}",
                    stored.shape, tensor.shape
                ));
                None
            }
            Ok(Some(stored)) => {
                if stored.values.iter().any(|v| !v.is_finite()) {
                    wrong.push(format!("not finite: `{name}` holds NaN or infinity"));
                }
                Some(stored.values)
            }
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let left_over = checkpoint
        .names()
        .filter(|name| !read.contains(*name) && !table.ignores(name));
    wrong.extend(left_over.map(|name| format!("unexpected: `{name}` has no place in the model")));
    if wrong.is_empty() {
        return Ok(module);
    }
    Err(ModelError::Tensors {
        path: checkpoint.path().to_owned(),
        report: format!(
            "{} tensors do not fit the model:\n  {}",
            wrong.len(),
            wrong.join("\n  ")
        ),
    })
}
