//! Safetensors files, one or sharded with an index, memory-mapped.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::module::ExportedTensor;
use crate::error::ModelError;

/// A memory-mapped shard.
struct Shard {
    path: PathBuf,
    map: Mmap,
}

/// The tensors of a file, or of a folder with `model.safetensors` or an index of shards.
pub struct Checkpoint {
    root: PathBuf,
    shards: Vec<Shard>,
    /// Name → shard.
    tensors: BTreeMap<String, usize>,
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

impl Checkpoint {
    /// Opens a `.safetensors` file, or the weights of a Hugging Face folder.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_file() {
            return Self::from_files(path, vec![path.to_owned()]);
        }
        let single = path.join("model.safetensors");
        if single.is_file() {
            return Self::from_files(path, vec![single]);
        }
        let index = path.join("model.safetensors.index.json");
        if index.is_file() {
            return Self::from_index(path, &index);
        }
        let message = if path.join("pytorch_model.bin").exists() {
            "holds only pytorch_model.bin, which can run code when opened; convert it with \
             `AutoModel.from_pretrained(dir).save_pretrained(dir, safe_serialization=True)`"
        } else {
            "holds neither model.safetensors nor model.safetensors.index.json"
        };
        Err(ModelError::format(path, message))
    }

    fn from_index(root: &Path, index: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(index).map_err(|e| ModelError::io("read", index, e))?;
        let json: serde_json::Value = serde_json::from_str(&text)
            .map_err(|e| ModelError::format(index, format!("not JSON: {e}")))?;
        let map = json
            .get("weight_map")
            .and_then(|m| m.as_object())
            .ok_or_else(|| ModelError::format(index, "has no `weight_map` object"))?;
        let mut files: Vec<String> = Vec::new();
        for (tensor, file) in map {
            let file = file.as_str().filter(|f| !f.contains(['/', '\\']));
            let file = file.ok_or_else(|| {
                let message = format!("`weight_map` entry of `{tensor}` is not a file name");
                ModelError::format(index, message)
            })?;
            if !files.iter().any(|f| f == file) {
                files.push(file.to_owned());
            }
        }
        let checkpoint = Self::from_files(root, files.iter().map(|f| root.join(f)).collect())?;
        let absent: Vec<&String> = map
            .keys()
            .filter(|k| !checkpoint.tensors.contains_key(*k))
            .collect();
        match absent.as_slice() {
            [] => Ok(checkpoint),
            [first, ..] => Err(ModelError::format(
                index,
                format!(
                    "names {} tensors that no shard holds, first `{first}`",
                    absent.len()
                ),
            )),
        }
    }

    fn from_files(root: &Path, paths: Vec<PathBuf>) -> Result<Self, ModelError> {
        let mut checkpoint = Self {
            root: root.to_owned(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
        };
        for path in paths {
            let file = File::open(&path).map_err(|e| ModelError::io("open", &path, e))?;
            // SAFETY: the mapping is read-only. Another process that truncates the file while it is
            // mapped would fault, which every memory-mapping loader of weights accepts.
            let map = unsafe { Mmap::map(&file) }.map_err(|e| ModelError::io("map", &path, e))?;
            let (_, header) = SafeTensors::read_metadata(&map).map_err(|e| {
                ModelError::format(&path, format!("not a whole safetensors file: {e}"))
            })?;
            for name in header.tensors().keys() {
                let shard = checkpoint.shards.len();
                if checkpoint.tensors.insert(name.clone(), shard).is_some() {
                    let message = format!("tensor `{name}` is in two shards");
                    return Err(ModelError::format(&path, message));
                }
            }
            checkpoint.shards.push(Shard { path, map });
        }
        Ok(checkpoint)
    }

    /// The file or folder that was opened.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// All tensor names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor; `None` where there is none of this name.
    pub fn shape(&self, name: &str) -> Result<Option<Vec<usize>>, ModelError> {
        self.view(name, |view, _| Ok(view.shape().to_vec()))
    }

    /// A floating-point tensor, converted to f32; `None` where there is none of this name.
    pub fn get(&self, name: &str) -> Result<Option<StoredTensor>, ModelError> {
        self.view(name, |view, path| {
            let values = floats(view.dtype(), view.data()).ok_or_else(|| {
                let message = format!("tensor `{name}` has type {:?}, not a float", view.dtype());
                ModelError::format(path, message)
            })?;
            Ok(StoredTensor {
                shape: view.shape().to_vec(),
                values,
            })
        })
    }

    /// An int64 tensor; `None` where there is none of this name.
    pub fn get_i64(&self, name: &str) -> Result<Option<StoredIntegers>, ModelError> {
        self.view(name, |view, path| {
            if view.dtype() != Dtype::I64 {
                let message = format!("tensor `{name}` has type {:?}, not I64", view.dtype());
                return Err(ModelError::format(path, message));
            }
            let (chunks, _) = view.data().as_chunks::<8>();
            let values = chunks.iter().map(|b| i64::from_le_bytes(*b)).collect();
            Ok((view.shape().to_vec(), values))
        })
    }

    fn view<T>(
        &self,
        name: &str,
        read: impl FnOnce(safetensors::tensor::TensorView<'_>, &Path) -> Result<T, ModelError>,
    ) -> Result<Option<T>, ModelError> {
        let Some(&shard) = self.tensors.get(name) else {
            return Ok(None);
        };
        let Shard { path, map } = &self.shards[shard];
        let view = SafeTensors::deserialize(map)
            .and_then(|file| file.tensor(name))
            .map_err(|e| ModelError::format(path, format!("tensor `{name}`: {e}")))?;
        read(view, path).map(Some)
    }
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let halves = || bytes.as_chunks::<2>().0.iter();
    Some(match dtype {
        Dtype::F32 => {
            let (chunks, _) = bytes.as_chunks::<4>();
            chunks.iter().map(|b| f32::from_le_bytes(*b)).collect()
        }
        Dtype::F64 => {
            let (chunks, _) = bytes.as_chunks::<8>();
            chunks
                .iter()
                .map(|b| f64::from_le_bytes(*b) as f32)
                .collect()
        }
        Dtype::BF16 => halves().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::F16 => halves().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        _ => return None,
    })
}

/// Writes f32 tensors as one safetensors file, beside and then renamed into place.
pub fn write_safetensors(path: &Path, tensors: &[ExportedTensor]) -> Result<(), ModelError> {
    let views: Result<Vec<_>, _> = tensors
        .iter()
        .map(|(name, shape, values)| {
            let bytes = bytemuck::cast_slice(values);
            safetensors::tensor::TensorView::new(Dtype::F32, shape.clone(), bytes)
                .map(|view| (name.as_str(), view))
        })
        .collect();
    let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let write = |views| {
        let beside = path.with_extension("safetensors.tmp");
        safetensors::serialize_to_file(views, Some(metadata), &beside)?;
        // The library writes for the owner only; weights are read by whoever may read the folder.
        #[cfg(unix)]
        std::fs::set_permissions(&beside, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        std::fs::rename(&beside, path)?;
        Ok::<(), safetensors::SafeTensorError>(())
    };
    views
        .and_then(write)
        .map_err(|e| ModelError::format(path, format!("cannot be written: {e}")))
}
