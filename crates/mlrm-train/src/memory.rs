//! What training needs of memory, estimated from sizes alone.

use std::collections::BTreeMap;

use mlrm_config::{BackendName, BackendSettings, Quantisation};
use mlrm_model::ModelError;
use mlrm_model::adapter::AdapterConfig;
use mlrm_model::decoder::{Decoder, DecoderConfig, FeedForwardKind};
use mlrm_model::embedder::EmbedderConfig;
use mlrm_model::ops::block_size;
use mlrm_model::weights::{LinearMap, NamedTensor, linear_maps};
use serde::Serialize;

use crate::device::{self, Format};
use crate::error::TrainError;

/// Sizes that the estimate depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingShape<'a> {
    /// The language model.
    pub llm: &'a DecoderConfig,
    /// Parameters of the language model.
    pub llm_parameters: u64,
    /// Parameters of connector, fusion and head, which always learn.
    pub head_parameters: u64,
    /// Parameters of the vision encoder, which never learns.
    pub vision_parameters: u64,
    /// Number format of weights and activations.
    pub format: Format,
    /// Pairs of a step.
    pub batch_pairs: u64,
    /// Positions of a note in the language model, visual tokens included.
    pub positions: u64,
    /// The adapters, for `lora`.
    pub adapters: &'a AdapterConfig,
    /// How the language model's matrices are held, for `lora` and `frozen`.
    pub quantisation: Quantisation,
}

/// One way to tune the language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TrainingMemory {
    /// `model.llm.tune`.
    pub tune: &'static str,
    /// Parameters that learn.
    pub trained_parameters: u64,
    /// All weights.
    pub weights_bytes: u64,
    /// Gradients of what learns.
    pub gradients_bytes: u64,
    /// Moments of what learns, in f32.
    pub optimiser_bytes: u64,
    /// What the backward pass needs of the language model's forward pass.
    pub activations_bytes: u64,
    /// The sum.
    pub total_bytes: u64,
}

impl TrainingMemory {
    /// The estimates for `full`, `lora` and `frozen`. The formula and its measured error: docs,
    /// "Import, inspect, export".
    ///
    /// # Errors
    /// An adapter's target that the language model does not have.
    pub fn estimates(shape: &TrainingShape<'_>) -> Result<[Self; 3], ModelError> {
        let module = Decoder::new(shape.llm, &burn::tensor::Device::default());
        let maps = linear_maps(&module, shape.llm.family().names.rename);
        let all: Vec<&LinearMap> = maps.iter().collect();
        let adapted = shape.adapters.targets(&maps)?;
        let rank = shape.adapters.rank as u64;
        let factors = |map: &&LinearMap| rank * (map.inputs + map.outputs) as u64;
        let adapters = adapted.iter().map(factors).sum();
        let saved = saved_bytes(shape, &maps);
        let low = rank * adapted.len() as u64;
        Ok([
            Self::estimate(shape, "full", [shape.llm_parameters, 0], 0, (&all, 0)),
            Self::estimate(shape, "lora", [0, adapters], saved, (&adapted, low)),
            Self::estimate(shape, "frozen", [0, 0], saved, (&[], 0)),
        ])
    }

    /// `llm` and `adapters` are the parameters of the language model that learn, `saved` what
    /// quantisation saves of its bytes; `(maps, low)` see [`activations`].
    fn estimate(
        shape: &TrainingShape<'_>,
        tune: &'static str,
        [llm, adapters]: [u64; 2],
        saved: u64,
        (maps, low): (&[&LinearMap], u64),
    ) -> Self {
        let number = shape.format.size() as u64;
        let held = shape.llm_parameters + shape.head_parameters + shape.vision_parameters;
        // Adapters are f32 whatever the model is.
        let weights_bytes = held * number + adapters * 4 - saved;
        let trained_parameters = llm + shape.head_parameters + adapters;
        // The gradient as the backward pass gives it, and in f32 for the optimiser.
        let copies = if shape.format == Format::F32 {
            4
        } else {
            number + 4
        };
        let gradients_bytes = trained_parameters * copies;
        let optimiser_bytes = trained_parameters * 8;
        let activations_bytes = activations(shape, maps, low);
        Self {
            tune,
            trained_parameters,
            weights_bytes,
            gradients_bytes,
            optimiser_bytes,
            activations_bytes,
            total_bytes: weights_bytes + gradients_bytes + optimiser_bytes + activations_bytes,
        }
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

/// What the backward pass keeps of the language model's layers: inputs of norms, attention and the
/// activation function in the activations' format, attention's probabilities in f32, and the
/// inputs of `maps`, whose weights or adapters learn; `low` numbers of a position between the
/// factors of adapters. The last layer works at few positions but for its keys and values.
fn activations(shape: &TrainingShape<'_>, maps: &[&LinearMap], low: u64) -> u64 {
    let llm = shape.llm;
    let (d, f) = (llm.hidden_size as u64, llm.intermediate_size as u64);
    let q = (llm.num_attention_heads * llm.head_dim) as u64;
    let k = (llm.num_key_value_heads * llm.head_dim) as u64;
    let inner = match llm.feed_forward {
        FeedForwardKind::SwiGlu | FeedForwardKind::FusedSwiGlu => 2 * f,
        // The GELU is an operation of its own.
        FeedForwardKind::GeGlu => 3 * f,
        FeedForwardKind::Relu => f,
    };
    let head_norms = if llm.head_norm { q + k } else { 0 };
    let norms = if llm.sandwich_norms { 4 * d } else { 2 * d };
    let before = llm.num_hidden_layers.saturating_sub(1) as u64;
    let layers = before * (norms + q + 2 * k + inner + head_norms) + d + 2 * k;
    let scores = before * llm.num_attention_heads as u64 * shape.positions;
    let number = shape.format.size() as u64;
    let rows = 2 * shape.batch_pairs * shape.positions;
    let kept = (layers + map_inputs(llm, maps)) * number + (low + scores) * 4;
    rows * kept
}

/// Widths of what the maps take, added up; what several take is held once.
fn map_inputs(llm: &DecoderConfig, maps: &[&LinearMap]) -> u64 {
    let last = format!("layers.{}.", llm.num_hidden_layers.saturating_sub(1));
    let mut taken = BTreeMap::new();
    for map in maps {
        let place = match map.path.split_once(".qkv.") {
            Some((layer, _)) => format!("{layer}.qkv"),
            None => map.path.replace(".up_proj.", ".gate_proj."),
        };
        // Of the last layer, keys and values alone take every position.
        if !map.path.starts_with(&last) || place.ends_with(".qkv") {
            taken.insert(place, map.inputs as u64);
        }
    }
    taken.values().sum()
}

/// Refuses a model whose weights this machine cannot hold, before the allocator ends the process.
///
/// # Errors
/// Names the largest tensor, the sizes that make it, and both amounts. On a device with a memory of
/// its own, where only one tensor at a time is on the host, that of the largest tensor counts.
pub fn check_weights(config: &EmbedderConfig, backend: &BackendSettings) -> Result<(), TrainError> {
    match host_bytes() {
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
    Err(TrainError::Run(format!(
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

/// Memory and swap of this machine, as Linux tells it; `None` elsewhere.
fn host_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    Some((kibibytes("MemTotal:")? + kibibytes("SwapTotal:")?) * 1024)
}

/// The largest resident memory of this process so far, as Linux tells it; `None` elsewhere.
pub fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
