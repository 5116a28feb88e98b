//! What training needs of memory, estimated from sizes alone.

use mlrm_model::decoder::{Decoder, DecoderConfig};
use mlrm_model::weights::named_tensors;
use serde::Serialize;

use crate::device::Format;

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
    /// Rank of the adapters, for `lora`.
    pub rank: u64,
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
    pub fn estimates(shape: &TrainingShape<'_>) -> [Self; 3] {
        let adapters = adapter_parameters(shape.llm, shape.rank);
        [
            ("full", shape.llm_parameters, 0),
            ("lora", 0, adapters),
            ("frozen", 0, 0),
        ]
        .map(|(tune, llm, adapters)| Self::estimate(shape, tune, llm, adapters))
    }

    fn estimate(shape: &TrainingShape<'_>, tune: &'static str, llm: u64, adapters: u64) -> Self {
        let number = shape.format.size() as u64;
        let held = shape.llm_parameters + shape.head_parameters + shape.vision_parameters;
        // Adapters are f32 whatever the model is.
        let weights_bytes = held * number + adapters * 4;
        let trained_parameters = llm + shape.head_parameters + adapters;
        // The gradient as the backward pass gives it, and in f32 for the optimiser.
        let copies = if shape.format == Format::F32 {
            4
        } else {
            number + 4
        };
        let gradients_bytes = trained_parameters * copies;
        let optimiser_bytes = trained_parameters * 8;
        let activations_bytes = activations(shape, tune);
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

/// A and B beside every linear map of the layers.
fn adapter_parameters(llm: &DecoderConfig, rank: u64) -> u64 {
    let module = Decoder::new(llm, &burn::tensor::Device::default());
    let tensors = named_tensors(&module, str::to_owned);
    let maps = tensors
        .iter()
        .filter(|tensor| tensor.path.contains("_proj.weight"));
    maps.map(|map| rank * map.shape.iter().sum::<usize>() as u64)
        .sum()
}

/// Numbers that the backward pass keeps of one layer and position, in the activations' format, and
/// in f32 of each score of its attention.
fn activations(shape: &TrainingShape<'_>, tune: &str) -> u64 {
    let llm = shape.llm;
    let (d, f) = (llm.hidden_size as u64, llm.intermediate_size as u64);
    let q = (llm.num_attention_heads * llm.head_dim) as u64;
    let k = (llm.num_key_value_heads * llm.head_dim) as u64;
    let kept = match tune {
        // Inputs of the linear maps are kept for the gradients of their weights.
        "full" | "lora" => 6 * d + 2 * q + 2 * k + 4 * f,
        _ => 4 * d + 2 * q + 2 * k + 3 * f,
    };
    let scores = llm.num_attention_heads as u64 * shape.positions;
    let number = shape.format.size() as u64;
    let notes = 2 * shape.batch_pairs;
    let layers = llm.num_hidden_layers as u64;
    notes * shape.positions * layers * (kept * number + scores * 4)
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
