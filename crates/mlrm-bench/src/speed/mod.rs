//! Speed and memory, measured as `mlrm bench` reports them.

mod embed;
mod filled;
mod load;
mod memory;
mod model;
mod products;
mod stats;
mod train;

pub use embed::bench_embed;
pub use load::{LoadOptions, bench_load};
pub use products::{ProductOptions, bench_matmul};
pub use train::bench_train;

use mlrm_events::Named;
use serde::Serialize;

/// Samples to take: `warmup` that do not count, then `runs` that do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Samples {
    /// Not counted: kernels are compiled and caches filled in them.
    pub warmup: usize,
    /// Counted, at least 1.
    pub runs: usize,
}

/// What every measurement has, around its own figures. Figures are medians over the runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// `train`, `embed`, `matmul` or `load`.
    pub what: &'static str,
    /// Device name.
    pub device: String,
    /// Number format of weights and activations.
    pub dtype: String,
    /// Sizes that the figures depend on.
    pub shape: Named<usize>,
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// Largest resident memory of the process so far; `None` where the system does not tell.
    pub peak_host_bytes: Option<u64>,
    /// Largest memory that the backend held on the device; `None` where it does not tell.
    pub peak_device_bytes: Option<u64>,
    /// Model FLOPs utilisation: the model's operations a second over the rate of large matrix
    /// products on the same device in the same format. `None` where no model computes.
    pub mfu: Option<f64>,
    /// Measured runs.
    pub runs: usize,
    /// (slowest − fastest) / median.
    pub spread: f64,
}

/// The figures of a measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Figures {
    /// Of `train` and `embed`.
    Notes(NotesFigures),
    /// Of `matmul`.
    Products {
        /// Operations a second.
        flops_per_second: f64,
        /// One product.
        seconds_per_product: f64,
    },
    /// Of `load`.
    Load {
        /// From opening the folder to weights on the device.
        seconds: f64,
        /// Size of its weight files.
        bytes: u64,
        /// The two in one.
        bytes_per_second: f64,
    },
}

/// The figures of a model at work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NotesFigures {
    /// Notes a second.
    pub notes_per_second: f64,
    /// Positions of the language model a second, visual tokens and padding included.
    pub tokens_per_second: f64,
    /// A step, or a batch, without waiting for data.
    pub seconds_per_step: f64,
    /// Phase → seconds.
    pub seconds_by_phase: Named<f64>,
    /// Time that processors worked for this process in a step, all threads together, the mean over the steps; `None` where the
    /// system does not tell.
    pub processor_seconds_per_step: Option<f64>,
    /// What of it went to the system's kernel.
    pub kernel_seconds_per_step: Option<f64>,
    /// Operations of matrix products that a step needs.
    pub flops_per_step: f64,
    /// Operations a second of large matrix products on this device in this format.
    pub matmul_flops_per_second: f64,
}
