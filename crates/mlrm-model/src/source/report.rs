//! What the parts of a model are, and how their weights and configs fit together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde::Serialize;
use serde_json::Value;

use super::{ModelSource, empty_connector};
use crate::connector::ConnectorConfig;
use crate::decoder::{Decoder, DecoderConfig};
use crate::embedder::{CONNECTOR_NAMES, Head, ModelFolder, llm_names};
use crate::error::ModelError;
use crate::hf_config::Noted;
use crate::system::{SystemPart, WholeSystem};
use crate::vision::{VisionConfig, VisionTower};
use crate::weights::{Checkpoint, Fit, fit, parameter_count};

/// A part of a model, read from its config and the headers of its weights.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// `llm`, `vision` or `head`.
    pub part: &'static str,
    /// Its folder or file.
    pub path: PathBuf,
    /// Hugging Face's `model_type`; none for the head.
    pub family: Option<String>,
    /// Sizes under the names of its config.
    pub sizes: BTreeMap<String, u64>,
    /// Parameters that the config means.
    pub parameters: u64,
    /// Number formats of the stored tensors, with how many have them.
    pub formats: BTreeMap<String, usize>,
    /// Files of weights.
    pub files: usize,
    /// Bytes of the stored tensors.
    pub bytes: u64,
    /// What does not fit: tensors that are missing, of another shape, or without a place.
    pub mismatches: Vec<String>,
    /// Tensors that are left unread on purpose.
    pub ignored: Vec<Unread>,
    /// Keys of its config that mlrm does not know and that were passed over, with the reason.
    pub notes: Vec<String>,
}

/// A tensor that is left unread on purpose.
#[derive(Debug, Clone, Serialize)]
pub struct Unread {
    /// Its name in the checkpoint.
    pub name: String,
    /// Why.
    pub reason: &'static str,
}

impl ModelSource {
    /// The parts; only headers of weights are read.
    ///
    /// # Errors
    /// Weights whose headers cannot be read.
    pub fn parts(&self) -> Result<Vec<Part>, ModelError> {
        match self {
            Self::Model(folder) => {
                let mut parts = vec![llm(&folder.llm(), &folder.config.llm)?];
                if let Some(config) = &folder.config.vision {
                    parts.push(vision(&folder.vision(), config)?);
                }
                parts.push(head(folder)?);
                Ok(parts)
            }
            Self::System {
                whole,
                llm,
                vision,
                connector,
            } => system(whole, llm, vision.as_ref(), connector.as_ref()),
            Self::Llm { root, config } => Ok(vec![Part {
                notes: config.notes.clone(),
                ..llm(root, &config.config)?
            }]),
            Self::Vision { root, config } => Ok(vec![Part {
                notes: config.notes.clone(),
                ..vision(root, &config.config)?
            }]),
        }
    }
}

fn system(
    whole: &WholeSystem,
    llm: &Noted<DecoderConfig>,
    vision: Option<&Noted<VisionConfig>>,
    connector: Option<&Noted<ConnectorConfig>>,
) -> Result<Vec<Part>, ModelError> {
    let mut parts = vec![Part {
        notes: llm.notes.clone(),
        ..llm_part(whole.checkpoint(SystemPart::Llm)?, &llm.config)
    }];
    let pictures = whole.checkpoint(SystemPart::Vision)?;
    let head = whole.checkpoint(SystemPart::Head)?;
    match vision {
        Some(vision) => parts.push(Part {
            notes: vision.notes.clone(),
            ..vision_part(pictures, &vision.config)
        }),
        None if pictures.names().next().is_some() => parts.push(undescribed("vision", pictures)),
        None => {}
    }
    parts.push(
        match empty_connector(whole, &llm.config, connector, &Device::default())? {
            Some(module) => {
                let fit = fit(&module, &head, "", CONNECTOR_NAMES, None);
                Part {
                    notes: connector.map_or_else(Vec::new, |connector| connector.notes.clone()),
                    ..part("head", &head, &module, fit, None)
                }
            }
            None => undescribed("head", head),
        },
    );
    Ok(parts)
}

/// A part whose sizes no config tells: as many parameters as are stored.
fn undescribed(name: &'static str, checkpoint: Checkpoint) -> Part {
    let elements = |name: &str| checkpoint.shape(name).map_or(0, |s| s.iter().product());
    let parameters: usize = checkpoint.names().map(elements).sum();
    let nothing: [Param<Tensor<1>>; 0] = [];
    Part {
        parameters: parameters as u64,
        ..part(name, &checkpoint, &nothing, Fit::default(), None)
    }
}

fn llm(root: &Path, config: &DecoderConfig) -> Result<Part, ModelError> {
    Ok(llm_part(Checkpoint::open(root)?, config))
}

fn llm_part(checkpoint: Checkpoint, config: &DecoderConfig) -> Part {
    let (prefix, names) = llm_names(config, &checkpoint);
    let module = Decoder::new(config, &Device::default());
    let fit = fit(&module, &checkpoint, prefix, names, None);
    let config = config.to_json();
    part("llm", &checkpoint, &module, fit, Some(&config))
}

fn vision(root: &Path, config: &VisionConfig) -> Result<Part, ModelError> {
    Ok(vision_part(Checkpoint::open(root)?, config))
}

fn vision_part(checkpoint: Checkpoint, config: &VisionConfig) -> Part {
    let module = VisionTower::zeros(config, &Device::default());
    let fit = module.fit(&checkpoint);
    let config = config.to_json();
    part("vision", &checkpoint, &module, fit, Some(&config))
}

fn head(folder: &ModelFolder) -> Result<Part, ModelError> {
    let checkpoint = Checkpoint::open(&folder.head())?;
    let module = Head::new(&folder.config, &Device::default())?;
    let fit = fit(&module, &checkpoint, "", folder.config.head_names(), None);
    Ok(part("head", &checkpoint, &module, fit, None))
}

fn part<M: Module>(
    part: &'static str,
    checkpoint: &Checkpoint,
    module: &M,
    fit: Fit,
    config: Option<&Value>,
) -> Part {
    let mut formats = BTreeMap::new();
    let mut bytes = 0;
    for name in checkpoint.names() {
        let format = checkpoint.format(name).unwrap_or_default();
        *formats.entry(format).or_default() += 1;
        bytes += checkpoint.bytes(name).unwrap_or(0) as u64;
    }
    let unread = |(name, reason)| Unread { name, reason };
    Part {
        part,
        path: checkpoint.path().to_owned(),
        family: config.and_then(|config| Some(config.get("model_type")?.as_str()?.to_owned())),
        sizes: config.map(sizes).unwrap_or_default(),
        parameters: parameter_count(module) as u64,
        formats,
        files: checkpoint.files().count(),
        bytes,
        mismatches: fit.mismatches.iter().map(ToString::to_string).collect(),
        ignored: fit.ignored.into_iter().map(unread).collect(),
        notes: Vec::new(),
    }
}

/// The whole numbers of a config, but for ids of tokens.
fn sizes(config: &Value) -> BTreeMap<String, u64> {
    let entries = config.as_object().into_iter().flatten();
    entries
        .filter(|(key, _)| !key.ends_with("_id"))
        .filter_map(|(key, value)| Some((key.clone(), value.as_u64()?)))
        .collect()
}
