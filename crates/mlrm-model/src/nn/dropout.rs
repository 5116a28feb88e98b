//! Dropout whose masks are a function of seed, step and place: a resumed run draws the same ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::{Bool, Device, Tensor, TensorData};

/// Whether dropout is on, and for which training step. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct DropoutClock {
    /// Step + 1; 0 is off.
    state: Arc<AtomicU64>,
}

/// Dropout is on while this lives.
#[must_use = "dropout is off again when this is dropped"]
pub struct DropoutOn(DropoutClock);

impl DropoutClock {
    /// Turns dropout on with the masks of `step`, until the result is dropped.
    pub fn at_step(&self, step: u64) -> DropoutOn {
        self.state.store(step + 1, Ordering::Relaxed);
        DropoutOn(self.clone())
    }

    fn step(&self) -> Option<u64> {
        self.state.load(Ordering::Relaxed).checked_sub(1)
    }
}

impl Drop for DropoutOn {
    fn drop(&mut self) {
        self.0.state.store(0, Ordering::Relaxed);
    }
}

/// Dropout at one place of a model.
#[derive(Debug, Clone)]
pub struct Dropout {
    rate: f64,
    stream: u64,
    clock: DropoutClock,
}

impl Dropout {
    /// Drops a share `rate`, in [0, 1), of the values while `clock` is on; `stream` tells the masks
    /// of this place from those of others and of other seeds.
    pub fn new(rate: f64, stream: u64, clock: DropoutClock) -> Self {
        Self {
            rate,
            stream,
            clock,
        }
    }

    /// What the values that are kept must be multiplied with: 1 / (1 − rate) while dropout is on.
    pub fn gain(&self) -> f64 {
        match self.clock.step() {
            Some(_) => 1.0 / (1.0 - self.rate),
            None => 1.0,
        }
    }

    /// `x` with the dropped values at 0. The kept ones are not scaled: see [`Self::gain`], which
    /// costs less where the values end in something small.
    ///
    /// # Shapes
    /// `[rows, width]` → the same
    pub fn drop_values(&self, x: Tensor<2>) -> Tensor<2> {
        match self.clock.step() {
            Some(step) if self.rate > 0.0 => {
                let mask = self.mask(step, x.dims(), &x.device().without_autodiff());
                x.mask_fill(mask, 0.0)
            }
            _ => x,
        }
    }

    /// True where a value is dropped.
    fn mask(&self, step: u64, shape: [usize; 2], device: &Device) -> Tensor<2, Bool> {
        let threshold = (self.rate * 2f64.powi(32)) as u64;
        let key = mix(self.stream ^ mix(step));
        let count = shape[0] * shape[1];
        let mut dropped = Vec::with_capacity(count + 1);
        // One hash gives two values.
        for index in 0..count.div_ceil(2) as u64 {
            let bits = mix(key.wrapping_add(index));
            dropped.push((bits & 0xffff_ffff) < threshold);
            dropped.push((bits >> 32) < threshold);
        }
        dropped.truncate(count);
        Tensor::from_data(TensorData::new(dropped, shape), device)
    }
}

/// The finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) on the n-th point of its sequence:
/// a bijection that scatters neighbouring counters.
fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
