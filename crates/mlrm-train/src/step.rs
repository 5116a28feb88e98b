//! One training step: batch → embeddings → objective → backward → check → update.

mod numbers;
mod slices;

use burn::tensor::{DType, Device, IndexingUpdateOp, Int, Tensor, TensorData};
use mlrm_config::BackendName;
use mlrm_data::batch::NoteBatch;
use mlrm_data::split::Partners;
use mlrm_events::Named;
use mlrm_model::embedder::{Embedder, Embeddings, Head};

use crate::device;
use crate::error::TrainError;
use crate::loss_scale::LossScale;
use crate::objective::{EmbeddingGradients, Exclusions, Objective, rows_at_a_time};
use crate::optimiser::{
    AdamW, Clipping, FlatGradients, add_gradients, flat_gradients, squared_norm,
};
use crate::phases::PhaseClock;
use crate::plan::RunPlan;
use crate::sampling::SamplingShares;
use mlrm_model::transfer::{Transfers, read, upload};
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
    /// Most that t may become.
    pub max_temperature_logit: Option<f64>,
    /// What gradients of the embeddings are multiplied by, and those of the parameters divided by
    /// ([`LossScale`]); a power of two, 1 for none.
    pub loss_scale: f64,
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
    /// `backward`, `optimiser`.
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

impl StepContext {
    /// What a run's config asks for.
    pub fn new(plan: &RunPlan) -> Self {
        let settings = &plan.config.objective;
        let pairs = &plan.pairs.pairs;
        let notes = plan.notes.set.len();
        let masked = settings.mask_false_negatives;
        let corrected = settings.correct_sampling_bias;
        let most_notes = std::env::var(MOST_NOTES).ok();
        let most_notes = most_notes.and_then(|notes| notes.parse().ok());
        let names = plan.config.backend.device.names();
        let on_host = names
            .iter()
            .any(|name| name.starts_with(BackendName::Flex.name()));
        Self {
            objective: Objective::from_settings(settings),
            partners: masked.then(|| pairs.known_partners(notes)),
            shares: corrected.then(|| SamplingShares::new(&pairs.train, notes)),
            clip_norm: plan.config.train.clip_norm,
            micro_batch_notes: plan.config.train.micro_batch_notes,
            checkpoint_layers: plan.config.train.checkpoint_layers,
            max_temperature_logit: settings.max_temperature_logit,
            loss_scale: LossScale::of(device::dtype(plan.config.backend.dtype))
                .map_or(1.0, |scale| scale.factor),
            most_notes,
            may_run_out_of_memory: most_notes.is_some() || !on_host,
            device: plan.device.clone(),
            sync_phases: false,
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
    /// L(E_m) of embeddings that tell nothing apart.
    pub chance_loss: f64,
    /// Gate values at the places of the batch, as in [`mlrm_model::embedder::Embeddings`].
    pub gate: Option<Tensor<2>>,
    /// Seconds by phase, as in [`StepStats`].
    pub seconds_by_phase: Named<f64>,
}

/// Takes one step; with `keep_gate` the gate's values are read back too.
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
) -> Result<StepStats, TrainError> {
    // A resumed run counts on: the masks of a step are the same whenever it is taken.
    let step = optimiser.updates as u64;
    let encoded_before = embedder.pictures_encoded();
    let moved_before = Transfers::so_far();
    let mut batch = match context.may_run_out_of_memory {
        false => batch_gradients(embedder, batch, step, context)?,
        true => device::within_memory(|| {
            let gradients = batch_gradients(embedder, batch, step, context)?;
            // What fails on a device shows only when it is waited for.
            let synced = context.device.sync();
            synced.map_err(|e| {
                TrainError::Run(format!("the device failed during the step: {e:?}"))
            })?;
            Ok(gradients)
        })?,
    };
    let mut clock = PhaseClock::new(&context.device, context.sync_phases);
    clock.seconds = std::mem::take(&mut batch.seconds_by_phase);
    let gate = batch.gate.take();
    let chance_loss = batch.chance_loss;
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
    let encoded = embedder.pictures_encoded() - encoded_before;
    stats.pictures_encoded = embedder.reads_pictures().then_some(encoded);
    stats.transfers = Transfers::so_far().since(moved_before);
    Ok(stats)
}

/// The gradients of `batch`, with the dropout masks of `step`.
///
/// # Errors
/// A batch that the model cannot read, or a device that failed.
pub fn batch_gradients(
    embedder: &Embedder,
    mut batch: NoteBatch,
    step: u64,
    context: &StepContext,
) -> Result<BatchGradients, TrainError> {
    let mut clock = PhaseClock::new(&context.device, context.sync_phases);
    let exclusions = context.exclusions(&batch);
    let places = std::mem::take(&mut batch.places);
    let gate_places = places_with_picture(&places, &batch.by_text);
    let passes = Passes::new(embedder, step, context);
    let mut embedded = EmbeddedBatch::new(&passes, batch, &mut clock)?;
    let gate = embedded.embeddings.gate.take();
    let gate = gate.map(|gate| at_places(gate, &gate_places));

    let temperature = embedder.core.head.temperature.val();
    let embeddings = &embedded.embeddings;
    let placed = Embeddings {
        multimodal: at_places(embeddings.multimodal.clone(), &places),
        visual: embeddings.visual.clone().map(|all| at_places(all, &places)),
        gate: None,
    };
    let rows = rows_at_a_time(placed.multimodal.dims()[0]);
    // The temperature is the one parameter that the loss reads by itself.
    let mut of_loss = FlatGradients::new();
    let mut others =
        |gradients| add_gradients(&mut of_loss, flat_gradients(&embedder.core, gradients));
    let (losses, of_places) =
        context
            .objective
            .backward(&placed, temperature, &exclusions, rows, &mut others);
    let notes = embeddings.multimodal.dims()[0];
    let of_embeddings = EmbeddingGradients {
        multimodal: of_notes(of_places.multimodal, &places, notes),
        visual: of_places.visual.map(|all| of_notes(all, &places, notes)),
    };
    clock.lap("llm_forward")?;

    let mut gradients = embedded.backward(&passes, &of_embeddings, &mut clock)?;
    add_gradients(&mut gradients, of_loss);
    Ok(BatchGradients {
        gradients,
        loss: losses.total,
        multimodal: losses.multimodal,
        visual: losses.visual,
        chance_loss: exclusions.chance_loss(context.objective.kind),
        gate,
        seconds_by_phase: clock.seconds,
    })
}

/// What a tensor says of the note at each place, as [`NoteBatch::at_places`].
///
/// # Shapes
/// `[notes, width]` → `[P, width]`
fn at_places(of_notes: Tensor<2>, places: &[usize]) -> Tensor<2> {
    match places.is_empty() {
        true => of_notes,
        false => {
            let places = indices(places, &of_notes);
            of_notes.select(0, places)
        }
    }
}

/// `places` in what only the notes with a picture have: their rank among these, without the places of the others.
/// `by_text`: which notes have no picture, `[notes]`; empty where none is without.
fn places_with_picture(places: &[usize], by_text: &[bool]) -> Vec<usize> {
    if by_text.is_empty() {
        return places.to_vec();
    }
    let before = |note: usize| by_text[..note].iter().filter(|by_text| !**by_text).count();
    let shown = places.iter().filter(|note| !by_text[**note]);
    shown.map(|note| before(*note)).collect()
}

/// The gradients at all places of each note, added up: what [`at_places`] does backward.
///
/// # Shapes
/// `[P, width]` → `[notes, width]`
fn of_notes(at_places: Tensor<2>, places: &[usize], notes: usize) -> Tensor<2> {
    if places.is_empty() {
        return at_places;
    }
    let [_, width] = at_places.dims();
    let sum = Tensor::<2>::zeros([notes, width], &at_places.device()).cast(at_places.dtype());
    sum.select_assign(
        0,
        indices(places, &at_places),
        at_places,
        IndexingUpdateOp::Add,
    )
}

fn indices(places: &[usize], beside: &Tensor<2>) -> Tensor<1, Int> {
    let places: Vec<i64> = places.iter().map(|&note| note as i64).collect();
    let count = places.len();
    upload(TensorData::new(places, [count]), &beside.device())
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
    TrainError::Run("no parameter has a gradient: the model has nothing to learn".into())
}
