//! What measurements of a model at work share.

use std::time::Instant;

use burn::tensor::Device;
use mlrm_events::Named;

use super::memory::reserved_bytes;
use super::stats::{median, phase_medians, spread};
use super::{BenchReport, Figures, NotesFigures, Samples};
use crate::flops::{BatchShape, Flops};
use crate::measure::{matmul_rate, matmul_size};
use mlrm_train::TrainError;
use mlrm_train::device;
use mlrm_train::memory::{ProcessorTime, peak_resident_bytes, processor_time};
use mlrm_train::plan::RunPlan;

/// Samples of the rate that the utilisation is measured against.
const RATE_SAMPLES: usize = 5;

/// The steps of a measurement so far.
pub(super) struct ModelRun<'a> {
    samples: Samples,
    device: &'a Device,
    taken: usize,
    began: (Instant, Option<ProcessorTime>),
    seconds: Vec<f64>,
    phases: Vec<Named<f64>>,
    /// Of all counted steps; `None` where the system does not tell.
    processor: Option<ProcessorTime>,
    reserved: Option<u64>,
}

impl<'a> ModelRun<'a> {
    pub(super) fn new(samples: Samples, device: &'a Device) -> Self {
        Self {
            samples,
            device,
            taken: 0,
            began: (Instant::now(), None),
            seconds: Vec::with_capacity(samples.runs),
            phases: Vec::with_capacity(samples.runs),
            processor: Some(ProcessorTime::default()),
            reserved: None,
        }
    }

    /// Whether all samples were taken.
    pub(super) fn done(&self) -> bool {
        self.seconds.len() >= self.samples.runs.max(1)
    }

    /// A step begins.
    pub(super) fn begin(&mut self) {
        self.began = (Instant::now(), processor_time());
    }

    /// The step that began has ended; its seconds by phase.
    pub(super) fn record(&mut self, by_phase: Named<f64>) {
        let (began, before) = self.began;
        let (seconds, after) = (began.elapsed().as_secs_f64(), processor_time());
        self.taken += 1;
        self.reserved = self.reserved.max(reserved_bytes(self.device));
        if self.taken > self.samples.warmup {
            self.seconds.push(seconds);
            self.phases.push(by_phase);
            let used = after.zip(before).map(|(after, before)| after - before);
            self.processor = self.processor.zip(used).map(|(all, used)| all + used);
        }
    }
}

/// The report of a measurement; `counted` says which of a batch's operations a step does.
pub(super) fn report(
    what: &'static str,
    plan: &RunPlan,
    shape: Named<usize>,
    run: &ModelRun<'_>,
    counted: impl FnOnce(Flops) -> f64,
) -> Result<BenchReport, TrainError> {
    // The peak of the model, not of the products below.
    let (host, reserved) = (peak_resident_bytes(), run.reserved);
    let backend = &plan.config.backend;
    let dtype = device::dtype(backend.dtype);
    let size = matmul_size(&plan.device, dtype)?;
    let rate = matmul_rate(&plan.device, dtype, size, RATE_SAMPLES)?.per_second;
    let (notes, positions) = (shape["notes"], shape["positions"]);
    let flops = counted(Flops::of(&plan.embedder, BatchShape { notes, positions }));
    let seconds = median(run.seconds.clone());
    let count = run.seconds.len() as f64;
    Ok(BenchReport {
        what,
        device: backend.device.names().join(", "),
        dtype: backend.dtype.name().into(),
        figures: Figures::Notes(NotesFigures {
            notes_per_second: notes as f64 / seconds,
            tokens_per_second: (notes * positions) as f64 / seconds,
            seconds_per_step: seconds,
            seconds_by_phase: phase_medians(&run.phases),
            processor_seconds_per_step: run.processor.map(|p| p.total() / count),
            kernel_seconds_per_step: run.processor.map(|p| p.kernel / count),
            flops_per_step: flops,
            matmul_flops_per_second: rate,
        }),
        shape,
        peak_host_bytes: host,
        peak_device_bytes: reserved,
        mfu: Some(flops / seconds / rate),
        runs: run.seconds.len(),
        spread: spread(&run.seconds),
    })
}
