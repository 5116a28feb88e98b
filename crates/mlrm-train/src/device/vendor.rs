//! Devices of the vendors' own runtimes, CUDA and ROCm, numbered as the runtime numbers them.

use std::fs;

use burn::backend::DispatchDevice;
use burn::tensor::{Device, DeviceType};
use mlrm_config::BackendName;

use super::Found;

/// The backend's devices, in the order of their indices. Opens each.
pub(super) fn find(backend: BackendName) -> Vec<Found> {
    let devices = Device::enumerate(runtime(backend));
    devices
        .iter()
        .map(|device| describe(backend, device))
        .collect()
}

/// Opens a device by its index in [`find`].
pub(super) fn connect(backend: BackendName, index: usize) -> Result<Device, String> {
    let devices = Device::enumerate(runtime(backend));
    devices
        .get(index)
        .cloned()
        .ok_or_else(|| "the device is gone".into())
}

fn runtime(backend: BackendName) -> DeviceType {
    match backend {
        #[cfg(feature = "rocm")]
        BackendName::Rocm => DeviceType::Rocm,
        #[cfg(feature = "cuda")]
        _ => DeviceType::Cuda,
        #[cfg(not(feature = "cuda"))]
        _ => DeviceType::Rocm,
    }
}

fn describe(backend: BackendName, device: &Device) -> Found {
    let identity = device.identity();
    let target = identity
        .as_ref()
        .map(|identity| identity.fingerprint.clone());
    let driver = match backend {
        BackendName::Rocm => version_in("/sys/module/amdgpu/version", "amdgpu"),
        _ => version_in("/sys/module/nvidia/version", "nvidia"),
    };
    let driver: Vec<String> = driver.into_iter().chain(target).collect();
    Found {
        adapter: identity.map_or_else(|| "unnamed".into(), |identity| identity.name),
        kind: "GPU",
        driver: driver.join("; "),
        memory_bytes: memory(device),
    }
}

/// The version of a kernel driver, where the kernel tells.
fn version_in(path: &str, driver: &str) -> Option<String> {
    let version = fs::read_to_string(path).ok()?;
    Some(format!("{driver} {}", version.trim()))
}

fn memory(device: &Device) -> Option<u64> {
    match device.as_dispatch() {
        DispatchDevice::Cube(device) => device.client().properties().memory.max_memory(),
        #[allow(unreachable_patterns, reason = "reachable beside other backends")]
        _ => None,
    }
}
