//! safetensors: everything in one file.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, View};

use crate::embeddings::{EmbeddingSet, Embeddings};
use crate::error::Error;
use crate::files::{Numbers, decode, encode, open, write_beside};

const EMBEDDINGS: &str = "embeddings";
const VISUAL: &str = "visual_embeddings";
const IDS: &str = "ids";

pub(super) fn read(path: &Path) -> Result<EmbeddingSet, Error> {
    let file = open(path)?;
    // SAFETY: a mapping is undefined behaviour only if the file is changed while it is mapped;
    // writers of this crate replace files and never change them, and the mapping ends with this
    // function.
    let bytes = unsafe { Mmap::map(&file) }.map_err(Error::io(path, "read"))?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|error| Error::file(path, format!("not a whole safetensors file: {error}")))?;
    let ids = read_ids(&tensors, path)?;
    let multimodal = read_tensor(&tensors, EMBEDDINGS, ids.clone(), path)?;
    let visual = match tensors.tensor(VISUAL) {
        Ok(_) => Some(read_tensor(&tensors, VISUAL, ids, path)?),
        Err(_) => None,
    };
    EmbeddingSet::new(multimodal, visual).map_err(|error| error.in_file(path))
}

fn read_ids(tensors: &SafeTensors, path: &Path) -> Result<Vec<String>, Error> {
    let tensor = tensors.tensor(IDS).map_err(|_| lacks(tensors, IDS, path))?;
    if tensor.dtype() != Dtype::U8 {
        let problem = format!(
            "tensor \"ids\" is {:?}; it must be U8 (UTF-8 text)",
            tensor.dtype()
        );
        return Err(Error::file(path, problem));
    }
    let text = std::str::from_utf8(tensor.data())
        .map_err(|error| Error::file(path, format!("tensor \"ids\" is not UTF-8: {error}")))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn read_tensor(
    tensors: &SafeTensors,
    name: &str,
    ids: Vec<String>,
    path: &Path,
) -> Result<Embeddings, Error> {
    let tensor = tensors
        .tensor(name)
        .map_err(|_| lacks(tensors, name, path))?;
    let &[notes, dim] = tensor.shape() else {
        let problem = format!(
            "tensor {name:?} has shape {:?}; it must be [notes, dim]",
            tensor.shape()
        );
        return Err(Error::file(path, problem));
    };
    if notes != ids.len() {
        let problem = format!(
            "tensor {name:?} has {notes} rows, but there are {} ids",
            ids.len()
        );
        return Err(Error::file(path, problem));
    }
    let width = match tensor.dtype() {
        Dtype::I8 => 1,
        Dtype::F16 => 2,
        Dtype::F32 => 4,
        Dtype::F64 => 8,
        other => {
            let problem = format!("tensor {name:?} is {other:?}; save it as F32");
            return Err(Error::file(path, problem));
        }
    };
    let values = decode(tensor.data(), width);
    Embeddings::new(ids, dim, values).map_err(|error| error.in_file(path))
}

fn lacks(tensors: &SafeTensors, name: &str, path: &Path) -> Error {
    let mut names = tensors.names();
    names.sort_unstable();
    Error::file(path, format!("no tensor {name:?} in it; it has {names:?}"))
}

/// What goes into the file.
enum Tensor<'a> {
    Embeddings {
        embeddings: &'a Embeddings,
        shape: [usize; 2],
        numbers: Numbers,
    },
    Ids {
        shape: [usize; 1],
        text: String,
    },
}

impl<'a> Tensor<'a> {
    fn embeddings(embeddings: &'a Embeddings, numbers: Numbers) -> Self {
        Self::Embeddings {
            embeddings,
            shape: [embeddings.len(), embeddings.dim()],
            numbers,
        }
    }

    fn ids(embeddings: &Embeddings) -> Self {
        let mut text = embeddings.ids().join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        Self::Ids {
            shape: [text.len()],
            text,
        }
    }
}

impl View for &Tensor<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Tensor::Embeddings { numbers, .. } => match numbers {
                Numbers::F32 => Dtype::F32,
                Numbers::Int8 => Dtype::I8,
            },
            Tensor::Ids { .. } => Dtype::U8,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Tensor::Embeddings { shape, .. } => shape,
            Tensor::Ids { shape, .. } => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Tensor::Embeddings {
                embeddings,
                numbers,
                ..
            } => Cow::Owned(encode(embeddings, *numbers)),
            Tensor::Ids { text, .. } => Cow::Borrowed(text.as_bytes()),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Tensor::Embeddings { shape, numbers, .. } => {
                let bytes = match numbers {
                    Numbers::F32 => size_of::<f32>(),
                    Numbers::Int8 => size_of::<i8>(),
                };
                shape[0] * shape[1] * bytes
            }
            Tensor::Ids { text, .. } => text.len(),
        }
    }
}

pub(super) fn write(path: &Path, set: &EmbeddingSet, numbers: Numbers) -> Result<(), Error> {
    let mut tensors = vec![
        (EMBEDDINGS, Tensor::embeddings(set.multimodal(), numbers)),
        (IDS, Tensor::ids(set.multimodal())),
    ];
    if let Some(visual) = set.visual() {
        tensors.push((VISUAL, Tensor::embeddings(visual, numbers)));
    }
    let views = tensors.iter().map(|(name, tensor)| (*name, tensor));
    let bytes = safetensors::serialize(views, None)
        .map_err(|error| Error::file(path, format!("cannot be made: {error}")))?;
    write_beside(path, |file| {
        file.write_all(&bytes).map_err(Error::io(path, "write"))
    })
}
