//! Scaled dot-product attention with grouped queries.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{dense, tensor, values, values_mut};
use super::kernel::Kernel;
use super::product::{Part, multiply};
use super::vector::{exp, maximum, sum_1, sum_2, vectorised};
use crate::ops::Readable;

/// Queries of a block. The keys that no query of a block may read are left out of its products.
const BLOCK: usize = 64;

/// `softmax(scale q kᵀ) v` over the readable keys; inputs q `[batch, queries, heads, head_dim]`,
/// k and v `[batch, keys, kv_heads, head_dim]`; output `[batch, queries, heads * head_dim]`.
///
/// Items of a batch are shared out to the threads; scores of a head stay in the cache from product
/// to softmax to product. Queries, keys and values are read where the projections left them.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    readable: Readable,
    scale: f32,
}

/// Sizes of one call.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    queries: usize,
    keys: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
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
    fn query_item(self) -> usize {
        self.queries * self.heads * self.head_dim
    }

    /// Elements of an item's keys.
    fn key_item(self) -> usize {
        self.keys * self.kv_heads * self.head_dim
    }

    /// Elements of a head's probabilities.
    fn map(self) -> usize {
        self.queries * self.keys
    }

    /// `rows` of a head's queries in an item.
    fn query_part(self, head: usize, rows: &Range<usize>) -> Part {
        let width = self.heads * self.head_dim;
        let start = rows.start * width + head * self.head_dim;
        Part::new(start, rows.len(), self.head_dim, width)
    }

    /// The first `keys` keys (or values) that a query head reads.
    fn key_part(self, head: usize, keys: usize) -> Part {
        let width = self.kv_heads * self.head_dim;
        let start = head * self.kv_heads / self.heads * self.head_dim;
        Part::new(start, keys, self.head_dim, width)
    }

    /// `rows` and the first `keys` columns of a head's probabilities.
    fn map_part(self, rows: &Range<usize>, keys: usize) -> Part {
        Part::new(rows.start * self.keys, rows.len(), keys, self.keys)
    }
}

/// The queries, keys and values of one item.
#[derive(Clone, Copy)]
struct Item<'a> {
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
        let length = if self.limits.is_some() {
            BLOCK
        } else {
            sizes.queries.max(1)
        };
        (0..sizes.queries).step_by(length).map(move |start| {
            let rows = start..(start + length).min(sizes.queries);
            let readable = rows.clone().map(|row| self.readable(row, sizes.keys).end);
            let most = readable.max().unwrap_or(0);
            (rows, most)
        })
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

    fn item<'a>(&'a self, tensors: [&'a [f32]; 3], index: usize, sizes: Sizes) -> Item<'a> {
        let [q, k, v] = tensors;
        let part = |values: &'a [f32], length: usize| &values[index * length..][..length];
        Item {
            q: part(q, sizes.query_item()),
            k: part(k, sizes.key_item()),
            v: part(v, sizes.key_item()),
            limits: match &self.readable {
                Readable::All => None,
                Readable::UpTo { last, window } => {
                    let start = index * sizes.queries;
                    let own = last.get(start..start + sizes.queries);
                    Some((own.unwrap_or(last), *window))
                }
            },
        }
    }

    /// One item; `map(head)` is where a head's probabilities go.
    fn forward_item(&self, item: Item<'_>, sizes: Sizes, maps: &mut [f32], out: &mut [f32]) {
        let per_head = if maps.len() > sizes.map() {
            sizes.map()
        } else {
            0
        };
        for head in 0..sizes.heads {
            let map = &mut maps[head * per_head..][..sizes.map()];
            for (rows, keys) in item.blocks(sizes) {
                let query = (item.q, sizes.query_part(head, &rows));
                let key = (item.k, sizes.key_part(head, keys).transposed());
                let part = sizes.map_part(&rows, keys);
                multiply((map, part), query, key, self.scale, false);
                vectorised(|| {
                    for row in rows.clone() {
                        let scores = &mut map[row * sizes.keys..][..keys];
                        let range = item.readable(row, sizes.keys);
                        softmax(&mut scores[range.clone()]);
                        scores[..range.start].fill(0.0);
                        scores[range.end..].fill(0.0);
                    }
                });
                let value = (item.v, sizes.key_part(head, keys));
                let result = sizes.query_part(head, &rows);
                multiply((out, result), (map, part), value, 1.0, false);
            }
        }
    }

    /// One item: the gradient of the output becomes that of the queries; `dk` and `dv` are added
    /// to. `scratch`: one head's map.
    fn backward_item(
        &self,
        item: Item<'_>,
        sizes: Sizes,
        maps: &[f32],
        [gradient, dk, dv]: [&mut [f32]; 3],
        scratch: &mut [f32],
    ) {
        for head in 0..sizes.heads {
            let map = &maps[head * sizes.map()..][..sizes.map()];
            for (rows, keys) in item.blocks(sizes) {
                let query = sizes.query_part(head, &rows);
                let key = sizes.key_part(head, keys);
                let part = sizes.map_part(&rows, keys);
                // ∂v += Aᵀ ∂ and ∂A = ∂ vᵀ.
                multiply(
                    (dv, key),
                    (map, part.transposed()),
                    (gradient, query),
                    1.0,
                    true,
                );
                let value = (item.v, key.transposed());
                multiply((scratch, part), (gradient, query), value, 1.0, false);
                vectorised(|| {
                    for row in rows.clone() {
                        let range = row * sizes.keys..row * sizes.keys + keys;
                        softmax_gradient(&map[range.clone()], &mut scratch[range]);
                    }
                });
                // ∂q = scale ∂S k, over the gradient that was read, and ∂k += scale ∂Sᵀ q.
                multiply(
                    (gradient, query),
                    (scratch, part),
                    (item.k, key),
                    self.scale,
                    false,
                );
                let scores = (&*scratch, part.transposed());
                multiply((dk, key), scores, (item.q, query), self.scale, true);
            }
        }
    }
}

impl Kernel<3> for Attention {
    /// Queries, keys, values, and the probabilities `[batch, heads, queries, keys]`.
    type Saved = ([FlexTensor; 3], Arc<Vec<f32>>);

    fn forward(
        &self,
        inputs: [FlexTensor; 3],
        wanted: [bool; 3],
    ) -> (FlexTensor, Option<Self::Saved>) {
        let keep = wanted.contains(&true);
        let inputs = inputs.map(dense);
        let sizes = Sizes::new(&inputs[0], &inputs[1]);
        let batch = inputs[0].shape()[0];
        let tensors = inputs.each_ref().map(values);
        let mut out = vec![0.0; batch * sizes.query_item()];
        let outs = out.par_chunks_mut(sizes.query_item().max(1)).enumerate();
        let mut maps = Vec::new();
        if keep {
            let length = sizes.heads * sizes.map();
            maps = vec![0.0; batch * length];
            outs.zip(maps.par_chunks_mut(length.max(1)))
                .for_each(|((index, out), maps)| {
                    self.forward_item(self.item(tensors, index, sizes), sizes, maps, out);
                });
        } else {
            outs.for_each_init(
                || vec![0.0; sizes.map()],
                |map, (index, out)| {
                    self.forward_item(self.item(tensors, index, sizes), sizes, map, out);
                },
            );
        }
        let shape = [batch, sizes.queries, sizes.heads * sizes.head_dim];
        let saved = keep.then(|| (inputs, Arc::new(maps)));
        (tensor(out, shape), saved)
    }

    fn backward(
        &self,
        (inputs, maps): Self::Saved,
        gradient: FlexTensor,
        _wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
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
            .zip(maps.par_chunks((sizes.heads * sizes.map()).max(1)))
            .enumerate()
            .for_each_init(
                || vec![0.0; sizes.map()],
                |scratch, (index, (((gradient, dk), dv), maps))| {
                    let item = self.item(tensors, index, sizes);
                    self.backward_item(item, sizes, maps, [gradient, dk, dv], scratch);
                },
            );
        let [q, k, v] = inputs.each_ref().map(TensorMetadata::shape);
        let dq = gradient.reshape(q);
        [Some(dq), Some(tensor(dk, k)), Some(tensor(dv, v))]
    }
}

#[inline(always)]
fn softmax(scores: &mut [f32]) {
    let largest = maximum(scores);
    for score in scores.iter_mut() {
        *score = exp(*score - largest);
    }
    let scale = 1.0 / sum_1(scores, |s| s);
    for score in scores {
        *score *= scale;
    }
}

/// `∂S = A ⊙ (∂A − Σ ∂A A)` of one row, over ∂A.
#[inline(always)]
fn softmax_gradient(probabilities: &[f32], gradient: &mut [f32]) {
    let level = sum_2(probabilities, gradient, |a, g| a * g);
    for (g, a) in gradient.iter_mut().zip(probabilities) {
        *g = a * (*g - level);
    }
}
