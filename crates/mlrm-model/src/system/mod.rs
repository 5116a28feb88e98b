//! Checkpoints that hold a whole multimodal model: BLIP-2, Qwen-VL, Qwen2.5-VL, Qwen3-VL, and the authors' NoteLLM-2.
//!
//! Each system is a table of where its tensors belong and of which sections of
//! `config.json` describe which part. A tensor that no table places is refused by name.

mod connector;

pub(crate) use connector::{is_bare_connector, is_connector};

use std::path::{Path, PathBuf};

use mlrm_config::SelectFeature;

use self::connector::{merger, qformer, resampler};
use crate::connector::{ConnectorConfig, MergerConfig};
use crate::decoder::{DecoderConfig, families};
use crate::error::ModelError;
use crate::hf_config::{Accepted, HfConfig, Noted};
use crate::vision::{FeatureSelection, VisionConfig};
use crate::weights::Checkpoint;

/// A kind of whole model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Vision transformer, Q-Former, linear projection and OPT (Hugging Face `blip-2`).
    Blip2,
    /// Visual tower and resampler inside Qwen 1 (`qwen` with a section `visual`).
    QwenVl,
    /// Tower with windows, merger and Qwen 2.5 (Hugging Face `qwen2_5_vl`).
    Qwen25Vl,
    /// Tower of which several layers are read, mergers and Qwen 3 (Hugging Face `qwen3_vl`).
    Qwen3Vl,
    /// What the code released with NoteLLM-2 saves (`MLlama`, `Qwen_selfvl` and their ablations): a
    /// decoder with the frozen CLIP encoder, Q-Former, projector, gate and last projection beside it.
    NoteLlm2,
}

/// A part of a whole model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemPart {
    /// The language model.
    Llm,
    /// The vision encoder.
    Vision,
    /// Queries, connector and projector; of NoteLLM-2 also fusion, last projection and temperature.
    Head,
}

/// Tensors of the released NoteLLM-2 code beside the decoder and the vision encoder.
const NOTELLM2_HEAD: [&str; 7] = [
    "query_tokens",
    "qformer.",
    "mm_projector.",
    "mm_projector_latefusion.",
    "gate.",
    "linear.weight",
    "temperature",
];

impl System {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blip2 => "blip-2",
            Self::QwenVl => "Qwen-VL",
            Self::Qwen25Vl => "Qwen2.5-VL",
            Self::Qwen3Vl => "Qwen3-VL",
            Self::NoteLlm2 => "NoteLLM-2",
        }
    }

    /// The section of `config.json` that describes a part; `None` where the whole file does, or nothing.
    pub(crate) fn section(self, part: SystemPart) -> Option<&'static str> {
        match (self, part) {
            (Self::Qwen25Vl | Self::Qwen3Vl, SystemPart::Head) => Some("vision_config"),
            (Self::Blip2 | Self::Qwen25Vl | Self::Qwen3Vl, SystemPart::Llm) => Some("text_config"),
            (Self::Blip2 | Self::Qwen25Vl | Self::Qwen3Vl, SystemPart::Vision) => {
                Some("vision_config")
            }
            (Self::Blip2, SystemPart::Head) => Some("qformer_config"),
            (Self::QwenVl, SystemPart::Vision | SystemPart::Head) => Some("visual"),
            (Self::QwenVl, SystemPart::Llm) | (Self::NoteLlm2, _) => None,
        }
    }

    /// The part that a stored tensor belongs to, and its name there; `None` where it has no place.
    fn place(self, name: &str) -> Option<(SystemPart, String)> {
        let own = |part: SystemPart| Some((part, name.to_owned()));
        match self {
            Self::Blip2 => {
                if let Some(rest) = name.strip_prefix("language_model.") {
                    Some((SystemPart::Llm, rest.to_owned()))
                } else if let Some(rest) = name.strip_prefix("language_projection.") {
                    Some((SystemPart::Head, format!("mm_projector.{rest}")))
                } else if name == "query_tokens" || name.starts_with("qformer.") {
                    own(SystemPart::Head)
                } else if name.starts_with("vision_model.") {
                    own(SystemPart::Vision)
                } else {
                    None
                }
            }
            Self::QwenVl => match name.strip_prefix("transformer.visual.") {
                Some(rest) => {
                    let resampler = rest.strip_prefix("attn_pool.").or_else(|| {
                        let after = rest.starts_with("ln_post.") || rest == "proj";
                        after.then_some(rest)
                    });
                    match resampler {
                        Some(rest) => Some((SystemPart::Head, format!("resampler.{rest}"))),
                        None => own(SystemPart::Vision),
                    }
                }
                None if name.starts_with("transformer.") || name.starts_with("lm_head.") => {
                    own(SystemPart::Llm)
                }
                None => None,
            },
            Self::Qwen25Vl | Self::Qwen3Vl => {
                let visual = ["visual.", "model.visual."];
                if let Some(rest) = visual.iter().find_map(|part| name.strip_prefix(part)) {
                    Some(match merger(rest) {
                        Some(own) => (SystemPart::Head, own),
                        None => (SystemPart::Vision, rest.to_owned()),
                    })
                } else if let Some(rest) = name.strip_prefix("model.language_model.") {
                    Some((SystemPart::Llm, format!("model.{rest}")))
                } else {
                    let decoder = ["model.", "lm_head."];
                    let is_llm = decoder.iter().any(|part| name.starts_with(part));
                    is_llm.then(|| (SystemPart::Llm, name.to_owned()))
                }
            }
            Self::NoteLlm2 => {
                if let Some(rest) = name.strip_prefix("vision_tower.vision_tower.") {
                    Some((SystemPart::Vision, rest.to_owned()))
                } else if NOTELLM2_HEAD.iter().any(|part| name.starts_with(part)) {
                    own(SystemPart::Head)
                } else {
                    let decoder = ["model.", "transformer.", "lm_head."];
                    let is_llm = decoder.iter().any(|part| name.starts_with(part));
                    is_llm.then(|| (SystemPart::Llm, name.to_owned()))
                }
            }
        }
    }
}

/// A folder with a whole model; no weights are read yet.
#[derive(Debug, Clone)]
pub struct WholeSystem {
    /// Which kind it is.
    pub system: System,
    root: PathBuf,
}

impl WholeSystem {
    /// Finds out which system `root` holds; `None` where its `config.json` and tensor names are those
    /// of no whole model.
    ///
    /// # Errors
    ///
    /// Where the config cannot be read, or where a tensor has no place in the system: the error
    /// names it.
    pub fn find(root: &Path) -> Result<Option<Self>, ModelError> {
        let path = root.join("config.json");
        let mut config = HfConfig::read(&path)?;
        let model_type: String = config.get("model_type", Some(String::new()))?;
        let checkpoint = Checkpoint::open(root);
        let system = match (model_type.as_str(), &checkpoint) {
            ("blip-2", _) => System::Blip2,
            ("qwen", _) if config.take("visual").is_some() => System::QwenVl,
            ("qwen2_5_vl", _) => System::Qwen25Vl,
            ("qwen3_vl", _) => System::Qwen3Vl,
            (_, Ok(checkpoint)) if is_notellm2(checkpoint) => System::NoteLlm2,
            // Whoever reads a plain decoder says what is wrong with its files.
            _ => return Ok(None),
        };
        let checkpoint = checkpoint?;
        let found = Self {
            system,
            root: root.to_owned(),
        };
        found.refuse_strangers(&checkpoint)?;
        Ok(Some(found))
    }

    /// As [`Self::find`]; that it is none is an error.
    ///
    /// # Errors
    /// A folder that is no such system, or whose config is not supported.
    pub fn open(root: &Path) -> Result<Self, ModelError> {
        Self::find(root)?.ok_or_else(|| {
            let message = "is no whole multimodal model: mlrm reads BLIP-2 (`model_type` = \"blip-2\"), \
                           Qwen-VL (\"qwen\" with a section `visual`), Qwen2.5-VL (\"qwen2_5_vl\"), Qwen3-VL \
                           (\"qwen3_vl\"), and what NoteLLM-2's released \
                           code saves (a decoder with `temperature` and its other tensors beside it)";
            ModelError::format(root, message)
        })
    }

    fn refuse_strangers(&self, checkpoint: &Checkpoint) -> Result<(), ModelError> {
        let strangers: Vec<&str> = checkpoint
            .names()
            .filter(|name| self.system.place(name).is_none())
            .collect();
        let Some(first) = strangers.first() else {
            return Ok(());
        };
        let file = checkpoint.file_of(first).unwrap_or(&self.root);
        let more = match strangers.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let system = self.system.name();
        let message = format!("tensor `{first}`{more} has no place in a {system} model");
        Err(ModelError::format(file, message))
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn config_path(&self) -> PathBuf {
        self.root.join("config.json")
    }

    /// The tensors of a part, under the names that the part has alone.
    ///
    /// # Errors
    /// Weights that are not there or cannot be read.
    pub fn checkpoint(&self, part: SystemPart) -> Result<Checkpoint, ModelError> {
        let system = self.system;
        let own = move |name: &str| {
            let (place, own) = system.place(name)?;
            (place == part).then_some(own)
        };
        Ok(Checkpoint::open(&self.root)?.part(own))
    }

    /// The language model, with notes on what its section of `config.json` says beside.
    ///
    /// # Errors
    /// As [`DecoderConfig::read_accepting`].
    pub fn llm(&self, accept_keys: &[String]) -> Result<Noted<DecoderConfig>, ModelError> {
        let path = self.config_path();
        let mut config = HfConfig::read(&path)?;
        if self.system == System::Qwen25Vl && config.peek("text_config").is_none() {
            return flat_qwen(&path, config, accept_keys);
        }
        // What transformers 5 says of the LM head outside of the section.
        let tied = config.peek("tie_word_embeddings").cloned();
        if let Some(section) = self.system.section(SystemPart::Llm) {
            config = config.section(section)?;
        }
        if let (System::Qwen25Vl | System::Qwen3Vl, Some(tied)) = (self.system, tied) {
            config.default_to("tie_word_embeddings", tied);
        }
        // Of Qwen-VL, whose file is that of the language model, but for this.
        config.take("visual");
        DecoderConfig::from_hf(&path, config, accept_keys)
    }

    /// The vision encoder; `None` where `config.json` does not describe it.
    ///
    /// # Errors
    /// As [`VisionConfig::read_accepting`].
    pub fn vision(
        &self,
        accept_keys: &[String],
    ) -> Result<Option<Noted<VisionConfig>>, ModelError> {
        match self.system {
            System::Blip2 | System::QwenVl | System::Qwen25Vl | System::Qwen3Vl => {
                VisionConfig::read_accepting(&self.config_path(), accept_keys).map(Some)
            }
            System::NoteLlm2 => Ok(None),
        }
    }

    /// What is read of the vision encoder; `None` where that is the config's to say.
    pub fn features(&self) -> Option<FeatureSelection> {
        let (positions, post_layernorm) = match self.system {
            System::Blip2 => (SelectFeature::ClsPatch, true),
            System::QwenVl | System::Qwen25Vl | System::Qwen3Vl => (SelectFeature::Patch, false),
            System::NoteLlm2 => return None,
        };
        Some(FeatureSelection {
            layer: -1,
            positions,
            post_layernorm,
        })
    }

    /// The projector behind the connector; `None` where that is the config's to say.
    pub fn projector(&self) -> Option<&'static str> {
        match self.system {
            // Of the others no projector is read.
            System::Blip2 | System::QwenVl | System::Qwen25Vl | System::Qwen3Vl => Some("linear"),
            System::NoteLlm2 => None,
        }
    }

    /// Sizes of the connector, with notes on what its section of `config.json` says beside; `None` where
    /// the file does not describe it. Unknown keys of `accept_keys` pass.
    ///
    /// # Errors
    /// A file that cannot be read, and every option that is not implemented.
    pub fn connector(
        &self,
        accept_keys: &[String],
    ) -> Result<Option<Noted<ConnectorConfig>>, ModelError> {
        let path = self.config_path();
        let config = HfConfig::read(&path)?.accepting(Accepted {
            keys: accept_keys,
            setting: "model.connector.accept_keys",
        });
        match self.system {
            System::Blip2 => qformer(config).map(Some),
            System::QwenVl => resampler(config).map(Some),
            // The section is that of the vision encoder, which answers for its keys.
            System::Qwen25Vl | System::Qwen3Vl => {
                let (vision, _) = VisionConfig::glance(config)?;
                let merger = MergerConfig::behind(&vision).map(ConnectorConfig::Merger);
                Ok(merger.map(|config| Noted {
                    config,
                    notes: Vec::new(),
                }))
            }
            System::NoteLlm2 => Ok(None),
        }
    }
}

/// The language model of a Qwen2.5-VL as first published: its keys stand beside the section of the tower.
fn flat_qwen(
    path: &Path,
    config: HfConfig<'_>,
    accept_keys: &[String],
) -> Result<Noted<DecoderConfig>, ModelError> {
    let mut config = config.accepting(Accepted {
        keys: accept_keys,
        setting: "model.llm.accept_keys",
    });
    config.take("vision_config");
    // Of prompts.
    for token in ["image", "video", "vision", "vision_start", "vision_end"] {
        config.take(&format!("{token}_token_id"));
    }
    DecoderConfig::of_family(&families::qwen2_5_vl::FAMILY, path, config)
}

/// Whether a decoder's checkpoint holds more of NoteLLM-2, which its config.json does not tell.
fn is_notellm2(checkpoint: &Checkpoint) -> bool {
    let trained = [
        "linear.weight",
        "mm_projector_latefusion.weight",
        "query_tokens",
    ];
    checkpoint.contains("temperature") && trained.iter().any(|name| checkpoint.contains(name))
}
