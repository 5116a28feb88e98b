//! Where the parts of a new model come from: a whole model of others, folders of its parts, or nowhere.

use std::path::Path;

use mlrm_config::{ConnectorKind, FusionSettings, ImageLayout, ModelPath, ModelSettings};
use mlrm_model::decoder::DecoderConfig;
use mlrm_model::embedder::{EmbedderConfig, TokenIds, WeightSource};
use mlrm_model::system::{System, SystemPart, WholeSystem};
use mlrm_model::vision::VisionConfig;

use crate::error::TrainError;

/// What `model.checkpoint` holds, where it is set. For all that it does not bring, the sections of
/// `[model]` speak.
pub(crate) struct Parts {
    whole: Option<WholeSystem>,
    /// What `model.connector.path` holds.
    connector: Option<WholeSystem>,
}

impl Parts {
    /// Reads config and tensor names of `model.checkpoint` and `model.connector.path`.
    pub(crate) fn open(settings: &ModelSettings) -> Result<Self, TrainError> {
        let open = |path: &Option<ModelPath>| path.as_deref().map(WholeSystem::open).transpose();
        let parts = Self {
            whole: open(&settings.checkpoint)?,
            // A variant without visual tokens has no connector.
            connector: match settings.variant.image_tokens() {
                true => open(&settings.connector.path)?,
                false => None,
            },
        };
        let wanted = settings.connector.kind;
        let found = match parts.connector.as_ref().map(|whole| whole.system) {
            None => return Ok(parts),
            Some(System::Blip2) => ConnectorKind::QFormer,
            Some(System::QwenVl) => ConnectorKind::Resampler,
            Some(System::Qwen25Vl | System::Qwen3Vl) => {
                return Err(TrainError::Refused(
                    "model.connector.path: the merger of this model belongs to its own vision encoder and \
                     language model; start from the whole of it with model.checkpoint"
                        .into(),
                ));
            }
            Some(System::NoteLlm2) => {
                return Err(TrainError::Refused(
                    "model.connector.path: the config.json of a NoteLLM-2 does not describe its \
                     Q-Former; start from the whole of it with model.checkpoint"
                        .into(),
                ));
            }
        };
        if found != wanted {
            return Err(TrainError::Refused(format!(
                "model.connector.path holds a connector of the kind {found:?}, but \
                 model.connector.kind says {wanted:?}; make them agree"
            )));
        }
        Ok(parts)
    }

    /// Whether `model.checkpoint` brings a vision encoder with the merger behind it.
    pub(crate) fn has_merger(&self) -> bool {
        let system = self.whole.as_ref().map(|whole| whole.system);
        matches!(system, Some(System::Qwen25Vl | System::Qwen3Vl))
    }

    /// Whose connector a head from scratch starts with.
    pub(crate) fn bare_connector(&self) -> Option<WholeSystem> {
        self.connector.clone()
    }

    /// The folder that may hold the tokenizer.
    pub(crate) fn llm_folder<'a>(&'a self, settings: &'a ModelSettings) -> Option<&'a Path> {
        match &self.whole {
            Some(whole) => Some(whole.root()),
            None => settings.llm.path.as_deref(),
        }
    }

    /// The language model; `None` for one from scratch.
    pub(crate) fn llm(
        &self,
        settings: &ModelSettings,
    ) -> Result<Option<DecoderConfig>, TrainError> {
        let accepted = &settings.llm.accept_keys;
        let llm = match (&self.whole, &settings.llm.path) {
            (Some(whole), _) => whole.llm(accepted)?.config,
            (None, Some(folder)) => {
                DecoderConfig::read_accepting(&folder.join("config.json"), accepted)?.config
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(match settings.llm.keep_layers {
            Some(layers) => llm.keep_layers(layers)?,
            None => llm,
        }))
    }

    /// The vision encoder.
    pub(crate) fn vision(&self, settings: &ModelSettings) -> Result<VisionConfig, TrainError> {
        let whole = self.whole.as_ref();
        let accepted = &settings.vision.accept_keys;
        let described = whole.map(|whole| whole.vision(accepted)).transpose()?;
        let described = described.flatten().map(|vision| vision.config);
        match (described, &settings.vision.path) {
            (Some(_), Some(path)) => Err(TrainError::Refused(format!(
                "model.vision.path = {}: model.checkpoint brings its own vision encoder; leave one of \
                 them out",
                path.display()
            ))),
            (Some(vision), None) => Ok(vision),
            (None, Some(folder)) => {
                let config = folder.join("config.json");
                Ok(VisionConfig::read_accepting(&config, accepted)?.config)
            }
            (None, None) if whole.is_some() => Err(TrainError::Refused(
                "model.checkpoint: its config.json describes the language model alone; set \
                 model.vision.path to the folder of the CLIP encoder that it was trained with"
                    .into(),
            )),
            (None, None) => Ok(VisionConfig::from_settings(&settings.vision)),
        }
    }

    /// The folder that may say how pictures are prepared.
    pub(crate) fn pictures<'a>(&'a self, settings: &'a ModelSettings) -> Option<&'a Path> {
        let whole = self.whole.as_ref().map(WholeSystem::root);
        settings.vision.path.as_deref().or(whole)
    }

    /// Sizes of the whole embedder.
    pub(crate) fn embedder(
        &self,
        settings: &ModelSettings,
        layout: ImageLayout,
        llm: DecoderConfig,
        vision: Option<VisionConfig>,
        tokens: TokenIds,
    ) -> Result<EmbedderConfig, TrainError> {
        let accepted = &settings.connector.accept_keys;
        let Some(whole) = &self.whole else {
            let connector = self.connector.as_ref();
            let connector = connector
                .map(|whole| whole.connector(accepted))
                .transpose()?;
            let connector = connector.flatten().map(|connector| connector.config);
            return Ok(EmbedderConfig::with_connector(
                settings, layout, llm, vision, connector, tokens,
            )?);
        };
        let weight = settings.fusion.initial_weight;
        if whole.system == System::NoteLlm2 && weight != FusionSettings::default().initial_weight {
            return Err(TrainError::Refused(format!(
                "model.fusion.initial_weight = {weight}: the NoteLLM-2 in model.checkpoint brings its trained gate; \
                 leave the key out"
            )));
        }
        let mut settings = settings.clone();
        if let Some(features) = whole.features() {
            settings.vision.select_layer = features.layer;
            settings.vision.select_feature = features.positions;
            settings.vision.post_layernorm = features.post_layernorm;
        }
        if let Some(projector) = whole.projector() {
            settings.connector.projector = projector.into();
        }
        let connector = whole.connector(accepted)?.map(|connector| connector.config);
        Ok(EmbedderConfig::with_connector(
            &settings, layout, llm, vision, connector, tokens,
        )?)
    }

    /// Where the weights of language model, vision encoder and head come from.
    pub(crate) fn sources(
        &self,
        settings: &ModelSettings,
    ) -> Result<[WeightSource; 3], TrainError> {
        let folder = |path: &Option<ModelPath>| match path {
            Some(path) => WeightSource::Checkpoint(path.to_path_buf()),
            None => WeightSource::Scratch,
        };
        let Some(whole) = &self.whole else {
            return Ok([
                folder(&settings.llm.path),
                folder(&settings.vision.path),
                WeightSource::Scratch,
            ]);
        };
        let system = || WeightSource::System(whole.clone());
        // NoteLLM-2 without its encoder: it was frozen, so that the published one is the same.
        let held = whole
            .checkpoint(SystemPart::Vision)?
            .names()
            .next()
            .is_some();
        let vision = match held {
            true => system(),
            false => folder(&settings.vision.path),
        };
        Ok([system(), vision, system()])
    }
}
