//! The head of an embedder, which is everything but language model and vision encoder: what its
//! tensors are called, and where their values come from.

use burn::module::Param;
use burn::tensor::{DType, Tensor, TensorData};

use super::build::{BuildOptions, WeightSource};
use super::{EmbedderConfig, Head};
use crate::connector::Resampler;
use crate::error::ModelError;
use crate::system::{System, SystemPart, is_bare_connector, is_connector};
use crate::weights::{
    Checkpoint, InitRule, LoadOptions, NameTable, NamedTensor, Tensors, fill, initial_values, load,
};

impl EmbedderConfig {
    /// Names of the head's tensors: those of the authors' released checkpoints.
    pub fn head_names(&self) -> NameTable {
        let rename = match self.projector.as_str() {
            "linear" => one_map_name,
            _ => |path: &str| {
                let ours = "connector.mm_projector.layers.";
                head_name(&sequential(path, ours, "mm_projector."))
            },
        };
        NameTable {
            rename,
            ignored: &[],
        }
    }
}

/// Names of a connector's tensors, alone and with one linear map as projector: those in a whole
/// model.
pub(crate) const CONNECTOR_NAMES: NameTable = NameTable {
    rename: one_map_name,
    ignored: &[],
};

/// Of a head whose projector is one linear map, which has no index.
fn one_map_name(path: &str) -> String {
    head_name(path).replace("mm_projector.layers.0.", "mm_projector.")
}

fn head_name(path: &str) -> String {
    let path = path.strip_prefix("connector.").unwrap_or(path);
    sequential(path, "gate.mlp.", "gate.mlp.").replace(".layer_norm.", ".LayerNorm.")
}

/// The n-th linear map of a PyTorch `Sequential` with activations between has index 2n.
fn sequential(path: &str, own: &str, theirs: &str) -> String {
    let renamed = || {
        let (index, rest) = path.strip_prefix(own)?.split_once('.')?;
        let index: usize = index.parse().ok()?;
        Some(format!("{theirs}{}.{rest}", 2 * index))
    };
    renamed().unwrap_or_else(|| path.to_owned())
}

/// `head` with its values.
pub(super) fn build_head(
    head: Head,
    config: &EmbedderConfig,
    options: &BuildOptions,
) -> Result<Head, ModelError> {
    let names = config.head_names();
    let whole = match &options.head {
        WeightSource::Checkpoint(path) => Some(Checkpoint::open(path)?),
        WeightSource::System(whole) if whole.system == System::NoteLlm2 => {
            Some(whole.checkpoint(SystemPart::Head)?)
        }
        WeightSource::System(_) | WeightSource::Scratch => None,
    };
    if let Some(checkpoint) = whole {
        let head = load(head, &checkpoint, "", names, &options.load())?;
        let stored = checkpoint.get("temperature")?;
        let value = stored.and_then(|tensor| tensor.values.first().copied());
        return Ok(with_temperature(head, value.unwrap_or_default()));
    }
    let head = scratch_head(head, config, options);
    // What others' models have of a head.
    let (system, only): (_, fn(&str) -> bool) = match (&options.head, &options.connector) {
        (WeightSource::System(system), _) => (system, is_connector),
        (_, Some(system)) => (system, is_bare_connector),
        _ => return Ok(head),
    };
    if config.connector.is_none() {
        return Ok(head);
    }
    let checkpoint = system.checkpoint(SystemPart::Head)?;
    let checkpoint = checkpoint.part(|name| only(name).then(|| name.to_owned()));
    let options = LoadOptions {
        only,
        ..options.load()
    };
    load(head, &checkpoint, "", names, &options)
}

fn scratch_head(head: Head, config: &EmbedderConfig, options: &BuildOptions) -> Head {
    let names = config.head_names();
    let mut value = |tensor: &NamedTensor| {
        Some(match head_rule(config, options, tensor) {
            Some(rule) => initial_values(tensor, rule, options.seed, "head"),
            None => Resampler::positions(tensor.shape[0], tensor.shape[1]),
        })
    };
    let head = fill(head, Tensors::Base, names.rename, options.dtype, &mut value);
    with_temperature(head, options.temperature_logit as f32)
}

/// `head` with t in f32, whatever the format of the other weights: it is one number, exp(t) magnifies
/// its rounding, and the losses, which alone read it, are computed in f32.
fn with_temperature(mut head: Head, value: f32) -> Head {
    let old = head.temperature.val();
    let data = TensorData::new(vec![value], [1]);
    let new = Tensor::from_data(data, (&old.device(), DType::F32));
    let new = if old.is_require_grad() {
        new.require_grad()
    } else {
        new
    };
    head.temperature = Param::initialized(head.temperature.id, new);
    head
}

/// Initial values of the head: BERT's for the Q-Former, PyTorch's for plain linear maps,
/// Xavier-normal for the gate (method §2.5); `None` for the resampler's fixed positions.
fn head_rule(
    config: &EmbedderConfig,
    options: &BuildOptions,
    tensor: &NamedTensor,
) -> Option<InitRule> {
    let name = tensor.name.as_str();
    if let Some(part) = name.strip_prefix("resampler.") {
        return Resampler::initial(part, config.llm.word_embed_proj_dim);
    }
    if name.starts_with("merger.") {
        let norm = name.ends_with("norm.weight");
        return Some(match name.ends_with(".bias") {
            true => InitRule::Constant(0.0),
            false if norm => InitRule::Constant(1.0),
            false => InitRule::Normal(config.llm.initializer_range),
        });
    }
    Some(match name {
        "temperature" => InitRule::Constant(options.temperature_logit as f32),
        "query_tokens" => InitRule::Normal(options.query_init_std),
        "gate.trans_all.weight" => InitRule::XavierNormal,
        "gate.mlp.2.bias" | "gate.trans_all.bias" => {
            let weight = config.fusion.as_ref().map_or(0.5, |f| f.initial_weight);
            InitRule::Constant((weight / (1.0 - weight)).ln() as f32)
        }
        // With the last weights at 0 every note starts at exactly `initial_weight`; a vector gate at that in the mean.
        "gate.mlp.2.weight" => InitRule::Constant(0.0),
        _ if name.starts_with("qformer.") => {
            if name.to_lowercase().contains("layernorm.weight") {
                InitRule::Constant(1.0)
            } else if name.ends_with(".bias") {
                InitRule::Constant(0.0)
            } else {
                InitRule::Normal(0.02)
            }
        }
        _ if name.ends_with(".bias") => InitRule::Uniform(1.0 / bias_inputs(config, name).sqrt()),
        _ => InitRule::TorchLinear,
    })
}

/// Inputs of the linear map that a head bias belongs to.
fn bias_inputs(config: &EmbedderConfig, name: &str) -> f64 {
    let width = config.llm.word_embed_proj_dim as f64;
    let first = matches!(name, "mm_projector.bias" | "mm_projector.0.bias");
    let projector = config.connector.as_ref().and_then(|c| c.projector_inputs());
    match projector {
        Some(inputs) if first => inputs as f64,
        _ if name.starts_with("gate.") => 2.0 * width,
        _ => width,
    }
}
