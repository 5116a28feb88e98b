//! The model folder (architecture: `mlrm.toml`, `llm/`, `vision/`, `head.safetensors`).

use std::path::{Path, PathBuf};

use burn::tensor::DType;
use mlrm_config::{ImageLayout, Quantisation, SelectFeature, Tune, Variant};
use serde::{Deserialize, Serialize};

use super::build::llm_adapters;
use super::{Embedder, EmbedderConfig, FusionConfig, PromptRecord, TokenIds};
use crate::adapter::write_folder;
use crate::connector::{ConnectorConfig, deserialize_connector};
use crate::decoder::DecoderConfig;
use crate::error::ModelError;
use crate::vision::{FeatureSelection, VisionConfig};
use crate::weights::{WriteOptions, Written, export, write_module, write_safetensors};

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
    /// Side of the pictures, which the config.json of an encoder whose positions stretch does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image_size: Option<usize>,
    /// Most blocks of a picture, where each has a grid of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    own_grids: Option<usize>,
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
const ADAPTER: &str = "adapter";

/// A Hugging Face folder that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenPart {
    /// Path below what was exported; empty for the folder itself.
    pub folder: &'static str,
    /// Its weights.
    pub weights: Written,
}

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
    ///
    /// # Errors
    /// A folder without `mlrm.toml`, or whose configs cannot be read or are not supported.
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
        let mut vision = manifest
            .variant
            .vision()
            .then(|| VisionConfig::read(&vision_config))
            .transpose()?;
        if let (Some(vision), Some(side)) = (&mut vision, manifest.image_size) {
            vision.fit_pictures(side);
        }
        if let (Some(vision), Some(blocks)) = (&mut vision, manifest.own_grids) {
            vision.with_own_grids(blocks);
        }
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

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
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

    /// The LLM's adapters in PEFT's layout, where it has any.
    pub fn adapter(&self) -> Option<PathBuf> {
        Some(self.root.join(ADAPTER)).filter(|folder| folder.is_dir())
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
    /// Writes the model folder except tokenizer and preprocessor, which their owners add. `weights`
    /// says how `llm/` and `vision/` are written; the head is always one file.
    ///
    /// `root` must be a fresh folder; the caller renames it into place once it is whole. `previous`
    /// is a folder that this model wrote before: what training does not change (the vision
    /// encoder, and an LLM that is frozen or has adapters) is shared with it on disk by hard links,
    /// and is not listed in the result.
    ///
    /// # Errors
    /// Tensors that cannot be read back, or a folder that cannot be written.
    pub fn write(
        &self,
        root: &Path,
        prompt: &PromptRecord,
        provenance: &Provenance,
        weights: WriteOptions,
        previous: Option<&Path>,
    ) -> Result<Vec<WrittenPart>, ModelError> {
        let config = &self.config;
        let mut written = Vec::new();
        let fixed = previous.filter(|_| self.tune != Tune::Full);
        if !share_part(fixed, root, "llm")? {
            written.push(self.write_llm(root, weights)?);
        }
        if let Some(adapter) = &self.adapter {
            let folder = root.join(ADAPTER);
            write_folder(&self.core.llm, llm_adapters(config), &folder, adapter)?;
        }
        if let (Some(sizes), Some(vision)) = (&config.vision, &self.vision)
            && !share_part(previous, root, "vision")?
        {
            let folder = root.join("vision");
            let write = |folder: &Path| vision.write(folder, weights);
            let weights = write_part(&folder, sizes.to_json(), write)?;
            written.push(WrittenPart {
                folder: "vision",
                weights,
            });
        }
        let head = root.join("head.safetensors");
        write_safetensors(
            &head,
            &export(&self.core.head, "", config.head_names().rename)?,
        )?;
        let manifest = Manifest {
            format: FORMAT,
            variant: config.variant,
            layout: config.layout,
            select_layer: config.features.layer,
            select_feature: config.features.positions,
            post_layernorm: config.features.post_layernorm,
            image_size: config
                .vision
                .as_ref()
                .and_then(VisionConfig::own_image_size),
            own_grids: config.vision.as_ref().and_then(|vision| vision.own_grids),
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
        std::fs::write(&path, text).map_err(|e| ModelError::io("write", &path, e))?;
        Ok(written)
    }

    fn write_llm(&self, root: &Path, weights: WriteOptions) -> Result<WrittenPart, ModelError> {
        let config = &self.config.llm;
        let family = config.family();
        let exact = match self.quantisation {
            Quantisation::None => weights,
            // Quantised again, only f32 gives the same codes.
            Quantisation::Q8 | Quantisation::Q4 => WriteOptions {
                dtype: weights.dtype.or(Some(DType::F32)),
                ..weights
            },
        };
        let (prefix, rename) = (family.prefix, family.names.rename);
        let write = |folder: &Path| write_module(folder, &self.core.llm, prefix, rename, exact);
        let weights = write_part(&root.join("llm"), config.to_json(), write)?;
        Ok(WrittenPart {
            folder: "llm",
            weights,
        })
    }
}

/// Links weights and config of `part` (`llm`, `vision`) of the model folder `previous` into `root`.
/// False where there is nothing to share or where the file system has no hard links: then the part
/// is written as usual.
fn share_part(previous: Option<&Path>, root: &Path, part: &str) -> Result<bool, ModelError> {
    let Some(from) = previous.map(|previous| previous.join(part)) else {
        return Ok(false);
    };
    let to = root.join(part);
    let Ok(entries) = std::fs::read_dir(&from) else {
        return Ok(false);
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let weights = |name: &String| name.ends_with(".safetensors") || name.ends_with(".index.json");
    let mut files: Vec<String> = names.filter(weights).collect();
    if files.is_empty() {
        return Ok(false);
    }
    files.push("config.json".into());
    create_folder(&to)?;
    let link = |name: &String| std::fs::hard_link(from.join(name), to.join(name)).is_ok();
    if files.iter().all(link) {
        return Ok(true);
    }
    // What was linked before one link failed must not be written through.
    std::fs::remove_dir_all(&to).map_err(|e| ModelError::io("remove", &to, e))?;
    Ok(false)
}

fn create_folder(path: &Path) -> Result<(), ModelError> {
    std::fs::create_dir_all(path).map_err(|e| ModelError::io("create", path, e))
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), ModelError> {
    std::fs::write(path, format!("{value:#}\n")).map_err(|e| ModelError::io("write", path, e))
}

/// Writes a Hugging Face folder: the weights, as `write` does into the folder, and `config.json`.
pub(crate) fn write_part(
    folder: &Path,
    mut config: serde_json::Value,
    write: impl FnOnce(&Path) -> Result<Written, ModelError>,
) -> Result<Written, ModelError> {
    create_folder(folder)?;
    let written = write(folder)?;
    config["torch_dtype"] = match written.dtype {
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        _ => "float32",
    }
    .into();
    write_json(&folder.join("config.json"), &config)?;
    Ok(written)
}
