//! What this machine has of memory, and what the process holds of it.

use mlrm_config::{BackendName, BackendSettings};
use mlrm_model::embedder::EmbedderConfig;
use mlrm_model::weights::NamedTensor;

use crate::device;
use crate::error::TrainError;

/// Refuses a model whose weights this machine cannot hold, before the allocator ends the process.
///
/// # Errors
/// Names the largest tensor, the sizes that make it, and both amounts. On a device with a memory of
/// its own, where only one tensor at a time is on the host, that of the largest tensor counts.
pub fn check_weights(config: &EmbedderConfig, backend: &BackendSettings) -> Result<(), TrainError> {
    match total_bytes() {
        Some(host) => check_within(config, backend, host as f64),
        None => Ok(()),
    }
}

fn check_within(
    config: &EmbedderConfig,
    backend: &BackendSettings,
    host: f64,
) -> Result<(), TrainError> {
    let tensors = config.tensors()?;
    let format = device::dtype(backend.dtype);
    let held = |shape: &[usize], bytes: usize| {
        shape.iter().map(|&side| side as f64).product::<f64>() * bytes as f64
    };
    let size = |tensor: &NamedTensor| held(&tensor.shape, format.size());
    let Some(largest) = tensors.iter().max_by(|a, b| size(a).total_cmp(&size(b))) else {
        return Ok(());
    };
    let on_host = backend
        .device
        .names()
        .iter()
        .any(|name| name.starts_with(BackendName::Flex.name()));
    let needed = match on_host {
        true => tensors.iter().map(size).sum(),
        // Values come to the host in f32.
        false => held(&largest.shape, 4),
    };
    if needed <= host {
        return Ok(());
    }
    let gib = |bytes: f64| bytes / f64::from(1 << 30);
    Err(TrainError::Refused(format!(
        "the weights of this model take {:.1} GiB in {}, but this machine has {:.1} GiB of memory; the \
         largest is `{}` {:?}: lower the sizes that make it (`vocab_size` = {}, `hidden_size` = {}, \
         `intermediate_size` = {}, `num_hidden_layers` = {} of the language model)",
        gib(needed),
        format.name(),
        gib(host),
        largest.name,
        largest.shape,
        config.llm.vocab_size,
        config.llm.hidden_size,
        config.llm.intermediate_size,
        config.llm.num_hidden_layers,
    )))
}

/// What a process on this machine can hold: memory and swap, or the limit of its control group where
/// that is lower, as Linux tells it; `None` elsewhere.
pub fn total_bytes() -> Option<u64> {
    let machine = kibibytes("/proc/meminfo", "MemTotal:")?;
    let machine = machine + kibibytes("/proc/meminfo", "SwapTotal:").unwrap_or(0);
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max");
    let group = group.ok().and_then(|text| text.trim().parse::<u64>().ok());
    Some(group.map_or(machine, |group| machine.min(group)))
}

/// What this machine can still give to its processes without swapping, as Linux tells it; `None` elsewhere.
pub fn available_bytes() -> Option<u64> {
    kibibytes("/proc/meminfo", "MemAvailable:")
}

/// The largest resident memory of this process so far, as Linux tells it; `None` elsewhere.
pub fn peak_resident_bytes() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM:")
}

/// The resident memory of this process, as Linux tells it; `None` elsewhere.
pub fn resident_bytes() -> Option<u64> {
    kibibytes("/proc/self/status", "VmRSS:")
}

/// Seconds that processors worked for a process, all its threads together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessorTime {
    /// In its own code.
    pub user: f64,
    /// In the system's kernel for it.
    pub kernel: f64,
}

impl ProcessorTime {
    /// Both.
    pub fn total(self) -> f64 {
        self.user + self.kernel
    }
}

impl std::ops::Add for ProcessorTime {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            user: self.user + other.user,
            kernel: self.kernel + other.kernel,
        }
    }
}

impl std::ops::Sub for ProcessorTime {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            user: self.user - other.user,
            kernel: self.kernel - other.kernel,
        }
    }
}

/// What this process has used so far, in steps of 10 ms, as Linux tells it; `None` elsewhere.
pub fn processor_time() -> Option<ProcessorTime> {
    /// The unit of `/proc`, on every architecture.
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, in brackets, may hold anything; user and kernel time are the 14th and the 15th.
    let (_, behind) = text.rsplit_once(')')?;
    let mut fields = behind.split_ascii_whitespace().skip(11);
    let mut next = || Some(fields.next()?.parse::<f64>().ok()? / TICKS_PER_SECOND);
    Some(ProcessorTime {
        user: next()?,
        kernel: next()?,
    })
}

/// The bytes that a file of `/proc` tells in lines of kB.
fn kibibytes(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
