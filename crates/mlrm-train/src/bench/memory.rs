//! Peak memory of the process and of the device.

use burn::tensor::Device;

/// The kernel's high-water mark of resident memory, on Linux; elsewhere nobody tells.
pub(super) fn peak_host_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// What the backend's allocator has reserved on the device; `None` where it does not tell (on
/// `flex` the memory of the device is that of the host). Allocators keep their pages for reuse, so
/// that this hardly ever shrinks.
pub(super) fn reserved_bytes(device: &Device) -> Option<u64> {
    let device = device.clone().without_autodiff();
    device.memory_pool_usage().map(|usage| usage.bytes_reserved)
}
