//! Sizes and options of an embedder: what `mlrm.toml` and the two `config.json` files hold.

use burn::tensor::Device;
use mlrm_config::{
    FusionKind, FusionSettings, ImageLayout, ModelSettings, PromptSettings, Variant,
};
use serde::{Deserialize, Serialize};

use super::EmbedderCore;
use super::layout::{SequenceLayout, TokenBatch, VisualTokens};
use crate::connector::ConnectorConfig;
use crate::decoder::DecoderConfig;
use crate::error::ModelError;
use crate::vision::{FeatureSelection, VisionConfig, VisionFeatures, VisionTower, selected_state};
use crate::weights::{NamedTensor, named_tensors};

/// Ids of the tokens that the model treats specially.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenIds {
    /// Fills rows on the right.
    pub pad: u32,
    /// The image placeholder.
    pub image: Option<u32>,
    /// Its predecessor's state is the visual one (mICL).
    pub image_emb: Option<u32>,
    /// Closes a picture in the `after` layout.
    pub image_end: Option<u32>,
}

/// Late fusion, as `mlrm.toml` stores it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FusionConfig {
    /// The gate.
    pub kind: FusionKind,
    /// Inner width of the scalar gate.
    pub hidden_size: usize,
    /// Initial weight of the LLM state.
    pub initial_weight: f64,
    /// The vector gate has a bias, which lets it begin elsewhere than at a half. Stored where it has one: not all folders whose
    /// `initial_weight` is another do, for it was once the scalar gate's alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bias: bool,
}

impl FusionConfig {
    /// The gate that `settings` mean.
    fn from_settings(settings: &FusionSettings) -> Self {
        let FusionSettings {
            kind,
            hidden_size,
            initial_weight,
        } = *settings;
        Self {
            kind,
            hidden_size,
            initial_weight,
            bias: kind == FusionKind::Vector && initial_weight != 0.5,
        }
    }
}

/// How notes were put into prompts when the model was trained.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptRecord {
    /// The settings; a template of one's own is stored beside, as `template.toml`.
    pub settings: PromptSettings,
}

/// Sizes and options of an embedder.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedderConfig {
    /// Which of the paper's models it is.
    pub variant: Variant,
    /// Where the visual tokens stand.
    pub layout: ImageLayout,
    /// The language model.
    pub llm: DecoderConfig,
    /// The vision encoder; absent for `text`.
    pub vision: Option<VisionConfig>,
    /// What is read of it.
    pub features: FeatureSelection,
    /// From features to visual tokens; absent where none stand in the prompt.
    pub connector: Option<ConnectorConfig>,
    /// `linear` or `mlp{n}x_gelu`.
    pub projector: String,
    /// The gate; absent without late fusion.
    pub fusion: Option<FusionConfig>,
    /// Embedding size; 0 leaves the last projection out.
    pub head_dim: usize,
    /// Special token ids.
    pub tokens: TokenIds,
}

impl EmbedderConfig {
    /// The embedder that `settings` mean, over an LLM and a vision encoder of the given sizes.
    ///
    /// # Errors
    /// Sizes that do not fit each other.
    pub fn from_settings(
        settings: &ModelSettings,
        layout: ImageLayout,
        llm: DecoderConfig,
        vision: Option<VisionConfig>,
        tokens: TokenIds,
    ) -> Result<Self, ModelError> {
        Self::with_connector(settings, layout, llm, vision, None, tokens)
    }

    /// As [`Self::from_settings`], with the connector that a whole model brings, if it does.
    ///
    /// # Errors
    /// Sizes that do not fit each other.
    pub fn with_connector(
        settings: &ModelSettings,
        layout: ImageLayout,
        llm: DecoderConfig,
        vision: Option<VisionConfig>,
        connector: Option<ConnectorConfig>,
        tokens: TokenIds,
    ) -> Result<Self, ModelError> {
        let variant = settings.variant;
        let features = FeatureSelection::from_settings(&settings.vision);
        let connector =
            vision
                .as_ref()
                .filter(|_| variant.image_tokens())
                .map(|v| match connector {
                    Some(connector) => connector.fitted(v),
                    None => {
                        ConnectorConfig::from_settings(&settings.connector, v, features.positions)
                    }
                });
        let config = Self {
            variant,
            layout,
            llm,
            vision,
            features,
            connector,
            projector: settings.connector.projector.clone(),
            fusion: variant
                .late_fusion()
                .then(|| FusionConfig::from_settings(&settings.fusion)),
            head_dim: settings.head.dim,
            tokens,
        };
        config.check()?;
        Ok(config)
    }

    /// Refuses sizes that do not fit each other.
    ///
    /// # Errors
    /// Sizes that do not fit each other.
    pub fn check(&self) -> Result<(), ModelError> {
        let fail = |key, message: String| Err(ModelError::config(&[key], message));
        if self.variant.vision() != self.vision.is_some() {
            return fail(
                "variant",
                format!(
                    "variant `{}` {} a vision encoder",
                    self.variant.name(),
                    if self.variant.vision() {
                        "needs"
                    } else {
                        "has no place for"
                    }
                ),
            );
        }
        let Some(vision) = &self.vision else {
            return Ok(());
        };
        if selected_state(self.features.layer, vision.num_hidden_layers).is_none() {
            return fail(
                "select_layer",
                format!(
                    "select_layer = {} is not one of the {} hidden states of the vision encoder",
                    self.features.layer,
                    vision.num_hidden_layers + 1
                ),
            );
        }
        if self.features.post_layernorm && !vision.has_post_layernorm() {
            return fail(
                "post_layernorm",
                "post_layernorm = true: this vision encoder has no norm after its layers".into(),
            );
        }
        if let Some(connector) = &self.connector {
            let width = self.llm.word_embed_proj_dim;
            connector.check(&self.projector, vision, self.features.positions, width)?;
            let (deep, layers) = (connector.deep_layers(), self.llm.num_hidden_layers);
            if deep >= layers {
                return fail(
                    "connector",
                    format!(
                        "the connector adds to {deep} layers of the language model and its last one must not be \
                     among them, but there are {layers}"
                    ),
                );
            }
        }
        Ok(())
    }

    /// The tensors of the model, without values: what its weights will take can be told before any
    /// is made.
    ///
    /// # Errors
    /// Sizes that do not fit each other.
    pub fn tensors(&self) -> Result<Vec<NamedTensor>, ModelError> {
        let nowhere = Device::default();
        let own = |name: &str| name.to_owned();
        let mut tensors = named_tensors(&EmbedderCore::new(self, &nowhere)?, own);
        if let Some(vision) = &self.vision {
            let tower = VisionTower::zeros(vision, &nowhere);
            tensors.extend(named_tensors(&tower, own));
        }
        Ok(tensors)
    }

    /// Visual tokens a note (V), the most of any where pictures have grids of their own; 0 without a connector.
    pub fn visual_tokens(&self) -> usize {
        let Some(connector) = &self.connector else {
            return 0;
        };
        let most = self.vision.as_ref().and_then(|vision| vision.own_grids);
        most.unwrap_or_else(|| connector.visual_tokens())
    }

    /// Whether each picture has a grid of patches of its own.
    pub fn has_own_grids(&self) -> bool {
        let vision = self.vision.as_ref();
        vision.is_some_and(|vision| vision.own_grids.is_some())
    }

    /// Width of an embedding (e).
    pub fn embedding_size(&self) -> usize {
        match self.head_dim {
            0 => self.llm.word_embed_proj_dim,
            dim => dim,
        }
    }

    /// Where everything stands in the sequences of `tokens`, whose pictures' features are `features`; these count where
    /// pictures have grids of their own.
    ///
    /// # Errors
    /// Tokens that do not fit this variant, or features that do not fit these.
    pub fn layout(
        &self,
        tokens: &TokenBatch,
        features: Option<&VisionFeatures>,
    ) -> Result<SequenceLayout, ModelError> {
        if tokens.image_index.is_some() && self.connector.is_none() {
            let message = format!(
                "the prompt holds an image token but variant `{}` has no connector",
                self.variant.name()
            );
            return Err(ModelError::config(&["variant"], message));
        }
        SequenceLayout::new(tokens, self.tokens_of(tokens, features)?, self.layout)
    }

    /// The visual tokens of the pictures of a batch.
    fn tokens_of(
        &self,
        tokens: &TokenBatch,
        features: Option<&VisionFeatures>,
    ) -> Result<VisualTokens, ModelError> {
        let blocks = self.vision.as_ref().and_then(|vision| vision.blocks);
        let (Some(blocks), true) = (blocks, self.has_own_grids()) else {
            let grid = self.connector.as_ref().and_then(ConnectorConfig::grid);
            return Ok(VisualTokens::Same {
                count: self.visual_tokens(),
                grid: grid.map(|side| [side; 2]),
            });
        };
        let pictures = tokens.picture_rows().is_none_or(|rows| !rows.is_empty());
        let grids = features.and_then(|features| features.grids.as_ref());
        match grids {
            Some(grids) if grids.len() == tokens.notes() => {
                let grids = grids.iter().map(|&grid| blocks.blocks_of(grid));
                Ok(VisualTokens::Own(grids.collect()))
            }
            None if tokens.image_index.is_none() || !pictures => Ok(VisualTokens::Own(Vec::new())),
            _ => Err(ModelError::batch(
                "the prompt holds an image token but the batch has no grid of each picture",
            )),
        }
    }
}
