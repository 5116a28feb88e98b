//! From device names to devices: the one place that names backends.

#[cfg(any(feature = "vulkan", feature = "wgpu", feature = "metal"))]
mod graphics;
mod missing;
#[cfg(any(feature = "cuda", feature = "rocm"))]
mod vendor;

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;

use burn::tensor::Tensor;
use mlrm_config::{BackendName, DType as ConfigDType, DeviceName, MatmulPrecision};
use mlrm_model::{ModelError, ops};
use sysinfo::{CpuRefreshKind, System};

use crate::error::TrainError;

/// Burn's devices and number formats.
pub use burn::tensor::{DType as Format, Device};

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

/// A device that a backend has on this machine, before it is opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The part's own name.
    pub adapter: String,
    /// `processor`, `GPU`, `discrete GPU`, `integrated GPU`, `virtual GPU`, `software` or `other`.
    pub kind: &'static str,
    /// Driver and version; for graphics backends also the API and the shader language.
    pub driver: String,
    /// All of the device's memory, where the driver tells.
    pub memory_bytes: Option<u64>,
}

/// Why a backend or a device cannot be used: what is missing, and how to get it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(String);

impl From<String> for Unusable {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

/// Opens the device that `name` means, and computes one product on it, so that an absent driver or
/// index shows here and not in the middle of a run.
///
/// # Errors
/// [`ModelError::Device`] where the name is none, the binary has no such backend, or the machine has
/// no such device or no driver for it.
pub fn open(name: &str) -> Result<Device, ModelError> {
    let parsed: DeviceName = name
        .parse()
        .map_err(|e: mlrm_config::DeviceNameError| refuse(name, e.reason))?;
    let device = connect(&parsed).map_err(|reason| refuse(name, reason.to_string()))?;
    if parsed.backend != BackendName::Flex {
        probe(&device).map_err(|reason| {
            refuse(
                name,
                format!("the backend does not compute ({reason}); see `mlrm devices`"),
            )
        })?;
    }
    Ok(device)
}

/// Opens a device for a model in `dtype`, whose products have the `matmul` precision from now on, on `flex` in the whole
/// process.
///
/// # Errors
/// As [`open`], and where the device has no arithmetic in `dtype`.
pub fn open_for(
    name: &str,
    dtype: ConfigDType,
    matmul: MatmulPrecision,
) -> Result<Device, ModelError> {
    let device = open(name)?;
    ops::set_matmul_precision(matmul);
    if !device.supports_dtype(self::dtype(dtype)) {
        return Err(refuse(
            name,
            format!(
                "it has no arithmetic in {}; backend.dtype can be {} there",
                dtype.name(),
                dtypes(&device).join(" or ")
            ),
        ));
    }
    Ok(device)
}

fn refuse(name: &str, message: String) -> ModelError {
    ModelError::Device {
        name: name.to_owned(),
        message,
    }
}

/// What the machine has of a backend, at least one device.
///
/// # Errors
/// Where the binary has no such backend, or the machine no device or driver for it.
pub fn find(backend: BackendName) -> Result<Vec<Found>, Unusable> {
    if !compiled_in(backend) {
        return Err(missing::feature(backend).into());
    }
    let found = guarded(|| match backend {
        BackendName::Flex => Ok(vec![processor()]),
        #[cfg(any(feature = "vulkan", feature = "wgpu", feature = "metal"))]
        BackendName::Vulkan | BackendName::Wgpu | BackendName::Metal => Ok(graphics::find(backend)),
        #[cfg(any(feature = "cuda", feature = "rocm"))]
        BackendName::Cuda | BackendName::Rocm => Ok(vendor::find(backend)),
        #[allow(unreachable_patterns, reason = "reachable where a backend is left out")]
        _ => Err(missing::feature(backend)),
    })?;
    if found.is_empty() {
        return Err(missing::driver(backend).to_owned().into());
    }
    Ok(found)
}

/// All memory of the device `name`, where its driver tells.
pub fn memory_bytes(name: &str) -> Option<u64> {
    let name: DeviceName = name.parse().ok()?;
    find(name.backend).ok()?.get(name.index)?.memory_bytes
}

/// The processor, as the system describes it.
fn processor() -> Found {
    let mut system = System::new();
    system.refresh_memory();
    system.refresh_cpu_list(CpuRefreshKind::nothing());
    let brand = system.cpus().first().map(|cpu| cpu.brand().trim());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Found {
        adapter: match brand {
            Some(brand) if !brand.is_empty() => format!("{brand}, {threads} threads"),
            _ => format!("processor, {threads} threads"),
        },
        kind: "processor",
        driver: "none needed".into(),
        memory_bytes: Some(system.total_memory()),
    }
}

/// Opens a device without computing on it.
///
/// # Errors
/// As [`find`], and where there is no such device, or its driver refuses it.
pub fn connect(name: &DeviceName) -> Result<Device, Unusable> {
    let count = find(name.backend)?.len();
    if name.index >= count {
        return Err(format!(
            "there is no {name} here: {} has {count} {}, counted from 0; see `mlrm devices`",
            name.backend.name(),
            if count == 1 { "device" } else { "devices" }
        )
        .into());
    }
    let device = guarded(|| match name.backend {
        #[cfg(feature = "flex")]
        BackendName::Flex => Ok(Device::flex()),
        #[cfg(any(feature = "vulkan", feature = "wgpu", feature = "metal"))]
        BackendName::Vulkan | BackendName::Wgpu | BackendName::Metal => {
            graphics::connect(name.backend, name.index)
        }
        #[cfg(any(feature = "cuda", feature = "rocm"))]
        BackendName::Cuda | BackendName::Rocm => vendor::connect(name.backend, name.index),
        #[allow(unreachable_patterns, reason = "reachable where a backend is left out")]
        _ => Err(missing::feature(name.backend)),
    })?;
    Ok(device)
}

/// Whether the device computes, seen on one small product.
fn probe(device: &Device) -> Result<(), String> {
    guarded(|| {
        let ones = Tensor::<2>::ones([8, 8], device);
        match ones.clone().matmul(ones).sum().try_into_scalar::<f32>() {
            Ok(512.0) => Ok(()),
            Ok(other) => Err(format!(
                "an 8 by 8 product of ones sums to {other}, not 512"
            )),
            Err(error) => Err(format!("{error:?}")),
        }
    })
}

/// Runs `work`; drivers that are not there panic inside a backend, and that panic must not reach
/// the user.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let answer = catch_unwind(AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    answer.unwrap_or_else(|panic| Err(panic_message(panic.as_ref())))
}

/// Runs work whose device may run out of memory.
///
/// # Errors
/// What `work` gives back, as [`TrainError::OutOfMemory`] where it says so of the device.
///
/// # Panics
/// Where `work` does, of anything else.
pub fn within_memory<T>(work: impl FnOnce() -> Result<T, TrainError>) -> Result<T, TrainError> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // It is told of as a warning, and the run goes on.
            if !(MAY_FAIL.get() && tells_of_memory(panic_text(info.payload()))) {
                usual(info);
            }
        }));
    });
    let within_another = MAY_FAIL.replace(true);
    let answer = catch_unwind(AssertUnwindSafe(work));
    MAY_FAIL.set(within_another);
    let reason = match answer {
        Err(panic) if tells_of_memory(panic_text(panic.as_ref())) => panic_message(panic.as_ref()),
        Err(panic) => resume_unwind(panic),
        Ok(Err(error)) if tells_of_memory(&error.to_string()) => {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().to_owned()
        }
        Ok(answer) => return answer,
    };
    Err(TrainError::OutOfMemory(reason))
}

thread_local! {
    /// Whether this thread runs work whose device may run out of memory.
    static MAY_FAIL: Cell<bool> = const { Cell::new(false) };
}

/// Whether a message of a backend or driver says that the device's memory is full.
fn tells_of_memory(message: &str) -> bool {
    let message = message.to_lowercase();
    let says = [
        "out of memory",
        "out-of-memory",
        "out_of_memory",
        "outofmemory",
        "out of device memory",
        "can't allocate buffer",
        "buffertoobig",
    ];
    says.iter().any(|words| message.contains(words))
}

/// The first line of what a panic says.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let first = panic_text(panic).lines().next();
    first.unwrap_or("no reason given").to_owned()
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied())
        .unwrap_or_default()
}

/// Burn's name of a number format.
pub fn dtype(dtype: ConfigDType) -> Format {
    match dtype {
        ConfigDType::F32 => Format::F32,
        ConfigDType::Bf16 => Format::BF16,
        ConfigDType::F16 => Format::F16,
    }
}

/// The formats of a model that a device has arithmetic in, as `backend.dtype` names them.
pub fn dtypes(device: &Device) -> Vec<&'static str> {
    let all = ConfigDType::ALL.into_iter();
    all.filter(|format| device.supports_dtype(dtype(*format)))
        .map(ConfigDType::name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str) -> String {
        open(name).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_backend_that_was_left_out_names_its_feature() {
        if !compiled_in(BackendName::Rocm) {
            let message = refusal("rocm:1");
            assert!(message.contains("--features rocm"), "{message}");
        }
    }

    #[test]
    fn a_misspelt_device_is_refused() {
        let message = refusal("cudda");
        assert!(message.contains("cudda"), "{message}");
    }

    #[test]
    fn an_index_past_the_end_is_refused_with_the_count() {
        for backend in BackendName::ALL {
            if let (true, Ok(found)) = (backend.indexed(), find(backend)) {
                let message = refusal(&format!("{}:{}", backend.name(), found.len()));
                let words = format!("has {} device", found.len());
                assert!(message.contains(&words), "{message}");
            }
        }
    }

    #[test]
    fn a_panic_becomes_its_first_line() {
        let answer = guarded::<()>(|| panic!("no driver\nand a long story"));
        assert_eq!(answer, Err("no driver".into()));
        assert_eq!(guarded(|| Ok(1)), Ok(1));
    }

    #[test]
    fn a_full_device_is_told_from_other_failures() {
        let full = within_memory::<()>(|| panic!("CUDA_ERROR_OUT_OF_MEMORY\nand a backtrace"));
        assert!(
            matches!(full, Err(TrainError::OutOfMemory(text)) if text == "CUDA_ERROR_OUT_OF_MEMORY")
        );
        let failed = || {
            let said = "out of device memory allocating 9 bytes";
            TrainError::device("the device failed", said)
        };
        assert!(matches!(
            within_memory::<()>(|| Err(failed())),
            Err(TrainError::OutOfMemory(_))
        ));
        let lost = || TrainError::device("the device failed", "lost");
        assert!(matches!(
            within_memory::<()>(|| Err(lost())),
            Err(TrainError::Device { .. })
        ));
        assert!(matches!(within_memory(|| Ok(3)), Ok(3)));
        let other = catch_unwind(|| within_memory::<()>(|| panic!("index out of bounds")));
        let panic = other.expect_err("a panic");
        assert_eq!(panic_message(panic.as_ref()), "index out of bounds");
    }
}
