//! What this binary holds and what this machine has, for `mlrm devices`.

use burn::tensor::Device;
use mlrm_config::{BackendName, DeviceName};
use mlrm_model::ops;
use serde::Serialize;

use crate::measure::{Measured, copy_bandwidth, matmul_rate, matmul_size};
use mlrm_train::TrainError;
use mlrm_train::device::{Format, Found, compiled_in, connect, dtypes, find, open};

/// A backend: whether it is there, and its devices or what it lacks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackendReport {
    /// Its name, which is also that of its cargo feature.
    pub backend: &'static str,
    /// Whether this binary holds it.
    pub compiled_in: bool,
    /// Whether it has a device here.
    pub available: bool,
    /// What is missing and how to get it; empty where nothing is.
    pub note: String,
    /// Its devices, in the order of their indices.
    pub devices: Vec<DeviceReport>,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceReport {
    /// What `backend.device` and `--device` call it.
    pub name: String,
    /// The part's own name.
    pub adapter: String,
    /// `processor`, `GPU`, `discrete GPU`, `integrated GPU`, `virtual GPU`, `software` or `other`.
    pub kind: &'static str,
    /// Driver and version.
    pub driver: String,
    /// All of its memory, where the driver tells.
    pub memory_bytes: Option<u64>,
    /// What `backend.dtype` can be on it.
    pub dtypes: Vec<&'static str>,
    /// The instructions by which it multiplies bf16 matrices faster than f32 ones, so that `backend.matmul_precision =
    /// "bf16"` has an effect, where it has such ones; `flex` only.
    pub bf16_products: Option<&'static str>,
    /// Why it cannot be used, where it cannot.
    pub error: Option<String>,
    /// What [`measure`] found.
    pub speed: Option<Speed>,
}

/// What a device does at best.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Speed {
    /// Side of the square f32 matrices.
    pub matmul_size: usize,
    /// FLOP/s of their product.
    pub matmul: Measured,
    /// Bytes of the f32 vector.
    pub copy_bytes: usize,
    /// Bytes/s, read and written together, of one pass over it.
    pub copy: Measured,
}

/// Samples of a measurement.
const REPEATS: usize = 5;

/// Every backend with its devices. Devices are opened, but nothing is computed on them.
pub fn inventory() -> Vec<BackendReport> {
    BackendName::ALL.into_iter().map(backend).collect()
}

fn backend(name: BackendName) -> BackendReport {
    let (devices, note) = match find(name) {
        Ok(found) => (found, String::new()),
        Err(reason) => (Vec::new(), reason.to_string()),
    };
    BackendReport {
        backend: name.name(),
        compiled_in: compiled_in(name),
        available: !devices.is_empty(),
        note,
        devices: devices
            .into_iter()
            .enumerate()
            .map(|(index, found)| report(name, index, found))
            .collect(),
    }
}

fn report(backend: BackendName, index: usize, found: Found) -> DeviceReport {
    let name = DeviceName { backend, index };
    let (dtypes, error) = match connect(&name) {
        Ok(device) => (dtypes(&device), None),
        Err(reason) => (Vec::new(), Some(reason.to_string())),
    };
    DeviceReport {
        name: name.to_string(),
        adapter: found.adapter,
        kind: found.kind,
        driver: found.driver,
        memory_bytes: found.memory_bytes,
        dtypes,
        bf16_products: match backend {
            BackendName::Flex => ops::bf16_products(),
            _ => None,
        },
        error,
        speed: None,
    }
}

/// Measures the matrix-product rate and the copy bandwidth of a device, in f32.
///
/// # Errors
/// Where the device cannot be opened or fails.
pub fn measure(device: &DeviceReport) -> Result<Speed, TrainError> {
    let opened: Device = open(&device.name)?;
    let matmul_size = matmul_size(&opened, Format::F32)?;
    // Far larger than any cache, and small beside the memory of a graphics card.
    let copy_bytes = match device.kind {
        "processor" | "software" => 1 << 27,
        _ => 1 << 29,
    };
    Ok(Speed {
        matmul_size,
        matmul: matmul_rate(&opened, Format::F32, matmul_size, REPEATS)?,
        copy_bytes,
        copy: copy_bandwidth(&opened, copy_bytes, REPEATS)?,
    })
}
