//! What an absent backend lacks, and how to get it.

use mlrm_config::BackendName;

/// The backend is not in this binary.
pub(super) fn feature(backend: BackendName) -> String {
    let name = backend.name();
    // What makes a GPU fast; on the processor neither does anything.
    let more = match backend {
        BackendName::Flex => "",
        _ => ",autotune,fusion",
    };
    format!(
        "this binary was built without it; build with `cargo build --release --features {name}{more}`"
    )
}

/// The backend is in this binary, and finds no device.
pub(super) fn driver(backend: BackendName) -> &'static str {
    match backend {
        BackendName::Flex => "no processor",
        BackendName::Vulkan => {
            "no Vulkan device: a GPU driver with Vulkan and the loader are needed (on Debian the \
             packages mesa-vulkan-drivers or nvidia-vulkan-icd, and libvulkan1)"
        }
        BackendName::Wgpu => {
            "no GPU that Vulkan, DirectX 12, Metal or OpenGL reaches: a GPU driver is needed, on Linux \
             also the Vulkan loader (on Debian the packages mesa-vulkan-drivers or nvidia-vulkan-icd, \
             and libvulkan1)"
        }
        BackendName::Metal => "no Metal device: an Apple GPU is needed",
        BackendName::Cuda => {
            "no CUDA device: the NVIDIA driver (libcuda) is not installed, or sees no GPU; \
             `nvidia-smi` tells"
        }
        BackendName::Rocm => {
            "no ROCm device: the AMD driver (amdgpu) is not installed, or sees no GPU; `rocminfo` tells"
        }
    }
}
