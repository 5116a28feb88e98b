//! Dropout whose masks are a function of seed, step, note and position: a resumed run draws the same
//! ones, and so does a batch that is run in slices.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Bool, Device, Tensor, TensorData};

/// Whether dropout is on, and for which notes of which training step. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct DropoutClock {
    /// `None` is off.
    state: Arc<Mutex<Option<Moment>>>,
}

/// What masks depend on besides their place in the model.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Moment {
    step: u64,
    /// Places in the whole batch of the notes that pass.
    notes: Range<usize>,
}

/// Dropout is on while this lives.
#[must_use = "dropout is off again when this is dropped"]
pub struct DropoutOn(DropoutClock);

impl DropoutClock {
    /// Turns dropout on with the masks of `step`, until the result is dropped; `notes` are the places
    /// in the step's batch of those that pass meanwhile.
    pub fn at_step(&self, step: u64, notes: Range<usize>) -> DropoutOn {
        self.set(Some(Moment { step, notes }));
        DropoutOn(self.clone())
    }

    fn moment(&self) -> Option<Moment> {
        // Nothing panics while it holds the lock.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clone()
    }

    fn set(&self, moment: Option<Moment>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    }
}

impl Drop for DropoutOn {
    fn drop(&mut self) {
        self.0.set(None);
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
        match self.clock.moment() {
            Some(_) => 1.0 / (1.0 - self.rate),
            None => 1.0,
        }
    }

    /// `x` with the dropped values at 0. The kept ones are not scaled: see [`Self::gain`], which
    /// costs less where the values end in something small.
    ///
    /// # Shapes
    /// `[notes · positions, width]`, the rows of a note side by side → the same
    pub fn drop_values(&self, x: Tensor<2>) -> Tensor<2> {
        match self.clock.moment() {
            Some(moment) if self.rate > 0.0 => {
                let mask = self.mask(&moment, x.dims(), &x.device().without_autodiff());
                x.mask_fill(mask, 0.0)
            }
            _ => x,
        }
    }

    /// True where a value is dropped. What a note's position drops depends on neither the other notes
    /// that pass with it nor how far they are padded.
    fn mask(&self, moment: &Moment, [rows, width]: [usize; 2], device: &Device) -> Tensor<2, Bool> {
        let threshold = (self.rate * 2f64.powi(32)) as u64;
        let key = mix(self.stream ^ mix(moment.step));
        let positions = rows.div_ceil(moment.notes.len().max(1)).max(1);
        let mut dropped = Vec::with_capacity(rows * width + 1);
        for row in 0..rows {
            let note = (moment.notes.start + row / positions) as u64;
            let key = mix(key ^ (note << 32 | (row % positions) as u64));
            // One hash gives two values.
            for index in 0..width.div_ceil(2) as u64 {
                let bits = mix(key.wrapping_add(index));
                dropped.push((bits & 0xffff_ffff) < threshold);
                dropped.push((bits >> 32) < threshold);
            }
            dropped.truncate((row + 1) * width);
        }
        Tensor::from_data(TensorData::new(dropped, [rows, width]), device)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_do_not_depend_on_how_a_batch_is_sliced_or_padded() {
        let clock = DropoutClock::default();
        let dropout = Dropout::new(0.4, 9, clock.clone());
        let kept = |notes: Range<usize>, positions: usize| {
            let ones = Tensor::ones([notes.len() * positions, 5], &Device::flex());
            let _on = clock.at_step(3, notes);
            dropout.drop_values(ones).try_into_vec_as::<f32>().unwrap()
        };
        let whole = kept(0..6, 7);
        let zeros = whole.iter().filter(|&&value| value == 0.0).count();
        assert!((60..110).contains(&zeros), "{zeros} of 210");
        for (notes, positions) in [(0..2, 7), (2..5, 4), (5..6, 2)] {
            let slice = kept(notes.clone(), positions);
            for (note, values) in notes.zip(slice.chunks_exact(positions * 5)) {
                assert_eq!(values, &whole[note * 35..][..positions * 5], "note {note}");
            }
        }
        assert_ne!(kept(0..1, 7), kept(1..2, 7));
    }
}
