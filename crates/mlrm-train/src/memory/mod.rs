//! What training needs of memory, predicted from sizes alone.
//!
//! Some parts are held from the first step to the last: the program with its data, batches made
//! ahead, weights, moments. On top comes whatever is at work: pictures on their way through the
//! vision encoder, the passes of the language model, the probe of saliency, an evaluation. These take
//! turns, so that the peak is what is held and the largest of them.

mod activations;
mod host;
mod plan_sizes;

use mlrm_config::{Quantisation, Tune};
use mlrm_model::ModelError;
use mlrm_model::adapter::AdapterConfig;
use mlrm_model::decoder::{Decoder, DecoderConfig};
use mlrm_model::embedder::{EmbedderConfig, StateCache};
use mlrm_model::ops::block_size;
use mlrm_model::vision::PICTURES_AT_A_TIME;
use mlrm_model::weights::{LinearMap, linear_maps};
use serde::Serialize;

use crate::corpus::PIXEL_CACHE_BYTES;
use crate::device::Format;
use crate::objective::rows_at_a_time;
use activations::{LlmActivations, PictureActivations};
pub use host::{
    ProcessorTime, available_bytes, check_weights, peak_resident_bytes, processor_time,
    resident_bytes, total_bytes,
};
pub use plan_sizes::{Change, PlanSizes, Prompts};

/// What the program itself and a small data set take, measured on Linux.
const PROGRAM_BYTES: u64 = 40 << 20;

/// Sizes that the prediction depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingShape<'a> {
    /// The language model.
    pub llm: &'a DecoderConfig,
    /// The whole model, where there is more than a language model.
    pub model: Option<&'a EmbedderConfig>,
    /// Parameters of the language model.
    pub llm_parameters: u64,
    /// Parameters of connector, fusion and head, which always learn.
    pub head_parameters: u64,
    /// Parameters of the vision encoder, which never learns.
    pub vision_parameters: u64,
    /// Number format of weights and activations.
    pub format: Format,
    /// Whether the CPU's kernels compute, which keep less of a layer than operation after operation does.
    pub kernels: bool,
    /// Whether products are in bf16, and with them what those kernels keep.
    pub short_products: bool,
    /// Pairs of a step.
    pub batch_pairs: u64,
    /// Workers that share the notes of a step.
    pub workers: u64,
    /// Those of them that compute in one memory.
    pub workers_here: u64,
    /// Notes that it embeds: those of the pairs, each once where that is how they are embedded.
    pub batch_notes: u64,
    /// Notes whose activations are held at a time; 0 for all of the batch.
    pub micro_batch_notes: u64,
    /// Whether layers are run again for their gradients.
    pub checkpoint_layers: bool,
    /// Positions of a note in the language model, visual tokens included.
    pub positions: u64,
    /// The adapters, for `lora`.
    pub adapters: &'a AdapterConfig,
    /// How the language model's matrices are held, for `lora` and `frozen`.
    pub quantisation: Quantisation,
    /// Notes of the data set; 0 where none is known.
    pub notes: u64,
    /// Notes whose pictures are read in the whole run.
    pub read_notes: u64,
    /// Notes of the saliency probe; 0 where there is none.
    pub saliency_notes: u64,
    /// Notes encoded at a time by an evaluation.
    pub eval_batch_notes: u64,
    /// Batches that are made ahead of the step.
    pub prefetch_batches: u64,
    /// Whether the model before training is kept for the final table.
    pub keeps_untrained: bool,
    /// Whether what a `frozen` language model makes of the notes is kept.
    pub keeps_states: bool,
    /// What the process holds besides the model, where it was measured.
    pub program_bytes: Option<u64>,
}

/// What one way to tune the language model takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TrainingMemory {
    /// `model.llm.tune`.
    pub tune: &'static str,
    /// Parameters that learn.
    pub trained_parameters: u64,
    /// The program, notes, pairs and tokenizer.
    pub program_bytes: u64,
    /// Batches made ahead of the step, and pixels and states of prompts kept between epochs.
    pub loader_bytes: u64,
    /// All weights.
    pub weights_bytes: u64,
    /// Moments of what learns, in f32, and the weights in f32 where the model has them in a shorter
    /// format.
    pub optimiser_bytes: u64,
    /// Gradients of what learns.
    pub gradients_bytes: u64,
    /// What the backward pass needs of the forward pass of a micro-batch, connector included.
    pub activations_bytes: u64,
    /// Cosines and logits of all notes of the batch with each other, and their gradients.
    pub loss_bytes: u64,
    /// The pixels of the batch, and the vision encoder at work on a micro-batch.
    pub pictures_bytes: u64,
    /// The probe of saliency at work.
    pub probe_bytes: u64,
    /// An evaluation at work: a batch of notes, and the embeddings of all.
    pub evaluation_bytes: u64,
    /// The largest tensor on its way to a checkpoint.
    pub saving_bytes: u64,
    /// What is at work when most is: of a step, a probe, an evaluation or a save.
    pub largest_at_work_bytes: u64,
    /// The predicted peak: program, loader, weights and optimiser, and the largest of what is at work.
    pub total_bytes: u64,
}

impl TrainingMemory {
    /// The predictions for `full`, `lora` and `frozen`. The formula and its measured error: docs,
    /// "Import, inspect, export".
    ///
    /// # Errors
    /// An adapter's target that the language model does not have.
    pub fn estimates(shape: &TrainingShape<'_>) -> Result<[Self; 3], ModelError> {
        let module = Decoder::new(shape.llm, &burn::tensor::Device::default());
        let maps = linear_maps(&module, shape.llm.family().names.rename);
        let adapted = shape.adapters.targets(&maps)?;
        let all: Vec<&LinearMap> = maps.iter().collect();
        let rank = shape.adapters.rank as u64;
        let factors = |map: &&LinearMap| rank * (map.inputs + map.outputs) as u64;
        let adapters = adapted.iter().map(factors).sum();
        let saved = saved_bytes(shape, &maps);
        let low = rank * adapted.len() as u64;
        let estimate = |tune: Tune, learns: [u64; 2], saved, learning: &[&LinearMap], low| {
            let llm = LlmActivations::new(shape, learning, low);
            let tiles = KeptTiles::of(shape, tune, &maps);
            Self::predict(shape, tune, learns, (saved, tiles), llm)
        };
        Ok([
            estimate(Tune::Full, [shape.llm_parameters, 0], 0, &all, 0),
            estimate(Tune::Lora, [0, adapters], saved, &adapted, low),
            estimate(Tune::Frozen, [0, 0], saved, &[], 0),
        ])
    }

    /// `learns`: parameters of the language model and of adapters that learn; `saved`: what
    /// quantisation saves of the weights' bytes; `tiles`: what they take once more.
    fn predict(
        shape: &TrainingShape<'_>,
        tune: Tune,
        [own, adapters]: [u64; 2],
        (saved, tiles): (u64, KeptTiles),
        llm: LlmActivations,
    ) -> Self {
        let number = shape.format.size() as u64;
        let short = shape.format != Format::F32;
        let held = shape.llm_parameters + shape.head_parameters + shape.vision_parameters;
        let trained_parameters = own + shape.head_parameters + adapters;
        // Of the model before training, what learns is held twice.
        let untrained = u64::from(shape.keeps_untrained) * (own + shape.head_parameters) * number;
        // Adapters are f32 whatever the model is.
        // Until the others are given new weights, they hold the old ones.
        let here = shape.workers_here;
        let old = match here {
            1 => 0,
            _ => (own + shape.head_parameters) * number + adapters * 4,
        };
        let weights_bytes =
            (held * number + adapters * 4 + untrained).saturating_sub(saved) + old + tiles.held;
        // As the backward pass gives it, and in f32 for the optimiser.
        let of_worker = trained_parameters * if short { number + 4 } else { 4 };
        let gradients_bytes = here * of_worker;
        let optimiser_bytes = trained_parameters * if short { 12 } else { 8 };
        let pictures = PictureActivations::new(shape);
        let own = shape.model.is_some_and(EmbedderConfig::has_own_grids);
        let encoder = if own { 1 } else { PICTURES_AT_A_TIME as u64 } * pictures.encoder;
        let (places, notes) = (2 * shape.batch_pairs, shape.batch_notes);
        let share = notes.div_ceil(shape.workers);
        let slice = slice_notes(shape, share);
        let sliced = slice < share;

        let rows = rows_at_a_time(places as usize) as u64;
        let loss_bytes = LOGIT_COPIES * rows * places * 4;
        let activations_bytes = here * (llm.held(slice) + slice * pictures.connector);
        let working = llm.working(slice);
        let features = here * share * pictures.features;
        // That of the lookup table comes last, and once more while it is added up.
        let table = largest_tensor(shape.llm);
        let last = if tune == Tune::Full { table } else { 0 };
        let again = if shape.checkpoint_layers {
            llm.layer(slice)
        } else {
            0
        };
        // Gradients grow while activations go; those of the slices before are there already.
        let before = if sliced { gradients_bytes } else { 0 };
        // Of passes whose graphs are made later.
        let passed = match sliced || shape.checkpoint_layers {
            true => tiles.learning,
            false => 0,
        };
        let working = here * (working + again).max(last) + passed;
        let backward = before + activations_bytes.max(gradients_bytes) + working;
        let pictures_bytes = notes * pictures.pixels + here * encoder;
        let step = features + (backward.max(activations_bytes + loss_bytes)).max(pictures_bytes);
        // Its scores and their gradients are computed apart, in the open.
        let probe_bytes = match shape.saliency_notes {
            0 => 0,
            notes => llm.whole(notes) + llm.working(notes) + llm.probe(notes) + of_worker,
        };
        let evaluated = shape.eval_batch_notes;
        let embeddings = shape.notes * shape.model.map_or(0, |m| m.embedding_size() as u64) * 4;
        let evaluation_bytes = EMBEDDING_COPIES * embeddings
            + evaluated * (pictures.pixels + pictures.features)
            + llm.working(evaluated).max(encoder)
            + tiles.learning;
        let saving_bytes = SAVED_COPIES * table;
        let others = probe_bytes.max(evaluation_bytes).max(saving_bytes);
        let largest_at_work_bytes = step.max(others);
        let program_bytes = shape.program_bytes.unwrap_or(PROGRAM_BYTES);
        let pixels = match shape.model.and_then(|model| model.vision.as_ref()) {
            Some(vision) => shape.read_notes * 3 * (vision.image_size * vision.image_size) as u64,
            None => 0,
        };
        let ahead = (shape.prefetch_batches + 1) * notes * pictures.pixels;
        let loader_bytes = ahead + pixels.min(PIXEL_CACHE_BYTES as u64) + state_bytes(shape, tune);
        Self {
            tune: tune.name(),
            trained_parameters,
            program_bytes,
            loader_bytes,
            weights_bytes,
            optimiser_bytes,
            gradients_bytes,
            activations_bytes,
            loss_bytes,
            pictures_bytes,
            probe_bytes,
            evaluation_bytes,
            saving_bytes,
            largest_at_work_bytes,
            total_bytes: program_bytes
                + loader_bytes
                + weights_bytes
                + optimiser_bytes
                + largest_at_work_bytes,
        }
    }

    /// Of [`Self::total_bytes`], what is on the host where the device has a memory of its own.
    pub fn host_bytes(&self) -> u64 {
        self.program_bytes + self.loader_bytes
    }

    /// Of [`Self::total_bytes`], what is on the device.
    pub fn device_bytes(&self) -> u64 {
        self.total_bytes - self.host_bytes()
    }
}

/// States of prompts that a language model makes once, where it does not learn.
fn state_bytes(shape: &TrainingShape<'_>, tune: Tune) -> u64 {
    if tune != Tune::Frozen || !shape.keeps_states {
        return 0;
    }
    let state = shape.llm.word_embed_proj_dim as u64 * shape.format.size() as u64;
    // The model before training keeps them too.
    let models = 1 + u64::from(shape.keeps_untrained);
    models * shape.notes * StateCache::entry_bytes(shape.positions, state)
}

/// Cosines, masked logits, their log-softmax and two gradients.
const LOGIT_COPIES: u64 = 5;

/// A tensor as it comes from the device, in the format of the file, and turned.
const SAVED_COPIES: u64 = 3;

/// The lookup table, or a matrix of the feed-forward network, in f32.
fn largest_tensor(llm: &DecoderConfig) -> u64 {
    let table = llm.vocab_size * llm.word_embed_proj_dim;
    let matrix = llm.hidden_size * llm.intermediate_size;
    table.max(matrix) as u64 * 4
}

/// Embeddings of all notes: those of both positions, as they came, normalised and packed.
const EMBEDDING_COPIES: u64 = 4;

/// Bytes of weights in tiles, two a value for each direction that they are read in, which the CPU's kernels keep beside
/// the weights where products are in bf16.
#[derive(Debug, Clone, Copy, Default)]
struct KeptTiles {
    /// Of weights that never learn.
    held: u64,
    /// Of weights that learn, while they are used outside the graph.
    learning: u64,
}

impl KeptTiles {
    fn of(shape: &TrainingShape<'_>, tune: Tune, maps: &[LinearMap]) -> Self {
        if !(shape.kernels && shape.short_products && shape.format == Format::F32) {
            return Self::default();
        }
        let values: u64 = maps
            .iter()
            .map(|map| (map.inputs * map.outputs) as u64)
            .sum();
        let [llm, head, vision] =
            [values, shape.head_parameters, shape.vision_parameters].map(|count| 2 * count);
        let both_ways = match shape.quantisation {
            Quantisation::None => 2 * llm,
            // Made again for every product.
            Quantisation::Q8 | Quantisation::Q4 => 0,
        };
        match tune {
            Tune::Full => Self {
                held: vision,
                learning: llm + head,
            },
            Tune::Lora | Tune::Frozen => Self {
                held: vision + both_ways,
                learning: head,
            },
        }
    }
}

fn slice_notes(shape: &TrainingShape<'_>, notes: u64) -> u64 {
    match shape.micro_batch_notes {
        0 => notes,
        slice => slice.min(notes),
    }
}

/// Bytes that quantised matrices take less: codes, and an f32 scale for every block.
fn saved_bytes(shape: &TrainingShape<'_>, maps: &[LinearMap]) -> u64 {
    let bits = match shape.quantisation {
        Quantisation::None => return 0,
        Quantisation::Q8 => 8,
        Quantisation::Q4 => 4,
    };
    let number = shape.format.size() as u64;
    let saved = maps.iter().filter_map(|map| {
        let values = (map.inputs * map.outputs) as u64;
        let scales = values / block_size(map.outputs)? as u64;
        (values * number).checked_sub(values * bits / 8 + scales * 4)
    });
    saved.sum()
}
