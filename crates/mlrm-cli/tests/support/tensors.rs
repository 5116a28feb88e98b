//! Safetensors files that tests read and spoil, by the format's own reader and writer.

// Every test file uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// A tensor: format, shape and bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct RawTensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl RawTensor {
    /// The values of a tensor in f32.
    #[track_caller]
    pub fn values(&self) -> Vec<f32> {
        assert_eq!(self.dtype, Dtype::F32);
        let values = self.bytes.as_chunks::<4>().0.iter();
        values.map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// A tensor of f32 values.
    pub fn of(shape: &[usize], values: &[f32]) -> Self {
        Self {
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            bytes: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        }
    }

    /// The largest absolute value.
    pub fn largest(&self) -> f32 {
        self.values().into_iter().map(f32::abs).fold(0.0, f32::max)
    }
}

/// A file's tensors by name.
pub type Tensors = BTreeMap<String, RawTensor>;

/// Reads a file.
#[track_caller]
pub fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensor = |(name, view): (String, TensorView<'_>)| {
        let tensor = RawTensor {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        (name, tensor)
    };
    file.tensors().into_iter().map(tensor).collect()
}

/// Writes a file.
pub fn write(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, tensor)| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
        (name, view.expect("bytes that fit the shape"))
    });
    let bytes = safetensors::serialize(views, None).expect("tensors");
    fs::write(path, bytes).expect("a file");
}

/// Changes a file.
pub fn edit(path: &Path, edit: impl FnOnce(&mut Tensors)) {
    let mut tensors = read(path);
    edit(&mut tensors);
    write(path, &tensors);
}

/// Copies a folder.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its kind").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
