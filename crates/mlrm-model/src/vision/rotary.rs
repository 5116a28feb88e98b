//! Rotary positions of patches: half the channels of a head turn with the row of their patch, half with its column. Of
//! DINOv3 (arXiv 2508.10104) it is the place within the picture that counts; where patches go in blocks, rows and columns
//! are counted.

use std::f64::consts::TAU;

use burn::tensor::Device;

use super::{Grid, PatchBlocks};
use crate::nn::{LastTables, RotaryTable};

/// The angles of an encoder, by the grid of patches and the positions before it.
#[derive(Debug, Clone)]
pub struct PatchRotary {
    theta: f64,
    head_dim: usize,
    blocks: Option<PatchBlocks>,
    last: LastTables<(Grid, usize)>,
}

impl PatchRotary {
    /// Angles of base `theta` for heads of `head_dim` channels, a multiple of 4.
    pub fn new(theta: f64, head_dim: usize, blocks: Option<PatchBlocks>) -> Self {
        Self {
            theta,
            head_dim,
            blocks,
            last: LastTables::default(),
        }
    }

    /// The table of `before` positions that do not turn (class token, registers), and a picture's patches after them, row
    /// by row or block after block.
    pub fn table(&self, grid: Grid, before: usize, device: &Device) -> RotaryTable {
        let key = (grid, before);
        let make = || RotaryTable::of_angles(&self.angles(grid, before), device);
        self.last
            .get(device, |found, _| *found == key, || (key, make()))
    }

    /// The angle of each channel pair at each position, `[before + patches][head_dim / 2]`. Without blocks centres of
    /// patches run from −1 to 1 along each side, whatever the size of the picture.
    fn angles(&self, grid: Grid, before: usize) -> Vec<Vec<f64>> {
        let count = self.head_dim / 4;
        let turns = |i: usize| self.theta.powf(-(i as f64) / count as f64);
        let [rows, columns] = grid;
        let centre = |place: usize, side: usize| 2.0 * (place as f64 + 0.5) / side as f64 - 1.0;
        let angle = |place: usize, side: usize, i: usize| match self.blocks {
            Some(_) => place as f64 * turns(i),
            None => TAU * centre(place, side) * turns(i),
        };
        let order = match &self.blocks {
            Some(blocks) => blocks.order(grid),
            None => (0..rows * columns).collect(),
        };
        let still = (0..before).map(|_| vec![0.0; 2 * count]);
        let patches = order.into_iter().map(|patch| {
            let along = |place: usize, side: usize| (0..count).map(move |i| angle(place, side, i));
            let down = along(patch / columns, rows);
            down.chain(along(patch % columns, columns)).collect()
        });
        still.chain(patches).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_run_over_the_picture_by_rows_and_columns() {
        let rotary = PatchRotary::new(100.0, 8, None);
        let angles = rotary.angles([2, 2], 3);
        assert_eq!(angles.len(), 3 + 4);
        assert!(angles[..3].iter().flatten().all(|&angle| angle == 0.0));
        // Centres are -0.5 and 0.5; the frequencies 1 and 100^(-1/2) turns.
        let (slow, fast) = (TAU * 0.05, TAU * 0.5);
        let expected = [
            [-fast, -slow, -fast, -slow],
            [-fast, -slow, fast, slow],
            [fast, slow, -fast, -slow],
            [fast, slow, fast, slow],
        ];
        for (found, expected) in angles[3..].iter().zip(expected) {
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 1e-12,
                    "{found} is not {expected}"
                );
            }
        }
    }
}
