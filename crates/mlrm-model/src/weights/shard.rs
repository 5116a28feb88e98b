//! One memory-mapped safetensors file.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{SafeTensorError, SafeTensors};
use serde_json::{Map, Value};

use crate::error::ModelError;

/// Bytes of the header's length, which a file begins with.
const LENGTH_BYTES: usize = 8;

/// A safetensors file, mapped into memory, its header read and checked.
pub(super) struct Shard {
    path: PathBuf,
    map: Mmap,
    header: Metadata,
    /// Where the tensors' bytes begin.
    data_start: usize,
}

impl Shard {
    /// Maps a file. Its header must describe its bytes exactly: every tensor as long as its shape
    /// and type say, no gap, and nothing missing or left over at the end.
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(|e| ModelError::io("open", path, e))?;
        // SAFETY: the mapping is read-only. Another process that truncates the file while it is
        // mapped would fault, which every memory-mapping loader of weights accepts.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| ModelError::io("map", path, e))?;
        let (length, header) = SafeTensors::read_metadata(&map)
            .map_err(|error| ModelError::format(path, explain(&error, &map)))?;
        Ok(Self {
            path: path.to_owned(),
            map,
            header,
            data_start: LENGTH_BYTES + length,
        })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tensor names in the order of their bytes.
    pub(super) fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// Type, shape and place of a tensor.
    pub(super) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.header.info(name)
    }

    /// The bytes of a tensor.
    pub(super) fn bytes(&self, info: &TensorInfo) -> &[u8] {
        &self.map[self.range(info)]
    }

    fn range(&self, info: &TensorInfo) -> Range<usize> {
        let (start, end) = info.data_offsets;
        self.data_start + start..self.data_start + end
    }

    /// Gives the memory of a part of a tensor's bytes back to the system, so that what was read
    /// does not count beside what was made of it. The bytes stay readable: they come from the file
    /// again.
    pub(super) fn release(&self, info: &TensorInfo, part: Range<usize>) {
        #[cfg(unix)]
        {
            let start = self.range(info).start + part.start;
            // SAFETY: the mapping is read-only and shared with the file, so dropped pages are read
            // from the file again with the same content. Where the system refuses, memory stays in
            // use, no more.
            let _refused = unsafe {
                let advice = memmap2::UncheckedAdvice::DontNeed;
                self.map.unchecked_advise_range(advice, start, part.len())
            };
        }
        #[cfg(not(unix))]
        let _ = (info, part);
    }
}

/// What is wrong with a file that is not whole, in words that name the tensor.
fn explain(error: &SafeTensorError, bytes: &[u8]) -> String {
    // What stands in place of a file that Git LFS keeps.
    if bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
        return "a pointer of Git LFS, not the weights; run `git lfs pull` in the repository that it comes \
                from"
            .into();
    }
    let Some((length, _)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return format!(
            "not a safetensors file: it has {} bytes, the header's length alone takes 8; fetch it \
             again",
            bytes.len()
        );
    };
    let length = u64::from_le_bytes(*length);
    let held = (bytes.len() - LENGTH_BYTES) as u64;
    if length > held {
        return format!(
            "not a whole safetensors file: its header should take {length} bytes, but only {held} \
             follow; fetch it again"
        );
    }
    let (header, data) = bytes[LENGTH_BYTES..].split_at(length as usize);
    match error {
        SafeTensorError::HeaderTooLarge => format!("its header of {length} bytes is too large"),
        SafeTensorError::InvalidHeader(reason) => format!("its header is not text: {reason}"),
        SafeTensorError::InvalidHeaderDeserialization(reason) => {
            format!("its header cannot be read: {reason}")
        }
        SafeTensorError::InvalidOffset(name) => format!(
            "tensor `{name}` does not begin where the tensor before it ends; the file is damaged"
        ),
        _ => match first_fault(header, data.len() as u64) {
            Some(fault) => fault,
            None => format!("not a whole safetensors file: {error}"),
        },
    }
}

/// The first tensor whose bytes are not all there, or contradict its shape.
fn first_fault(header: &[u8], held: u64) -> Option<String> {
    let tensors: Map<String, Value> = serde_json::from_slice(header).ok()?;
    let entry = |(name, value): (&String, &Value)| {
        let info: TensorInfo = serde_json::from_value(value.clone()).ok()?;
        Some((name.clone(), info))
    };
    let mut tensors: Vec<(String, TensorInfo)> = tensors.iter().filter_map(entry).collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    for (name, info) in &tensors {
        let (start, end) = info.data_offsets;
        let elements = info.shape.iter().try_fold(1usize, |n, &m| n.checked_mul(m));
        let bits = elements.and_then(|n| n.checked_mul(info.dtype.bitsize()));
        if bits.is_none_or(|bits| Some(bits / 8) != end.checked_sub(start)) {
            return Some(format!(
                "tensor `{name}` has bytes {start} to {end}, which is not what its shape {:?} in \
                 {:?} takes; the file is damaged",
                info.shape, info.dtype
            ));
        }
        if end as u64 > held {
            return Some(format!(
                "not a whole safetensors file: tensor `{name}` should end at byte {end} of the \
                 data, but the file holds {held}; fetch it again"
            ));
        }
    }
    let end = tensors.last().map_or(0, |(_, info)| info.data_offsets.1) as u64;
    (held > end).then(|| {
        format!(
            "{} bytes follow the last tensor; the file is damaged",
            held - end
        )
    })
}
