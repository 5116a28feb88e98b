//! What a path that a user names may hold: a model folder, a run with one, or a part of a model as
//! Hugging Face's libraries save it.

mod export;
mod report;

pub use report::{Part, Unread};

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use mlrm_config::{Quantisation, Tune};

use crate::decoder::{Decoder, DecoderConfig};
use crate::embedder::{BuildOptions, Embedder, ModelFolder, WeightSource, llm_names};
use crate::error::ModelError;
use crate::vision::{VisionConfig, VisionTower};
use crate::weights::{Checkpoint, LoadOptions, load};

/// A model or a part of one on disk; its weights are not read yet.
#[derive(Debug, Clone)]
pub enum ModelSource {
    /// A whole model.
    Model(Box<ModelFolder>),
    /// A language model, as Hugging Face's libraries save it.
    Llm {
        /// The folder.
        root: PathBuf,
        /// What its `config.json` says.
        config: DecoderConfig,
    },
    /// A vision encoder, as Hugging Face's libraries save it.
    Vision {
        /// The folder.
        root: PathBuf,
        /// What its `config.json` says.
        config: VisionConfig,
    },
}

/// A [`ModelSource`] with its weights.
#[derive(Debug)]
pub enum Loaded {
    /// A whole model.
    Model(Box<Embedder>),
    /// A language model.
    Llm(Box<Decoder>),
    /// A vision encoder.
    Vision(Box<VisionTower>),
}

impl Loaded {
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
    /// Finds out what `path` holds and reads its configs.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        for folder in [path.to_owned(), path.join("model")] {
            if folder.join("mlrm.toml").is_file() {
                return Ok(Self::Model(Box::new(ModelFolder::open(&folder)?)));
            }
        }
        let root = path.to_owned();
        let file = path.join("config.json");
        if !file.is_file() {
            let message = "neither a model folder (mlrm.toml), a run folder (with `model/`) nor a \
                           Hugging Face folder (config.json)";
            return Err(ModelError::format(path, message));
        }
        let llm = match DecoderConfig::read(&file) {
            Ok(config) => return Ok(Self::Llm { root, config }),
            Err(error) => error,
        };
        if !is_family(&llm) {
            return Err(llm);
        }
        match VisionConfig::read(&file) {
            Ok(config) => Ok(Self::Vision { root, config }),
            Err(vision) if is_family(&vision) => Err(no_family(llm, vision)),
            Err(error) => Err(error),
        }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        match self {
            Self::Model(folder) => folder.root(),
            Self::Llm { root, .. } | Self::Vision { root, .. } => root,
        }
    }

    /// The language model, where there is one.
    pub fn llm(&self) -> Option<&DecoderConfig> {
        match self {
            Self::Model(folder) => Some(&folder.config.llm),
            Self::Llm { config, .. } => Some(config),
            Self::Vision { .. } => None,
        }
    }

    /// The number format that keeps every value: that of the weights where they have one in common,
    /// else f32.
    pub fn dtype(&self) -> Result<DType, ModelError> {
        let mut formats = Vec::new();
        match self {
            Self::Model(folder) => {
                formats.push(Checkpoint::open(&folder.llm())?.dtype());
                if folder.config.vision.is_some() {
                    formats.push(Checkpoint::open(&folder.vision())?.dtype());
                }
            }
            Self::Llm { root, .. } | Self::Vision { root, .. } => {
                formats.push(Checkpoint::open(root)?.dtype());
            }
        }
        let first = formats[0];
        let same = formats.iter().all(|&format| format == first);
        Ok(if same { first } else { DType::F32 })
    }

    /// Reads the weights, strictly.
    pub fn load(&self, device: &Device, options: &LoadOptions) -> Result<Loaded, ModelError> {
        let device = &device.clone().without_autodiff();
        Ok(match self {
            Self::Model(folder) => {
                let config = folder.config.clone();
                let options = build_options(folder, options);
                Loaded::Model(Box::new(Embedder::build(config, &options, device)?))
            }
            Self::Llm { root, config } => {
                let checkpoint = Checkpoint::open(root)?;
                let (prefix, names) = llm_names(config, &checkpoint);
                let empty = Decoder::new(config, device);
                Loaded::Llm(Box::new(load(empty, &checkpoint, prefix, names, options)?))
            }
            Self::Vision { root, config } => {
                let checkpoint = Checkpoint::open(root)?;
                let tower = VisionTower::load(config, &checkpoint, options, device)?;
                Loaded::Vision(Box::new(tower))
            }
        })
    }
}

/// A model folder brings every value, so that those of a scratch start are not read.
fn build_options(folder: &ModelFolder, options: &LoadOptions) -> BuildOptions {
    BuildOptions {
        llm: WeightSource::Checkpoint(folder.llm()),
        vision: WeightSource::Checkpoint(folder.vision()),
        head: WeightSource::Checkpoint(folder.head()),
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
    }
}

/// Whether an error says that a `model_type` is not one of a reader's families.
fn is_family(error: &ModelError) -> bool {
    matches!(error, ModelError::UnsupportedOption { option, .. } if option == "model_type")
}

/// Both readers' refusals in one.
fn no_family(llm: ModelError, vision: ModelError) -> ModelError {
    match (llm, vision) {
        (
            ModelError::UnsupportedOption {
                path,
                option,
                value,
                hint,
            },
            ModelError::UnsupportedOption { hint: other, .. },
        ) => ModelError::UnsupportedOption {
            path,
            option,
            value,
            hint: hint + &other,
        },
        (error, _) => error,
    }
}
