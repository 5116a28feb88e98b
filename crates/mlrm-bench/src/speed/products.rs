//! The rate of matrix products.

use mlrm_config::MatmulPrecision;
use mlrm_events::Named;

use super::memory::reserved_bytes;
use super::{BenchReport, Figures};
use crate::measure::{matmul_rate, matmul_size};
use mlrm_train::TrainError;
use mlrm_train::device;
use mlrm_train::memory::peak_resident_bytes;

/// Which products are measured.
#[derive(Debug, Clone, PartialEq)]
pub struct ProductOptions {
    /// Device name.
    pub device: String,
    /// Number format.
    pub dtype: mlrm_config::DType,
    /// Side of the square matrices; `None` lets the device's speed decide.
    pub size: Option<usize>,
    /// Measured samples.
    pub runs: usize,
}

/// Measures products of square matrices.
///
/// # Errors
/// A device that is not there, or fails.
pub fn bench_matmul(options: &ProductOptions) -> Result<BenchReport, TrainError> {
    let device = device::open_for(&options.device, options.dtype, MatmulPrecision::F32)?;
    let dtype = device::dtype(options.dtype);
    let size = match options.size {
        Some(size) => size,
        None => matmul_size(&device, dtype)?,
    };
    let rate = matmul_rate(&device, dtype, size, options.runs.max(1))?;
    let shape: Named<usize> = [("size".to_owned(), size)].into_iter().collect();
    Ok(BenchReport {
        what: "matmul",
        device: options.device.clone(),
        dtype: options.dtype.name().into(),
        shape,
        figures: Figures::Products {
            flops_per_second: rate.per_second,
            seconds_per_product: 2.0 * (size as f64).powi(3) / rate.per_second,
        },
        peak_host_bytes: peak_resident_bytes(),
        peak_device_bytes: reserved_bytes(&device),
        mfu: None,
        runs: rate.repeats,
        spread: rate.spread,
    })
}
