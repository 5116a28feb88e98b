//! Dropout whose masks are a function of seed, step, note and position: a resumed run draws the same
//! ones, and so does a batch that is run in slices.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use burn::tensor::{Bool, Device, Int, IntDType, Tensor, TensorData};

use crate::transfer::upload;

/// Whether dropout is on, and for which notes of which training step, in each thread by itself: copies
/// of a model that train side by side share one clock, as clones do.
#[derive(Debug, Clone, Default)]
pub struct DropoutClock {
    /// Off in threads that are not there.
    moments: Arc<Mutex<HashMap<ThreadId, Moment>>>,
}

/// What masks depend on besides their place in the model.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Moment {
    step: u64,
    /// Places in the whole batch of the notes that pass.
    notes: Range<usize>,
}

/// Dropout is on, in one thread, while this lives.
#[must_use = "dropout is off again when this is dropped"]
pub struct DropoutOn(DropoutClock, ThreadId);

impl DropoutClock {
    /// Turns dropout on in this thread with the masks of `step`, until the result is dropped; `notes` are
    /// the places in the step's batch of those that pass meanwhile.
    pub fn at_step(&self, step: u64, notes: Range<usize>) -> DropoutOn {
        let thread = thread::current().id();
        self.moments().insert(thread, Moment { step, notes });
        DropoutOn(self.clone(), thread)
    }

    fn moment(&self) -> Option<Moment> {
        self.moments().get(&thread::current().id()).cloned()
    }

    fn moments(&self) -> MutexGuard<'_, HashMap<ThreadId, Moment>> {
        // Nothing panics while it holds the lock.
        self.moments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DropoutOn {
    fn drop(&mut self) {
        self.0.moments().remove(&self.1);
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

    /// Whether values are dropped now.
    pub fn drops(&self) -> bool {
        self.rate > 0.0 && self.clock.moment().is_some()
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
        let key = mix(self.stream ^ mix(moment.step));
        let notes = moment.notes.len().max(1);
        let draw = Draw {
            keys: [key as u32, (key >> 32) as u32],
            first_note: moment.notes.start,
            positions: rows.div_ceil(notes).max(1),
            shape: [rows, width],
            threshold: (self.rate * 2f64.powi(32)) as u32,
        };
        #[cfg(feature = "flex")]
        if *device == Device::flex() {
            return draw.on_host(device);
        }
        draw.on_device(device)
    }
}

/// The mask of one place of a model: a hash of keys, note, position and column, of operations on u32
/// alone, which every backend has and computes alike. So nothing is uploaded, and the masks of a run do
/// not depend on where it computes.
///
/// Two words of each row go through two rounds, so that no two rows draw stretches of one sequence.
#[derive(Debug, Clone)]
struct Draw {
    /// Of seed, place in the model and step.
    keys: [u32; 2],
    first_note: usize,
    /// Rows of a note.
    positions: usize,
    /// `[rows, width]`
    shape: [usize; 2],
    /// A value is dropped where its 32 bits are below.
    threshold: u32,
}

/// Odd numbers that keep the counters of notes, positions and columns apart.
const NOTE: u32 = 0x9e37_79b1;
const POSITION: u32 = 0x85eb_ca77;
const COLUMN: u32 = 0xc2b2_ae3d;

impl Draw {
    /// On the CPU, a row at a time.
    #[cfg(feature = "flex")]
    fn on_host(&self, device: &Device) -> Tensor<2, Bool> {
        let [rows, width] = self.shape;
        let mut dropped = Vec::with_capacity(rows * width);
        for row in 0..rows {
            let note = (self.first_note + row / self.positions) as u32;
            let position = (row % self.positions) as u32;
            let of_note = scramble(note.wrapping_mul(NOTE).wrapping_add(self.keys[0]));
            let first = scramble(of_note.wrapping_add(position.wrapping_mul(POSITION)));
            let second = scramble(first.wrapping_add(self.keys[1]));
            dropped.extend((0..width as u32).map(|column| {
                let bits = scramble(first.wrapping_add(column.wrapping_mul(COLUMN)));
                scramble(bits.wrapping_add(second)) < self.threshold
            }));
        }
        upload(TensorData::new(dropped, self.shape), device)
    }

    /// The same, of tensors.
    fn on_device(&self, device: &Device) -> Tensor<2, Bool> {
        let [rows, width] = self.shape;
        let notes = rows.div_ceil(self.positions);
        let counters = |from: usize, count: usize, factor: u32| {
            let counters = Tensor::<1, Int>::arange(from as i64..(from + count) as i64, device);
            counters.cast(IntDType::U32).mul_scalar(factor)
        };
        let of_notes = counters(self.first_note, notes, NOTE).add_scalar(self.keys[0]);
        let of_notes = scrambled(of_notes).reshape([notes, 1]);
        let positions = counters(0, self.positions, POSITION).reshape([1, self.positions]);
        let first = scrambled(of_notes + positions).reshape([notes * self.positions, 1]);
        let first = first.narrow(0, 0, rows);
        let second = scrambled(first.clone().add_scalar(self.keys[1]));
        let columns = counters(0, width, COLUMN).reshape([1, width]);
        scrambled(scrambled(first + columns) + second).lower_elem(self.threshold)
    }
}

/// A bijection of 32 bits that scatters neighbouring counters (Ellis, "lowbias32", 2018).
#[cfg(feature = "flex")]
fn scramble(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// The same bijection of every element.
fn scrambled<const D: usize>(x: Tensor<D, Int>) -> Tensor<D, Int> {
    let folded = |x: Tensor<D, Int>, bits: u32| {
        let high = x.clone().bitwise_right_shift_scalar(bits);
        x.bitwise_xor(high)
    };
    let x = folded(x, 16).mul_scalar(0x7feb_352d_u32);
    let x = folded(x, 15).mul_scalar(0x846c_a68b_u32);
    folded(x, 16)
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
    fn each_thread_has_a_moment_of_its_own() {
        let clock = DropoutClock::default();
        let _on = clock.at_step(3, 0..2);
        let other = clock.clone();
        let elsewhere = thread::spawn(move || {
            let before = other.moment();
            let on = other.at_step(7, 2..4);
            let during = other.moment().map(|moment| moment.notes);
            drop(on);
            (before, during)
        });
        assert_eq!(elsewhere.join().unwrap(), (None, Some(2..4)));
        assert_eq!(clock.moment().map(|moment| moment.step), Some(3));
    }

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

    /// True where a value is dropped, with a rate of 0.3.
    fn drawn(stream: u64, step: u64, notes: Range<usize>) -> Vec<bool> {
        let dropout = Dropout::new(0.3, stream, DropoutClock::default());
        let shape = [notes.len() * 16, 64];
        let moment = Moment { step, notes };
        let mask = dropout.mask(&moment, shape, &Device::flex());
        mask.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn tensors_draw_what_the_host_draws() {
        let device = Device::flex();
        for (first_note, positions, shape) in [(0, 7, [21, 33]), (1000, 5, [13, 8]), (3, 1, [4, 1])]
        {
            let draw = Draw {
                keys: [0xdead_beef, 0x8000_0001],
                first_note,
                positions,
                shape,
                threshold: 0xc000_0000,
            };
            let host: Vec<bool> = draw.on_host(&device).into_data().try_to_vec().unwrap();
            let tensors: Vec<bool> = draw.on_device(&device).into_data().try_to_vec().unwrap();
            assert_eq!(tensors, host);
        }
    }

    /// Shares of dropped values, and of values that two masks drop together, within five standard
    /// deviations of what independent draws give: masks of neighbouring steps, of places in the model, of
    /// notes, of positions, and neighbouring columns.
    #[test]
    fn masks_are_even_and_know_nothing_of_each_other() {
        let within = |count: usize, of: usize, rate: f64| {
            let deviation = (of as f64 * rate * (1.0 - rate)).sqrt();
            (count as f64 - of as f64 * rate).abs() < 5.0 * deviation
        };
        let together = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(a, b)| **a && **b).count();
        for seed in 0..8_u64 {
            for step in 0..16_u64 {
                let mask = drawn(seed, step, 0..16);
                let count = mask.iter().filter(|&&dropped| dropped).count();
                assert!(within(count, mask.len(), 0.3), "{count} of {}", mask.len());
                let rows = 16 * 64;
                let shifted = [&mask[1..], &mask[64..], &mask[2 * 64..], &mask[rows..]];
                let others = [drawn(seed, step + 1, 0..16), drawn(seed + 1, step, 0..16)];
                let others = others.iter().map(Vec::as_slice);
                for (index, other) in shifted.into_iter().chain(others).enumerate() {
                    let count = together(&mask, other);
                    let of = mask.len().min(other.len());
                    assert!(within(count, of, 0.09), "{index}: {count} of {of}");
                }
            }
        }
        // Every column and every row by itself, over all steps.
        let masks: Vec<Vec<bool>> = (0..64).map(|step| drawn(9, step, 0..4)).collect();
        for index in 0..64 {
            let column = masks
                .iter()
                .flat_map(|mask| mask.iter().skip(index).step_by(64));
            let row = masks.iter().flat_map(|mask| &mask[index * 64..][..64]);
            for values in [column.collect::<Vec<_>>(), row.collect()] {
                let count = values.iter().filter(|dropped| ***dropped).count();
                assert!(within(count, values.len(), 0.3), "{index}: {count}");
            }
        }
    }
}
