//! What goes between the host and the device of a step, counted.
//!
//! A device that computes beside the host is slowed by each value that is uploaded and stopped by each value that
//! is read back. What a training step or a pass over notes moves goes through [`upload`] and [`read`], so that
//! [`Transfers`] says what a step moved, and a test can hold it to the batch and one read. Loading and saving weights
//! goes its own way.

use std::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::kind::Basic;
use burn::tensor::{Element, Tensor, TensorCreationOptions, TensorData, TensorReadError};

static UPLOADS: AtomicU64 = AtomicU64::new(0);
static UPLOADED_BYTES: AtomicU64 = AtomicU64::new(0);
static READS: AtomicU64 = AtomicU64::new(0);
static READ_BYTES: AtomicU64 = AtomicU64::new(0);

/// Tensors that went from the host to a device and back. On the CPU backend nothing moves, but the same is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transfers {
    /// Tensors uploaded.
    pub uploads: u64,
    /// Their bytes on the host.
    pub uploaded_bytes: u64,
    /// Tensors read back; the host waits for each.
    pub reads: u64,
    /// Their bytes on the host.
    pub read_bytes: u64,
}

impl Transfers {
    /// All of this process so far, whatever its threads.
    pub fn so_far() -> Self {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            uploads: of(&UPLOADS),
            uploaded_bytes: of(&UPLOADED_BYTES),
            reads: of(&READS),
            read_bytes: of(&READ_BYTES),
        }
    }

    /// Those after `previous`.
    pub fn since(self, previous: Self) -> Self {
        Self {
            uploads: self.uploads - previous.uploads,
            uploaded_bytes: self.uploaded_bytes - previous.uploaded_bytes,
            reads: self.reads - previous.reads,
            read_bytes: self.read_bytes - previous.read_bytes,
        }
    }
}

/// `data` as a tensor on a device.
pub fn upload<const D: usize, K: Basic>(
    data: TensorData,
    options: impl Into<TensorCreationOptions>,
) -> Tensor<D, K> {
    UPLOADS.fetch_add(1, Ordering::Relaxed);
    UPLOADED_BYTES.fetch_add(data.as_bytes().len() as u64, Ordering::Relaxed);
    Tensor::from_data(data, options)
}

/// The values of `tensor`, row by row, once the device has computed them.
///
/// # Errors
/// A device that failed, or values that are no `E`.
pub fn read<const D: usize, E: Element>(tensor: Tensor<D>) -> Result<Vec<E>, TensorReadError> {
    let values = tensor.try_into_vec_as::<E>()?;
    READS.fetch_add(1, Ordering::Relaxed);
    READ_BYTES.fetch_add(
        std::mem::size_of_val(values.as_slice()) as u64,
        Ordering::Relaxed,
    );
    Ok(values)
}
