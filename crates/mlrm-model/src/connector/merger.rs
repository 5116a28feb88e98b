//! The merger of Qwen2.5-VL and Qwen3-VL: the patches of a block, side by side, become one visual token by a norm and two
//! linear maps. What is read beside the last layer of the encoder has mergers of its own, for the first layers of the
//! language model (DeepStack, arXiv 2406.04334).

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::bounds;
use crate::error::InvalidConfig;
use crate::nn::{LayerNorm, Linear, Norm, RmsNorm, linear};
use crate::ops::gelu;
use crate::vision::VisionConfig;

/// Added to the variance inside the norms; no file tells another.
const EPSILON: f64 = 1e-6;

/// Sizes of a merger, as `mlrm.toml` stores them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergerConfig {
    /// Side of the square of visual tokens (V of them).
    pub grid: usize,
    /// Side of a block in patches.
    pub merge: usize,
    /// Width of a hidden state of the vision encoder (v).
    pub encoder_hidden_size: usize,
    /// Layers of the encoder that are read beside the last.
    pub deep: usize,
    /// Norms are RMSNorm, else LayerNorm.
    pub rms_norm: bool,
}

impl MergerConfig {
    /// The merger behind `vision`; `None` where its patches do not go in blocks.
    pub fn behind(vision: &VisionConfig) -> Option<Self> {
        let blocks = vision.blocks?;
        Some(Self {
            grid: vision.grid() / blocks.merge.max(1),
            merge: blocks.merge,
            encoder_hidden_size: vision.hidden_size,
            deep: blocks.deep.count(),
            rms_norm: blocks.rms_norm,
        })
    }

    /// Refuses sizes that do not fit the encoder.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn check(&self, vision: &VisionConfig) -> Result<(), InvalidConfig> {
        bounds::check(&[("grid", self.grid, bounds::SIDE)])
            .map_err(|sizes| sizes.of("connector"))?;
        let message = match Self::behind(vision) {
            Some(fits) if fits == *self => return Ok(()),
            Some(fits) => format!(
                "connector: the merger {self:?} does not fit the vision encoder, which needs {fits:?}"
            ),
            None => format!(
                "connector: a merger reads blocks of patches, which the family {} does not have",
                vision.family().name
            ),
        };
        Err(InvalidConfig::new(&["connector"], message))
    }
}

/// The mergers of a model.
#[derive(Module, Debug)]
pub struct Mergers {
    /// Of the encoder's last layer.
    last: PatchMerger,
    /// Of those beside it.
    deep: Vec<PatchMerger>,
    merge: usize,
}

/// A norm, two linear maps and the exact GELU between them.
#[derive(Module, Debug)]
struct PatchMerger {
    /// Over the width of a patch, or of a block.
    norm: Norm,
    /// `[block, block]`
    fc1: Linear,
    /// `[block, d]`
    fc2: Linear,
    /// The norm sees a block as one vector.
    by_block: bool,
}

impl PatchMerger {
    fn new(config: &MergerConfig, by_block: bool, width: usize, device: &Device) -> Self {
        let block = config.encoder_hidden_size * config.merge.pow(2);
        let normal = match by_block {
            true => block,
            false => config.encoder_hidden_size,
        };
        Self {
            norm: match config.rms_norm {
                true => Norm::Rms(RmsNorm::new(normal, EPSILON, device)),
                false => Norm::Layer(LayerNorm::new(normal, EPSILON, device)),
            },
            fc1: linear(block, block, true, device),
            fc2: linear(block, width, true, device),
            by_block,
        }
    }

    /// `[notes, patches, v]` → `[notes, blocks, d]`
    fn forward(&self, x: Tensor<3>, merge: usize) -> Tensor<3> {
        let [notes, patches, width] = x.dims();
        let unit = merge.pow(2);
        let blocks = [notes, patches / unit, unit * width];
        let x = match self.by_block {
            true => self.norm.forward(x.reshape(blocks)),
            false => self.norm.forward(x).reshape(blocks),
        };
        self.fc2.forward(gelu(self.fc1.forward(x)))
    }
}

impl Mergers {
    /// Mergers of zeros to a language model that is `width` wide.
    pub fn new(config: &MergerConfig, width: usize, device: &Device) -> Self {
        let merger = |by_block| PatchMerger::new(config, by_block, width, device);
        Self {
            last: merger(false),
            deep: (0..config.deep).map(|_| merger(true)).collect(),
            merge: config.merge,
        }
    }

    /// Visual tokens, and what is added to the first layers' outputs at their positions, `[notes, V, d]` each, of
    /// `features` `[notes, patches, v * (1 + deep)]`, whose blocks follow each other, the blocks row by row.
    pub fn forward(&self, features: Tensor<3>) -> (Tensor<3>, Vec<Tensor<3>>) {
        let [_, _, all] = features.dims();
        let width = all / (1 + self.deep.len());
        let part = |index: usize| features.clone().narrow(2, index * width, width);
        let deep = self.deep.iter().enumerate();
        let deep = deep.map(|(index, merger)| merger.forward(part(1 + index), self.merge));
        (self.last.forward(part(0), self.merge), deep.collect())
    }
}
