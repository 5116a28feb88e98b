//! Opening a model folder.

use std::path::{Path, PathBuf};
use std::time::Instant;

use mlrm_config::{DType, MatmulPrecision, RunConfig};
use mlrm_events::Named;
use mlrm_model::checksums::files_below;
use mlrm_model::weights::parameter_count;

use super::memory::reserved_bytes;
use super::stats::{median, spread};
use super::{BenchReport, Figures, Samples};
use mlrm_train::TrainError;
use mlrm_train::device;
use mlrm_train::memory::peak_resident_bytes;
use mlrm_train::plan::open_model;

/// What is loaded, and where to.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadOptions {
    /// A model folder.
    pub folder: PathBuf,
    /// Device name.
    pub device: String,
    /// Number format on the device.
    pub dtype: DType,
    /// How often.
    pub samples: Samples,
}

/// Measures how long a model folder takes to open: configs, tokenizer, weights to the device.
///
/// The system keeps files in memory that were read once. Without warm-up the first of the runs may
/// read from the disk, and shows in the spread.
///
/// # Errors
/// A folder that is no model; a device that is not there, or fails.
pub fn bench_load(options: &LoadOptions) -> Result<BenchReport, TrainError> {
    let device = device::open_for(&options.device, options.dtype, MatmulPrecision::F32)?;
    let mut config = RunConfig::default();
    config.backend.dtype = options.dtype;
    let mut seconds = Vec::with_capacity(options.samples.runs);
    let mut parameters = 0;
    let mut reserved = None;
    for run in 0..options.samples.warmup + options.samples.runs.max(1) {
        let begin = Instant::now();
        let model = open_model(&options.folder, &device, &config)?;
        device
            .sync()
            .map_err(|e| TrainError::device("the device failed", e))?;
        if run >= options.samples.warmup {
            seconds.push(begin.elapsed().as_secs_f64());
        }
        let vision = model.embedder.vision.as_ref().map_or(0, parameter_count);
        parameters = parameter_count(&model.embedder.core) + vision;
        reserved = reserved.max(reserved_bytes(&device));
    }
    let bytes = weight_bytes(&options.folder)?;
    let typical = median(seconds.clone());
    let shape: Named<usize> = [("parameters".to_owned(), parameters)]
        .into_iter()
        .collect();
    Ok(BenchReport {
        what: "load",
        device: options.device.clone(),
        dtype: options.dtype.name().into(),
        shape,
        figures: Figures::Load {
            seconds: typical,
            bytes,
            bytes_per_second: bytes as f64 / typical,
        },
        peak_host_bytes: peak_resident_bytes(),
        peak_device_bytes: reserved,
        mfu: None,
        runs: seconds.len(),
        spread: spread(&seconds),
    })
}

/// Bytes of the safetensors files of a model folder.
fn weight_bytes(folder: &Path) -> Result<u64, TrainError> {
    let mut files = files_below(folder)?;
    files.retain(|path| path.extension().is_some_and(|end| end == "safetensors"));
    let size = |path: &PathBuf| {
        let size = std::fs::metadata(path).map_err(TrainError::io("read", path))?;
        Ok(size.len())
    };
    files.iter().map(size).sum()
}
