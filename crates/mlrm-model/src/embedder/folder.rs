//! The model folder (architecture: `mlrm.toml`, `llm/`, `vision/`, `head.safetensors`).

use std::path::{Path, PathBuf};

use burn::module::Module;
use mlrm_config::{ImageLayout, SelectFeature, Variant};
use serde::{Deserialize, Serialize};

use super::{Embedder, EmbedderConfig, FusionConfig, PromptRecord, TokenIds};
use crate::connector::{ConnectorConfig, deserialize_connector};
use crate::decoder::DecoderConfig;
use crate::error::ModelError;
use crate::vision::{FeatureSelection, VisionConfig};
use crate::weights::{NameTable, export, write_safetensors};

/// Where a model came from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provenance {
    /// Version of mlrm that wrote the folder.
    pub mlrm_version: String,
    /// Training step of the weights.
    pub step: Option<usize>,
    /// Seed of the run.
    pub seed: Option<u64>,
}

/// `mlrm.toml`, as written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    /// Version of this file's format.
    format: u32,
    variant: Variant,
    layout: ImageLayout,
    select_layer: i32,
    select_feature: SelectFeature,
    #[serde(default)]
    post_layernorm: bool,
    projector: String,
    head_dim: usize,
    tokens: TokenIds,
    #[serde(default, deserialize_with = "deserialize_connector")]
    connector: Option<ConnectorConfig>,
    fusion: Option<FusionConfig>,
    prompt: PromptRecord,
    provenance: Provenance,
}

const FORMAT: u32 = 1;

/// The paths of a model folder and what its manifest says.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    root: PathBuf,
    /// Sizes and options.
    pub config: EmbedderConfig,
    /// How notes become prompts.
    pub prompt: PromptRecord,
    /// Where the model came from.
    pub provenance: Provenance,
}

impl ModelFolder {
    /// Reads the manifest and both `config.json`; no weights yet.
    pub fn open(root: &Path) -> Result<Self, ModelError> {
        let path = root.join("mlrm.toml");
        let text = std::fs::read_to_string(&path).map_err(|e| ModelError::io("read", &path, e))?;
        let manifest: Manifest =
            toml::from_str(&text).map_err(|e| ModelError::format(&path, e.to_string()))?;
        if manifest.format != FORMAT {
            let message = format!(
                "format {} is not the format {FORMAT} that this version reads",
                manifest.format
            );
            return Err(ModelError::format(&path, message));
        }
        let vision_config = root.join("vision/config.json");
        let vision = manifest
            .variant
            .vision()
            .then(|| VisionConfig::read(&vision_config))
            .transpose()?;
        let config = EmbedderConfig {
            variant: manifest.variant,
            layout: manifest.layout,
            llm: DecoderConfig::read(&root.join("llm/config.json"))?,
            vision,
            features: FeatureSelection {
                layer: manifest.select_layer,
                positions: manifest.select_feature,
                post_layernorm: manifest.post_layernorm,
            },
            connector: manifest.connector,
            projector: manifest.projector,
            fusion: manifest.fusion,
            head_dim: manifest.head_dim,
            tokens: manifest.tokens,
        };
        config
            .check()
            .map_err(|e| ModelError::format(&path, e.to_string()))?;
        Ok(Self {
            root: root.to_owned(),
            config,
            prompt: manifest.prompt,
            provenance: manifest.provenance,
        })
    }

    /// The folder of the language model.
    pub fn llm(&self) -> PathBuf {
        self.root.join("llm")
    }

    /// The folder of the vision encoder.
    pub fn vision(&self) -> PathBuf {
        self.root.join("vision")
    }

    /// Connector, fusion, projection and temperature.
    pub fn head(&self) -> PathBuf {
        self.root.join("head.safetensors")
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> PathBuf {
        self.root.join("llm/tokenizer.json")
    }

    /// How pictures are prepared.
    pub fn preprocessor(&self) -> PathBuf {
        self.root.join("vision/preprocessor_config.json")
    }
}

impl Embedder {
    /// Writes the model folder except tokenizer and preprocessor, which their owners add.
    ///
    /// `root` must be a fresh folder; the caller renames it into place once it is whole.
    pub fn write(
        &self,
        root: &Path,
        prompt: &PromptRecord,
        provenance: &Provenance,
    ) -> Result<(), ModelError> {
        let config = &self.config;
        let llm = root.join("llm");
        create_folder(&llm)?;
        write_json(&llm.join("config.json"), &config.llm.to_json())?;
        let family = config.llm.family();
        write_part(
            &llm.join("model.safetensors"),
            &self.core.llm,
            family.prefix,
            family.names,
        )?;
        if let (Some(sizes), Some(vision)) = (&config.vision, &self.vision) {
            let folder = root.join("vision");
            create_folder(&folder)?;
            write_json(&folder.join("config.json"), &sizes.to_json())?;
            let path = folder.join("model.safetensors");
            write_safetensors(&path, &vision.export()?)?;
        }
        let head = root.join("head.safetensors");
        write_part(&head, &self.core.head, "", config.head_names())?;
        let manifest = Manifest {
            format: FORMAT,
            variant: config.variant,
            layout: config.layout,
            select_layer: config.features.layer,
            select_feature: config.features.positions,
            post_layernorm: config.features.post_layernorm,
            projector: config.projector.clone(),
            head_dim: config.head_dim,
            tokens: config.tokens,
            connector: config.connector.clone(),
            fusion: config.fusion.clone(),
            prompt: prompt.clone(),
            provenance: provenance.clone(),
        };
        let path = root.join("mlrm.toml");
        let text = toml::to_string(&manifest)
            .map_err(|e| ModelError::format(&path, format!("cannot be written: {e}")))?;
        std::fs::write(&path, text).map_err(|e| ModelError::io("write", &path, e))
    }
}

fn create_folder(path: &Path) -> Result<(), ModelError> {
    std::fs::create_dir_all(path).map_err(|e| ModelError::io("create", path, e))
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), ModelError> {
    std::fs::write(path, format!("{value:#}\n")).map_err(|e| ModelError::io("write", path, e))
}

fn write_part<M: Module>(
    path: &Path,
    module: &M,
    prefix: &str,
    names: NameTable,
) -> Result<(), ModelError> {
    write_safetensors(path, &export(module, prefix, names.rename)?)
}
