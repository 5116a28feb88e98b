//! Storage of flex tensors: dense views, new buffers that no pass of zeros precedes, and loops over
//! rows on all threads.

use std::mem::MaybeUninit;
use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, Shape};
use rayon::prelude::*;

use super::vector::vectorised;

/// Elements below which a loop stays on one thread.
const SERIAL: usize = 16 * 1024;

/// Rows of a chunk, the unit of work of a thread. Fixed, so that sums over chunks have one order
/// whatever the number of threads.
pub(super) const CHUNK_ROWS: usize = 32;

/// The tensor with its values in order, from the first element of its storage.
pub(super) fn dense(tensor: FlexTensor) -> FlexTensor {
    tensor.to_contiguous()
}

/// The values of a dense tensor.
pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.storage()
}

/// The values of a dense tensor to be overwritten; copied first where others share them.
pub(super) fn values_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    tensor.storage_mut()
}

/// A tensor of `values`.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    let layout = Layout::contiguous(shape.into());
    FlexTensor::new(Bytes::from_elems(values), layout, DType::F32)
}

/// Rows and width of a tensor seen as a matrix of its last axis.
pub(super) fn rows_and_width(tensor: &FlexTensor) -> (usize, usize) {
    let shape = tensor.shape();
    let width = shape.iter().last().copied().unwrap_or(1);
    let elements: usize = shape.iter().product();
    (elements / width.max(1), width)
}

/// A row of a buffer that has no values yet.
pub(super) struct Slot<'a>(&'a mut [MaybeUninit<f32>]);

/// Proof that a [`Slot`] was filled.
pub(super) struct Filled(());

impl<'a> Slot<'a> {
    /// Fills the slot with the first values of `values`, which must not end before.
    #[inline(always)]
    pub(super) fn fill(self, values: impl Iterator<Item = f32>) -> Filled {
        self.init(values).1
    }

    /// As [`Self::fill`], and the values that stand there now.
    #[inline(always)]
    pub(super) fn init(self, values: impl Iterator<Item = f32>) -> (&'a mut [f32], Filled) {
        let wanted = self.0.len();
        let mut written = 0;
        for (slot, value) in self.0.iter_mut().zip(values) {
            slot.write(value);
            written += 1;
        }
        assert_eq!(written, wanted, "a row was given too few values");
        // SAFETY: every value was written.
        (unsafe { self.0.assume_init_mut() }, Filled(()))
    }

    /// Fills the slot with a copy of `values`.
    pub(super) fn copy(self, values: &[f32]) -> (&'a mut [f32], Filled) {
        (self.0.write_copy_of_slice(values), Filled(()))
    }

    /// Fills the slot row by row, `width` values each, by `fill(row, slot)`.
    #[inline(always)]
    pub(super) fn rows(
        self,
        width: usize,
        fill: impl Fn(usize, Slot<'_>) -> Filled,
    ) -> (&'a mut [f32], Filled) {
        assert_eq!(self.0.len() % width.max(1), 0, "a slot holds whole rows");
        for (row, slot) in self.0.chunks_exact_mut(width.max(1)).enumerate() {
            let _filled = fill(row, Slot(slot));
        }
        // SAFETY: `fill` returns a `Filled` only after it wrote every value of its row, and rows are all there is.
        (unsafe { self.0.assume_init_mut() }, Filled(()))
    }

    /// Room for `length` values in a buffer that is used again and again.
    pub(super) fn of(buffer: &'a mut Vec<f32>, length: usize) -> Self {
        buffer.clear();
        buffer.reserve(length);
        Self(&mut buffer.spare_capacity_mut()[..length])
    }
}

/// Room for all values of blocks of rows of `width` values, block by block; see [`whole`].
fn slots<'a>(buffer: &'a mut Vec<f32>, blocks: &[Range<usize>], width: usize) -> Vec<Slot<'a>> {
    let elements = blocks.last().map_or(0, |last| last.end) * width;
    let Slot(mut rest) = Slot::of(buffer, elements);
    let mut slots = Vec::with_capacity(blocks.len());
    for block in blocks {
        let (slot, behind) = rest.split_at_mut(block.len() * width);
        slots.push(Slot(slot));
        rest = behind;
    }
    slots
}

/// The buffer whose [`slots`] for these blocks were all filled.
fn whole(
    mut buffer: Vec<f32>,
    blocks: &[Range<usize>],
    width: usize,
    filled: impl Iterator<Item = Filled>,
) -> Vec<f32> {
    assert_eq!(filled.count(), blocks.len(), "every block is filled");
    let elements = blocks.last().map_or(0, |last| last.end) * width;
    assert!(
        buffer.capacity() >= elements,
        "the buffer that the slots were in"
    );
    // SAFETY: the slots are the first `elements` values of the buffer, and each was filled.
    unsafe { buffer.set_len(elements) };
    buffer
}

/// Several buffers of rows, of a width each, that are made block by block beside another result.
pub(super) struct Buffers<const N: usize> {
    buffers: [Vec<f32>; N],
    widths: [usize; N],
}

impl<const N: usize> Buffers<N> {
    pub(super) fn new(widths: [usize; N]) -> Self {
        Self {
            buffers: [const { Vec::new() }; N],
            widths,
        }
    }

    /// Room in each buffer, for each block.
    pub(super) fn slots(&mut self, blocks: &[Range<usize>]) -> Vec<[Slot<'_>; N]> {
        let buffers = self.buffers.iter_mut().zip(self.widths);
        let mut columns: Vec<_> = buffers
            .map(|(buffer, width)| slots(buffer, blocks, width).into_iter())
            .collect();
        let mut rows = Vec::with_capacity(blocks.len());
        for _ in blocks {
            rows.push(std::array::from_fn(|index| {
                columns[index].next().expect("a slot for each block")
            }));
        }
        rows
    }

    /// The buffers, whose slots were all filled.
    pub(super) fn whole(self, blocks: &[Range<usize>], filled: Vec<[Filled; N]>) -> [Vec<f32>; N] {
        let mut columns: [Vec<Filled>; N] = [const { Vec::new() }; N];
        for row in filled {
            for (column, filled) in columns.iter_mut().zip(row) {
                column.push(filled);
            }
        }
        let mut columns = columns.into_iter().zip(self.widths);
        self.buffers.map(|buffer| {
            let (filled, width) = columns.next().expect("a column for each buffer");
            whole(buffer, blocks, width, filled.into_iter())
        })
    }
}

/// A buffer of rows of `width` values that is made block by block, on all threads, by `fill(scratch, rows, slot, part)`
/// with one of `parts` each, and what else that gives.
pub(super) fn build_blocks<S: Default, P: Send, R: Send>(
    blocks: &[Range<usize>],
    width: usize,
    parts: Vec<P>,
    fill: impl Fn(&mut S, Range<usize>, Slot<'_>, P) -> (Filled, R) + Sync,
) -> (Vec<f32>, Vec<R>) {
    let mut buffer = Vec::new();
    let slots = slots(&mut buffer, blocks, width);
    let work: Vec<_> = blocks.iter().cloned().zip(slots).zip(parts).collect();
    let results = work.into_par_iter();
    let results = results.map_init(S::default, |scratch, ((rows, slot), part)| {
        fill(scratch, rows, slot, part)
    });
    let (filled, results): (Vec<Filled>, Vec<R>) = results.unzip();
    (whole(buffer, blocks, width, filled.into_iter()), results)
}

/// `rows` rows of `width` values, each made by `fill(row, slot)`, on all threads.
pub(super) fn build(
    rows: usize,
    width: usize,
    fill: impl Fn(usize, Slot<'_>) -> Filled + Sync,
) -> Vec<f32> {
    let elements = rows * width;
    let mut buffer = Vec::with_capacity(elements);
    let slots = &mut buffer.spare_capacity_mut()[..elements];
    let chunk = |index: usize, slots: &mut [MaybeUninit<f32>]| {
        vectorised(
            #[inline(always)]
            || {
                for (offset, slot) in slots.chunks_exact_mut(width).enumerate() {
                    let _filled = fill(index * CHUNK_ROWS + offset, Slot(slot));
                }
            },
        );
    };
    if width > 0 {
        for_chunks(slots, CHUNK_ROWS * width, chunk);
    }
    // SAFETY: `fill` returns a `Filled` only after it wrote every value of its slot, and the slots
    // are the first `elements` values of the buffer.
    unsafe { buffer.set_len(elements) };
    buffer
}

/// Calls `work(index, chunk)` for each chunk of `length` elements (the last may be shorter), on all
/// threads where that pays.
fn for_chunks<T: Send>(values: &mut [T], length: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let elements = values.len();
    let chunks: Vec<_> = values.chunks_mut(length).collect();
    share_out(chunks, elements, work);
}

/// Calls `work(index, part)` for each of `parts`, which hold `elements` values together, on all
/// threads where that pays.
pub(super) fn share_out<T: Send>(parts: Vec<T>, elements: usize, work: impl Fn(usize, T) + Sync) {
    if elements <= SERIAL {
        let parts = parts.into_iter().enumerate();
        parts.for_each(|(index, part)| work(index, part));
    } else {
        let parts = parts.into_par_iter().enumerate();
        parts.for_each(|(index, part)| work(index, part));
    }
}

/// Elements of a chunk of a loop without rows.
const CHUNK: usize = 8 * 1024;

/// Overwrites `values` by `work(start, chunk)`, where `start` is the place of the chunk's first
/// element, on all threads.
pub(super) fn in_place(values: &mut [f32], work: impl Fn(usize, &mut [f32]) + Sync) {
    for_chunks(values, CHUNK, |index, chunk| {
        vectorised(
            #[inline(always)]
            || work(index * CHUNK, chunk),
        );
    });
}

/// Overwrites two buffers of one length by `work(start, chunk, chunk)`, on all threads.
pub(super) fn pair_in_place(
    first: &mut [f32],
    second: &mut [f32],
    work: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    let elements = first.len();
    let chunks = first.chunks_mut(CHUNK).zip(second.chunks_mut(CHUNK));
    share_out(chunks.collect(), elements, |index, (first, second)| {
        vectorised(
            #[inline(always)]
            || work(index * CHUNK, first, second),
        );
    });
}

/// Overwrites the rows of `values` by `work(row, values, sums)`, on all threads, and returns the
/// total of the `sums`, to which each row adds: one vector of `sum_width` values.
pub(super) fn rows_in_place(
    values: &mut [f32],
    width: usize,
    sum_width: usize,
    work: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) -> Vec<f32> {
    let chunk = |(index, chunk): (usize, &mut [f32])| {
        let mut sums = vec![0.0; sum_width];
        vectorised(
            #[inline(always)]
            || {
                for (offset, row) in chunk.chunks_exact_mut(width).enumerate() {
                    work(index * CHUNK_ROWS + offset, row, &mut sums);
                }
            },
        );
        sums
    };
    let length = CHUNK_ROWS * width;
    if length == 0 {
        return vec![0.0; sum_width];
    }
    let partial: Vec<Vec<f32>> = if values.len() <= SERIAL {
        values.chunks_mut(length).enumerate().map(chunk).collect()
    } else {
        let chunks = values.par_chunks_mut(length).enumerate();
        chunks.map(chunk).collect()
    };
    total(partial.iter().map(Vec::as_slice), sum_width)
}

/// The sum of the rows of `values`, in f64, on all threads.
pub(super) fn column_sums(values: &[f32], width: usize) -> Vec<f32> {
    let chunk = |chunk: &[f32]| {
        let mut sums = vec![0.0_f64; width];
        vectorised(
            #[inline(always)]
            || {
                for row in chunk.chunks_exact(width) {
                    let pairs = sums.iter_mut().zip(row);
                    pairs.for_each(|(sum, value)| *sum += f64::from(*value));
                }
            },
        );
        sums
    };
    let length = CHUNK_ROWS * width;
    if length == 0 {
        return vec![0.0; width];
    }
    let partial: Vec<Vec<f64>> = if values.len() <= SERIAL {
        values.chunks(length).map(chunk).collect()
    } else {
        values.par_chunks(length).map(chunk).collect()
    };
    total(partial.iter().map(Vec::as_slice), width)
}

/// The sum of lists of `width` values: in f64, so that it hardly depends on what was added up in which list.
pub(super) fn total<'a, T>(lists: impl Iterator<Item = &'a [T]>, width: usize) -> Vec<f32>
where
    T: Copy + Into<f64> + 'a,
{
    let mut total = vec![0.0_f64; width];
    for list in lists {
        let pairs = total.iter_mut().zip(list);
        pairs.for_each(|(total, value)| *total += (*value).into());
    }
    total.into_iter().map(|total| total as f32).collect()
}
