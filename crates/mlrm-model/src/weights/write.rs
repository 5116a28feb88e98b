//! Writing safetensors files, tensor by tensor, in one file or in shards with an index.

use std::borrow::Cow;
use std::io::{BufWriter, Write};
use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, TensorData};
use half::f16;
use mlrm_files::{Marks, PendingFile};
use serde_json::{Map, Value, json};

use super::checkpoint::{INDEX_FILE, SINGLE_FILE};
use super::module::{ExportedTensor, each_value, named_tensors};
use super::walk::each_parameter;
use crate::error::ModelError;

/// How a module is written.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WriteOptions {
    /// Number format; `None` leaves it as it is.
    pub dtype: Option<DType>,
    /// A file that would grow beyond this is followed by another; `None` writes one file.
    pub shard_bytes: Option<u64>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The number format.
    pub dtype: DType,
    /// Names of the files with tensors.
    pub files: Vec<String>,
    /// Bytes of all tensors.
    pub bytes: u64,
}

/// Writes the tensors of `module` into `folder` as Hugging Face's libraries read them, names behind
/// `prefix`. Memory holds one tensor at a time. Files of these names are replaced.
///
/// # Errors
/// Tensors that cannot be read back, or a folder that cannot be written.
pub fn write_module<M: Module>(
    folder: &Path,
    module: &M,
    prefix: &str,
    rename: fn(&str) -> String,
    options: WriteOptions,
) -> Result<Written, ModelError> {
    let dtype = options.dtype.unwrap_or_else(|| held_format(module));
    let entries = named_tensors(module, rename).into_iter().map(|tensor| {
        let elements: usize = tensor.shape.iter().product();
        Entry {
            name: format!("{prefix}{}", tensor.name),
            shape: tensor.shape,
            bytes: (elements * dtype.size()) as u64,
        }
    });
    let shards = plan_shards(entries.collect(), options.shard_bytes);
    let files = file_names(shards.len());
    let mut places = files.iter().map(|file| folder.join(file)).zip(&shards);
    let mut open: Option<ShardWriter<'_>> = None;
    each_value(module, rename, &mut |tensor, data| {
        let writer = match &mut open {
            Some(writer) => writer,
            none => {
                let (path, entries) = places.next().ok_or_else(|| {
                    ModelError::format(folder, format!("`{}` has no place", tensor.name))
                })?;
                none.insert(ShardWriter::create(&path, entries, dtype)?)
            }
        };
        let data = cast(&tensor.name, data, dtype)?;
        writer.put(&data)?;
        match open.take_if(|writer| writer.is_full()) {
            Some(full) => full.finish(),
            None => Ok(()),
        }
    })?;
    if files.len() > 1 {
        write_index(folder, &files, &shards)?;
    }
    Ok(Written {
        dtype,
        files,
        bytes: shards.iter().flatten().map(|entry| entry.bytes).sum(),
    })
}

/// Writes f32 tensors as one safetensors file, beside and then renamed into place.
///
/// # Errors
/// A file that cannot be written.
pub fn write_safetensors(path: &Path, tensors: &[ExportedTensor]) -> Result<(), ModelError> {
    let shapes = tensors
        .iter()
        .map(|(name, shape, _)| (name.clone(), shape.clone()));
    let values = tensors
        .iter()
        .map(|(_, _, values)| Ok(Cow::Borrowed(values.as_slice())));
    write_each(path, shapes.collect(), values)
}

/// As [`write_safetensors`], for tensors that are read one after the other: memory holds one at a time.
/// `values` come in the order of `shapes`.
///
/// # Errors
/// The first error of `values`, sizes that are not those of `shapes`, or whatever the file system says.
pub fn write_each<'a, E: From<ModelError>>(
    path: &Path,
    shapes: Vec<(String, Vec<usize>)>,
    values: impl Iterator<Item = Result<Cow<'a, [f32]>, E>>,
) -> Result<(), E> {
    let entries = shapes.into_iter().map(|(name, shape)| Entry {
        bytes: (shape.iter().product::<usize>() * size_of::<f32>()) as u64,
        name,
        shape,
    });
    let entries: Vec<Entry> = entries.collect();
    let mut writer = ShardWriter::create(path, &entries, DType::F32)?;
    for values in values {
        writer.put(bytemuck::cast_slice(&values?))?;
    }
    if !writer.is_full() {
        return Err(ModelError::format(path, "fewer tensors came than its header names").into());
    }
    Ok(writer.finish()?)
}

/// A tensor in a file.
struct Entry {
    name: String,
    shape: Vec<usize>,
    bytes: u64,
}

/// A file whose header is written and whose tensors come in the header's order.
struct ShardWriter<'a> {
    out: BufWriter<PendingFile>,
    /// Tensors that are still to come.
    left: &'a [Entry],
}

impl<'a> ShardWriter<'a> {
    fn create(path: &Path, entries: &'a [Entry], dtype: DType) -> Result<Self, ModelError> {
        let file = PendingFile::begin(path, Marks::USUAL);
        let file = file.map_err(|e| ModelError::io("create", path, e))?;
        let mut writer = Self {
            out: BufWriter::new(file),
            left: entries,
        };
        let header = header(entries, dtype);
        writer.write(&(header.len() as u64).to_le_bytes())?;
        writer.write(header.as_bytes())?;
        Ok(writer)
    }

    fn path(&self) -> &Path {
        self.out.get_ref().path()
    }

    fn is_full(&self) -> bool {
        self.left.is_empty()
    }

    /// The next tensor's bytes, little-endian and row-major.
    fn put(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        let next = self.left.split_first();
        match next.filter(|(entry, _)| entry.bytes == bytes.len() as u64) {
            Some((_, left)) => self.left = left,
            None => {
                let message = "its tensors are not those of its header";
                return Err(ModelError::format(self.path(), message));
            }
        }
        self.write(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        let written = self.out.write_all(bytes);
        written.map_err(|e| ModelError::io("write", self.path(), e))
    }

    fn finish(self) -> Result<(), ModelError> {
        let path = self.path().to_owned();
        let file = self.out.into_inner().map_err(|e| e.into_error());
        file.and_then(PendingFile::place)
            .map_err(|e| ModelError::io("write", &path, e))
    }
}

/// The JSON that a file begins with, padded so that the tensors are aligned.
fn header(entries: &[Entry], dtype: DType) -> String {
    let format = match dtype {
        DType::BF16 => "BF16",
        DType::F16 => "F16",
        _ => "F32",
    };
    let mut header = Map::new();
    // What PyTorch's loaders ask for.
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut start = 0;
    for entry in entries {
        let end = start + entry.bytes;
        let place = json!({"dtype": format, "shape": entry.shape, "data_offsets": [start, end]});
        header.insert(entry.name.clone(), place);
        start = end;
    }
    let mut text = Value::Object(header).to_string();
    text.extend(std::iter::repeat_n(
        ' ',
        text.len().next_multiple_of(8) - text.len(),
    ));
    text
}

/// Entries in their order, a new shard wherever the limit would be passed. A tensor larger than the
/// limit has a shard of its own.
fn plan_shards(entries: Vec<Entry>, limit: Option<u64>) -> Vec<Vec<Entry>> {
    let mut shards: Vec<Vec<Entry>> = vec![Vec::new()];
    let mut size = 0;
    for entry in entries {
        let last = shards.last_mut().filter(|shard| {
            shard.is_empty() || limit.is_none_or(|limit| size + entry.bytes <= limit)
        });
        match last {
            Some(shard) => {
                size += entry.bytes;
                shard.push(entry);
            }
            None => {
                size = entry.bytes;
                shards.push(vec![entry]);
            }
        }
    }
    shards
}

fn file_names(shards: usize) -> Vec<String> {
    if shards == 1 {
        return vec![SINGLE_FILE.into()];
    }
    let name = |index: usize| format!("model-{index:05}-of-{shards:05}.safetensors");
    (1..=shards).map(name).collect()
}

fn write_index(folder: &Path, files: &[String], shards: &[Vec<Entry>]) -> Result<(), ModelError> {
    let mut map = Map::new();
    for (file, shard) in files.iter().zip(shards) {
        for entry in shard {
            map.insert(entry.name.clone(), json!(file));
        }
    }
    let total: u64 = shards.iter().flatten().map(|entry| entry.bytes).sum();
    let index = json!({"metadata": {"total_size": total}, "weight_map": map});
    let path = folder.join(INDEX_FILE);
    std::fs::write(&path, format!("{index:#}\n")).map_err(|e| ModelError::io("write", &path, e))
}

/// A tensor's bytes in number format `dtype`.
fn cast(name: &str, data: TensorData, dtype: DType) -> Result<burn::tensor::Bytes, ModelError> {
    let fail = |reason: String| ModelError::Values {
        tensor: name.to_owned(),
        reason,
    };
    let narrows = dtype == DType::F16 && data.dtype() != DType::F16;
    let finite_before = narrows && all_finite(&data);
    let data = data.try_cast(dtype).map_err(|e| fail(e.to_string()))?;
    if finite_before {
        let values = data.as_slice::<f16>().map_err(|e| fail(e.to_string()))?;
        if !values.iter().all(|value| value.is_finite()) {
            let reason = "holds values beyond the range of f16 (65504); write bf16 or f32";
            return Err(fail(reason.into()));
        }
    }
    Ok(data.into_parts().0)
}

fn all_finite(data: &TensorData) -> bool {
    data.iter::<f32>().all(f32::is_finite)
}

/// The number format that a module's parameters are held in.
fn held_format<M: Module>(module: &M) -> DType {
    let mut first = None;
    each_parameter(module, &mut |param| {
        first.get_or_insert_with(|| param.dtype());
    });
    // What is held quantised is written dequantised.
    first.filter(DType::is_float).unwrap_or(DType::F32)
}
