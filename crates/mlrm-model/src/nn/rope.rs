//! Rotary position embedding (RoFormer, arXiv 2104.09864), in the half-split layout of Llama.

use std::f64::consts::TAU;

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::transfer::upload;

/// The rotary angles of a decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Base of the angles (HF `rope_theta`).
    pub theta: f64,
    /// How the angles are stretched for long input.
    pub scaling: RopeScaling,
}

/// Stretched rotary angles, by their Hugging Face names (`rope_type`); the fields too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Angles as in RoFormer.
    Default,
    /// Every frequency divided by `factor` (position interpolation, arXiv 2306.15595).
    Linear {
        /// How many times longer input may be.
        factor: f64,
    },
    /// A larger base for input longer than `max_position_embeddings` ("NTK-aware"); shorter input
    /// is as in `Default`.
    Dynamic {
        /// How fast the base grows.
        factor: f64,
        /// Length from which on the base grows.
        max_position_embeddings: usize,
    },
    /// Low frequencies divided by `factor`, high ones kept, a blend between (Llama 3.1).
    Llama3 {
        /// How many times longer input may be.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings` / this are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings` / this are kept.
        high_freq_factor: f64,
        /// Length that the model was first trained for.
        original_max_position_embeddings: usize,
    },
}

impl Rope {
    /// Angle per position of each channel pair in input of `seq` positions, `head_dim / 2` values.
    ///
    /// `Dynamic` looks at the padded length, as Hugging Face does.
    pub fn frequencies(&self, head_dim: usize, seq: usize) -> Vec<f64> {
        let width = head_dim as f64;
        let theta = match self.scaling {
            RopeScaling::Dynamic {
                factor,
                max_position_embeddings: limit,
            } => {
                let stretch = factor * seq.max(limit) as f64 / limit as f64 - (factor - 1.0);
                self.theta * stretch.powf(width / (width - 2.0))
            }
            _ => self.theta,
        };
        let plain = (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / width));
        plain.map(|frequency| self.scaled(frequency)).collect()
    }

    fn scaled(&self, frequency: f64) -> f64 {
        match self.scaling {
            RopeScaling::Default | RopeScaling::Dynamic { .. } => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: length,
            } => {
                let periods = length as f64 * frequency / TAU;
                let kept = ((periods - low) / (high - low)).clamp(0.0, 1.0);
                frequency * (kept + (1.0 - kept) / factor)
            }
        }
    }
}

/// Time, row and column of a position: the same number thrice in text, the place in its picture of a visual token.
pub type Place = [usize; 3];

/// Which channel pairs turn with time, which with row and which with column (M-RoPE, arXiv 2409.12191).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultimodalRope {
    /// Channel pairs of each of the three.
    pub sections: [usize; 3],
    /// The three take turns from the first pair on, time has what is left (Qwen3-VL); else one section follows the
    /// other (Qwen2.5-VL).
    pub interleaved: bool,
}

impl MultimodalRope {
    /// The entry of a [`Place`] that channel pair `pair` turns with.
    fn axis(&self, pair: usize) -> usize {
        let [time, row, _] = self.sections;
        if !self.interleaved {
            return usize::from(pair >= time) + usize::from(pair >= time + row);
        }
        match pair % 3 {
            0 => 0,
            axis if pair < 3 * self.sections[axis] => axis,
            _ => 0,
        }
    }
}

/// Cosines and sines of the rotary angles of positions 0…T−1, computed in f64 and stored in f32.
///
/// One table serves every layer and both queries and keys.
#[derive(Debug, Clone)]
pub struct RotaryTable {
    /// `[seq or more, head_dim / 2]`
    cos: Tensor<2>,
    /// `[seq or more, head_dim / 2]`
    sin: Tensor<2>,
    /// Every item of a batch has angles of its own, `[batch * seq, head_dim / 2]`.
    by_item: bool,
}

/// The last [`RotaryTable`] that a model needed on each device, with what it was made from, so that it is not
/// computed and uploaded again with every pass. Clones share it.
#[derive(Debug, Clone)]
pub struct LastTables<K> {
    last: Arc<Mutex<Vec<(Device, K, RotaryTable)>>>,
}

impl<K> Default for LastTables<K> {
    fn default() -> Self {
        Self {
            last: Arc::default(),
        }
    }
}

impl<K> LastTables<K> {
    /// The last table on `device`, where it `fits`; else a new one, which takes its place.
    pub fn get(
        &self,
        device: &Device,
        fits: impl FnOnce(&K, &RotaryTable) -> bool,
        make: impl FnOnce() -> (K, RotaryTable),
    ) -> RotaryTable {
        // A thread that panicked while it held the lock left a whole table or none.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let here = last.iter().position(|(on, ..)| on == device);
        if let Some((_, key, table)) = here.map(|here| &last[here])
            && fits(key, table)
        {
            return table.clone();
        }
        let (key, table) = make();
        let made = (device.clone(), key, table.clone());
        match here {
            Some(here) => last[here] = made,
            None => last.push(made),
        }
        table
    }
}

/// The rotary tables of a decoder, by their frequencies.
#[derive(Debug, Clone)]
pub struct RotaryCache {
    rope: Rope,
    head_dim: usize,
    last: LastTables<Vec<f64>>,
}

/// Tables are made for a multiple of this many positions, so that batches of nearly the same length
/// share one.
const TABLE_STEP: usize = 128;

impl RotaryCache {
    /// A cache without a table.
    pub fn new(rope: Rope, head_dim: usize) -> Self {
        Self {
            rope,
            head_dim,
            last: LastTables::default(),
        }
    }

    /// The table of a batch whose positions, item after item, stand at `places`, `seq` of each item.
    pub fn table_at(
        &self,
        places: &[Place],
        seq: usize,
        rope: MultimodalRope,
        device: &Device,
    ) -> RotaryTable {
        let frequencies = self.rope.frequencies(self.head_dim, seq);
        let of_pair: Vec<usize> = (0..frequencies.len()).map(|pair| rope.axis(pair)).collect();
        let angles = |place: &Place| {
            let pairs = frequencies.iter().zip(&of_pair);
            pairs.map(|(w, &axis)| place[axis] as f64 * w).collect()
        };
        RotaryTable {
            by_item: true,
            ..RotaryTable::of_angles(&places.iter().map(angles).collect::<Vec<_>>(), device)
        }
    }

    /// The table for input of `seq` positions on `device`.
    pub fn table(&self, seq: usize, device: &Device) -> RotaryTable {
        let frequencies = self.rope.frequencies(self.head_dim, seq);
        self.last.get(
            device,
            |found, table| table.positions() >= seq && *found == frequencies,
            || {
                let rows = seq.next_multiple_of(TABLE_STEP);
                let table = RotaryTable::new(rows, &frequencies, device);
                (frequencies.clone(), table)
            },
        )
    }
}

impl RotaryTable {
    /// The table of positions 0…rows−1: angle(p, i) = p · frequencies\[i\].
    pub fn new(rows: usize, frequencies: &[f64], device: &Device) -> Self {
        let at = |p: usize| frequencies.iter().map(|w| p as f64 * w).collect();
        Self::of_angles(&(0..rows).map(at).collect::<Vec<_>>(), device)
    }

    /// The table of given angles, one list of `head_dim / 2` a position.
    pub fn of_angles(angles: &[Vec<f64>], device: &Device) -> Self {
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = angles
                .iter()
                .flatten()
                .map(|&angle| f(angle) as f32)
                .collect();
            let pairs = values.len() / angles.len().max(1);
            upload(TensorData::new(values, [angles.len(), pairs]), device)
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
            by_item: false,
        }
    }

    /// Whether items of a batch have angles of their own.
    pub fn is_by_item(&self) -> bool {
        self.by_item
    }

    /// Positions that it has angles for.
    fn positions(&self) -> usize {
        self.cos.dims()[0]
    }

    /// Cosines and sines, `[seq or more, head_dim / 2]` each.
    pub fn tables(&self) -> [Tensor<2>; 2] {
        [self.cos.clone(), self.sin.clone()]
    }

    /// Rotates each head of `x` by its position: `x · cos + rotate_half(x) · sin`.
    ///
    /// # Shapes
    /// `[batch, seq, heads, head_dim]` → the same
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, seq, heads, head_dim] = x.dims();
        let x = match self.by_item {
            true => x.reshape([1, batch * seq, heads, head_dim]),
            false => x,
        };
        let x = crate::ops::rotate(x, self.cos.clone(), self.sin.clone());
        x.reshape([batch, seq, heads, head_dim])
    }

    /// Rotates rows whose positions differ from row to row (the pooled rows of the last layer).
    ///
    /// # Shapes
    /// `x`: `[batch, rows, heads, head_dim]`; `positions`: batch · rows rows of the table.
    pub fn apply_at(&self, x: Tensor<4>, positions: Tensor<1, Int>) -> Tensor<4> {
        let [batch, rows, heads, head_dim] = x.dims();
        let cos = self.cos.clone().select(0, positions.clone());
        let sin = self.sin.clone().select(0, positions);
        let x = x.reshape([1, batch * rows, heads, head_dim]);
        crate::ops::rotate(x, cos, sin).reshape([batch, rows, heads, head_dim])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(scaling: RopeScaling, seq: usize) -> Vec<f64> {
        let rope = Rope {
            theta: 10_000.0,
            scaling,
        };
        rope.frequencies(8, seq)
    }

    #[test]
    fn a_table_is_kept_until_longer_or_other_input_comes() {
        let device = Device::default();
        let scaling = RopeScaling::Dynamic {
            factor: 4.0,
            max_position_embeddings: 300,
        };
        let rope = Rope {
            theta: 10_000.0,
            scaling,
        };
        let cache = RotaryCache::new(rope, 8);
        let held = |cache: &RotaryCache| {
            let last = cache.last.last.lock().expect("not poisoned");
            last.first().map(|(.., table)| table.positions())
        };
        assert_eq!(cache.table(5, &device).positions(), 128);
        assert_eq!(cache.clone().table(128, &device).positions(), 128);
        assert_eq!(cache.table(129, &device).positions(), 256);
        assert_eq!(cache.table(7, &device).positions(), 256);
        assert_eq!(held(&cache), Some(256));
        // Longer than the limit, each length has angles of its own.
        let stretched = cache.table(383, &device);
        let again = cache.table(384, &device);
        let cos = |table: RotaryTable| table.cos.try_into_vec_as::<f32>().expect("values");
        let (stretched, again) = (cos(stretched), cos(again));
        assert_eq!(stretched.len(), again.len());
        assert_ne!(stretched, again);
        let fresh = RotaryTable::new(384, &rope.frequencies(8, 384), &device);
        assert_eq!(again, cos(fresh));
    }

    #[test]
    fn input_within_the_limit_is_not_stretched() {
        let dynamic = RopeScaling::Dynamic {
            factor: 4.0,
            max_position_embeddings: 64,
        };
        let plain = frequencies(RopeScaling::Default, 64);
        assert_eq!(frequencies(dynamic, 64), plain);
        let longer = frequencies(dynamic, 65);
        assert_eq!(longer[0], plain[0]);
        assert!(longer[3] < plain[3], "{longer:?} {plain:?}");
    }

    #[test]
    fn llama3_keeps_high_and_divides_low_frequencies() {
        let scaled = frequencies(
            RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 100,
            },
            10,
        );
        // Periods in 100 positions: 15.9, 1.59, 0.159, 0.0159.
        let plain = frequencies(RopeScaling::Default, 10);
        assert_eq!(scaled[0], plain[0]);
        assert!(plain[1] / 8.0 < scaled[1] && scaled[1] < plain[1]);
        for pair in [2, 3] {
            assert!((scaled[pair] * 8.0 / plain[pair] - 1.0).abs() < 1e-12);
        }
    }
}
