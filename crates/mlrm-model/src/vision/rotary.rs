//! Rotary positions of patches (DINOv3, arXiv 2508.10104): half the channels of a head turn with the row of
//! their patch, half with its column.

use std::f64::consts::TAU;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Device;

use crate::nn::RotaryTable;

/// The angles of an encoder, and the last table of them that was needed. Clones share it.
#[derive(Debug, Clone)]
pub struct PatchRotary {
    theta: f64,
    head_dim: usize,
    last: Arc<Mutex<Option<CachedTable>>>,
}

#[derive(Debug)]
struct CachedTable {
    grid: usize,
    before: usize,
    device: Device,
    table: RotaryTable,
}

impl PatchRotary {
    /// Angles of base `theta` for heads of `head_dim` channels, a multiple of 4.
    pub fn new(theta: f64, head_dim: usize) -> Self {
        Self {
            theta,
            head_dim,
            last: Arc::default(),
        }
    }

    /// The table of `before` positions that do not turn (class token, registers), and `grid` by `grid` patches row by
    /// row after them.
    pub fn table(&self, grid: usize, before: usize, device: &Device) -> RotaryTable {
        // A thread that panicked while it held the lock left a whole table or none.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(found)
                if (found.grid, found.before) == (grid, before) && found.device == *device =>
            {
                found.table.clone()
            }
            _ => {
                let table = RotaryTable::of_angles(&self.angles(grid, before), device);
                *last = Some(CachedTable {
                    grid,
                    before,
                    device: device.clone(),
                    table: table.clone(),
                });
                table
            }
        }
    }

    /// The angle of each channel pair at each position, `[before + grid²][head_dim / 2]`: centres of patches run
    /// from −1 to 1 along each side, whatever the size of the picture.
    fn angles(&self, grid: usize, before: usize) -> Vec<Vec<f64>> {
        let count = self.head_dim / 4;
        let frequency = |i: usize| TAU * self.theta.powf(-(i as f64) / count as f64);
        let centre = |place: usize| 2.0 * (place as f64 + 0.5) / grid as f64 - 1.0;
        let still = (0..before).map(|_| vec![0.0; 2 * count]);
        let patches = (0..grid * grid).map(|patch| {
            let along = |place: usize| (0..count).map(move |i| centre(place) * frequency(i));
            along(patch / grid).chain(along(patch % grid)).collect()
        });
        still.chain(patches).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_run_over_the_picture_by_rows_and_columns() {
        let rotary = PatchRotary::new(100.0, 8);
        let angles = rotary.angles(2, 3);
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

    #[test]
    fn a_table_is_kept_until_other_pictures_come() {
        let rotary = PatchRotary::new(100.0, 8);
        let device = Device::default();
        let held = |rotary: &PatchRotary| {
            let last = rotary.last.lock().expect("not poisoned");
            last.as_ref().map(|last| (last.grid, last.before))
        };
        rotary.table(2, 1, &device);
        rotary.clone().table(2, 1, &device);
        assert_eq!(held(&rotary), Some((2, 1)));
        rotary.table(3, 1, &device);
        assert_eq!(held(&rotary), Some((3, 1)));
    }
}
