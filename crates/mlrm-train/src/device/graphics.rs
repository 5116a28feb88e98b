//! Adapters of the graphics APIs: finding, numbering and opening them.
//!
//! Burn names an adapter by its kind and an index within the kind. Here the adapters of a backend
//! are one list, GPUs with memory of their own first, software last, and a device's index is its
//! place in it.

use std::future::Future;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use burn::tensor::wgpu::{WgpuBackend, wgpu};
use burn::tensor::{Device, DeviceKind};
use mlrm_config::BackendName;
use wgpu::{AdapterInfo, Backend, DeviceType};

use super::Found;

/// An adapter and how Burn names it.
#[derive(Debug, Clone)]
struct Adapter {
    api: Backend,
    kind: DeviceKind,
    info: AdapterInfo,
    memory_bytes: Option<u64>,
}

/// The backend's devices, in the order of their indices.
pub(super) fn find(backend: BackendName) -> Vec<Found> {
    adapters(backend).iter().map(describe).collect()
}

/// Opens a device by its index in [`find`].
pub(super) fn connect(backend: BackendName, index: usize) -> Result<Device, String> {
    /// Burn sets an adapter up once in a process and hands out clones of it.
    static OPENED: Mutex<Vec<(Backend, DeviceKind, Device)>> = Mutex::new(Vec::new());

    let adapters = adapters(backend);
    let adapter = adapters.get(index).ok_or("the device is gone")?;
    if spirv(adapter.api) && adapter.info.device_type == DeviceType::Cpu {
        return Err(format!(
            "{} is a software driver, which crashes on the SPIR-V shaders of a binary with the feature \
             `vulkan`; one built with `--features wgpu` alone runs on it",
            adapter.info.name
        ));
    }
    let mut opened = OPENED.lock().map_err(|e| e.to_string())?;
    let same = |(api, kind, _): &&(Backend, DeviceKind, Device)| {
        *api == adapter.api && *kind == adapter.kind
    };
    if let Some((_, _, device)) = opened.iter().find(same) {
        return Ok(device.clone());
    }
    let device = Device::wgpu_options()
        .graphics_api(pinned(adapter.api))
        .device_kind(adapter.kind.clone())
        .init()
        .map_err(|error| error.to_string())?;
    opened.push((adapter.api, adapter.kind.clone(), device.clone()));
    Ok(device)
}

/// The adapters of the first graphics API that has a GPU, or failing that, that has anything.
fn adapters(backend: BackendName) -> Vec<Adapter> {
    let apis: &[Backend] = match backend {
        BackendName::Vulkan => &[Backend::Vulkan],
        BackendName::Metal => &[Backend::Metal],
        _ if cfg!(target_vendor = "apple") => &[Backend::Metal],
        _ => &[Backend::Vulkan, Backend::Dx12, Backend::Gl],
    };
    let mut software = Vec::new();
    for api in apis {
        let found = adapters_of(*api);
        let is_gpu = |adapter: &Adapter| adapter.info.device_type != DeviceType::Cpu;
        if found.iter().any(is_gpu) {
            return found;
        }
        // Mesa's software OpenGL takes work and never finishes it.
        if software.is_empty() && *api != Backend::Gl {
            software = found;
        }
    }
    software
}

fn adapters_of(api: Backend) -> Vec<Adapter> {
    /// The Vulkan loader crashes when instances come and go on several threads at once.
    static ASKING: Mutex<()> = Mutex::new(());
    let _asking = ASKING.lock();

    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: api.into(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let found = finish(instance.enumerate_adapters(api.into()));
    let described = found.iter().map(|adapter| {
        let info = adapter.get_info();
        let memory_bytes = memory(adapter);
        (info, memory_bytes)
    });
    number(api, described.collect())
}

/// Orders adapters and counts each kind by itself, as Burn does.
fn number(api: Backend, found: Vec<(AdapterInfo, Option<u64>)>) -> Vec<Adapter> {
    let mut adapters: Vec<Adapter> = Vec::new();
    for (info, memory_bytes) in found {
        let index = adapters
            .iter()
            .filter(|other| other.info.device_type == info.device_type)
            .count();
        let kind = match info.device_type {
            DeviceType::DiscreteGpu => DeviceKind::DiscreteGpu(index),
            DeviceType::IntegratedGpu => DeviceKind::IntegratedGpu(index),
            DeviceType::VirtualGpu => DeviceKind::VirtualGpu(index),
            // Burn can name one software adapter.
            DeviceType::Cpu if index == 0 => DeviceKind::Cpu,
            // … and has no name at all for unknown adapters but the default one.
            DeviceType::Other if index == 0 => DeviceKind::DefaultDevice,
            DeviceType::Cpu | DeviceType::Other => continue,
        };
        adapters.push(Adapter {
            api,
            kind,
            info,
            memory_bytes,
        });
    }
    adapters.sort_by_key(|adapter| rank(adapter.info.device_type));
    adapters
}

fn rank(kind: DeviceType) -> usize {
    match kind {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    }
}

fn describe(adapter: &Adapter) -> Found {
    let info = &adapter.info;
    let api = match adapter.api {
        Backend::Vulkan => "Vulkan",
        Backend::Metal => "Metal",
        Backend::Dx12 => "DirectX 12",
        Backend::Gl => "OpenGL",
        Backend::BrowserWebGpu => "WebGPU",
        Backend::Noop => "none",
    };
    let shaders = match adapter.api {
        api if spirv(api) => "SPIR-V",
        Backend::Metal if cfg!(feature = "metal") => "MSL",
        _ => "WGSL",
    };
    let driver = [info.driver.as_str(), info.driver_info.as_str()]
        .into_iter()
        .filter(|part| !part.is_empty());
    let driver: Vec<&str> = driver.collect();
    Found {
        adapter: info.name.clone(),
        kind: match info.device_type {
            DeviceType::DiscreteGpu => "discrete GPU",
            DeviceType::IntegratedGpu => "integrated GPU",
            DeviceType::VirtualGpu => "virtual GPU",
            DeviceType::Other => "other",
            DeviceType::Cpu => "software",
        },
        driver: format!("{}; {api}, {shaders}", driver.join(" ")),
        memory_bytes: adapter.memory_bytes,
    }
}

/// Whether shaders on this API are compiled to SPIR-V: on Vulkan, in a binary that can.
fn spirv(api: Backend) -> bool {
    cfg!(feature = "vulkan") && api == Backend::Vulkan
}

fn pinned(api: Backend) -> WgpuBackend {
    match api {
        Backend::Vulkan => WgpuBackend::Vulkan,
        Backend::Metal => WgpuBackend::Metal,
        Backend::Dx12 => WgpuBackend::Dx12,
        Backend::Gl => WgpuBackend::Gl,
        Backend::BrowserWebGpu => WgpuBackend::WebGpu,
        Backend::Noop => WgpuBackend::Auto,
    }
}

/// The largest heap in the device's own memory; WebGPU itself tells no size.
#[cfg(not(target_vendor = "apple"))]
fn memory(adapter: &wgpu::Adapter) -> Option<u64> {
    /// `VK_MEMORY_HEAP_DEVICE_LOCAL_BIT`.
    const DEVICE_LOCAL: u32 = 1;
    // SAFETY: the adapter's handle is asked for properties only, and lives until the answer is there.
    let memory = unsafe {
        let vulkan = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let instance = vulkan.shared_instance().raw_instance();
        instance.get_physical_device_memory_properties(vulkan.raw_physical_device())
    };
    let heaps = memory.memory_heaps.iter();
    heaps
        .take(memory.memory_heap_count as usize)
        .filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0)
        .map(|heap| heap.size)
        .max()
}

#[cfg(target_vendor = "apple")]
fn memory(_adapter: &wgpu::Adapter) -> Option<u64> {
    None
}

/// Waits for a future of a native graphics API, which is ready at once.
fn finish<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, kind: DeviceType) -> (AdapterInfo, Option<u64>) {
        let mut info = AdapterInfo::new(kind, Backend::Vulkan);
        info.name = name.into();
        (info, None)
    }

    #[test]
    fn gpus_come_first_and_each_kind_is_counted_by_itself() {
        let found = vec![
            named("software", DeviceType::Cpu),
            named("laptop", DeviceType::IntegratedGpu),
            named("first card", DeviceType::DiscreteGpu),
            named("second card", DeviceType::DiscreteGpu),
            named("more software", DeviceType::Cpu),
        ];
        let numbered: Vec<_> = number(Backend::Vulkan, found)
            .into_iter()
            .map(|adapter| (adapter.info.name, adapter.kind))
            .collect();
        let expected = [
            ("first card", DeviceKind::DiscreteGpu(0)),
            ("second card", DeviceKind::DiscreteGpu(1)),
            ("laptop", DeviceKind::IntegratedGpu(0)),
            ("software", DeviceKind::Cpu),
        ];
        assert_eq!(numbered, expected.map(|(name, kind)| (name.into(), kind)));
    }
}
