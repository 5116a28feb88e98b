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
mod options;
mod rotary;
mod tower;

#[cfg(test)]
mod tests;

pub use blocks::{Grid, LayerSet, PatchBlocks};
pub use cache::{FeatureCache, FeatureKey, FeatureShape, PictureHash};
pub use config::VisionConfig;
pub use families::VisionEncoderFamily;
pub use options::{AttentionKind, MaskToken, MlpKind, Stretch, Summary};
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
    /// The selected positions of the selected hidden state, for the connector, `[notes, positions, v]`; where pictures
    /// have grids of their own, those of one note behind those of the other, `[1, positions of all, v]`.
    pub positions: Tensor<3>,
    /// The patches of each note's picture, where each has a grid of its own.
    pub grids: Option<Vec<Grid>>,
}

impl VisionFeatures {
    /// Those of `parts`, one below the other; `None` of none.
    pub fn cat(parts: Vec<Self>) -> Option<Self> {
        let grids: Option<Vec<_>> = parts.iter().map(|part| part.grids.clone()).collect();
        let (summaries, positions): (Vec<_>, Vec<_>) = parts
            .into_iter()
            .map(|part| (part.summary, part.positions))
            .unzip();
        (!summaries.is_empty()).then(|| Self {
            summary: Tensor::cat(summaries, 0),
            positions: Tensor::cat(positions, usize::from(grids.is_some())),
            grids: grids.map(|grids| grids.concat()),
        })
    }

    /// Where the positions of each note begin among those of all, and where the last ones end, where pictures have grids
    /// of their own.
    fn starts(grids: &[Grid]) -> Vec<usize> {
        let mut starts = vec![0];
        starts.extend(grids.iter().scan(0, |end, [rows, columns]| {
            *end += rows * columns;
            Some(*end)
        }));
        starts
    }

    /// Those of neighbouring notes.
    pub fn slice(self, notes: Range<usize>) -> Self {
        let summary = self.summary.narrow(0, notes.start, notes.len());
        let (positions, grids) = match self.grids {
            None => (self.positions.narrow(0, notes.start, notes.len()), None),
            Some(grids) => {
                let starts = Self::starts(&grids);
                let (start, end) = (starts[notes.start], starts[notes.end]);
                let positions = self.positions.narrow(1, start, end - start);
                (positions, Some(grids[notes].to_vec()))
            }
        };
        Self {
            summary,
            positions,
            grids,
        }
    }

    /// Those of some of the notes, in any order.
    pub fn select(self, rows: &[usize]) -> Self {
        let device = self.summary.device();
        let index = |places: Vec<i64>| -> Tensor<1, Int> {
            let count = places.len();
            upload(TensorData::new(places, [count]), &device)
        };
        let of_rows = index(rows.iter().map(|&row| row as i64).collect());
        let (positions, grids) = match self.grids {
            None => (self.positions.select(0, of_rows.clone()), None),
            Some(grids) => {
                let starts = Self::starts(&grids);
                let places = rows.iter().flat_map(|&row| starts[row]..starts[row + 1]);
                let places = index(places.map(|place| place as i64).collect());
                let grids = rows.iter().map(|&row| grids[row]).collect();
                (self.positions.select(1, places), Some(grids))
            }
        };
        Self {
            summary: self.summary.select(0, of_rows),
            positions,
            grids,
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

#[cfg(test)]
mod own_grids {
    use burn::tensor::Device;

    use super::*;

    /// Of a picture with this grid, each value being `value`.
    fn features(grid: Grid, value: f32) -> VisionFeatures {
        let device = Device::flex();
        let count = grid[0] * grid[1];
        VisionFeatures {
            summary: Tensor::full([1, 2], value, &device),
            positions: Tensor::full([1, count, 3], value, &device),
            grids: Some(vec![grid]),
        }
    }

    fn values(features: &VisionFeatures) -> (Vec<f32>, Vec<f32>) {
        let summary = features.summary.clone().narrow(1, 0, 1);
        let positions = features.positions.clone().narrow(2, 0, 1);
        let summary = summary.try_into_vec_as::<f32>().expect("values");
        let positions = positions.try_into_vec_as::<f32>().expect("values");
        (summary, positions)
    }

    #[test]
    fn features_of_pictures_of_any_size_go_together_and_apart() {
        let parts = [([1, 2], 1.0), ([2, 2], 2.0), ([1, 1], 3.0)];
        let parts = parts.map(|(grid, value)| features(grid, value));
        let all = VisionFeatures::cat(parts.to_vec()).expect("features");
        assert_eq!(all.positions.dims(), [1, 7, 3]);
        assert_eq!(all.grids, Some(vec![[1, 2], [2, 2], [1, 1]]));
        let some = all.clone().slice(1..3);
        assert_eq!(some.grids, Some(vec![[2, 2], [1, 1]]));
        let (summary, positions) = values(&some);
        assert_eq!(summary, [2.0, 3.0]);
        assert_eq!(positions, [2.0, 2.0, 2.0, 2.0, 3.0]);
        // In any order, and one twice.
        let some = all.select(&[2, 0, 2]);
        assert_eq!(some.grids, Some(vec![[1, 1], [1, 2], [1, 1]]));
        let (summary, positions) = values(&some);
        assert_eq!(summary, [3.0, 1.0, 3.0]);
        assert_eq!(positions, [3.0, 1.0, 1.0, 3.0]);
    }
}
