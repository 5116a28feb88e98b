//! The attention half of a layer, from its norm to its sum.

mod pass;

use std::ops::Range;
use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::attention::{Attention, Sizes};
use super::buffer::{Buffers, build_blocks, dense, tensor, values};
use super::kernel::{Gradients, Kernel, Output};
use super::maps::{
    Kept, Map, Normed, Passage, adapter_gradients, list, ready, total, weight_gradients,
};
use super::norm::RmsNorm;
use super::product::{Arithmetic, Part};
use pass::Pass;

/// `x + output(attention(rotated queries(n), rotated keys(n), values(n)))` with n = rms_norm(x); inputs x `[batch, seq, hidden]`,
/// the norm's weight, the weights of the maps to queries, keys and values and of that to the output, cosines and sines
/// `[seq or more, head_dim / 2]`, and then, where the maps have low-rank changes, their factors a and b in the same order.
///
/// Each thread takes a few items of the batch through all of it. Beside x, the backward pass keeps what the maps to
/// queries, keys and values gave, and what attention gave, and computes the rest again.
#[derive(Debug, Clone)]
pub(crate) struct AttentionHalf {
    attention: Attention,
    epsilon: f64,
    /// Of the low-rank changes.
    scales: [f32; 4],
}

/// What the backward pass needs.
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    tensors: Vec<FlexTensor>,
    blocks: Arc<Vec<Block>>,
    arithmetic: Arithmetic,
}

/// What it needs of a block.
#[derive(Debug, Clone)]
struct Block {
    /// Queries, keys and values of each position side by side, not rotated.
    qkv: Kept,
    attended: Kept,
    /// Between the factors of each low-rank change, scaled.
    low: [Vec<f32>; 4],
}

/// Rows that a block has at least, where the batch is large enough.
const BLOCK_ROWS: usize = 128;

impl AttentionHalf {
    /// With a norm of `epsilon`, and low-rank changes of `scales`.
    pub(crate) fn new(attention: Attention, epsilon: f64, scales: [f64; 4]) -> Self {
        Self {
            attention,
            epsilon,
            scales: scales.map(|scale| scale as f32),
        }
    }

    fn maps<'a>(&self, tensors: &'a [FlexTensor], wanted: &[bool]) -> [Map<'a>; 4] {
        [0, 1, 2, 3].map(|map| {
            let low = tensors.get(8 + 2 * map..10 + 2 * map);
            Map::new((&tensors[2 + map], wanted[2 + map]), low, self.scales[map])
        })
    }

    fn pass<'a>(
        &'a self,
        tensors: &'a [FlexTensor],
        arithmetic: Arithmetic,
        passages: [Passage<'a>; 4],
    ) -> Pass<'a> {
        let (seq, head_dim) = (tensors[0].shape()[1], 2 * tensors[6].shape()[1]);
        Pass {
            attention: &self.attention,
            normed: Normed {
                norm: RmsNorm {
                    epsilon: self.epsilon,
                },
                weight: values(&tensors[1]),
                x: values(&tensors[0]),
            },
            sizes: Sizes {
                queries: seq,
                keys: seq,
                heads: tensors[2].shape()[1] / head_dim,
                kv_heads: tensors[3].shape()[1] / head_dim,
                head_dim,
            },
            angles: [values(&tensors[6]), values(&tensors[7])],
            arithmetic,
            passages,
        }
    }

    fn run(&self, tensors: Vec<FlexTensor>, wanted: &[bool]) -> Output<Saved> {
        let keep = wanted.contains(&true);
        let mut tensors = ready(tensors);
        for index in [6, 7] {
            tensors[index] = dense(tensors[index].clone());
        }
        let shape = tensors[0].shape();
        let maps = self.maps(&tensors, wanted);
        let work = shape.num_elements() * maps[0].outputs();
        let arithmetic = Arithmetic::of(work);
        let passages = maps.map(|map| map.forward(arithmetic));
        let pass = self.pass(&tensors, arithmetic, passages);
        let blocks = blocks(shape[0], shape[1]);
        let parts = vec![(); blocks.len()];
        let (out, kept) = build_blocks(&blocks, shape[2], parts, |scratch, rows, slot, ()| {
            pass.forward(scratch, rows, slot, keep)
        });
        let output = tensor(out, shape);
        let saved = keep.then(|| Saved {
            blocks: Arc::new(kept.into_iter().flatten().collect()),
            tensors,
            arithmetic,
        });
        (output, saved)
    }

    /// Gradients of all inputs; those of weights and of low-rank factors where they are `wanted`.
    fn gradients(
        &self,
        saved: &Saved,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let gradient = dense(gradient);
        let shape = gradient.shape();
        let (rows, hidden) = (shape[0] * shape[1], shape[2]);
        let (tensors, arithmetic) = (&saved.tensors, saved.arithmetic);
        let maps = self.maps(tensors, wanted);
        let passages = maps.map(|map| map.backward(arithmetic));
        let pass = self.pass(tensors, arithmetic, passages);
        let blocks = blocks(shape[0], shape[1]);
        let [weights, adapters] = [&wanted[2..6], &wanted[8..]].map(|part| part.contains(&true));
        let mut buffers = Buffers::new([pass.total(), pass.heads_width(), hidden]);
        let slots: Vec<_> = match weights {
            true => buffers.slots(&blocks).into_iter().map(Some).collect(),
            false => blocks.iter().map(|_| None).collect(),
        };
        let parts = slots.into_iter().zip(saved.blocks.iter()).collect();
        let (dx, results) = build_blocks(&blocks, hidden, parts, |scratch, rows, slot, part| {
            pass.backward(scratch, rows, values(&gradient), slot, part, adapters)
        });
        let (filled, sums): (Vec<_>, Vec<_>) = results.into_iter().unzip();
        let mut sums = total(sums).into_iter();
        let mut found = vec![Some(tensor(dx, shape))];
        found.push(sums.next().map(|sums| tensor(sums, [hidden])));
        match weights {
            true => {
                let [qkv, attended, normal] = buffers.whole(&blocks, filled);
                let read = (&*normal, Part::whole(rows, hidden));
                let [q, k, v] = pass.parts(rows).map(|part| (read, (&*qkv, part)));
                let attended = (&*attended, Part::whole(rows, pass.heads_width()));
                let gradient = (values(&gradient), Part::whole(rows, hidden));
                let learns = [wanted[2], wanted[3], wanted[4], wanted[5]];
                found.extend(weight_gradients(learns, [q, k, v, (attended, gradient)]));
            }
            false => found.extend([const { None }; 4]),
        }
        // Cosines and sines are constants.
        found.extend([None, None]);
        if adapters {
            found.extend(adapter_gradients(&mut sums, &maps));
        }
        found.resize_with(wanted.len(), || None);
        found
    }
}

/// Rows of whole items, as many as it takes to fill a block. They do not depend on the number of threads.
fn blocks(batch: usize, seq: usize) -> Vec<Range<usize>> {
    let items = (BLOCK_ROWS / seq.max(1)).clamp(1, batch.div_ceil(8).max(1));
    (0..batch)
        .step_by(items)
        .map(|first| first * seq..(first + items).min(batch) * seq)
        .collect()
}

/// With and without low-rank changes: the factors of these are the inputs that follow the others.
impl<const N: usize> Kernel<N> for AttentionHalf {
    type Saved = Saved;

    fn forward(&self, inputs: [FlexTensor; N], wanted: [bool; N]) -> Output<Self::Saved> {
        self.run(inputs.into(), &wanted)
    }

    fn backward(
        &self,
        saved: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; N],
    ) -> Gradients<N> {
        list(self.gradients(&saved, gradient, &wanted))
    }
}
