//! Building an embedder from checkpoints, or from scratch with Hugging Face's initial values.

use std::path::PathBuf;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use mlrm_config::Tune;

use super::{Embedder, EmbedderConfig, EmbedderCore};
use crate::connector::Resampler;
use crate::decoder::Decoder;
use crate::error::ModelError;
use crate::vision::{VisionConfig, VisionTower};
use crate::weights::{Checkpoint, InitRule, NameTable, NamedTensor, fill, initial_values, load};

/// Where the weights of a part come from.
#[derive(Debug, Clone, PartialEq)]
pub enum WeightSource {
    /// A safetensors file, or a Hugging Face folder.
    Checkpoint(PathBuf),
    /// Initial values.
    Scratch,
}

/// How an embedder is built.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// The language model's weights.
    pub llm: WeightSource,
    /// The vision encoder's weights.
    pub vision: WeightSource,
    /// Everything else.
    pub head: WeightSource,
    /// Seed of initial values.
    pub seed: u64,
    /// Standard deviation of initial queries.
    pub query_init_std: f64,
    /// Initial t, where the head is from scratch.
    pub temperature_logit: f64,
    /// Which weights of the LLM learn.
    pub tune: Tune,
    /// Whether t learns.
    pub learn_temperature: bool,
    /// Number format of weights and activations.
    pub dtype: DType,
}

impl EmbedderConfig {
    /// Names of the head's tensors: those of the authors' released checkpoints.
    pub fn head_names(&self) -> NameTable {
        let rename = if self.projector == "linear" {
            |path: &str| match path.strip_prefix("connector.mm_projector.layers.0.") {
                Some(rest) => format!("mm_projector.{rest}"),
                None => head_name(path),
            }
        } else {
            |path: &str| {
                let ours = "connector.mm_projector.layers.";
                head_name(&sequential(path, ours, "mm_projector."))
            }
        };
        NameTable {
            rename,
            ignored: &[],
        }
    }
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

/// What a checkpoint puts before the names of a part: `prefix` where any tensor has it.
fn prefix_in(checkpoint: &Checkpoint, prefix: &'static str) -> &'static str {
    if checkpoint.names().any(|name| name.starts_with(prefix)) {
        prefix
    } else {
        ""
    }
}

impl Embedder {
    /// Builds the embedder; the core on `device` with autodiff, the vision encoder beside it without.
    pub fn build(
        config: EmbedderConfig,
        options: &BuildOptions,
        device: &Device,
    ) -> Result<Self, ModelError> {
        config.check()?;
        let learning = device.clone().autodiff();
        let frozen = device.clone().without_autodiff();
        let vision = config
            .vision
            .as_ref()
            .map(|sizes| build_vision(sizes, options, &frozen))
            .transpose()?;
        let core = EmbedderCore::new(&config, &learning)?;
        let llm = build_llm(core.llm, &config, options, &learning)?;
        let head = build_head(core.head, &config, options)?;
        let mut core = EmbedderCore { llm, head };
        if options.tune == Tune::Frozen {
            core.llm = core.llm.no_grad();
        }
        if !options.learn_temperature {
            core.head.temperature = core.head.temperature.no_grad();
        }
        Ok(Self {
            config,
            vision,
            core,
        })
    }
}

fn build_vision(
    sizes: &VisionConfig,
    options: &BuildOptions,
    device: &Device,
) -> Result<VisionTower, ModelError> {
    let BuildOptions { seed, dtype, .. } = *options;
    match &options.vision {
        WeightSource::Checkpoint(path) => {
            VisionTower::load(sizes, &Checkpoint::open(path)?, dtype, device)
        }
        WeightSource::Scratch => Ok(VisionTower::from_scratch(sizes, seed, dtype, device)),
    }
}

fn build_llm(
    llm: Decoder,
    config: &EmbedderConfig,
    options: &BuildOptions,
    device: &Device,
) -> Result<Decoder, ModelError> {
    let deviation = config.llm.initializer_range;
    let family = config.llm.family();
    match &options.llm {
        WeightSource::Checkpoint(path) => {
            let checkpoint = Checkpoint::open(path)?;
            let prefix = prefix_in(&checkpoint, family.prefix);
            // A tokenizer that gained words finds fewer rows in the checkpoint.
            let name = format!("{prefix}{}", (family.names.rename)("embed_tokens.weight"));
            let rows = checkpoint
                .shape(&name)?
                .and_then(|shape| shape.first().copied());
            let stored = match rows {
                Some(rows) if rows < config.llm.vocab_size => {
                    let mut sizes = config.llm.clone();
                    sizes.vocab_size = rows;
                    Decoder::new(&sizes, device)
                }
                _ => llm,
            };
            let stored = load(stored, &checkpoint, prefix, family.names, options.dtype)?;
            Ok(grow_vocabulary(stored, config.llm.vocab_size))
        }
        WeightSource::Scratch => {
            let rule = |tensor: &NamedTensor| {
                if tensor.name.ends_with(".bias") {
                    InitRule::Constant(0.0)
                } else if tensor.shape.len() == 1 {
                    // The scales of norms.
                    InitRule::Constant(1.0)
                } else {
                    InitRule::Normal(deviation)
                }
            };
            Ok(initialise(llm, family.names, "llm", options, &rule))
        }
    }
}

fn build_head(
    head: super::Head,
    config: &EmbedderConfig,
    options: &BuildOptions,
) -> Result<super::Head, ModelError> {
    let names = config.head_names();
    match &options.head {
        WeightSource::Checkpoint(path) => {
            load(head, &Checkpoint::open(path)?, "", names, options.dtype)
        }
        WeightSource::Scratch => {
            let mut value = |tensor: &NamedTensor| {
                let rule = head_rule(config, options, tensor);
                Some(match rule {
                    Some(rule) => initial_values(tensor, rule, options.seed, "head"),
                    None => Resampler::positions(tensor.shape[0], tensor.shape[1]),
                })
            };
            Ok(fill(head, names.rename, options.dtype, &mut value))
        }
    }
}

fn initialise<M: Module>(
    module: M,
    names: NameTable,
    part: &str,
    options: &BuildOptions,
    rule: &dyn Fn(&NamedTensor) -> InitRule,
) -> M {
    fill(module, names.rename, options.dtype, &mut |tensor| {
        Some(initial_values(tensor, rule(tensor), options.seed, part))
    })
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
    Some(match name {
        "temperature" => InitRule::Constant(options.temperature_logit as f32),
        "query_tokens" => InitRule::Normal(options.query_init_std),
        "gate.trans_all.weight" => InitRule::XavierNormal,
        "gate.mlp.2.bias" => {
            let weight = config.fusion.as_ref().map_or(0.5, |f| f.initial_weight);
            InitRule::Constant((weight / (1.0 - weight)).ln() as f32)
        }
        // With the last weights at 0 every note starts at exactly `initial_weight`.
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

/// `decoder` with a vocabulary of `words`; new rows are the mean of the existing ones (method §1).
fn grow_vocabulary(mut decoder: Decoder, words: usize) -> Decoder {
    let embedding = &mut decoder.embed_tokens;
    let [rows, _] = embedding.weight.val().dims();
    if rows >= words {
        return decoder;
    }
    let id = embedding.weight.id;
    let old = embedding.weight.val().inner();
    let mean = old.clone().cast(DType::F32).mean_dim(0).cast(old.dtype());
    let grown = Tensor::cat(vec![old, mean.repeat_dim(0, words - rows)], 0);
    embedding.weight = Param::initialized(id, grown.autodiff().require_grad());
    decoder
}
