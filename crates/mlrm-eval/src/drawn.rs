//! Numbers for tests, the same every time.

use crate::Embeddings;

/// Numbers below 2²⁴.
pub(crate) fn numbers(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as u32
    }
}

/// Embeddings of notes that are called by their rows, with values in [-0.8, 0.9) times `scale`.
pub(crate) fn noise(notes: usize, dim: usize, seed: u32, scale: f32) -> Embeddings {
    let mut state = seed;
    let values = (0..notes * dim).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / 1e7 - 0.8) * scale
    });
    let ids = (0..notes).map(|id| id.to_string()).collect();
    Embeddings::new(ids, dim, values.collect()).unwrap()
}

/// Embeddings, most of them copies of a few `kinds` with a last bit changed: copies tie exactly, near copies by
/// what a matrix product rounds away. The ids are in the order opposite to that of the rows.
pub(crate) fn near_copies(
    notes: usize,
    dim: usize,
    kinds: usize,
    next: &mut impl FnMut() -> u32,
) -> Embeddings {
    let of_kinds: Vec<f32> = (0..kinds * dim)
        .map(|_| next() as f32 / 8e6 - 1.0)
        .collect();
    let mut values = Vec::with_capacity(notes * dim);
    for _ in 0..notes {
        let (kind, first) = (next() as usize % kinds, values.len());
        values.extend_from_slice(&of_kinds[kind * dim..(kind + 1) * dim]);
        let value: &mut f32 = &mut values[first + next() as usize % dim];
        *value = f32::from_bits(value.to_bits() ^ (next() & 1));
    }
    let ids = (0..notes).rev().map(|id| id.to_string()).collect();
    Embeddings::new(ids, dim, values).unwrap()
}
