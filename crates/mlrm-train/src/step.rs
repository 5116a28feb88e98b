//! One training step: batch → embeddings → objective → backward → check → update.

mod numbers;
mod slices;

use burn::tensor::{DType, Device, Tensor};
use mlrm_data::batch::NoteBatch;
use mlrm_data::split::Partners;
use mlrm_events::Named;
use mlrm_model::embedder::Embedder;

use crate::error::TrainError;
use crate::objective::{EmbeddingGradients, Exclusions, Objective, leaves};
use crate::optimiser::{
    AdamW, Clipping, FlatGradients, add_gradients, flat_gradients, squared_norm,
};
use crate::phases::PhaseClock;
use crate::plan::RunPlan;
use crate::sampling::SamplingShares;
use numbers::StepNumbers;
use slices::{EmbeddedBatch, Passes};

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
    /// Mean of the gate.
    pub gate_mean: Option<f64>,
    /// Global gradient norm before clipping.
    pub gradient_norm: f64,
    /// Whether the update was taken: a non-finite loss or gradient refuses it.
    pub updated: bool,
    /// Seconds by phase: `vision`, `connector`, `llm_forward` (with pooling, gate and losses),
    /// `backward`, `optimiser`.
    pub seconds_by_phase: Named<f64>,
    /// Pictures that passed through the vision encoder; absent where there is none.
    pub pictures_encoded: Option<u64>,
    /// Histogram of gate values where it was asked for.
    pub gate_values: Option<Vec<f32>>,
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
            micro_batch_notes: plan.config.train.micro_batch_notes,
            checkpoint_layers: plan.config.train.checkpoint_layers,
            device: plan.device.clone(),
            sync_phases: false,
        }
    }

    /// Which rows of a batch are not negatives of which, and how often the others are drawn.
    pub fn exclusions(&self, batch: &NoteBatch) -> Exclusions {
        let rows = &batch.rows;
        let exclusions = match &self.partners {
            Some(partners) => Exclusions::false_negatives(rows, |a, b| partners.contains(a, b)),
            None => Exclusions::diagonal(batch.notes),
        };
        let exclusions = exclusions.without_pictures(batch.by_text.clone());
        match &self.shares {
            Some(shares) => exclusions.corrected(shares.logarithms(rows)),
            None => exclusions,
        }
    }
}

/// What a batch says of the weights.
pub struct BatchGradients {
    /// Gradients of the parameters that learn.
    pub gradients: FlatGradients,
    /// The minimised loss, `[1]`.
    pub loss: Tensor<1>,
    /// L(E_m), `[1]`.
    pub multimodal: Tensor<1>,
    /// L(E_v), with mICL, `[1]`.
    pub visual: Option<Tensor<1>>,
    /// Gate values of the batch, as in [`mlrm_model::embedder::Embeddings`].
    pub gate: Option<Tensor<2>>,
    /// Seconds by phase, as in [`StepStats`].
    pub seconds_by_phase: Named<f64>,
}

/// Takes one step; with `keep_gate` the gate's values are read back too.
pub fn train_step(
    embedder: &mut Embedder,
    optimiser: &mut AdamW,
    batch: NoteBatch,
    learning_rate: f64,
    context: &StepContext,
    keep_gate: bool,
) -> Result<StepStats, TrainError> {
    // A resumed run counts on: the masks of a step are the same whenever it is taken.
    let step = optimiser.updates as u64;
    let encoded_before = embedder.pictures_encoded();
    let mut batch = batch_gradients(embedder, batch, step, context)?;
    let mut clock = PhaseClock::new(&context.device, context.sync_phases);
    clock.seconds = std::mem::take(&mut batch.seconds_by_phase);
    let gate = batch.gate.take();
    let numbers = apply(embedder, optimiser, batch, learning_rate, context)?;
    let gate_mean = gate.clone().map(Tensor::mean);
    // One read-back for every number of the step, once all of its work is on its way.
    let mut stats = StepNumbers {
        gate_mean,
        ..numbers
    }
    .read()?;
    optimiser.count(stats.updated);
    if keep_gate && let Some(gate) = gate {
        stats.gate_values = gate.try_into_vec_as::<f32>().ok();
    }
    clock.lap("optimiser")?;
    stats.seconds_by_phase = clock.seconds;
    let encoded = embedder.pictures_encoded() - encoded_before;
    stats.pictures_encoded = embedder.reads_pictures().then_some(encoded);
    Ok(stats)
}

/// The gradients of `batch`, with the dropout masks of `step`.
///
/// # Errors
/// A batch that the model cannot read, or a device that failed.
pub fn batch_gradients(
    embedder: &Embedder,
    batch: NoteBatch,
    step: u64,
    context: &StepContext,
) -> Result<BatchGradients, TrainError> {
    let mut clock = PhaseClock::new(&context.device, context.sync_phases);
    let exclusions = context.exclusions(&batch);
    let passes = Passes::new(embedder, step, context);
    let mut embedded = EmbeddedBatch::new(&passes, batch, &mut clock)?;
    let gate = embedded.embeddings.gate.take();

    let leaves = leaves(&embedded.embeddings);
    let temperature = embedder.core.head.temperature.val();
    let losses = context.objective.losses(&leaves, temperature, &exclusions);
    let mut gradients = losses.total.backward();
    let of_embeddings = EmbeddingGradients::take(&leaves, &mut gradients);
    // The temperature is the one parameter that the loss reads by itself.
    let of_loss = flat_gradients(&embedder.core, gradients);
    clock.lap("llm_forward")?;

    let mut gradients = embedded.backward(&passes, &of_embeddings, &mut clock)?;
    add_gradients(&mut gradients, of_loss);
    Ok(BatchGradients {
        gradients,
        loss: losses.total.inner(),
        multimodal: losses.multimodal.inner(),
        visual: losses.visual.map(Tensor::inner),
        gate,
        seconds_by_phase: clock.seconds,
    })
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
    Ok(numbers)
}

fn nothing_learns() -> TrainError {
    TrainError::Run("no parameter has a gradient: the model has nothing to learn".into())
}
