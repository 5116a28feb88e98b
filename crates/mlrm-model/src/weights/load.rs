//! Strict loading of a checkpoint into a module.

use std::collections::BTreeSet;
use std::fmt::{self, Display};

use burn::module::Module;
use burn::tensor::DType;

use super::checkpoint::Checkpoint;
use super::convert::{NewRows, Wanted};
use super::module::{NameTable, NamedTensor, tensors_of};
use super::walk::{Kind, ParameterMut, Tensors, map_parameters};
use crate::error::ModelError;
use crate::ops::Bits;

/// Findings of one kind that an error lists; the rest is counted.
const LISTED: usize = 20;

/// The module's own path of a decoder's lookup table of words, below which its rows may grow.
const WORD_TABLE: &str = "embed_tokens.weight";

/// How a checkpoint is read.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Number format of the parameters.
    pub dtype: DType,
    /// Take NaN and infinite values as they are.
    pub allow_nan: bool,
    /// Words that the checkpoint's lookup table does not know.
    pub new_words: Option<NewRows>,
    /// The tensors of the module that the checkpoint is to hold, by their names without prefix; the
    /// others keep their values.
    pub only: fn(&str) -> bool,
    /// Hold the weights of linear maps quantised, each as soon as it is read; none of them may learn.
    pub quantise: Option<Bits>,
}

/// Every tensor.
fn all(_name: &str) -> bool {
    true
}

impl LoadOptions {
    /// As the checkpoint is, in number format `dtype`.
    pub fn new(dtype: DType) -> Self {
        Self {
            dtype,
            allow_nan: false,
            new_words: None,
            only: all,
            quantise: None,
        }
    }
}

/// One tensor that does not fit.
#[derive(Debug, Clone, PartialEq)]
pub enum Mismatch {
    /// The module wants it, the checkpoint does not have it.
    Missing(NamedTensor),
    /// The checkpoint has it in another shape.
    Shape {
        /// What the module wants.
        wanted: NamedTensor,
        /// What the checkpoint has.
        stored: Vec<usize>,
    },
    /// The checkpoint has it in a format that cannot be read: whole numbers, or floating point of 8 bits.
    Format {
        /// Its name.
        name: String,
        /// The format.
        format: String,
    },
    /// The checkpoint has it, the module has no place for it.
    Unexpected(String),
}

impl Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(tensor) => write!(f, "missing: `{}` {:?}", tensor.name, tensor.shape),
            Self::Shape { wanted, stored } => write!(
                f,
                "wrong shape: `{}` is {stored:?}, the config means {:?}",
                wanted.name, wanted.shape
            ),
            Self::Format { name, format } => {
                write!(
                    f,
                    "`{name}` is in {format}; F32, F64, F16 and BF16 are read"
                )
            }
            Self::Unexpected(name) => {
                write!(f, "unexpected: `{name}` has no place in the model")
            }
        }
    }
}

/// How a checkpoint and a module fit together, by names and shapes alone.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fit {
    /// What does not fit; empty where loading can go on.
    pub mismatches: Vec<Mismatch>,
    /// Tensors that are left unread on purpose, with the reason.
    pub ignored: Vec<(String, &'static str)>,
}

/// Compares names and shapes. Tensors with names below `prefix` are the module's, as `table` says.
pub fn fit<M: Module>(
    module: &M,
    checkpoint: &Checkpoint,
    prefix: &str,
    table: NameTable,
    new_words: Option<&NewRows>,
) -> Fit {
    let options = LoadOptions {
        new_words: new_words.cloned(),
        ..LoadOptions::new(DType::F32)
    };
    fit_tensors(module, Tensors::Base, checkpoint, prefix, table, &options)
}

/// As [`fit`], of the tensors that `only` names.
pub fn fit_only<M: Module>(
    module: &M,
    checkpoint: &Checkpoint,
    table: NameTable,
    only: fn(&str) -> bool,
) -> Fit {
    let options = LoadOptions {
        only,
        ..LoadOptions::new(DType::F32)
    };
    fit_tensors(module, Tensors::Base, checkpoint, "", table, &options)
}

fn fit_tensors<M: Module>(
    module: &M,
    which: Tensors,
    checkpoint: &Checkpoint,
    prefix: &str,
    table: NameTable,
    options: &LoadOptions,
) -> Fit {
    let new_words = options.new_words.as_ref();
    let mut fit = Fit::default();
    let mut wanted_names = BTreeSet::new();
    for mut wanted in tensors_of(module, which, table.rename) {
        if !(options.only)(&wanted.name) {
            continue;
        }
        wanted.name = format!("{prefix}{}", wanted.name);
        if let (Some(new), true) = (new_words, wanted.path.ends_with(WORD_TABLE)) {
            wanted.shape[0] = new.stored_rows;
        }
        wanted_names.insert(wanted.name.clone());
        match checkpoint.shape(&wanted.name) {
            None => fit.mismatches.push(Mismatch::Missing(wanted)),
            Some(stored) if stored != wanted.shape => {
                let stored = stored.to_vec();
                fit.mismatches.push(Mismatch::Shape { wanted, stored });
            }
            Some(_) => {
                let format = checkpoint.format(&wanted.name).unwrap_or_default();
                if !["F32", "F64", "F16", "BF16"].contains(&format.as_str()) {
                    let name = wanted.name;
                    fit.mismatches.push(Mismatch::Format { name, format });
                }
            }
        }
    }
    for name in checkpoint.names().filter(|&n| !wanted_names.contains(n)) {
        match table.ignores(name) {
            Some(reason) => fit.ignored.push((name.to_owned(), reason)),
            None => fit.mismatches.push(Mismatch::Unexpected(name.to_owned())),
        }
    }
    fit
}

/// `module` with the values of `checkpoint`, strictly: a missing, left-over, mis-shaped or
/// non-finite tensor is an error that lists all of them. Names and shapes are compared before any
/// value is read.
///
/// `prefix` is what the checkpoint puts before the module's names. Beside the parameters
/// themselves, memory holds a part of one tensor at a time.
///
/// # Errors
/// Tensors that are missing, left over, or of another shape; damaged files.
pub fn load<M: Module>(
    module: M,
    checkpoint: &Checkpoint,
    prefix: &str,
    table: NameTable,
    options: &LoadOptions,
) -> Result<M, ModelError> {
    load_tensors(module, Tensors::Base, checkpoint, prefix, table, options)
}

/// `module` with the factors of its adapters from `checkpoint`, as strictly as [`load`], in f32
/// whatever the base is.
///
/// # Errors
/// Tensors that are missing, left over, or of another shape; damaged files.
pub fn load_adapters<M: Module>(
    module: M,
    checkpoint: &Checkpoint,
    prefix: &str,
    rename: fn(&str) -> String,
) -> Result<M, ModelError> {
    let table = NameTable {
        rename,
        ignored: &[],
    };
    let options = LoadOptions::new(DType::F32);
    load_tensors(
        module,
        Tensors::Adapters,
        checkpoint,
        prefix,
        table,
        &options,
    )
}

fn load_tensors<M: Module>(
    module: M,
    which: Tensors,
    checkpoint: &Checkpoint,
    prefix: &str,
    table: NameTable,
    options: &LoadOptions,
) -> Result<M, ModelError> {
    let fit = fit_tensors(&module, which, checkpoint, prefix, table, options);
    if !fit.mismatches.is_empty() {
        let findings = fit.mismatches.iter().map(|mismatch| {
            let shaped = match mismatch {
                Mismatch::Shape { wanted, .. } => Some(wanted.name.as_str()),
                Mismatch::Unexpected(name) | Mismatch::Format { name, .. } => Some(name.as_str()),
                Mismatch::Missing(_) => None,
            };
            let mismatch = match shaped.map(|name| (name, checkpoint.stored_name(name))) {
                Some((name, stored)) if stored != name => {
                    format!("{mismatch} (stored as `{stored}`)")
                }
                _ => mismatch.to_string(),
            };
            match shaped.and_then(|name| shard_name(checkpoint, name)) {
                Some(file) => format!("{mismatch} ({file})"),
                None => mismatch,
            }
        });
        return Err(refusal(checkpoint, "do not fit the model", findings));
    }
    let mut loader = Loader {
        checkpoint,
        prefix,
        table,
        options,
        not_finite: Vec::new(),
        failed: None,
    };
    let module = map_parameters(module, &mut |param| {
        if param.tensors() == which {
            loader.read(param);
        }
    });
    if let Some(error) = loader.failed {
        return Err(error);
    }
    if loader.not_finite.is_empty() || options.allow_nan {
        return Ok(module);
    }
    let format = options.dtype.name();
    let findings = loader.not_finite.iter().map(|(name, count)| {
        let file = shard_name(checkpoint, name).map_or(String::new(), |f| format!(" ({f})"));
        let name = checkpoint.stored_name(name);
        format!(
            "not finite: `{name}` holds {count} values that are NaN or infinite in {format}{file}"
        )
    });
    Err(refusal(
        checkpoint,
        "are damaged; --allow-nan takes them as they are",
        findings,
    ))
}

/// The shard that holds a tensor, where there are several.
fn shard_name(checkpoint: &Checkpoint, name: &str) -> Option<String> {
    checkpoint.files().nth(1)?;
    let file = checkpoint.file_of(name)?.file_name()?;
    Some(file.to_string_lossy().into_owned())
}

fn refusal(
    checkpoint: &Checkpoint,
    what: &str,
    findings: impl ExactSizeIterator<Item = String>,
) -> ModelError {
    let count = findings.len();
    let mut lines: Vec<String> = findings.take(LISTED).collect();
    if count > LISTED {
        lines.push(format!("and {} more", count - LISTED));
    }
    let mut files = checkpoint.files();
    // A folder with one file: the file itself is what the user looks for.
    let path = match (files.next(), files.next()) {
        (Some(only), None) => only,
        _ => checkpoint.path(),
    };
    let tensors = if count == 1 { "tensor" } else { "tensors" };
    ModelError::Tensors {
        path: path.to_owned(),
        report: format!("{count} {tensors} {what}:\n  {}", lines.join("\n  ")),
    }
}

struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    prefix: &'a str,
    table: NameTable,
    options: &'a LoadOptions,
    /// Names of damaged tensors, with the number of such values.
    not_finite: Vec<(String, usize)>,
    failed: Option<ModelError>,
}

impl Loader<'_> {
    /// Gives `param` its values.
    fn read(&mut self, param: &mut dyn ParameterMut) {
        let named = param.named(self.table.rename);
        if self.failed.is_some() || !(self.options.only)(&named.name) {
            return;
        }
        let name = format!("{}{}", self.prefix, named.name);
        let map = param.kind() == Kind::MapWeight;
        let quantise = self.options.quantise.filter(|_| map);
        // Quantised from f32, so that a saved model comes back bit by bit.
        let dtype = quantise.map_or(self.options.dtype, |_| DType::F32);
        let new_words = self.options.new_words.as_ref();
        let wanted = Wanted {
            dtype,
            transposed: param.transposed(),
            new_rows: new_words.filter(|_| named.path.ends_with(WORD_TABLE)),
        };
        let converted = match self.checkpoint.read(&name, &wanted) {
            Ok(Some(converted)) => converted,
            // Names were compared before; here only a type can be wrong.
            Ok(None) => return,
            Err(error) => {
                self.failed = Some(error);
                return;
            }
        };
        if converted.not_finite > 0 {
            self.not_finite.push((name, converted.not_finite));
        }
        param.set(converted.data, dtype);
        if let Some(bits) = quantise {
            param.quantise(bits);
        }
    }
}
