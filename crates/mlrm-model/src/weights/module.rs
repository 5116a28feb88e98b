//! Walking a module's parameters under their checkpoint names.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Gradients, Tensor, TensorData};

use crate::error::ModelError;
use crate::ops::{dequantise, param_shape};

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

/// Where a traversal stands: the path so far and the type that holds the current field.
#[derive(Default)]
pub(super) struct Place {
    path: Vec<String>,
    containers: Vec<String>,
}

impl Place {
    pub(super) fn enter(&mut self, name: &str, container: &str) {
        self.path.push(name.to_owned());
        self.containers.push(container.to_owned());
    }

    pub(super) fn exit(&mut self) {
        self.path.pop();
        self.containers.pop();
    }

    /// The module's own path of the current parameter, without the variants of enums: which kind of
    /// a part it is names no tensor.
    pub(super) fn path(&self) -> String {
        let segments = self.path.iter().zip(&self.containers);
        let fields: Vec<&str> = segments
            .filter(|(_, container)| !container.starts_with("Enum:"))
            .map(|(field, _)| field.as_str())
            .collect();
        fields.join(".")
    }

    /// The path with the variants of enums, as Burn counts it.
    pub(super) fn whole_path(&self) -> String {
        self.path.join(".")
    }

    /// The checkpoint name of the current parameter. A factor of an adapter is called as PEFT calls
    /// it: `….q_proj.lora_A.weight` beside `….q_proj.weight`.
    pub(super) fn name(&self, rename: fn(&str) -> String) -> String {
        let path = self.path();
        let Some((weight, factor)) = path.rsplit_once(".lora.") else {
            return rename(&path);
        };
        let weight = rename(weight);
        let map = weight.strip_suffix(".weight").unwrap_or(&weight);
        format!("{map}.lora_{}.weight", factor.to_uppercase())
    }

    /// Whether the current parameter is stored transposed.
    pub(super) fn transposed(&self) -> bool {
        match self.containers.last().map(String::as_str) {
            Some("Struct:Linear") => self.path.last().is_some_and(|p| p == "weight"),
            Some("Struct:LowRank") => true,
            _ => false,
        }
    }

    /// Whether the current parameter is the weight of a linear map, and not an adapter's.
    pub(super) fn is_map_weight(&self) -> bool {
        self.transposed() && self.tensors() == Tensors::Base
    }

    /// Whether the current parameter is the module's own or an adapter's.
    pub(super) fn tensors(&self) -> Tensors {
        if self.containers.iter().any(|c| c == "Reparameterization") {
            Tensors::Adapters
        } else {
            Tensors::Base
        }
    }

    /// The current parameter as a checkpoint knows it, its own shape being `shape`.
    pub(super) fn tensor(&self, rename: fn(&str) -> String, mut shape: Vec<usize>) -> NamedTensor {
        if self.transposed() {
            shape.reverse();
        }
        NamedTensor {
            path: self.path(),
            name: self.name(rename),
            shape,
        }
    }
}

/// Which tensors a traversal is about: a module's own, or those of its low-rank adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tensors {
    /// The module's own.
    Base,
    /// A and B of its adapters.
    Adapters,
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

struct Reader<'a> {
    place: Place,
    which: Tensors,
    rename: fn(&str) -> String,
    reading: Reading<'a>,
    receive: Receive<'a>,
    result: Result<(), ModelError>,
}

impl ModuleVisitor for Reader<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.place.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.place.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.result.is_err() || self.place.tensors() != self.which {
            return;
        }
        let tensor = match self.reading {
            Reading::Values => dequantise(param.val().inner()),
            Reading::Gradients(gradients) => match param.val().grad(gradients) {
                Some(gradient) => gradient,
                None => return,
            },
        };
        let named = self.place.tensor(self.rename, tensor.dims().to_vec());
        let tensor = match self.place.transposed() {
            true => tensor.swap_dims(0, 1),
            false => tensor,
        };
        self.result = match tensor.try_into_data() {
            Ok(data) => (self.receive)(named, data),
            Err(error) => Err(ModelError::Input(format!(
                "tensor `{}` cannot be read from its device: {error:?}",
                named.name
            ))),
        };
    }
}

fn read<M: Module>(
    module: &M,
    which: Tensors,
    rename: fn(&str) -> String,
    reading: Reading<'_>,
    receive: Receive<'_>,
) -> Result<(), ModelError> {
    let mut reader = Reader {
        place: Place::default(),
        which,
        rename,
        reading,
        receive,
        result: Ok(()),
    };
    module.visit(&mut reader);
    reader.result
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
        let values = values.map_err(|e| ModelError::Input(format!("tensor `{name}`: {e}")))?;
        tensors.push((name, tensor.shape, values));
        Ok(())
    })?;
    Ok(tensors)
}

struct Namer {
    place: Place,
    which: Tensors,
    rename: fn(&str) -> String,
    tensors: Vec<NamedTensor>,
}

impl ModuleVisitor for Namer {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.place.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.place.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.place.tensors() != self.which {
            return;
        }
        let shape = param_shape(param).to_vec();
        self.tensors.push(self.place.tensor(self.rename, shape));
    }
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
    let mut namer = Namer {
        place: Place::default(),
        which,
        rename,
        tensors: Vec::new(),
    };
    module.visit(&mut namer);
    namer.tensors
}

/// The values of `module` as a checkpoint stores them, in f32, names behind `prefix`,
/// without those of adapters.
pub fn export<M: Module>(
    module: &M,
    prefix: &str,
    rename: fn(&str) -> String,
) -> Result<Vec<ExportedTensor>, ModelError> {
    collect(module, Tensors::Base, prefix, rename, Reading::Values)
}

/// The factors of `module`'s adapters in PEFT's layout, names behind `prefix`.
pub fn export_adapters<M: Module>(
    module: &M,
    prefix: &str,
    rename: fn(&str) -> String,
) -> Result<Vec<ExportedTensor>, ModelError> {
    collect(module, Tensors::Adapters, prefix, rename, Reading::Values)
}

/// The gradients of `module`'s parameters in checkpoint layout; parameters without one are left
/// out. The adapters' come last.
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

struct Filler<'a> {
    place: Place,
    which: Tensors,
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
        if self.place.tensors() != self.which {
            return param;
        }
        let own = param.lazy_shape();
        let tensor = self.place.tensor(self.rename, own.to_vec());
        let Some(mut values) = (self.value)(&tensor) else {
            return param;
        };
        if self.place.transposed() {
            values = transpose(&values, own[1], own[0]);
        }
        let (device, id) = (param.lazy_device(), param.id);
        let data = TensorData::new(values, own);
        let new = Tensor::from_data(data, (&device, self.dtype));
        param.transform_for_load(new, id)
    }
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
    module.map(&mut Filler {
        place: Place::default(),
        which,
        rename,
        dtype,
        value,
    })
}
