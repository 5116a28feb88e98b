//! Building an embedder from checkpoints, or from scratch with Hugging Face's initial values.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use mlrm_config::{Quantisation, Tune};

use super::build_head::build_head;
use super::{Embedder, EmbedderConfig, EmbedderCore};
use crate::adapter::{
    AdapterConfig, AdapterNames, add_adapters, check_targets, load_folder, same_adapters,
    saved_words,
};
use crate::decoder::{Decoder, DecoderConfig, NormKind};
use crate::error::ModelError;
use crate::nn::DropoutClock;
use crate::ops::{Bits, block_size};
use crate::system::{SystemPart, WholeSystem};
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
    /// The checkpoint of the language model may have layers behind those of the config, which are not read.
    pub cut_layers: bool,
}

impl BuildOptions {
    pub(super) fn load(&self) -> LoadOptions {
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
    ///
    /// # Errors
    /// Sizes that do not fit each other; weights that are not there or do not fit.
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
        let (llm, adapter) = tune_llm(llm, adapters, &config, options, &dropout)?;
        let head = build_head(core.head, &config, options)?;
        let mut core = EmbedderCore {
            llm,
            head,
            states: None,
        };
        if !options.learn_temperature {
            core.head.temperature = core.head.temperature.no_grad();
        }
        Ok(Self {
            config,
            vision,
            features: None,
            encoded: Arc::default(),
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
        Some(map) if options.quantisation != Quantisation::None => {
            let message = format!(
                "model.llm.quantisation: `{}` has {} outputs, which do not divide into blocks of at least \
                 16 that share a scale; leave this model unquantised",
                map.name, map.outputs
            );
            Err(ModelError::config(&["model.llm.quantisation"], message))
        }
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
    sizes: &EmbedderConfig,
    options: &BuildOptions,
    clock: &DropoutClock,
) -> Result<(Decoder, Option<AdapterConfig>), ModelError> {
    let Some(config) = adapters else {
        return Ok((llm, None));
    };
    let names = llm_adapters(sizes);
    let seed = options.seed;
    // Nobody turns on the dropout of adapters that do not learn.
    let off = DropoutClock::default();
    let clock = match options.tune {
        Tune::Lora => clock,
        Tune::Full | Tune::Frozen => &off,
    };
    let llm = match &options.adapter {
        Some(folder) => {
            let llm = replace_words(llm, folder)?;
            // Those of layers that are passed over are passed over too.
            let kept = options.cut_layers.then_some(sizes.llm.num_hidden_layers);
            load_folder(llm, names, (folder, kept), &config, seed, clock)?
        }
        None => add_adapters(llm, names, &config, seed, clock)?,
    };
    Ok(match options.tune {
        // All weights learn: what the adapters learnt becomes a part of them.
        Tune::Full => (llm.materialize(), None),
        Tune::Lora => (llm, Some(config)),
        Tune::Frozen => (llm.no_grad(), Some(config)),
    })
}

/// The LLM with the table of words of an adapter folder, where it brings one: in place of the first
/// rows, since words that are new to a prompt follow them.
fn replace_words(mut llm: Decoder, folder: &Path) -> Result<Decoder, ModelError> {
    let Some(words) = saved_words(folder)? else {
        return Ok(llm);
    };
    let [rows, width] = llm.embed_tokens.weight.dims();
    match *words.shape.as_slice() {
        [stored, columns] if stored <= rows && columns == width => {
            llm.embed_tokens.weight = llm.embed_tokens.weight.map(|own| {
                let options = (&own.device(), own.dtype());
                let new =
                    Tensor::from_data(TensorData::new(words.values, [stored, width]), options);
                let learns = own.is_require_grad();
                let all = own.detach().slice_assign([0..stored, 0..width], new);
                all.set_require_grad(learns)
            });
            Ok(llm)
        }
        _ => Err(ModelError::format(
            folder,
            format!(
                "its table of words {:?} does not fit the language model's {:?}",
                words.shape,
                [rows, width]
            ),
        )),
    }
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
        Some(mut checkpoint) => {
            if options.cut_layers {
                checkpoint = checkpoint.first_layers(config.llm.num_hidden_layers);
            }
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
                    InitRule::Constant(match config.llm.norm {
                        NormKind::RmsFromOne => 0.0,
                        NormKind::Rms | NormKind::Layer => 1.0,
                    })
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
