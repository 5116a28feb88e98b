//! Linear maps inside larger operations, on a block of rows at a time: what goes in and comes out of them stays in the
//! cache of the thread that has the block.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{self, CHUNK_ROWS, Filled, Slot, dense, tensor};
use super::kernel::Gradients;
use super::linear::matrix;
use super::norm::RmsNorm;
use super::product::{
    Arithmetic, Factor, Part, Ready, Right, multiply_ready, product_over_rows,
    product_over_rows_of_block, transposed,
};
use super::vector::vectorised;

/// A linear map, `x weight + scale (x a) b`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Map<'a> {
    /// `[inputs, outputs]`
    weight: Right<'a>,
    low: Option<LowRank<'a>>,
}

#[derive(Debug, Clone, Copy)]
struct LowRank<'a> {
    /// `[inputs, rank]`
    a: Factor<'a>,
    /// `[rank, outputs]`
    b: Factor<'a>,
    scale: f32,
}

impl<'a> Map<'a> {
    /// A map by `weight`, which may learn, changed by `[a, b]` where there are such.
    pub(super) fn new(
        (weight, learns): (&'a FlexTensor, bool),
        low: Option<&'a [FlexTensor]>,
        scale: f32,
    ) -> Self {
        Self {
            weight: Right::weight(weight, learns),
            low: low.map(|pair| LowRank {
                a: matrix(&pair[0]),
                b: matrix(&pair[1]),
                scale,
            }),
        }
    }

    pub(super) fn inputs(&self) -> usize {
        self.weight.rows()
    }

    pub(super) fn outputs(&self) -> usize {
        self.weight.columns()
    }

    /// From inputs to outputs.
    pub(super) fn forward(&self, arithmetic: Arithmetic) -> Passage<'a> {
        let low = self.low.map(|low| (low.a, low.b, low.scale));
        Passage::new(arithmetic, self.weight, low)
    }

    /// From the gradient of the outputs to that of the inputs.
    pub(super) fn backward(&self, arithmetic: Arithmetic) -> Passage<'a> {
        let low = |low: LowRank<'a>| (transposed(low.b), transposed(low.a), low.scale);
        Passage::new(arithmetic, self.weight.transposed(), self.low.map(low))
    }
}

/// The inputs of an operation as its products read them: matrices with neighbours along one of their axes, all else dense.
pub(super) fn ready(tensors: Vec<FlexTensor>) -> Vec<FlexTensor> {
    let ready = |tensor: FlexTensor| {
        let matrix = tensor.layout().shape().len() == 2;
        match matrix && Part::of(tensor.layout()).readable() {
            true => tensor,
            false => dense(tensor),
        }
    };
    tensors.into_iter().map(ready).collect()
}

/// A [`Map`] or its transpose, made ready for all blocks.
#[derive(Debug)]
pub(super) struct Passage<'a> {
    arithmetic: Arithmetic,
    weight: Ready<'a>,
    low: Option<[Ready<'a>; 2]>,
    scale: f32,
    rank: usize,
}

impl<'a> Passage<'a> {
    fn new(
        arithmetic: Arithmetic,
        weight: Right<'a>,
        low: Option<(Factor<'a>, Factor<'a>, f32)>,
    ) -> Self {
        Self {
            arithmetic,
            weight: Ready::shared(arithmetic, weight),
            low: low.map(|(first, second, _)| {
                [first, second].map(|factor| Ready::right(arithmetic, factor))
            }),
            scale: low.map_or(0.0, |low| low.2),
            rank: low.map_or(0, |low| low.0.1.columns()),
        }
    }

    /// Sets `out` to what becomes of a block `x` of `rows` rows, or adds it. Returns what lies between the two factors of the
    /// low rank, times the scale, `[rows, rank]`.
    pub(super) fn apply(
        &self,
        x: &Ready<'_>,
        rows: usize,
        out: (&mut [f32], Part),
        add: bool,
    ) -> Vec<f32> {
        let narrow = self.narrow(x, rows);
        let columns = 0..self.weight.columns();
        self.apply_part((x, self.between(&narrow).as_ref()), columns, out, add);
        narrow
    }

    /// What lies between the two factors of the low rank for a block `x` of `rows` rows, times the scale, `[rows, rank]`.
    pub(super) fn narrow(&self, x: &Ready<'_>, rows: usize) -> Vec<f32> {
        let mut narrow = vec![0.0; rows * self.rank];
        if let Some([first, _]) = &self.low {
            let part = Part::whole(rows, self.rank);
            multiply_ready((&mut narrow, part), (x, first), None, self.scale, false);
        }
        narrow
    }

    /// The same, made ready; `None` where there is no low rank.
    pub(super) fn between<'b>(&self, narrow: &'b [f32]) -> Option<Ready<'b>> {
        let part = Part::whole(narrow.len() / self.rank.max(1), self.rank);
        let low = self.low.is_some();
        low.then(|| Ready::left(self.arithmetic, (narrow, part)))
    }

    /// As [`Self::apply`], for some columns of the result, from a multiple of 16 on.
    pub(super) fn apply_part(
        &self,
        (x, between): (&Ready<'_>, Option<&Ready<'_>>),
        columns: Range<usize>,
        out: (&mut [f32], Part),
        add: bool,
    ) {
        let weight = self.weight.part_of_columns(columns.clone());
        let second = self
            .low
            .as_ref()
            .map(|[_, second]| second.part_of_columns(columns));
        let other = between.zip(second.as_ref());
        multiply_ready(out, (x, &weight), other, 1.0, add);
    }

    /// ∂aᵀ `[rank, inputs]` and ∂b `[rank, outputs]` of a block of `rows` rows: by what lies between the factors forward and
    /// backward, scaled, and by the map's inputs and the gradient of its outputs, both right factors.
    pub(super) fn low_gradients(
        &self,
        rows: usize,
        [forward, backward]: [&[f32]; 2],
        [x, dy]: [&Ready<'_>; 2],
    ) -> [Vec<f32>; 2] {
        let narrow = Part::whole(rows, self.rank);
        [(backward, x), (forward, dy)]
            .map(|(between, right)| product_over_rows_of_block((between, narrow), right))
    }
}

/// A norm before the maps, and what it reads.
pub(super) struct Normed<'a> {
    pub(super) norm: RmsNorm,
    /// `[width]`
    pub(super) weight: &'a [f32],
    /// `[rows, width]`
    pub(super) x: &'a [f32],
}

impl<'a> Normed<'a> {
    pub(super) fn width(&self) -> usize {
        self.weight.len()
    }

    /// What the norm reads of a block.
    pub(super) fn block(&self, rows: &Range<usize>) -> &'a [f32] {
        rows_of(self.x, rows, self.width())
    }

    /// A block, normalised, in `slot`.
    pub(super) fn forward<'b>(
        &self,
        rows: &Range<usize>,
        slot: Slot<'b>,
    ) -> (&'b mut [f32], Filled) {
        let (x, width) = (self.block(rows), self.width());
        vectorised(
            #[inline(always)]
            || {
                slot.rows(
                    width,
                    #[inline(always)]
                    |row, slot| slot.fill(self.norm.row(&x[row * width..][..width], self.weight)),
                )
            },
        )
    }

    /// Adds the gradient of a block to `dx`, and gives that of the weight, by that of the normalised block.
    pub(super) fn backward(
        &self,
        rows: &Range<usize>,
        gradient: &mut [f32],
        dx: &mut [f32],
    ) -> Vec<f32> {
        let (x, width) = (self.block(rows), self.width());
        let mut partial = vec![0.0; rows.len().div_ceil(CHUNK_ROWS) * width];
        vectorised(
            #[inline(always)]
            || {
                let gradients = gradient.chunks_exact_mut(width);
                let rows = gradients.zip(dx.chunks_exact_mut(width));
                for (row, (x, (gradient, dx))) in x.chunks_exact(width).zip(rows).enumerate() {
                    let sums = &mut partial[row / CHUNK_ROWS * width..][..width];
                    self.norm.row_gradient(x, self.weight, gradient, sums);
                    dx.iter_mut().zip(gradient).for_each(|(dx, g)| *dx += *g);
                }
            },
        );
        buffer::total(partial.chunks_exact(width), width)
    }
}

/// The gradients of the low-rank factors a and b of each of `maps`, from the sums of all blocks.
pub(super) fn adapter_gradients(
    sums: &mut impl Iterator<Item = Vec<f32>>,
    maps: &[Map<'_>],
) -> Vec<Option<FlexTensor>> {
    let mut gradients = Vec::with_capacity(2 * maps.len());
    for map in maps {
        let rank = map.low.map_or(0, |low| low.a.1.columns());
        let a = |a| dense(tensor(a, [rank, map.inputs()]).transpose(0, 1));
        gradients.push(sums.next().map(a));
        gradients.push(sums.next().map(|b| tensor(b, [rank, map.outputs()])));
    }
    gradients
}

/// ∂W = inputᵀ ∂output of those maps that learn, by both, on all threads.
pub(super) fn weight_gradients<const N: usize>(
    learns: [bool; N],
    factors: [(Factor<'_>, Factor<'_>); N],
) -> [Option<FlexTensor>; N] {
    let mut learns = learns.into_iter();
    factors.map(|(input, output)| {
        let shape = [input.1.columns(), output.1.columns()];
        let learns = learns.next() == Some(true);
        learns.then(|| tensor(product_over_rows(input, output), shape))
    })
}

/// The rows of the blocks that `rows` rows are worked on in. They do not depend on the number of threads, and neither do
/// sums over blocks.
pub(super) fn blocks(rows: usize) -> Vec<Range<usize>> {
    const FEWEST: usize = 32;
    const MOST: usize = 128;
    let length = rows
        .div_ceil(8)
        .next_multiple_of(FEWEST)
        .clamp(FEWEST, MOST);
    (0..rows)
        .step_by(length)
        .map(|start| start..(start + length).min(rows))
        .collect()
}

/// The sums of the lists that blocks give, list by list, in the order of the blocks.
pub(super) fn total(blocks: Vec<Vec<Vec<f32>>>) -> Vec<Vec<f32>> {
    let Some(first) = blocks.first() else {
        return Vec::new();
    };
    let list = |(index, list): (usize, &Vec<f32>)| {
        let of_blocks = blocks.iter().map(|block| block[index].as_slice());
        buffer::total(of_blocks, list.len())
    };
    first.par_iter().enumerate().map(list).collect()
}

/// Activations that the backward pass reads again: in bf16 where products round them anyway.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    Full(Vec<f32>),
    Short(Vec<u16>),
}

impl Kept {
    #[inline(always)]
    pub(super) fn new(arithmetic: Arithmetic, activations: &[f32]) -> Self {
        match arithmetic {
            Arithmetic::F32 | Arithmetic::F32BySize => Self::Full(activations.to_vec()),
            Arithmetic::Tiles => Self::Short(activations.iter().map(|x| shorten(*x)).collect()),
        }
    }

    /// Room for `count` activations, zeros until they are [`Self::put`].
    pub(super) fn room(arithmetic: Arithmetic, count: usize) -> Self {
        match arithmetic {
            Arithmetic::F32 | Arithmetic::F32BySize => Self::Full(vec![0.0; count]),
            Arithmetic::Tiles => Self::Short(vec![0; count]),
        }
    }

    /// Takes the activations of some of `width` columns, row after row.
    #[inline(always)]
    pub(super) fn put(&mut self, width: usize, columns: &Range<usize>, activations: &[f32]) {
        let rows = activations.chunks_exact(columns.len());
        match self {
            Self::Full(all) => {
                for (to, from) in all.chunks_exact_mut(width).zip(rows) {
                    to[columns.clone()].copy_from_slice(from);
                }
            }
            Self::Short(all) => {
                for (to, from) in all.chunks_exact_mut(width).zip(rows) {
                    let pairs = to[columns.clone()].iter_mut().zip(from);
                    pairs.for_each(|(to, from)| *to = shorten(*from));
                }
            }
        }
    }

    /// The activations, in `slot`.
    #[inline(always)]
    pub(super) fn read<'a>(&self, slot: Slot<'a>) -> (&'a mut [f32], Filled) {
        match self {
            Self::Full(activations) => slot.copy(activations),
            Self::Short(activations) => {
                let long = |x: &u16| f32::from_bits(u32::from(*x) << 16);
                slot.init(activations.iter().map(long))
            }
        }
    }
}

/// The nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
fn shorten(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    if x.is_nan() { 0x7fc0 } else { rounded }
}

/// The values of the rows `rows` of a buffer of `width` columns.
pub(super) fn rows_of<'a>(all: &'a [f32], rows: &Range<usize>, width: usize) -> &'a [f32] {
    &all[rows.start * width..rows.end * width]
}

/// `buffer` with room for `length` values, whatever they are.
pub(super) fn room(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}

/// `gradients` as an array of as many.
pub(super) fn list<const N: usize>(gradients: Vec<Option<FlexTensor>>) -> Gradients<N> {
    let mut gradients = gradients.into_iter();
    std::array::from_fn(|_| gradients.next().flatten())
}
