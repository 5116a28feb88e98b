//! Gradients of all ranks, added up in buckets.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use burn::tensor::{DType, Device, Tensor, TensorData, bf16};
use mlrm_model::transfer::{read, upload};
use mpi::collective::{CommunicatorCollectives, Root, SystemOperation};
use mpi::topology::{Communicator, SimpleCommunicator};

use super::unreadable;
use crate::error::TrainError;
use crate::group::Weights;
use crate::optimiser::FlatGradients;

/// Numbers of a bucket.
const BUCKET: usize = 4 << 20;

/// What learns: path, elements and number format of each parameter, in the order of the paths.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Layout(pub(super) Vec<(String, usize, DType)>);

impl Layout {
    pub(super) fn of(weights: &Weights) -> Self {
        let parameter = |(path, weight): (&String, &Tensor<1>)| {
            (path.clone(), weight.dims()[0], weight.dtype())
        };
        Self(weights.iter().map(parameter).collect())
    }

    /// A number that tells models apart.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }
}

/// The sum of the gradients of all ranks on `device`, for the first one; the others get nothing. What has
/// no gradient on any rank has none. `short`: summands and sums travel in bf16; they are added up in f32.
///
/// # Errors
/// A device that failed.
pub(super) fn sum_gradients(
    world: &SimpleCommunicator,
    layout: &Layout,
    short: bool,
    mut own: FlatGradients,
    device: &Device,
) -> Result<FlatGradients, TrainError> {
    let here: Vec<u8> = layout
        .0
        .iter()
        .map(|(path, ..)| u8::from(own.contains_key(path)))
        .collect();
    let mut anywhere = here.clone();
    world.all_reduce_into(
        here.as_slice(),
        anywhere.as_mut_slice(),
        SystemOperation::max(),
    );
    let mut exchange = Exchange::new(world, short);
    let mut sums = Sums {
        values: VecDeque::new(),
        due: VecDeque::new(),
        found: FlatGradients::new(),
        device: device.clone().without_autodiff(),
    };
    let mut pending: Vec<f32> = Vec::with_capacity(BUCKET);
    for ((path, elements, _), _) in layout.0.iter().zip(anywhere).filter(|(_, any)| *any > 0) {
        sums.due.push_back((path.clone(), *elements));
        let values = match own.remove(path) {
            None => vec![0.0; *elements],
            Some(gradient) => {
                let values: Result<Vec<f32>, _> = read(gradient);
                values.map_err(|e| unreadable(path, e))?
            }
        };
        let mut values = values.as_slice();
        while !values.is_empty() {
            let (now, later) = values.split_at(values.len().min(BUCKET - pending.len()));
            pending.extend_from_slice(now);
            values = later;
            if pending.len() == BUCKET {
                sums.take(exchange.sum(&pending));
                pending.clear();
            }
        }
    }
    sums.take(exchange.sum(&pending));
    Ok(sums.found)
}

/// Sums as they come, and the parameters that they are of.
struct Sums {
    values: VecDeque<f32>,
    due: VecDeque<(String, usize)>,
    found: FlatGradients,
    device: Device,
}

impl Sums {
    fn take(&mut self, sum: &[f32]) {
        self.values.extend(sum);
        while let Some((path, elements)) = self
            .due
            .pop_front_if(|(_, elements)| *elements <= self.values.len())
        {
            let values: Vec<f32> = self.values.drain(..elements).collect();
            let data = TensorData::new(values, [elements]);
            let gradient = upload(data, (&self.device, DType::F32));
            self.found.insert(path, gradient);
        }
    }
}

/// Buckets on their way.
struct Exchange<'a> {
    world: &'a SimpleCommunicator,
    ranks: usize,
    short: bool,
    sum: Vec<f32>,
}

impl<'a> Exchange<'a> {
    fn new(world: &'a SimpleCommunicator, short: bool) -> Self {
        Self {
            world,
            ranks: world.size() as usize,
            short,
            sum: Vec::new(),
        }
    }

    /// The sum of a bucket over all ranks, in their order; nothing but on the first one.
    fn sum(&mut self, own: &[f32]) -> &[f32] {
        self.sum.clear();
        if own.is_empty() {
            return &self.sum;
        }
        let part = own.len().div_ceil(self.ranks);
        let mut padded = own.to_vec();
        padded.resize(part * self.ranks, 0.0);
        let all = match self.short {
            false => self.part_and_all(&padded, part, |x| x, |x| x),
            true => {
                let short: Vec<u16> = padded.iter().map(|&x| to_bits(x)).collect();
                self.part_and_all(&short, part, to_bits, |bits| bf16::from_bits(bits).to_f32())
            }
        };
        self.sum.extend(all.into_iter().take(own.len()));
        if self.world.rank() != 0 {
            self.sum.clear();
        }
        &self.sum
    }

    /// Every rank gets its part of the bucket from all and adds them up; the first one gets all parts.
    fn part_and_all<T>(
        &self,
        values: &[T],
        part: usize,
        pack: fn(f32) -> T,
        unpack: fn(T) -> f32,
    ) -> Vec<f32>
    where
        T: Copy + Default + mpi::traits::Equivalence,
    {
        let mut summands = vec![T::default(); values.len()];
        self.world.all_to_all_into(values, summands.as_mut_slice());
        let mut sum = vec![0.0_f32; part];
        for summand in summands.chunks_exact(part) {
            for (sum, value) in sum.iter_mut().zip(summand) {
                *sum += unpack(*value);
            }
        }
        let sum: Vec<T> = sum.into_iter().map(pack).collect();
        let leader = self.world.process_at_rank(0);
        if self.world.rank() != 0 {
            leader.gather_into(sum.as_slice());
            return Vec::new();
        }
        leader.gather_into_root(sum.as_slice(), summands.as_mut_slice());
        summands.into_iter().map(unpack).collect()
    }
}

fn to_bits(x: f32) -> u16 {
    bf16::from_f32(x).to_bits()
}
