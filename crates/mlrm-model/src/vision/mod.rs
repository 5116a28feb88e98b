//! Frozen vision encoders: one shared core (method §2.1), and the families that differ from it in what
//! [`VisionConfig`] says.
//!
//! The core is the pre-norm vision transformer: patches, positions, layers, and what is read of them.
//! A family's file ([`families`]) reads its `config.json` into a [`VisionConfig`] and names its tensors;
//! the guide's "Adding a model" walks through one.

mod blocks;
mod cache;
mod config;
mod encoder;
pub mod families;
mod rotary;
mod tower;

#[cfg(test)]
mod tests;

pub use blocks::{LayerSet, PatchBlocks};
pub use cache::{FeatureCache, FeatureKey, FeatureShape, PictureHash};
pub use config::{AttentionKind, MaskToken, MlpKind, Stretch, Summary, VisionConfig};
pub use families::VisionEncoderFamily;
pub use tower::{PICTURES_AT_A_TIME, VisionTower};

use std::ops::Range;

use crate::transfer::upload;

use burn::tensor::{Int, Tensor, TensorData};
use mlrm_config::{SelectFeature, VisionSettings};

/// Which part of what a vision encoder computes is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureSelection {
    /// Hidden state, counted like HF's `hidden_states`: 0 is what enters the first layer, -1 the
    /// output of the last one.
    pub layer: i32,
    /// Which positions the connector reads; without a class token all are patches.
    pub positions: SelectFeature,
    /// Whether the encoder's own last norm is applied to the state, as BLIP-2 does.
    pub post_layernorm: bool,
}

impl FeatureSelection {
    /// What a config section asks for.
    pub fn from_settings(settings: &VisionSettings) -> Self {
        Self {
            layer: settings.select_layer,
            positions: settings.select_feature,
            post_layernorm: settings.post_layernorm,
        }
    }
}

/// What the rest of the model reads of a picture.
#[derive(Debug, Clone)]
pub struct VisionFeatures {
    /// c, the picture as one vector, for late fusion, `[notes, v]`: the class token's state, or what
    /// the family has in its place.
    pub summary: Tensor<2>,
    /// The selected positions of the selected hidden state, for the connector, `[notes, positions, v]`.
    pub positions: Tensor<3>,
}

impl VisionFeatures {
    /// Those of `parts`, one below the other; `None` of none.
    pub fn cat(parts: Vec<Self>) -> Option<Self> {
        let (summaries, positions): (Vec<_>, Vec<_>) = parts
            .into_iter()
            .map(|part| (part.summary, part.positions))
            .unzip();
        (!summaries.is_empty()).then(|| Self {
            summary: Tensor::cat(summaries, 0),
            positions: Tensor::cat(positions, 0),
        })
    }

    /// Those of neighbouring notes.
    pub fn slice(self, notes: Range<usize>) -> Self {
        Self {
            summary: self.summary.narrow(0, notes.start, notes.len()),
            positions: self.positions.narrow(0, notes.start, notes.len()),
        }
    }

    /// Those of some of the notes, in any order.
    pub fn select(self, rows: &[usize]) -> Self {
        let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let count = rows.len();
        let index: Tensor<1, Int> = upload(TensorData::new(rows, [count]), &self.summary.device());
        Self {
            summary: self.summary.select(0, index.clone()),
            positions: self.positions.select(0, index),
        }
    }
}

/// The index into `hidden_states` (0…depth) that `select_layer` means; negative counts from the
/// end, -1 being the last layer's output.
pub fn selected_state(select_layer: i32, depth: usize) -> Option<usize> {
    let states = depth as i64 + 1;
    let index = if select_layer < 0 {
        states + i64::from(select_layer)
    } else {
        i64::from(select_layer)
    };
    (0..states).contains(&index).then_some(index as usize)
}
