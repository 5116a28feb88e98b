//! Predictions for a run that is about to train, as it is set and with other settings.

use std::sync::Arc;

use mlrm_config::{BackendName, Baseline, MatmulPrecision, Quantisation, Tune};
use mlrm_data::loader::{LoaderSettings, NoteEncoder, batch_notes};
use mlrm_model::adapter::AdapterConfig;
use mlrm_model::embedder::EmbedderConfig;
use mlrm_model::{ModelError, ops};

use super::{TrainingMemory, TrainingShape, resident_bytes};
use crate::corpus::own_pixels;
use crate::device;
use crate::error::TrainError;
use crate::plan::RunPlan;

/// Notes whose prompts are looked at for the longest.
const SAMPLED_NOTES: usize = 1024;

/// Batches whose notes are counted.
const SAMPLED_BATCHES: usize = 64;

/// How long the prompts of a step are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompts {
    /// As long as the notes make them.
    OfNotes,
    /// All of them as long as the token budget allows, as measurements have them.
    OfBudget,
}

/// The sizes of a run that is about to train.
pub struct PlanSizes<'a> {
    plan: &'a RunPlan,
    /// Where pictures have grids of their own, as if all were squares as large as the largest.
    model: EmbedderConfig,
    encoder: Arc<NoteEncoder>,
    adapters: AdapterConfig,
    /// Of language model, head and vision encoder.
    parameters: [u64; 3],
    positions: u64,
    program_bytes: Option<u64>,
}

/// The settings that memory is saved by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// `train.micro_batch_notes`
    pub micro_batch_notes: usize,
    /// `train.batch_pairs`
    pub batch_pairs: usize,
    /// `train.checkpoint_layers`
    pub checkpoint_layers: bool,
    /// `model.llm.tune`
    pub tune: Tune,
    /// `model.llm.quantisation`
    pub quantisation: Quantisation,
}

impl<'a> PlanSizes<'a> {
    /// Looks at the notes for the longest prompt, and at what the process holds now.
    ///
    /// # Errors
    /// Adapters that cannot be read, or notes that make no prompt.
    pub fn new(plan: &'a RunPlan, prompts: Prompts) -> Result<Self, TrainError> {
        let lora = &plan.config.model.llm.lora;
        let adapters = match &lora.path {
            Some(folder) => AdapterConfig::read(folder)?,
            None => AdapterConfig::from_settings(lora),
        };
        let mut parameters = [0; 3];
        for tensor in plan.embedder.config.tensors()? {
            let part = match tensor.name.split_once('.').map(|(part, _)| part) {
                Some("llm") => 0,
                Some("head") => 1,
                _ => 2,
            };
            parameters[part] += tensor.shape.iter().product::<usize>() as u64;
        }
        let encoder = plan.encoder()?;
        let (longest, pixels) = largest_notes(plan, &encoder)?;
        let mut model = plan.embedder.config.clone();
        if let (Some(vision), Some(pixels)) = (&mut model.vision, pixels) {
            vision.fit_pixels(pixels);
            model.connector = model.connector.map(|connector| connector.fitted(vision));
        }
        let mut sizes = Self {
            positions: match prompts {
                Prompts::OfNotes => longest,
                Prompts::OfBudget => encoder.prompts().max_tokens() as u64,
            },
            plan,
            model,
            encoder,
            adapters,
            parameters,
            program_bytes: None,
        };
        // The model is among what the process holds, without what is kept of it later.
        let shape = TrainingShape {
            keeps_untrained: false,
            short_products: false,
            ..sizes.shape(sizes.as_set())
        };
        let weights = predict(&shape, sizes.as_set().tune)?.weights_bytes;
        sizes.program_bytes = resident_bytes().and_then(|now| now.checked_sub(weights));
        Ok(sizes)
    }

    /// The settings of the run.
    pub fn as_set(&self) -> Change {
        let config = &self.plan.config;
        Change {
            micro_batch_notes: config.train.micro_batch_notes.set().unwrap_or(0),
            batch_pairs: config.train.batch_pairs,
            checkpoint_layers: config.train.checkpoint_layers,
            tune: config.model.llm.tune,
            quantisation: config.model.llm.quantisation,
        }
    }

    /// What the run takes with these settings.
    ///
    /// # Errors
    /// An adapter's target that the language model does not have.
    pub fn predict(&self, change: Change) -> Result<TrainingMemory, ModelError> {
        predict(&self.shape(change), change.tune)
    }

    /// The most notes that one of the first batches of `batch_pairs` pairs embeds: each of its notes once,
    /// or one at each place.
    pub fn batch_notes(&self, batch_pairs: usize) -> u64 {
        let RunPlan { config, pairs, .. } = self.plan;
        let settings = LoaderSettings {
            batch_pairs,
            ..LoaderSettings::new(&config.data, &config.train)
        };
        let (pairs, seed) = (&pairs.pairs.train, config.run.seed);
        let batches = SAMPLED_BATCHES.min(self.plan.total_steps);
        let counts = batch_notes(&self.encoder, pairs, seed, &settings, batches);
        counts.into_iter().max().unwrap_or(2 * batch_pairs) as u64
    }

    /// Parameters of language model, head and vision encoder.
    pub fn parameters(&self) -> [u64; 3] {
        self.parameters
    }

    fn shape(&self, change: Change) -> TrainingShape<'_> {
        let config = &self.plan.config;
        let model = &self.model;
        let [llm_parameters, head_parameters, vision_parameters] = self.parameters;
        let probes = config.train.saliency_every_steps > 0 && model.connector.is_some();
        TrainingShape {
            llm: &model.llm,
            model: Some(model),
            llm_parameters,
            head_parameters,
            vision_parameters,
            format: device::dtype(config.backend.dtype),
            kernels: config
                .backend
                .device
                .names()
                .iter()
                .all(|name| name.starts_with(BackendName::Flex.name())),
            short_products: ops::matmul_precision() == MatmulPrecision::Bf16
                && ops::has_bf16_products(),
            batch_pairs: change.batch_pairs as u64,
            workers: self.plan.workers as u64,
            workers_here: self.plan.workers_here() as u64,
            batch_notes: self.batch_notes(change.batch_pairs),
            micro_batch_notes: change.micro_batch_notes as u64,
            checkpoint_layers: change.checkpoint_layers,
            positions: self.positions,
            adapters: &self.adapters,
            quantisation: change.quantisation,
            notes: self.plan.notes.set.len() as u64,
            read_notes: read_notes(self.plan),
            saliency_notes: u64::from(probes) * config.train.saliency_notes as u64,
            eval_batch_notes: config.eval.batch_notes as u64,
            prefetch_batches: config.data.prefetch_batches as u64,
            keeps_untrained: config.eval.baselines.contains(&Baseline::ZeroShot),
            keeps_states: self.plan.pays_to_keep_states(),
            program_bytes: self.program_bytes,
        }
    }
}

fn predict(shape: &TrainingShape<'_>, tune: Tune) -> Result<TrainingMemory, ModelError> {
    let all = TrainingMemory::estimates(shape)?;
    let found = all.into_iter().find(|one| one.tune == tune.name());
    Ok(found.unwrap_or(all[0]))
}

/// Positions of the longest prompt that a run is to expect in the language model, visual tokens included, and pixels of
/// the largest picture where each has a size of its own: of evenly spaced notes, what is passed by one in as many as the
/// steps draw.
fn largest_notes(
    plan: &RunPlan,
    encoder: &NoteEncoder,
) -> Result<(u64, Option<usize>), TrainError> {
    let rows = plan.notes.set.rows();
    let every = rows.len().div_ceil(SAMPLED_NOTES).max(1);
    let (mut lengths, mut sizes) = (Vec::with_capacity(SAMPLED_NOTES), Vec::new());
    let same = plan.embedder.config.visual_tokens();
    for note in rows.iter().step_by(every) {
        let pixels = own_pixels(&plan.encoding, &plan.notes, note);
        // The image token gives way to the visual tokens, or they stand behind it.
        let visual = pixels.map_or(same, |pixels| visual_tokens(plan, pixels));
        lengths.push(encoder.prompts().encode(note)?.ids.len() + visual);
        sizes.extend(pixels);
    }
    let drawn = drawn_notes(plan);
    let largest = |mut values: Vec<usize>| {
        values.sort_unstable();
        let place = values.len() * drawn / (drawn + 1);
        values.get(place).or(values.last()).copied()
    };
    let longest = largest(lengths).unwrap_or(1 + same);
    Ok((longest as u64, largest(sizes)))
}

/// Visual tokens of a picture that has a size of its own.
fn visual_tokens(plan: &RunPlan, pixels: usize) -> usize {
    let config = &plan.embedder.config;
    match (&config.vision, &config.connector) {
        (Some(vision), Some(_)) => pixels / (vision.patch_size * vision.merge()).pow(2),
        _ => 0,
    }
}

/// Notes of all steps, each as often as it is drawn.
fn drawn_notes(plan: &RunPlan) -> usize {
    plan.total_steps * 2 * plan.config.train.batch_pairs
}

/// Notes whose pictures are read: those of the steps and the batches made ahead of them, or all where
/// there is an evaluation.
fn read_notes(plan: &RunPlan) -> u64 {
    let all = plan.notes.set.len();
    let pairs = &plan.pairs.pairs;
    if !pairs.validation.is_empty() || !pairs.test.is_empty() {
        return all as u64;
    }
    let ahead = (plan.config.data.prefetch_batches + 1) * 2 * plan.config.train.batch_pairs;
    all.min(drawn_notes(plan) + ahead) as u64
}
