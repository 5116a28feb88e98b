//! From vision features to visual tokens (method §2.2). One file a kind; the rest of the model sees
//! [`Connector`] alone.

mod merger;
mod projector;
mod qformer;
mod resampler;

pub use merger::{MergerConfig, Mergers};
pub use projector::{MlpConfig, Projector, projector_layers};
pub use qformer::{QFormer, QFormerConfig};
pub use resampler::{Resampler, ResamplerConfig};

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use mlrm_config::{ConnectorKind, ConnectorSettings, SelectFeature};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::ModelError;
use crate::nn::zeros;
use crate::vision::VisionConfig;

/// Kind and sizes of a connector, as `mlrm.toml` stores them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ConnectorConfig {
    /// A Q-Former, then a projector.
    QFormer(QFormerConfig),
    /// A projector alone.
    Mlp(MlpConfig),
    /// One cross-attention layer.
    Resampler(ResamplerConfig),
    /// Blocks of patches made one visual token each; it comes with whole models alone.
    Merger(MergerConfig),
}

/// Reads a connector's table; one without `kind` is of the time when there were only Q-Formers.
pub(crate) fn deserialize_connector<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<ConnectorConfig>, D::Error> {
    let Some(mut table) = Option::<toml::Table>::deserialize(deserializer)? else {
        return Ok(None);
    };
    table.entry("kind").or_insert_with(|| "qformer".into());
    let config = ConnectorConfig::deserialize(table).map_err(serde::de::Error::custom)?;
    Ok(Some(config))
}

impl ConnectorConfig {
    /// The connector of a config section behind a vision encoder of which it reads `select`.
    pub fn from_settings(
        settings: &ConnectorSettings,
        vision: &VisionConfig,
        select: SelectFeature,
    ) -> Self {
        let width = vision.feature_width();
        match settings.kind {
            ConnectorKind::QFormer => Self::QFormer(QFormerConfig::from_settings(settings, width)),
            ConnectorKind::Mlp => Self::Mlp(MlpConfig {
                positions: vision.positions(select),
                encoder_hidden_size: width,
            }),
            ConnectorKind::Resampler => {
                Self::Resampler(ResamplerConfig::from_settings(settings, width))
            }
        }
    }

    /// Visual tokens a note (V).
    pub fn visual_tokens(&self) -> usize {
        match self {
            Self::QFormer(config) => config.num_query_tokens,
            Self::Mlp(config) => config.positions,
            Self::Resampler(config) => config.num_query_tokens,
            Self::Merger(config) => config.grid.pow(2),
        }
    }

    /// Side of the square in which visual tokens stand, where rows and columns of it mean places of the picture.
    pub fn grid(&self) -> Option<usize> {
        match self {
            Self::Merger(config) => Some(config.grid),
            Self::QFormer(_) | Self::Mlp(_) | Self::Resampler(_) => None,
        }
    }

    /// The same for pictures of the size that `vision` reads.
    pub fn fitted(self, vision: &VisionConfig) -> Self {
        match (self, MergerConfig::behind(vision)) {
            (Self::Merger(config), Some(behind)) => Self::Merger(MergerConfig {
                grid: behind.grid,
                ..config
            }),
            (other, _) => other,
        }
    }

    /// Layers of a language model to whose outputs it adds.
    pub fn deep_layers(&self) -> usize {
        match self {
            Self::Merger(config) => config.deep,
            Self::QFormer(_) | Self::Mlp(_) | Self::Resampler(_) => 0,
        }
    }

    fn encoder_hidden_size(&self) -> usize {
        match self {
            Self::QFormer(config) => config.encoder_hidden_size,
            Self::Mlp(config) => config.encoder_hidden_size,
            Self::Resampler(config) => config.encoder_hidden_size,
            Self::Merger(config) => config.encoder_hidden_size * (1 + config.deep),
        }
    }

    /// Width of what the projector reads; `None` for a kind without one.
    pub fn projector_inputs(&self) -> Option<usize> {
        match self {
            Self::QFormer(config) => Some(config.hidden_size),
            Self::Mlp(config) => Some(config.encoder_hidden_size),
            Self::Resampler(_) | Self::Merger(_) => None,
        }
    }

    /// Refuses sizes that do not fit each other, the features of `vision`, or a language model that is
    /// `width` wide.
    ///
    /// # Errors
    /// Sizes that do not fit the vision encoder.
    pub fn check(
        &self,
        projector: &str,
        vision: &VisionConfig,
        select: SelectFeature,
        width: usize,
    ) -> Result<(), ModelError> {
        let (reads, gives) = (self.encoder_hidden_size(), vision.feature_width());
        if reads != gives {
            let message = format!(
                "connector: it reads features of width {reads}, but the vision encoder gives {gives}"
            );
            return Err(ModelError::config(&["encoder_hidden_size"], message));
        }
        if self.projector_inputs().is_some() {
            projector_layers(projector)?;
        }
        let positions = vision.positions(select);
        match self {
            Self::QFormer(config) => config.check()?,
            Self::Mlp(config) if config.positions != positions => {
                let message = format!(
                    "connector: it is made for {} positions, but the vision encoder gives {positions}",
                    config.positions
                );
                return Err(ModelError::config(&["positions"], message));
            }
            Self::Mlp(_) => {}
            Self::Resampler(config) => config.check(width, positions)?,
            Self::Merger(config) => config.check(vision)?,
        }
        Ok(())
    }
}

/// A connector of any kind: a kind has only its own parts. Field names are those of the authors'
/// released checkpoints.
#[derive(Module, Debug)]
pub struct Connector {
    /// Learnt queries of the Q-Former, `[1, V, width]`.
    query_tokens: Option<Param<Tensor<3>>>,
    qformer: Option<QFormer>,
    mm_projector: Option<Projector>,
    resampler: Option<Resampler>,
    merger: Option<Mergers>,
}

/// What a connector computes.
#[derive(Debug, Clone)]
pub struct ConnectorOutput {
    /// The Q-Former's states, `[notes, V, width]`.
    pub qformer: Option<Tensor<3>>,
    /// What stands at the image positions, `[notes, V, d]`.
    pub visual_tokens: Tensor<3>,
    /// What is added to the outputs of the language model's first layers there, `[notes, V, d]` each.
    pub deep: Vec<Tensor<3>>,
}

impl Connector {
    /// A connector of zeros to a language model that is `width` wide.
    ///
    /// # Errors
    /// A projector of a kind that is not known.
    pub fn new(
        config: &ConnectorConfig,
        projector: &str,
        width: usize,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let qformer = match config {
            ConnectorConfig::QFormer(config) => Some(config),
            _ => None,
        };
        let projector = config
            .projector_inputs()
            .map(|inputs| Projector::new(projector, inputs, width, device));
        Ok(Self {
            query_tokens: qformer.map(|c| zeros([1, c.num_query_tokens, c.hidden_size], device)),
            qformer: qformer.map(|c| QFormer::new(c, device)),
            mm_projector: projector.transpose()?,
            resampler: match config {
                ConnectorConfig::Resampler(config) => Some(Resampler::new(config, width, device)),
                _ => None,
            },
            merger: match config {
                ConnectorConfig::Merger(config) => Some(Mergers::new(config, width, device)),
                _ => None,
            },
        })
    }

    /// `features`: `[notes, positions, v]`
    pub fn forward(&self, features: Tensor<3>) -> ConnectorOutput {
        let (mut x, mut states) = (features, None);
        if let (Some(queries), Some(qformer)) = (&self.query_tokens, &self.qformer) {
            x = qformer.forward(queries.val(), x);
            states = Some(x.clone());
        }
        if let Some(projector) = &self.mm_projector {
            x = projector.forward(x);
        }
        if let Some(resampler) = &self.resampler {
            x = resampler.forward(x);
        }
        let mut deep = Vec::new();
        if let Some(merger) = &self.merger {
            (x, deep) = merger.forward(x);
        }
        ConnectorOutput {
            qformer: states,
            visual_tokens: x,
            deep,
        }
    }
}
