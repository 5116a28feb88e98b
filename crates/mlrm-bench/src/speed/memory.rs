//! Memory of the device; that of the process is [`mlrm_train::memory::peak_resident_bytes`].

use burn::tensor::Device;

/// What the backend's allocator has reserved on the device; `None` where it does not tell (on
/// `flex` the memory of the device is that of the host). Allocators keep their pages for reuse, so
/// that this hardly ever shrinks.
pub(super) fn reserved_bytes(device: &Device) -> Option<u64> {
    let device = device.clone().without_autodiff();
    device.memory_pool_usage().map(|usage| usage.bytes_reserved)
}
