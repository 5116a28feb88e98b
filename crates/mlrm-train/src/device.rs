//! From device names to devices: the one place that names backends.

use burn::tensor::Device;

/// Burn's number formats.
pub use burn::tensor::DType as Format;
use mlrm_config::{BackendName, DType as ConfigDType, DeviceName};
use mlrm_model::ModelError;

/// Whether this binary holds a backend.
pub fn compiled_in(backend: BackendName) -> bool {
    match backend {
        BackendName::Flex => cfg!(feature = "flex"),
        BackendName::Vulkan => cfg!(feature = "vulkan"),
        BackendName::Wgpu => cfg!(feature = "wgpu"),
        BackendName::Metal => cfg!(feature = "metal"),
        BackendName::Cuda => cfg!(feature = "cuda"),
        BackendName::Rocm => cfg!(feature = "rocm"),
    }
}

/// Opens the device that `name` means, and computes one product on it, so that an absent driver or
/// index shows here and not in the middle of a run.
pub fn open(name: &str) -> Result<Device, ModelError> {
    let fail = |message: String| ModelError::Device {
        name: name.to_owned(),
        message,
    };
    let parsed: DeviceName = name
        .parse()
        .map_err(|e: mlrm_config::DeviceNameError| fail(e.reason))?;
    let feature = parsed.backend.name();
    let device = select(&parsed).ok_or_else(|| {
        fail(format!(
            "this binary was built without it; build with `cargo build --release --features {feature}`"
        ))
    })?;
    if parsed.backend != BackendName::Flex {
        probe(&device).map_err(|reason| {
            fail(format!("the backend does not answer ({reason}); is its driver installed? see `mlrm devices`"))
        })?;
    }
    Ok(device)
}

#[allow(
    unused_variables,
    reason = "the index is read by the backends that have several devices"
)]
fn select(name: &DeviceName) -> Option<Device> {
    #[cfg(any(feature = "vulkan", feature = "wgpu"))]
    let kind = match name.index {
        0 => burn::tensor::DeviceKind::DefaultDevice,
        index => burn::tensor::DeviceKind::DiscreteGpu(index),
    };
    match name.backend {
        #[cfg(feature = "flex")]
        BackendName::Flex => Some(Device::flex()),
        #[cfg(feature = "vulkan")]
        BackendName::Vulkan => Some(Device::vulkan(kind)),
        #[cfg(feature = "wgpu")]
        BackendName::Wgpu => Some(Device::wgpu(kind)),
        #[cfg(feature = "metal")]
        BackendName::Metal => Some(Device::metal(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "cuda")]
        BackendName::Cuda => Some(Device::cuda(name.index)),
        #[cfg(feature = "rocm")]
        BackendName::Rocm => Some(Device::rocm(name.index)),
        #[allow(unreachable_patterns, reason = "reachable where a backend is left out")]
        _ => None,
    }
}

/// Drivers that are not there panic inside the backend; that panic must not reach the user.
fn probe(device: &Device) -> Result<(), String> {
    let device = device.clone();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let answer = std::panic::catch_unwind(move || {
        let ones = burn::tensor::Tensor::<2>::ones([8, 8], &device);
        ones.clone().matmul(ones).sum().try_into_scalar::<f32>()
    });
    std::panic::set_hook(hook);
    match answer {
        Ok(Ok(512.0)) => Ok(()),
        Ok(Ok(other)) => Err(format!(
            "an 8 by 8 product of ones sums to {other}, not 512"
        )),
        Ok(Err(error)) => Err(format!("{error:?}")),
        Err(panic) => Err(panic_message(panic.as_ref())),
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied());
    let first = text.and_then(|text| text.lines().next());
    first.unwrap_or("no reason given").to_owned()
}

/// Burn's name of a number format.
pub fn dtype(dtype: ConfigDType) -> Format {
    match dtype {
        ConfigDType::F32 => Format::F32,
        ConfigDType::Bf16 => Format::BF16,
        ConfigDType::F16 => Format::F16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_was_left_out_names_its_feature() {
        if !compiled_in(BackendName::Rocm) {
            let message = open("rocm:1").err().map(|e| e.to_string());
            assert!(message.is_some_and(|m| m.contains("--features rocm")));
        }
    }

    #[test]
    fn a_misspelt_device_is_refused() {
        let message = open("cudda")
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default();
        assert!(message.contains("cudda"), "{message}");
    }
}
