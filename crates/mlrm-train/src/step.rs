//! One training step: batch → embeddings → objective → backward → check → update.

mod gradients;
mod numbers;
mod slices;
#[cfg(test)]
mod tests;

use burn::tensor::{DType, Device, Tensor};
use mlrm_data::batch::NoteBatch;
use mlrm_data::order::Cursor;
use mlrm_data::split::Partners;
use mlrm_events::Named;
use mlrm_model::embedder::{Embedder, Head};
use mlrm_model::transfer::{Transfers, read};

use crate::device;
use crate::error::TrainError;
use crate::group::{Group, may_run_out_of_memory};
use crate::loss_scale::LossScale;
use crate::objective::{Exclusions, Objective};
use crate::optimiser::{AdamW, Clipping, squared_norm};
use crate::phases::PhaseClock;
use crate::plan::RunPlan;
use crate::sampling::SamplingShares;
pub use gradients::{BatchGradients, batch_gradients};
use numbers::StepNumbers;
pub use slices::Work;
pub(crate) use slices::{EmbeddedBatch, Passes};

/// What a step needs besides model, optimiser and batch.
pub struct StepContext {
    /// What is minimised.
    pub objective: Objective,
    /// Known partners for false-negative masking; absent where it is off.
    pub partners: Option<Partners>,
    /// How often notes are drawn, where the objective corrects for it.
    pub shares: Option<SamplingShares>,
    /// Largest global gradient norm; 0 turns clipping off.
    pub clip_norm: f64,
    /// Notes whose activations are held at a time; 0 for all of the batch.
    pub micro_batch_notes: usize,
    /// Run the layers of the language model again for their gradients, holding what they read alone.
    pub checkpoint_layers: bool,
    /// Most that t may become.
    pub max_temperature_logit: Option<f64>,
    /// What gradients of the embeddings are multiplied by, and those of the parameters divided by
    /// ([`LossScale`]); a power of two, 1 for none.
    pub loss_scale: f64,
    /// Where the order of the data stands before the step.
    pub cursor: Cursor,
    /// Notes beyond which a device is taken to be out of memory, to try what happens then.
    pub most_notes: Option<usize>,
    /// Whether a step may fail for want of memory, to be taken again in smaller parts. On the host the
    /// system ends a process that takes too much, without asking.
    pub may_run_out_of_memory: bool,
    /// Where the model computes.
    pub device: Device,
    /// Wait for the device at phase borders, so that phases are timed apart (benchmarks).
    pub sync_phases: bool,
}

/// The numbers of a step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepStats {
    /// The minimised loss.
    pub loss: f64,
    /// L(E_m).
    pub loss_multimodal: f64,
    /// L(E_v), with mICL.
    pub loss_visual: Option<f64>,
    /// t before the update.
    pub temperature_logit: f64,
    /// L(E_m) of embeddings that tell nothing apart.
    pub chance_loss: f64,
    /// Mean of the gate.
    pub gate_mean: Option<f64>,
    /// Global gradient norm before clipping.
    pub gradient_norm: f64,
    /// Whether the update was taken: a non-finite loss or gradient refuses it.
    pub updated: bool,
    /// Seconds by phase: `vision`, `connector`, `llm_forward` (with pooling, gate and losses),
    /// `backward`, `optimiser`, and with several workers `exchange`, which is waiting for others.
    pub seconds_by_phase: Named<f64>,
    /// Pictures that passed through the vision encoder; absent where there is none.
    pub pictures_encoded: Option<u64>,
    /// What went between host and device.
    pub transfers: Transfers,
    /// Histogram of gate values where it was asked for.
    pub gate_values: Option<Vec<f32>>,
}

/// Environment variable for tests: the device runs out of memory where it is given more notes at once.
const MOST_NOTES: &str = "MLRM_TEST_DEVICE_NOTES";

/// As [`StepContext::most_notes`].
pub(crate) fn most_notes() -> Option<usize> {
    std::env::var(MOST_NOTES).ok()?.parse().ok()
}

impl StepContext {
    /// What a run's config asks for.
    pub fn new(plan: &RunPlan) -> Self {
        let settings = &plan.config.objective;
        let pairs = &plan.pairs.pairs;
        let notes = plan.notes.set.len();
        let masked = settings.mask_false_negatives;
        let corrected = settings.correct_sampling_bias;
        Self {
            objective: Objective::from_settings(settings),
            partners: masked.then(|| pairs.known_partners(notes)),
            shares: corrected.then(|| SamplingShares::new(&pairs.train, notes)),
            clip_norm: plan.config.train.clip_norm,
            micro_batch_notes: plan.config.train.micro_batch_notes.set().unwrap_or(0),
            checkpoint_layers: plan.config.train.checkpoint_layers,
            max_temperature_logit: settings.max_temperature_logit,
            loss_scale: LossScale::of(device::dtype(plan.config.backend.dtype))
                .map_or(1.0, |scale| scale.factor),
            cursor: Cursor::default(),
            most_notes: most_notes(),
            may_run_out_of_memory: may_run_out_of_memory(&plan.device_name),
            device: plan.device.clone(),
            sync_phases: false,
        }
    }

    /// How the notes of `step` pass through the model.
    fn work(&self, step: u64) -> Work {
        Work {
            step,
            micro_batch_notes: self.micro_batch_notes,
            checkpoint_layers: self.checkpoint_layers,
            loss_scale: self.loss_scale,
            most_notes: self.most_notes,
        }
    }

    /// Which places of a batch are not negatives of which, and how often the others are drawn.
    pub fn exclusions(&self, batch: &NoteBatch) -> Exclusions {
        let rows = batch.at_places(&batch.rows);
        let exclusions = match &self.partners {
            Some(partners) => Exclusions::false_negatives(&rows, |note| partners.of(note)),
            None => Exclusions::diagonal(rows.len()),
        };
        let by_text = match batch.by_text.is_empty() {
            true => Vec::new(),
            false => batch.at_places(&batch.by_text),
        };
        let exclusions = exclusions.without_pictures(by_text);
        match &self.shares {
            Some(shares) => exclusions.corrected(shares.logarithms(&rows)),
            None => exclusions,
        }
    }
}

/// Takes one step together with the other workers of `group`, to whom the new weights are still to be
/// sent; with `keep_gate` the gate's values are read back too.
///
/// # Errors
/// A batch that the model cannot read, a device that failed, or [`TrainError::OutOfMemory`], where the
/// weights are what they were.
pub fn train_step(
    embedder: &mut Embedder,
    optimiser: &mut AdamW,
    batch: NoteBatch,
    learning_rate: f64,
    context: &StepContext,
    keep_gate: bool,
    group: &mut dyn Group,
) -> Result<StepStats, TrainError> {
    // A resumed run counts on: the masks of a step are the same whenever it is taken.
    let step = optimiser.updates as u64;
    let moved_before = Transfers::so_far();
    let mut batch = match context.may_run_out_of_memory {
        false => batch_gradients(embedder, batch, step, context, group)?,
        true => device::within_memory(|| {
            let gradients = batch_gradients(embedder, batch, step, context, group)?;
            // What fails on a device shows only when it is waited for.
            let synced = context.device.sync();
            synced.map_err(|e| TrainError::device("the device failed during the step", e))?;
            Ok(gradients)
        })?,
    };
    let mut clock = PhaseClock::new(&context.device, context.sync_phases);
    clock.seconds = std::mem::take(&mut batch.seconds_by_phase);
    let gate = batch.gate.take();
    let chance_loss = batch.chance_loss;
    let encoded = batch.pictures_encoded;
    let numbers = apply(embedder, optimiser, batch, learning_rate, context)?;
    let gate_mean = gate.clone().map(Tensor::mean);
    // One read-back for every number of the step, once all of its work is on its way.
    let mut stats = StepNumbers {
        gate_mean,
        ..numbers
    }
    .read()?;
    stats.chance_loss = chance_loss;
    optimiser.count(stats.updated);
    if keep_gate && let Some(gate) = gate {
        stats.gate_values = read(gate).ok();
    }
    clock.lap("optimiser")?;
    stats.seconds_by_phase = clock.seconds;
    stats.pictures_encoded = embedder.reads_pictures().then_some(encoded);
    stats.transfers = Transfers::so_far().since(moved_before);
    Ok(stats)
}

/// Updates the weights, unless loss or gradients are not finite.
fn apply(
    embedder: &mut Embedder,
    optimiser: &mut AdamW,
    batch: BatchGradients,
    learning_rate: f64,
    context: &StepContext,
) -> Result<StepNumbers, TrainError> {
    let squared_norm = squared_norm(&batch.gradients).ok_or_else(nothing_learns)?;
    let loss = batch.loss.clone().cast(DType::F32);
    let clipping = Clipping::by_norm(loss, squared_norm.clone(), context.clip_norm);
    let numbers = StepNumbers {
        loss: batch.loss,
        multimodal: batch.multimodal,
        visual: batch.visual,
        temperature: embedder.core.head.temperature.val().inner(),
        gate_mean: None,
        squared_norm,
        taken: clipping.take.clone(),
    };
    let core = embedder.core.clone();
    embedder.core = optimiser.step(core, batch.gradients, learning_rate, clipping);
    if let Some(most) = context.max_temperature_logit {
        bound_temperature(&mut embedder.core.head, optimiser, most);
    }
    Ok(numbers)
}

/// Keeps t, where it learns, at `most` or below.
fn bound_temperature(head: &mut Head, optimiser: &mut AdamW, most: f64) {
    if !head.temperature.val().is_require_grad() {
        return;
    }
    head.temperature = head
        .temperature
        .clone()
        .map(|t| t.inner().clamp_max(most).autodiff().require_grad());
    optimiser.bound(TEMPERATURE, most);
}

/// The path of the temperature among the parameters.
const TEMPERATURE: &str = "head.temperature";

fn nothing_learns() -> TrainError {
    TrainError::Batch("no parameter has a gradient: the model has nothing to learn".into())
}
