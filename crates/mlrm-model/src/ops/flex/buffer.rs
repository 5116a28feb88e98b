//! Storage of flex tensors: dense views, new buffers that no pass of zeros precedes, and loops over
//! rows on all threads.

use std::mem::MaybeUninit;

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

impl Slot<'_> {
    /// Fills the slot with the first values of `values`, which must not end before.
    #[inline(always)]
    pub(super) fn fill(self, values: impl Iterator<Item = f32>) -> Filled {
        let wanted = self.0.len();
        let mut written = 0;
        for (slot, value) in self.0.iter_mut().zip(values) {
            slot.write(value);
            written += 1;
        }
        assert_eq!(written, wanted, "a row was given too few values");
        Filled(())
    }
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
        vectorised(|| {
            for (offset, slot) in slots.chunks_exact_mut(width).enumerate() {
                let _filled = fill(index * CHUNK_ROWS + offset, Slot(slot));
            }
        });
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
        vectorised(|| work(index * CHUNK, chunk));
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
        vectorised(|| work(index * CHUNK, first, second));
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
        vectorised(|| {
            for (offset, row) in chunk.chunks_exact_mut(width).enumerate() {
                work(index * CHUNK_ROWS + offset, row, &mut sums);
            }
        });
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
    total(partial, sum_width)
}

/// The sum of the rows of `values`, on all threads.
pub(super) fn column_sums(values: &[f32], width: usize) -> Vec<f32> {
    let chunk = |chunk: &[f32]| {
        let mut sums = vec![0.0; width];
        vectorised(|| {
            for row in chunk.chunks_exact(width) {
                sums.iter_mut()
                    .zip(row)
                    .for_each(|(sum, value)| *sum += value);
            }
        });
        sums
    };
    let length = CHUNK_ROWS * width;
    if length == 0 {
        return vec![0.0; width];
    }
    let partial = if values.len() <= SERIAL {
        values.chunks(length).map(chunk).collect()
    } else {
        values.par_chunks(length).map(chunk).collect()
    };
    total(partial, width)
}

fn total(partial: Vec<Vec<f32>>, width: usize) -> Vec<f32> {
    let mut total = vec![0.0; width];
    for sums in partial {
        total.iter_mut().zip(sums).for_each(|(t, s)| *t += s);
    }
    total
}
