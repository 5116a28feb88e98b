//! Safetensors files, one or sharded with an index, memory-mapped.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::DType;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde_json::{Map, Value};

use super::convert::{Converted, Source, Wanted, convert};
use super::shard::Shard;
use crate::error::ModelError;

/// File of weights that are not sharded.
pub const SINGLE_FILE: &str = "model.safetensors";

/// Which shard holds which tensor.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The tensors of a file, or of a folder with `model.safetensors` or an index of shards.
pub struct Checkpoint {
    root: PathBuf,
    shards: Vec<Shard>,
    /// By name.
    tensors: BTreeMap<String, Place>,
}

/// Where a tensor is.
struct Place {
    shard: usize,
    /// Its name there.
    name: String,
}

/// One tensor as stored.
pub struct StoredTensor {
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// Values converted to f32, row-major.
    pub values: Vec<f32>,
}

/// An int64 tensor: shape, row-major values.
pub type StoredIntegers = (Vec<usize>, Vec<i64>);

/// The LM head of a causal language model.
const HEAD: &str = "lm_head.weight";

/// Which file holds which tensor, by an index.
fn weight_map(index: &Path) -> Result<Map<String, Value>, ModelError> {
    let fail = |message: String| ModelError::format(index, message);
    let text = std::fs::read_to_string(index).map_err(|e| ModelError::io("read", index, e))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| fail(format!("not JSON: {e}")))?;
    match json.get("weight_map").and_then(Value::as_object) {
        Some(map) => Ok(map.clone()),
        None => Err(fail("has no `weight_map` object".into())),
    }
}

impl Checkpoint {
    /// Opens a `.safetensors` file, or the weights of a Hugging Face folder. Only the headers are
    /// read.
    ///
    /// # Errors
    /// Files that are not there, cannot be read, or are no checkpoint.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if let Some(message) = pickled(path) {
            return Err(ModelError::format(path, message));
        }
        if !path.is_dir() {
            return Self::from_files(path, vec![path.to_owned()]);
        }
        let (single, index) = (path.join(SINGLE_FILE), path.join(INDEX_FILE));
        if single.is_file() {
            let checkpoint = Self::from_files(path, vec![single])?;
            return checkpoint.beside_index(&index);
        }
        if index.is_file() {
            return Self::from_index(path, &index);
        }
        let message = format!("holds neither {SINGLE_FILE} nor {INDEX_FILE}");
        Err(ModelError::format(path, message))
    }

    /// This single file, as transformers takes it where an index is there as well: but not where the
    /// index speaks of tensors that the file lacks, which would then be missed.
    fn beside_index(self, index: &Path) -> Result<Self, ModelError> {
        if !index.is_file() {
            return Ok(self);
        }
        let map = weight_map(index)?;
        match map.keys().find(|name| !self.contains(name)) {
            None => Ok(self),
            Some(name) => Err(ModelError::format(
                &self.root,
                format!(
                    "holds both {SINGLE_FILE} and {INDEX_FILE}, which do not agree: transformers \
                     would read the first alone, and it has no `{name}`; remove the one that is not \
                     meant"
                ),
            )),
        }
    }

    fn from_index(root: &Path, index: &Path) -> Result<Self, ModelError> {
        let fail = |message: String| ModelError::format(index, message);
        let map = weight_map(index)?;
        // Tied to the table of words and never computed, a head may be listed but not stored.
        let head = |name: &str| name.ends_with(HEAD);
        let mut files: Vec<&str> = Vec::new();
        for (tensor, file) in &map {
            let file = file.as_str().filter(|f| !f.contains(['/', '\\']));
            let file = file.ok_or_else(|| {
                fail(format!(
                    "`weight_map` entry of `{tensor}` is not a file name"
                ))
            })?;
            if !root.join(file).is_file() {
                if head(tensor) {
                    continue;
                }
                let message = format!("puts `{tensor}` into {file}, which is not there; fetch it");
                return Err(fail(message));
            }
            if !files.contains(&file) {
                files.push(file);
            }
        }
        let checkpoint = Self::from_files(root, files.iter().map(|f| root.join(f)).collect())?;
        for (tensor, file) in &map {
            let held = checkpoint.file_of(tensor);
            if held.is_none() && head(tensor) {
                continue;
            }
            if held.and_then(Path::file_name) != file.as_str().map(AsRef::as_ref) {
                let found = held.map_or("no shard does".into(), |f| f.display().to_string());
                let message = format!("says that {file} holds `{tensor}`, but {found}");
                return Err(fail(message));
            }
        }
        let unlisted = checkpoint.names().find(|name| !map.contains_key(*name));
        match unlisted.and_then(|name| Some((name, checkpoint.file_of(name)?))) {
            None => Ok(checkpoint),
            Some((name, file)) => Err(fail(format!(
                "has no entry for `{name}`, which {} holds",
                file.display()
            ))),
        }
    }

    fn from_files(root: &Path, paths: Vec<PathBuf>) -> Result<Self, ModelError> {
        let mut checkpoint = Self {
            root: root.to_owned(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
        };
        for path in paths {
            let shard = Shard::open(&path)?;
            for name in shard.names() {
                let index = checkpoint.shards.len();
                let place = Place {
                    shard: index,
                    name: name.clone(),
                };
                if let Some(other) = checkpoint.tensors.insert(name.clone(), place) {
                    let other = checkpoint.shards[other.shard].path().display();
                    let message = format!("tensor `{name}` is in {other} as well");
                    return Err(ModelError::format(&path, message));
                }
            }
            checkpoint.shards.push(shard);
        }
        Ok(checkpoint)
    }

    /// A part of the checkpoint: the tensors that `rename` has a name for, under that name.
    pub(crate) fn part(mut self, rename: impl Fn(&str) -> Option<String>) -> Self {
        let tensors = std::mem::take(&mut self.tensors).into_iter();
        let renamed = tensors.filter_map(|(name, place)| Some((rename(&name)?, place)));
        self.tensors = renamed.collect();
        self
    }

    /// Without the tensors of a decoder's layers from the `kept`-th on.
    pub(crate) fn first_layers(self, kept: usize) -> Self {
        let keeps = |name: &str| layer_of(name).is_none_or(|layer| layer < kept);
        self.part(|name| keeps(name).then(|| name.to_owned()))
    }

    /// What a tensor is called in its file.
    pub(super) fn stored_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.tensors.get(name).map_or(name, |place| &place.name)
    }

    /// The file or folder that was opened.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The files, in the order of the index.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(Shard::path)
    }

    /// The file that holds a tensor.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        let place = self.tensors.get(name)?;
        Some(self.shards[place.shard].path())
    }

    /// All tensor names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// What stands before the names of a part: `prefix` where any tensor has it, else nothing.
    pub(crate) fn prefix<'a>(&self, prefix: &'a str) -> &'a str {
        match self.names().any(|name| name.starts_with(prefix)) {
            true => prefix,
            false => "",
        }
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor; `None` where there is none of this name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.find(name)?.1.shape)
    }

    /// The bytes that a tensor takes in its file.
    pub fn bytes(&self, name: &str) -> Option<usize> {
        let (start, end) = self.find(name)?.1.data_offsets;
        Some(end - start)
    }

    /// The number format of a tensor as safetensors spells it, such as `BF16`.
    pub fn format(&self, name: &str) -> Option<String> {
        Some(self.find(name)?.1.dtype.to_string())
    }

    /// The narrowest number format that holds all floating-point tensors without loss: theirs where
    /// they have one in common, else f32.
    pub fn dtype(&self) -> DType {
        let mut formats = self
            .names()
            .filter_map(|name| match self.find(name)?.1.dtype {
                Dtype::BF16 => Some(DType::BF16),
                Dtype::F16 => Some(DType::F16),
                Dtype::F32 | Dtype::F64 => Some(DType::F32),
                _ => None,
            });
        let first = formats.next().unwrap_or(DType::F32);
        match formats.all(|format| format == first) {
            true => first,
            false => DType::F32,
        }
    }

    /// A floating-point tensor, converted to f32; `None` where there is none of this name.
    ///
    /// # Errors
    /// A damaged tensor, or one of numbers that are no floats.
    pub fn get(&self, name: &str) -> Result<Option<StoredTensor>, ModelError> {
        let wanted = Wanted {
            dtype: DType::F32,
            transposed: false,
            new_rows: None,
        };
        let Some(converted) = self.read(name, &wanted)? else {
            return Ok(None);
        };
        let shape = converted.data.shape().to_vec();
        let values = converted.data.try_into_vec().map_err(|error| {
            ModelError::format(&self.root, format!("tensor `{name}`: {error:?}"))
        })?;
        Ok(Some(StoredTensor { shape, values }))
    }

    /// An int64 tensor; `None` where there is none of this name.
    ///
    /// # Errors
    /// A damaged tensor, or one of other numbers.
    pub fn get_i64(&self, name: &str) -> Result<Option<StoredIntegers>, ModelError> {
        let Some((shard, info)) = self.find(name) else {
            return Ok(None);
        };
        if info.dtype != Dtype::I64 {
            let message = format!("tensor `{name}` has type {}, not I64", info.dtype);
            return Err(ModelError::format(shard.path(), message));
        }
        let (chunks, _) = shard.bytes(info).as_chunks::<8>();
        let values = chunks.iter().map(|b| i64::from_le_bytes(*b)).collect();
        Ok(Some((info.shape.clone(), values)))
    }

    /// A floating-point tensor as a parameter wants it; `None` where there is none of this name.
    pub(super) fn read(
        &self,
        name: &str,
        wanted: &Wanted<'_>,
    ) -> Result<Option<Converted>, ModelError> {
        let Some((shard, info)) = self.find(name) else {
            return Ok(None);
        };
        let source = Source {
            bytes: shard.bytes(info),
            dtype: info.dtype,
            shape: &info.shape,
            release: &|part: Range<usize>| shard.release(info, part),
        };
        match convert(&source, wanted) {
            Some(converted) => Ok(Some(converted)),
            None => Err(ModelError::format(
                shard.path(),
                format!(
                    "tensor `{name}` has type {}, not f32, f64, f16 or bf16",
                    info.dtype
                ),
            )),
        }
    }

    fn find(&self, name: &str) -> Option<(&Shard, &TensorInfo)> {
        let place = self.tensors.get(name)?;
        let shard = &self.shards[place.shard];
        Some((shard, shard.info(&place.name)?))
    }
}

/// Why weights that only PyTorch's unpickler reads are refused, and the command that converts them;
/// `None` where `path` has others, or none.
fn pickled(path: &Path) -> Option<String> {
    let (pattern, folder) = if path.is_dir() {
        let has = |file: &str| path.join(file).is_file();
        if has(SINGLE_FILE) || has(INDEX_FILE) {
            return None;
        }
        let files = std::fs::read_dir(path).ok()?.filter_map(Result::ok);
        let mut pickles: Vec<PathBuf> = files.map(|f| f.path()).filter(|f| is_pickle(f)).collect();
        pickles.sort();
        let named = |file: &&PathBuf| {
            let name = file.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("pytorch_model"))
        };
        match pickles.iter().find(named) {
            Some(_) => (path.join("pytorch_model*.bin"), path),
            None => (pickles.into_iter().next()?, path),
        }
    } else {
        let folder = path.parent().unwrap_or(Path::new("."));
        is_pickle(path).then(|| (path.to_owned(), folder))?
    };
    let target = folder.join(SINGLE_FILE);
    Some(format!(
        "holds weights in PyTorch's own format, which can run code when it is opened; convert them \
         with\n  python -c \"import glob, torch; from safetensors.torch import save_file; \
         save_file({{name: tensor.clone() for file in sorted(glob.glob('{}')) for name, tensor in \
         torch.load(file, map_location='cpu', weights_only=True).items()}}, '{}', {{'format': \
         'pt'}})\"",
        pattern.display(),
        target.display()
    ))
}

fn is_pickle(file: &Path) -> bool {
    let extension = file.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("bin" | "pt" | "pth" | "ckpt"))
}

/// The layer that a tensor of a decoder belongs to, by its name.
fn layer_of(name: &str) -> Option<usize> {
    let mut words = name.split('.');
    words.find(|word| matches!(*word, "layers" | "h"))?;
    words.next()?.parse().ok()
}
