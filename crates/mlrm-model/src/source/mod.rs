//! What a path that a user names may hold: a model folder, a run with one, or a part of a model as
//! Hugging Face's libraries save it.

mod export;
mod report;

pub use report::{Part, Unread};

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use mlrm_config::{Quantisation, Tune};

use crate::checksums;
use crate::connector::{Connector, ConnectorConfig};
use crate::decoder::{Decoder, DecoderConfig};
use crate::embedder::{
    BuildOptions, CONNECTOR_NAMES, Embedder, ModelFolder, WeightSource, llm_names,
};
use crate::error::ModelError;
use crate::hf_config::{Noted, Refusal};
use crate::system::{SystemPart, WholeSystem};
use crate::vision::{VisionConfig, VisionTower};
use crate::weights::{Checkpoint, LoadOptions, load};

/// A model or a part of one on disk; its weights are not read yet.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a command has one of it")]
pub enum ModelSource {
    /// A whole model.
    Model(Box<ModelFolder>),
    /// A whole model as others publish it.
    System {
        /// The folder and its kind.
        whole: WholeSystem,
        /// Its language model.
        llm: Noted<DecoderConfig>,
        /// Its vision encoder, where its config describes it.
        vision: Option<Noted<VisionConfig>>,
        /// Its connector, where its config describes it.
        connector: Option<Noted<ConnectorConfig>>,
    },
    /// A language model, as Hugging Face's libraries save it.
    Llm {
        /// The folder.
        root: PathBuf,
        /// What its `config.json` says.
        config: Noted<DecoderConfig>,
    },
    /// A vision encoder, as Hugging Face's libraries save it.
    Vision {
        /// The folder.
        root: PathBuf,
        /// What its `config.json` says.
        config: Noted<VisionConfig>,
    },
}

/// A [`ModelSource`] with its weights.
#[derive(Debug)]
pub enum Loaded {
    /// A whole model.
    Model(Box<Embedder>),
    /// What a whole model of others holds of its own sizes.
    System(
        Box<Decoder>,
        Option<Box<VisionTower>>,
        Option<Box<Connector>>,
    ),
    /// A language model.
    Llm(Box<Decoder>),
    /// A vision encoder.
    Vision(Box<VisionTower>),
}

impl Loaded {
    /// Whether the language model has adapters.
    pub fn has_adapters(&self) -> bool {
        matches!(self, Self::Model(embedder) if embedder.adapter.is_some())
    }

    /// The same weights with the adapters of the language model made a part of them; `None` where
    /// there are none.
    pub fn merged(self) -> Option<Self> {
        match self {
            Self::Model(embedder) if embedder.adapter.is_some() => {
                Some(Self::Model(Box::new(embedder.merged())))
            }
            _ => None,
        }
    }
}

impl ModelSource {
    /// Finds out what `path` holds and reads its configs; unknown keys of `accept_keys` pass.
    ///
    /// # Errors
    /// A folder that holds no model, or configs that mlrm does not implement.
    pub fn open(path: &Path, accept_keys: &[String]) -> Result<Self, ModelError> {
        for folder in [path.to_owned(), path.join("model")] {
            if folder.join("mlrm.toml").is_file() {
                return Ok(Self::Model(Box::new(ModelFolder::open(&folder)?)));
            }
        }
        let root = path.to_owned();
        let file = path.join("config.json");
        if !path.exists() {
            return Err(ModelError::format(path, "there is no such folder"));
        }
        if !file.is_file() {
            let message = "neither a model folder (mlrm.toml), a run folder (with `model/`) nor a \
                           Hugging Face folder (config.json)";
            return Err(ModelError::format(path, message));
        }
        if let Some(whole) = WholeSystem::find(path)? {
            let vision = whole.vision(accept_keys);
            let connector = whole.connector(accept_keys);
            return match (whole.llm(accept_keys), vision, connector) {
                (Ok(llm), Ok(vision), Ok(connector)) => Ok(Self::System {
                    whole,
                    llm,
                    vision,
                    connector,
                }),
                (Err(error), vision, connector) => {
                    Err(error.and(vision.err()).and(connector.err()))
                }
                (Ok(_), Err(error), connector) => Err(error.and(connector.err())),
                (Ok(_), Ok(_), Err(error)) => Err(error),
            };
        }
        let llm = match DecoderConfig::read_accepting(&file, accept_keys) {
            Ok(config) => return Ok(Self::Llm { root, config }),
            Err(error) => error,
        };
        if !is_family(&llm) {
            return Err(llm);
        }
        match VisionConfig::read_accepting(&file, accept_keys) {
            Ok(config) => Ok(Self::Vision { root, config }),
            Err(vision) if is_family(&vision) => Err(no_family(llm, vision)),
            Err(error) => Err(error),
        }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        match self {
            Self::Model(folder) => folder.root(),
            Self::System { whole, .. } => whole.root(),
            Self::Llm { root, .. } | Self::Vision { root, .. } => root,
        }
    }

    /// The language model, where there is one.
    pub fn llm(&self) -> Option<&DecoderConfig> {
        match self {
            Self::Model(folder) => Some(&folder.config.llm),
            Self::System { llm: config, .. } | Self::Llm { config, .. } => Some(&config.config),
            Self::Vision { .. } => None,
        }
    }

    /// The number format that keeps every value: that of the weights where they have one in common,
    /// else f32.
    ///
    /// # Errors
    /// Weights whose headers cannot be read.
    pub fn dtype(&self) -> Result<DType, ModelError> {
        let mut formats = Vec::new();
        match self {
            Self::Model(folder) => {
                formats.push(Checkpoint::open(&folder.llm())?.dtype());
                if folder.config.vision.is_some() {
                    formats.push(Checkpoint::open(&folder.vision())?.dtype());
                }
            }
            Self::System { .. } | Self::Llm { .. } | Self::Vision { .. } => {
                formats.push(Checkpoint::open(self.root())?.dtype());
            }
        }
        let first = formats[0];
        let same = formats.iter().all(|&format| format == first);
        Ok(if same { first } else { DType::F32 })
    }

    /// Reads the weights, strictly; a model folder with checksums must be as it was written.
    ///
    /// # Errors
    /// Weights that are not there, or do not fit the config.
    pub fn load(&self, device: &Device, options: &LoadOptions) -> Result<Loaded, ModelError> {
        let device = &device.clone().without_autodiff();
        Ok(match self {
            Self::Model(folder) => {
                checksums::verify(folder.root())?;
                let config = folder.config.clone();
                let options = build_options(folder, options);
                Loaded::Model(Box::new(Embedder::build(config, &options, device)?))
            }
            Self::System {
                whole,
                llm,
                vision,
                connector,
            } => {
                let vision = vision.as_ref().map(|vision| &vision.config);
                let connector = empty_connector(whole, &llm.config, connector.as_ref(), device)?;
                load_system(whole, &llm.config, vision, connector, device, options)?
            }
            Self::Llm { root, config } => {
                let config = &config.config;
                let checkpoint = Checkpoint::open(root)?;
                let (prefix, names) = llm_names(config, &checkpoint);
                let empty = Decoder::new(config, device);
                Loaded::Llm(Box::new(load(empty, &checkpoint, prefix, names, options)?))
            }
            Self::Vision { root, config } => {
                let checkpoint = Checkpoint::open(root)?;
                let tower = VisionTower::load(&config.config, &checkpoint, options, device)?;
                Loaded::Vision(Box::new(tower))
            }
        })
    }
}

/// Language model, vision encoder and connector of a whole model, the latter two where its config
/// describes them.
fn load_system(
    whole: &WholeSystem,
    llm: &DecoderConfig,
    sizes: Option<&VisionConfig>,
    connector: Option<Connector>,
    device: &Device,
    options: &LoadOptions,
) -> Result<Loaded, ModelError> {
    let checkpoint = whole.checkpoint(SystemPart::Llm)?;
    let (prefix, names) = llm_names(llm, &checkpoint);
    let decoder = load(
        Decoder::new(llm, device),
        &checkpoint,
        prefix,
        names,
        options,
    )?;
    let mut vision = None;
    if let Some(sizes) = sizes {
        let checkpoint = whole.checkpoint(SystemPart::Vision)?;
        vision = Some(Box::new(VisionTower::load(
            sizes,
            &checkpoint,
            options,
            device,
        )?));
    }
    let mut filled = None;
    if let Some(empty) = connector {
        let checkpoint = whole.checkpoint(SystemPart::Head)?;
        let loaded = load(empty, &checkpoint, "", CONNECTOR_NAMES, options)?;
        filled = Some(Box::new(loaded));
    }
    Ok(Loaded::System(Box::new(decoder), vision, filled))
}

/// The connector of a whole model, without values.
fn empty_connector(
    whole: &WholeSystem,
    llm: &DecoderConfig,
    connector: Option<&Noted<ConnectorConfig>>,
    device: &Device,
) -> Result<Option<Connector>, ModelError> {
    let (Some(sizes), Some(projector)) = (connector, whole.projector()) else {
        return Ok(None);
    };
    let width = llm.word_embed_proj_dim;
    Connector::new(&sizes.config, projector, width, device).map(Some)
}

/// A model folder brings every value, so that those of a scratch start are not read.
fn build_options(folder: &ModelFolder, options: &LoadOptions) -> BuildOptions {
    BuildOptions {
        llm: WeightSource::Checkpoint(folder.llm()),
        vision: WeightSource::Checkpoint(folder.vision()),
        head: WeightSource::Checkpoint(folder.head()),
        connector: None,
        seed: 0,
        query_init_std: 0.0,
        temperature_logit: 0.0,
        tune: match folder.adapter() {
            Some(_) => Tune::Lora,
            None => Tune::Full,
        },
        quantisation: Quantisation::None,
        adapter: folder.adapter(),
        lora: None,
        lora_dropout: 0.0,
        learn_temperature: true,
        dtype: options.dtype,
        allow_nan: options.allow_nan,
        new_words: None,
        cut_layers: false,
    }
}

/// Whether an error says that a `model_type` is not one of a reader's families.
fn is_family(error: &ModelError) -> bool {
    let family = |refused: &[Refusal]| refused.iter().any(|r| r.option == "model_type");
    matches!(error, ModelError::Unsupported { refused, .. } if family(refused))
}

/// Both readers' refusals in one.
fn no_family(llm: ModelError, vision: ModelError) -> ModelError {
    match (llm, vision) {
        (
            ModelError::Unsupported { path, mut refused },
            ModelError::Unsupported { refused: other, .. },
        ) => {
            for (refusal, other) in refused.iter_mut().zip(other) {
                refusal.hint = format!("{}; {}", refusal.hint, other.hint);
            }
            ModelError::Unsupported { path, refused }
        }
        (error, _) => error,
    }
}
