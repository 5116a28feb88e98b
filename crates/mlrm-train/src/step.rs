//! One training step: batch → forward → objective → backward → check → update.

use burn::tensor::{DType, Device, Tensor};
use mlrm_data::batch::NoteBatch;
use mlrm_data::split::Partners;
use mlrm_events::Named;
use mlrm_model::embedder::Embedder;

use crate::encode::{pixels, token_batch};
use crate::error::TrainError;
use crate::objective::{Exclusions, Objective};
use crate::optimiser::{AdamW, Clipping, flat_gradients, squared_norm};
use crate::phases::PhaseClock;
use crate::plan::RunPlan;
use crate::sampling::SamplingShares;

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
        match &self.shares {
            Some(shares) => exclusions.corrected(shares.logarithms(rows)),
            None => exclusions,
        }
    }
}

/// Takes one step; with `keep_gate` the gate's values are read back too.
pub fn train_step(
    embedder: &mut Embedder,
    optimiser: &mut AdamW,
    mut batch: NoteBatch,
    learning_rate: f64,
    context: &StepContext,
    keep_gate: bool,
) -> Result<StepStats, TrainError> {
    let mut clock = PhaseClock::new(&context.device, context.sync_phases);
    let frozen = context.device.clone().without_autodiff();
    let features = pixels(&mut batch, &frozen).and_then(|p| embedder.encode_vision(p));
    clock.lap("vision")?;

    // A resumed run counts on: the masks of a step are the same whenever it is taken.
    let dropout = embedder.dropout.at_step(optimiser.updates as u64);
    let core = &embedder.core;
    let inputs = core.llm_inputs(&embedder.config, &token_batch(&batch), features, None)?;
    clock.lap("connector")?;

    let embeddings = core.embeddings(inputs, None);
    let exclusions = context.exclusions(&batch);
    let temperature = core.head.temperature.val();
    let losses = context
        .objective
        .losses(&embeddings, temperature.clone(), &exclusions);
    drop(dropout);
    clock.lap("llm_forward")?;

    let gradients = flat_gradients(core, losses.total.backward());
    clock.lap("backward")?;

    let single = |number: Tensor<1>| number.cast(DType::F32);
    let loss = single(losses.total.inner());
    let squared_norm = squared_norm(&gradients).ok_or_else(nothing_learns)?;
    let clipping = Clipping::by_norm(loss.clone(), squared_norm.clone(), context.clip_norm);
    let taken = clipping.take.clone();
    let core = embedder.core.clone();
    embedder.core = optimiser.step(core, gradients, learning_rate, clipping);

    // One read-back for every number of the step, once all of its work is on its way.
    let gate = embeddings.gate.map(Tensor::inner);
    let mut numbers = vec![
        loss,
        single(losses.multimodal.inner()),
        single(temperature.inner()),
        squared_norm,
        taken,
    ];
    numbers.extend(losses.visual.map(|loss| single(loss.inner())));
    numbers.extend(gate.clone().map(|gate| single(gate.mean())));
    let numbers = Tensor::cat(numbers, 0)
        .try_into_vec_as::<f32>()
        .map_err(|e| TrainError::Run(format!("the device failed during the step: {e:?}")))?;
    let mut stats = stats(&numbers, embeddings.visual.is_some(), gate.is_some());
    optimiser.count(stats.updated);
    if keep_gate && let Some(gate) = gate {
        stats.gate_values = gate.try_into_vec_as::<f32>().ok();
    }
    clock.lap("optimiser")?;
    stats.seconds_by_phase = clock.seconds;
    Ok(stats)
}

fn nothing_learns() -> TrainError {
    TrainError::Run("no parameter has a gradient: the model has nothing to learn".into())
}

fn stats(numbers: &[f32], visual: bool, gate: bool) -> StepStats {
    let number = |index: usize| f64::from(numbers[index]);
    StepStats {
        loss: number(0),
        loss_multimodal: number(1),
        temperature_logit: number(2),
        gradient_norm: number(3).sqrt(),
        updated: number(4) == 1.0,
        loss_visual: visual.then(|| number(5)),
        gate_mean: gate.then(|| number(5 + usize::from(visual))),
        ..StepStats::default()
    }
}
