//! Scaled dot-product attention with grouped queries.

use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{dense, tensor, values, values_mut};
use super::kernel::{Gradients, Kernel, Output};
use super::product::{Arithmetic, Pair, Part, Ready, multiply_ready};
use super::vector::{exp, maximum, sum_1, sum_2, vectorised};
use crate::Readable;

/// Queries of a block. Their scores are all that is held of a head, and the keys that no query of a block may read
/// are left out of its products.
const BLOCK: usize = 64;

/// `softmax(scale q kᵀ) v` over the readable keys; inputs q `[batch, queries, heads, head_dim]`,
/// k and v `[batch, keys, kv_heads, head_dim]`; output `[batch, queries, heads * head_dim]`.
///
/// Items of a batch are shared out to the threads; the scores of a block of queries stay in the cache from product
/// to softmax to product. None are kept for the backward pass, which computes them again, block by block, to the same
/// bits (as in FlashAttention, arXiv 2205.14135). Queries, keys and values are read where the projections left them.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    readable: Readable,
    scale: f32,
}

/// Sizes of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

impl Sizes {
    fn new(q: &FlexTensor, k: &FlexTensor) -> Self {
        let (q, k) = (q.shape(), k.shape());
        Self {
            queries: q[1],
            keys: k[1],
            heads: q[2],
            kv_heads: k[2],
            head_dim: q[3],
        }
    }

    /// Elements of an item's queries.
    pub(super) fn query_item(self) -> usize {
        self.queries * self.heads * self.head_dim
    }

    /// Elements of an item's keys.
    pub(super) fn key_item(self) -> usize {
        self.keys * self.kv_heads * self.head_dim
    }

    /// Elements of the scores of a block of queries.
    pub(super) fn block(self) -> usize {
        BLOCK.min(self.queries) * self.keys
    }

    /// `rows` of a head's queries in an item.
    fn query_part(self, head: usize, rows: &Range<usize>) -> Part {
        let width = self.heads * self.head_dim;
        let start = rows.start * width + head * self.head_dim;
        Part::new(start, rows.len(), self.head_dim, width)
    }

    /// The first `keys` keys (or values) of a key head.
    fn key_part(self, kv_head: usize, keys: usize) -> Part {
        let width = self.kv_heads * self.head_dim;
        Part::new(kv_head * self.head_dim, keys, self.head_dim, width)
    }

    /// The query heads that share a key head.
    fn group(self, kv_head: usize) -> Range<usize> {
        let group = self.heads / self.kv_heads;
        kv_head * group..(kv_head + 1) * group
    }
}

/// The queries, keys and values of one item.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    /// Last readable key of each query, and the keys that it reads at most; absent: all keys.
    limits: Option<(&'a [usize], usize)>,
}

impl Item<'_> {
    /// The keys that query `row` reads.
    fn readable(&self, row: usize, keys: usize) -> Range<usize> {
        let Some((last, window)) = self.limits else {
            return 0..keys;
        };
        let end = (last[row] + 1).min(keys);
        (last[row] + 1).saturating_sub(window).min(end)..end
    }

    /// Blocks of queries, each with the number of keys that one of them reads.
    fn blocks(&self, sizes: Sizes) -> impl Iterator<Item = (Range<usize>, usize)> + '_ {
        (0..sizes.queries).step_by(BLOCK).map(move |start| {
            let rows = start..(start + BLOCK).min(sizes.queries);
            let readable = rows.clone().map(|row| self.readable(row, sizes.keys).end);
            let most = readable.max().unwrap_or(0);
            (rows, most)
        })
    }

    /// The probabilities of a block of queries over the first `keys` keys, in `scores`, row after row; `key`: their head's
    /// keys, transposed.
    fn probabilities(
        &self,
        (query, key): Pair<'_>,
        (rows, keys): (&Range<usize>, usize),
        scale: f32,
        scores: &mut [f32],
    ) {
        let part = Part::whole(rows.len(), keys);
        let all = key.columns();
        let key = key.part_of_columns(0..keys);
        multiply_ready((scores, part), (query, &key), None, 1.0, false);
        vectorised(
            #[inline(always)]
            || {
                for (row, scores) in rows.clone().zip(scores.chunks_exact_mut(keys.max(1))) {
                    let range = self.readable(row, all);
                    softmax(&mut scores[range.clone()], scale);
                    scores[..range.start].fill(0.0);
                    scores[range.end..].fill(0.0);
                }
            },
        );
    }
}

impl Attention {
    /// Attention with heads of `head_dim` channels.
    pub(crate) fn new(readable: &Readable, head_dim: usize) -> Self {
        Self {
            readable: readable.clone(),
            scale: (head_dim as f64).powf(-0.5) as f32,
        }
    }

    /// The arithmetic of the products of a block of queries. Where all positions are queries, padding has a part in how many a
    /// block has, and must have none in the bits of the others; elsewhere the model alone decides.
    fn arithmetic(&self, sizes: Sizes) -> Arithmetic {
        let found = Arithmetic::of(sizes.block() * sizes.head_dim);
        let all = matches!(self.readable, Readable::UpTo { .. }) && sizes.queries == sizes.keys;
        match found {
            Arithmetic::F32 if !all => Arithmetic::F32BySize,
            found => found,
        }
    }

    /// Item `index` of a batch, by its queries, keys and values.
    pub(super) fn item<'a>(
        &'a self,
        [q, k, v]: [&'a [f32]; 3],
        index: usize,
        sizes: Sizes,
    ) -> Item<'a> {
        let limits = match &self.readable {
            Readable::All => None,
            Readable::UpTo { last, window } => {
                let start = index * sizes.queries;
                let own = last.get(start..start + sizes.queries);
                Some((own.unwrap_or(last), *window))
            }
        };
        Item { q, k, v, limits }
    }

    /// The same of whole tensors.
    fn item_of<'a>(&'a self, tensors: [&'a [f32]; 3], index: usize, sizes: Sizes) -> Item<'a> {
        let lengths = [sizes.query_item(), sizes.key_item(), sizes.key_item()];
        let mut lengths = lengths.into_iter();
        let parts = tensors.map(|values| {
            let length = lengths.next().unwrap_or(0);
            &values[index * length..][..length]
        });
        self.item(parts, index, sizes)
    }

    /// One item; `scores`: room for those of a block.
    pub(super) fn forward_item(
        &self,
        item: Item<'_>,
        sizes: Sizes,
        scores: &mut [f32],
        out: &mut [f32],
    ) {
        let arithmetic = self.arithmetic(sizes);
        for kv_head in 0..sizes.kv_heads {
            let part = sizes.key_part(kv_head, sizes.keys);
            let key = Ready::right(arithmetic, (item.k, part.transposed()));
            let value = Ready::right(arithmetic, (item.v, part));
            for head in sizes.group(kv_head) {
                for (rows, keys) in item.blocks(sizes) {
                    let query = sizes.query_part(head, &rows);
                    let read = Ready::left(arithmetic, (item.q, query));
                    item.probabilities((&read, &key), (&rows, keys), self.scale, scores);
                    let part = Part::whole(rows.len(), keys);
                    let map = Ready::left(arithmetic, (&*scores, part));
                    let value = value.first_rows(keys);
                    multiply_ready((out, query), (&map, &value), None, 1.0, false);
                }
            }
        }
    }

    /// One item: the gradient of the output becomes that of the queries; `dk` and `dv` are added
    /// to. `scratch`: room for probabilities of a block and their gradients.
    pub(super) fn backward_item(
        &self,
        item: Item<'_>,
        sizes: Sizes,
        [gradient, dk, dv]: [&mut [f32]; 3],
        [map, scores]: &mut [Vec<f32>; 2],
    ) {
        let arithmetic = self.arithmetic(sizes);
        for kv_head in 0..sizes.kv_heads {
            let part = sizes.key_part(kv_head, sizes.keys);
            let turned_key = Ready::right(arithmetic, (item.k, part.transposed()));
            let turned_value = Ready::right(arithmetic, (item.v, part.transposed()));
            let key = Ready::right(arithmetic, (item.k, part));
            for head in sizes.group(kv_head) {
                for (rows, keys) in item.blocks(sizes) {
                    let query = sizes.query_part(head, &rows);
                    let read = Ready::left(arithmetic, (item.q, query));
                    item.probabilities((&read, &turned_key), (&rows, keys), self.scale, map);
                    let to = sizes.key_part(kv_head, keys);
                    let part = Part::whole(rows.len(), keys);
                    // ∂v += Aᵀ ∂ and ∂A = ∂ vᵀ.
                    let probabilities = Ready::left(arithmetic, (&**map, part.transposed()));
                    let incoming = Ready::right(arithmetic, (&*gradient, query));
                    multiply_ready((dv, to), (&probabilities, &incoming), None, 1.0, true);
                    let incoming = Ready::left(arithmetic, (&*gradient, query));
                    let value = turned_value.part_of_columns(0..keys);
                    multiply_ready((scores, part), (&incoming, &value), None, 1.0, false);
                    vectorised(
                        #[inline(always)]
                        || {
                            let maps = map.chunks_exact(keys.max(1)).take(rows.len());
                            for (map, scores) in maps.zip(scores.chunks_exact_mut(keys.max(1))) {
                                softmax_gradient(map, scores, self.scale);
                            }
                        },
                    );
                    // ∂q = scale ∂S k, over the gradient that was read, and ∂k += scale ∂Sᵀ q.
                    let slopes = Ready::left(arithmetic, (&**scores, part));
                    let pair = (&slopes, &key.first_rows(keys));
                    multiply_ready((gradient, query), pair, None, 1.0, false);
                    let slopes = Ready::left(arithmetic, (&**scores, part.transposed()));
                    let read = Ready::right(arithmetic, (item.q, query));
                    multiply_ready((dk, to), (&slopes, &read), None, 1.0, true);
                }
            }
        }
    }
}

impl Kernel<3> for Attention {
    /// Queries, keys and values.
    type Saved = [FlexTensor; 3];

    fn forward(&self, inputs: [FlexTensor; 3], wanted: [bool; 3]) -> Output<Self::Saved> {
        let inputs = inputs.map(dense);
        let sizes = Sizes::new(&inputs[0], &inputs[1]);
        let batch = inputs[0].shape()[0];
        let tensors = inputs.each_ref().map(values);
        let mut out = vec![0.0; batch * sizes.query_item()];
        out.par_chunks_mut(sizes.query_item().max(1))
            .enumerate()
            .for_each_init(
                || vec![0.0; sizes.block()],
                |scores, (index, out)| {
                    self.forward_item(self.item_of(tensors, index, sizes), sizes, scores, out);
                },
            );
        let shape = [batch, sizes.queries, sizes.heads * sizes.head_dim];
        let saved = wanted.contains(&true).then_some(inputs);
        (tensor(out, shape), saved)
    }

    fn backward(&self, inputs: Self::Saved, gradient: FlexTensor, _: [bool; 3]) -> Gradients<3> {
        let sizes = Sizes::new(&inputs[0], &inputs[1]);
        let tensors = inputs.each_ref().map(values);
        let mut gradient = dense(gradient);
        let mut dk = vec![0.0; tensors[1].len()];
        let mut dv = vec![0.0; tensors[2].len()];
        let length = sizes.key_item().max(1);
        values_mut(&mut gradient)
            .par_chunks_mut(sizes.query_item().max(1))
            .zip(dk.par_chunks_mut(length))
            .zip(dv.par_chunks_mut(length))
            .enumerate()
            .for_each_init(
                || [vec![0.0; sizes.block()], vec![0.0; sizes.block()]],
                |scratch, (index, ((gradient, dk), dv))| {
                    let item = self.item_of(tensors, index, sizes);
                    self.backward_item(item, sizes, [gradient, dk, dv], scratch);
                },
            );
        let [q, k, v] = inputs.each_ref().map(TensorMetadata::shape);
        let dq = gradient.reshape(q);
        [Some(dq), Some(tensor(dk, k)), Some(tensor(dv, v))]
    }
}

/// The softmax of `scores` times `scale`, in their place.
#[inline(always)]
fn softmax(scores: &mut [f32], scale: f32) {
    let largest = maximum(scores) * scale;
    for score in scores.iter_mut() {
        *score = exp(*score * scale - largest);
    }
    let level = 1.0 / sum_1(scores, |s| s);
    for score in scores {
        *score *= level;
    }
}

/// `∂S = scale A ⊙ (∂A − Σ ∂A A)` of one row, over ∂A.
#[inline(always)]
fn softmax_gradient(probabilities: &[f32], gradient: &mut [f32], scale: f32) {
    let level = sum_2(probabilities, gradient, |a, g| a * g);
    for (g, a) in gradient.iter_mut().zip(probabilities) {
        *g = scale * a * (*g - level);
    }
}
