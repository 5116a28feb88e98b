//! Building an embedder from checkpoints, or from scratch with Hugging Face's initial values.

use std::path::PathBuf;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use mlrm_config::{Quantisation, Tune};

use super::{Embedder, EmbedderConfig, EmbedderCore};
use crate::adapter::{
    AdapterConfig, AdapterNames, add_adapters, check_targets, load_folder, same_adapters,
};
use crate::connector::Resampler;
use crate::decoder::{Decoder, DecoderConfig};
use crate::error::ModelError;
use crate::nn::DropoutClock;
use crate::ops::{Bits, block_size};
use crate::system::{System, SystemPart, WholeSystem, is_bare_connector, is_connector};
use crate::vision::{VisionConfig, VisionTower};
use crate::weights::{
    Checkpoint, InitRule, LoadOptions, NameTable, NamedTensor, NewRows, Tensors, fill,
    initial_values, linear_maps, load, quantise_linear_maps,
};

/// Where the weights of a part come from.
#[derive(Debug, Clone)]
pub enum WeightSource {
    /// A safetensors file, or a Hugging Face folder.
    Checkpoint(PathBuf),
    /// A part of a whole model; of the head, what the system has of it.
    System(WholeSystem),
    /// Initial values.
    Scratch,
}

impl WeightSource {
    /// The tensors of `part`; `None` for initial values.
    fn open(&self, part: SystemPart) -> Result<Option<Checkpoint>, ModelError> {
        match self {
            Self::Checkpoint(path) => Checkpoint::open(path).map(Some),
            Self::System(system) => system.checkpoint(part).map(Some),
            Self::Scratch => Ok(None),
        }
    }
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
    /// Whose connector a head from scratch starts with; its projector is not read.
    pub connector: Option<WholeSystem>,
    /// Seed of initial values.
    pub seed: u64,
    /// Standard deviation of initial queries.
    pub query_init_std: f64,
    /// Initial t, where the head is from scratch.
    pub temperature_logit: f64,
    /// Which weights of the LLM learn.
    pub tune: Tune,
    /// How the LLM's matrices are held where they do not learn.
    pub quantisation: Quantisation,
    /// A PEFT folder of adapters beside the LLM.
    pub adapter: Option<PathBuf>,
    /// The adapters that `tune = "lora"` means: new ones where there is no folder, and what those
    /// of a folder must agree with. Without it a folder's are taken as they are.
    pub lora: Option<AdapterConfig>,
    /// Dropout of adapters that learn.
    pub lora_dropout: f64,
    /// Whether t learns.
    pub learn_temperature: bool,
    /// Number format of weights and activations.
    pub dtype: DType,
    /// Take NaN and infinite weights as they are.
    pub allow_nan: bool,
    /// Words that the checkpoint of the language model does not know; the config's `vocab_size` has
    /// room for them.
    pub new_words: Option<NewRows>,
}

impl BuildOptions {
    fn load(&self) -> LoadOptions {
        LoadOptions {
            allow_nan: self.allow_nan,
            ..LoadOptions::new(self.dtype)
        }
    }

    /// How the weights of the LLM's linear maps are held, where that is quantised.
    fn bits(&self) -> Option<Bits> {
        match self.quantisation {
            Quantisation::None => None,
            Quantisation::Q8 => Some(Bits::Eight),
            Quantisation::Q4 => Some(Bits::Four),
        }
    }
}

/// How the adapters of a decoder are called on disk.
pub fn llm_adapters(config: &EmbedderConfig) -> AdapterNames {
    let family = config.llm.family();
    AdapterNames {
        rename: family.names.rename,
        prefix: family.prefix,
    }
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

/// Names of a connector's tensors, alone and with one linear map as projector: those in a whole
/// model.
pub(crate) const CONNECTOR_NAMES: NameTable = NameTable {
    rename: |path| match path.strip_prefix("mm_projector.layers.0.") {
        Some(rest) => format!("mm_projector.{rest}"),
        None => head_name(path),
    },
    ignored: &[],
};

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

/// Prefix and names of a decoder's tensors in `checkpoint`.
pub(crate) fn llm_names(
    config: &DecoderConfig,
    checkpoint: &Checkpoint,
) -> (&'static str, NameTable) {
    let family = config.family();
    (checkpoint.prefix(family.prefix), family.names)
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
        check_blocks(&core.llm, &config, options)?;
        let adapters = plan_adapters(&core.llm, &config, options)?;
        let llm = match options.tune {
            Tune::Full => core.llm,
            Tune::Lora | Tune::Frozen => core.llm.no_grad(),
        };
        let llm = build_llm(llm, &config, options)?;
        let dropout = DropoutClock::default();
        let (llm, adapter) = tune_llm(llm, adapters, llm_adapters(&config), options, &dropout)?;
        let head = build_head(core.head, &config, options)?;
        let mut core = EmbedderCore { llm, head };
        if !options.learn_temperature {
            core.head.temperature = core.head.temperature.no_grad();
        }
        Ok(Self {
            config,
            vision,
            core,
            tune: options.tune,
            quantisation: options.quantisation,
            adapter,
            dropout,
        })
    }
}

/// Refuses a quantised LLM whose matrices do not divide into blocks.
fn check_blocks(
    llm: &Decoder,
    config: &EmbedderConfig,
    options: &BuildOptions,
) -> Result<(), ModelError> {
    let maps = linear_maps(llm, config.llm.family().names.rename);
    let odd = maps.iter().find(|map| block_size(map.outputs).is_none());
    match odd {
        Some(map) if options.quantisation != Quantisation::None => Err(ModelError::Input(format!(
            "model.llm.quantisation: `{}` has {} outputs, which do not divide into blocks of at least \
             16 that share a scale; leave this model unquantised",
            map.name, map.outputs
        ))),
        _ => Ok(()),
    }
}

/// The adapters that the LLM will have; looked at before any weights are read.
fn plan_adapters(
    llm: &Decoder,
    config: &EmbedderConfig,
    options: &BuildOptions,
) -> Result<Option<AdapterConfig>, ModelError> {
    let names = llm_adapters(config);
    let wanted = options.lora.as_ref().filter(|_| options.tune == Tune::Lora);
    let Some(folder) = &options.adapter else {
        if let Some(wanted) = wanted {
            check_targets(llm, names, wanted)?;
        }
        return Ok(wanted.cloned());
    };
    let found = AdapterConfig::read(folder)?;
    match wanted {
        Some(wanted) if !same_adapters(llm, names, wanted, &found)? => Err(ModelError::format(
            folder,
            format!(
                "the adapters there have rank {}, alpha {}, rsLoRA {}, targets {}; the config's \
                     [model.llm.lora] says otherwise: make them agree, or start from other weights",
                found.rank,
                found.alpha,
                found.rslora,
                found.target_modules.join(", ")
            ),
        )),
        // Dropout belongs to the training that goes on, not to the one that was.
        _ if options.tune == Tune::Lora => Ok(Some(AdapterConfig {
            dropout: options.lora_dropout,
            ..found
        })),
        _ => Ok(Some(found)),
    }
}

/// Puts the adapters beside the LLM; also gives what they are.
fn tune_llm(
    llm: Decoder,
    adapters: Option<AdapterConfig>,
    names: AdapterNames,
    options: &BuildOptions,
    clock: &DropoutClock,
) -> Result<(Decoder, Option<AdapterConfig>), ModelError> {
    let Some(config) = adapters else {
        return Ok((llm, None));
    };
    let seed = options.seed;
    // Nobody turns on the dropout of adapters that do not learn.
    let off = DropoutClock::default();
    let clock = match options.tune {
        Tune::Lora => clock,
        Tune::Full | Tune::Frozen => &off,
    };
    let llm = match &options.adapter {
        Some(folder) => load_folder(llm, names, folder, &config, seed, clock)?,
        None => add_adapters(llm, names, &config, seed, clock)?,
    };
    Ok(match options.tune {
        // All weights learn: what the adapters learnt becomes a part of them.
        Tune::Full => (llm.materialize(), None),
        Tune::Lora => (llm, Some(config)),
        Tune::Frozen => (llm.no_grad(), Some(config)),
    })
}

fn build_vision(
    sizes: &VisionConfig,
    options: &BuildOptions,
    device: &Device,
) -> Result<VisionTower, ModelError> {
    match options.vision.open(SystemPart::Vision)? {
        Some(checkpoint) => VisionTower::load(sizes, &checkpoint, &options.load(), device),
        None => {
            let BuildOptions { seed, dtype, .. } = *options;
            Ok(VisionTower::from_scratch(sizes, seed, dtype, device))
        }
    }
}

fn build_llm(
    llm: Decoder,
    config: &EmbedderConfig,
    options: &BuildOptions,
) -> Result<Decoder, ModelError> {
    let deviation = config.llm.initializer_range;
    let family = config.llm.family();
    match options.llm.open(SystemPart::Llm)? {
        Some(checkpoint) => {
            let (prefix, names) = llm_names(&config.llm, &checkpoint);
            let options = LoadOptions {
                new_words: options.new_words.clone(),
                quantise: options.bits(),
                ..options.load()
            };
            load(llm, &checkpoint, prefix, names, &options)
        }
        None => {
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
            let Some(bits) = options.bits() else {
                return Ok(initialise(llm, family.names, "llm", options, &rule));
            };
            // What is quantised is quantised from f32, so that a saved model comes back bit by bit.
            let exact = BuildOptions {
                dtype: DType::F32,
                ..options.clone()
            };
            let llm = initialise(llm, family.names, "llm", &exact, &rule);
            Ok(quantise_linear_maps(llm, bits, options.dtype))
        }
    }
}

fn build_head(
    head: super::Head,
    config: &EmbedderConfig,
    options: &BuildOptions,
) -> Result<super::Head, ModelError> {
    let names = config.head_names();
    let checkpoint = options.head.open(SystemPart::Head)?;
    // A system's own connector, with everything that it does not have from scratch.
    let connector_only = match &options.head {
        WeightSource::System(whole) => whole.system != System::NoteLlm2,
        _ => false,
    };
    let head = match &checkpoint {
        Some(_) if !connector_only => head,
        _ => scratch_head(head, config, options),
    };
    let of_connector = |only| LoadOptions {
        only,
        ..options.load()
    };
    let Some(checkpoint) = checkpoint else {
        return match &options.connector {
            Some(whole) if config.connector.is_some() => {
                let named = |name: &str| is_bare_connector(name).then(|| name.to_owned());
                let checkpoint = whole.checkpoint(SystemPart::Head)?.part(named);
                let options = of_connector(is_bare_connector);
                load(head, &checkpoint, "", names, &options)
            }
            _ => Ok(head),
        };
    };
    if connector_only {
        return match config.connector {
            Some(_) => load(head, &checkpoint, "", names, &of_connector(is_connector)),
            None => Ok(head),
        };
    }
    let head = load(head, &checkpoint, "", names, &options.load())?;
    let stored = checkpoint.get("temperature")?;
    let value = stored.and_then(|tensor| tensor.values.first().copied());
    Ok(with_temperature(head, value.unwrap_or_default()))
}

fn scratch_head(head: super::Head, config: &EmbedderConfig, options: &BuildOptions) -> super::Head {
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
fn with_temperature(mut head: super::Head, value: f32) -> super::Head {
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

fn initialise<M: Module>(
    module: M,
    names: NameTable,
    part: &str,
    options: &BuildOptions,
    rule: &dyn Fn(&NamedTensor) -> InitRule,
) -> M {
    let value =
        &mut |tensor: &NamedTensor| Some(initial_values(tensor, rule(tensor), options.seed, part));
    fill(module, Tensors::Base, names.rename, options.dtype, value)
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
