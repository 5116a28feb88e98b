//! The attention half of a layer, from its norm to its sum.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::attention::{Attention, Sizes};
use super::buffer::{Buffers, Filled, Slot, build_blocks, dense, tensor, values};
use super::kernel::Kernel;
use super::maps::{
    Kept, Map, Normed, Passage, adapter_gradients, list, ready, room, rows_of, total,
    weight_gradients,
};
use super::norm::RmsNorm;
use super::product::{Arithmetic, Part, Ready};
use super::rotary::rotate_heads;
use super::vector::vectorised;

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

/// Buffers that a thread uses for one block after the other.
#[derive(Default)]
struct Scratch {
    normal: Vec<f32>,
    hidden: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    incoming: Vec<f32>,
    /// Rotated queries, keys, and values of an item, then the gradients of the last two.
    item: [Vec<f32>; 5],
    /// Of a block of queries.
    scores: [Vec<f32>; 2],
}

/// Buffers whose products are gradients of weights: the gradients of queries, keys and values, what goes into the
/// output, and the normalised input.
const FACTORS: usize = 3;

/// Rows that a block has at least, where the batch is large enough.
const BLOCK_ROWS: usize = 128;

/// What a pass over the blocks reads.
struct Pass<'a> {
    attention: &'a Attention,
    normed: Normed<'a>,
    sizes: Sizes,
    angles: [&'a [f32]; 2],
    arithmetic: Arithmetic,
    passages: [Passage<'a>; 4],
}

impl AttentionHalf {
    /// With a norm of `epsilon`, and low-rank changes of `scales`.
    pub(crate) fn new(attention: Attention, epsilon: f64, scales: [f64; 4]) -> Self {
        Self {
            attention,
            epsilon,
            scales: scales.map(|scale| scale as f32),
        }
    }

    fn maps<'a>(&self, tensors: &'a [FlexTensor]) -> [Map<'a>; 4] {
        [0, 1, 2, 3].map(|map| {
            let low = tensors.get(8 + 2 * map..10 + 2 * map);
            Map::new(&tensors[2 + map], low, self.scales[map])
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

    fn run(&self, tensors: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Option<Saved>) {
        let mut tensors = ready(tensors);
        for index in [6, 7] {
            tensors[index] = dense(tensors[index].clone());
        }
        let shape = tensors[0].shape();
        let maps = self.maps(&tensors);
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
        let maps = self.maps(tensors);
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

impl Pass<'_> {
    /// Width of all heads of queries.
    fn heads_width(&self) -> usize {
        self.sizes.heads * self.sizes.head_dim
    }

    /// Width of queries, keys and values together.
    fn total(&self) -> usize {
        (self.sizes.heads + 2 * self.sizes.kv_heads) * self.sizes.head_dim
    }

    /// Queries, keys and values of `rows` positions that have all three side by side.
    fn parts(&self, rows: usize) -> [Part; 3] {
        let (total, head_dim) = (self.total(), self.sizes.head_dim);
        let [q, k] = [self.sizes.heads, self.sizes.kv_heads].map(|heads| heads * head_dim);
        [(0, q), (q, k), (q + k, k)].map(|(start, width)| Part::new(start, rows, width, total))
    }

    /// Takes an item's queries, keys and values apart and rotates the first two.
    fn take_apart(&self, qkv: &[f32], item: &mut [Vec<f32>; 5]) {
        let sizes = self.sizes;
        let (wide, narrow) = (self.heads_width(), sizes.kv_heads * sizes.head_dim);
        let [q, k, v, _, _] = item.each_mut();
        let q = room(q, sizes.query_item()).chunks_exact_mut(wide);
        let k = room(k, sizes.key_item()).chunks_exact_mut(narrow);
        let v = room(v, sizes.key_item()).chunks_exact_mut(narrow);
        vectorised(
            #[inline(always)]
            || {
                let rows = qkv.chunks_exact(self.total()).zip(q).zip(k).zip(v);
                for (position, (((row, q), k), v)) in rows.enumerate() {
                    let angles = self.angles_at(position);
                    q.copy_from_slice(&row[..wide]);
                    rotate_heads(q, angles, 1.0);
                    k.copy_from_slice(&row[wide..wide + narrow]);
                    rotate_heads(k, angles, 1.0);
                    v.copy_from_slice(&row[wide + narrow..]);
                }
            },
        );
    }

    /// Puts the gradients of an item's rotated queries, of its rotated keys and of its values in the places of `qkv`.
    fn put_together(&self, [q, k, v]: [&[f32]; 3], qkv: &mut [f32]) {
        let sizes = self.sizes;
        let (wide, narrow) = (self.heads_width(), sizes.kv_heads * sizes.head_dim);
        let (q, k) = (q.chunks_exact(wide), k.chunks_exact(narrow));
        vectorised(
            #[inline(always)]
            || {
                let rows = qkv.chunks_exact_mut(self.total());
                let rows = rows.zip(q).zip(k).zip(v.chunks_exact(narrow));
                for (position, (((row, q), k), v)) in rows.enumerate() {
                    let angles = self.angles_at(position);
                    row[..wide].copy_from_slice(q);
                    row[wide..wide + narrow].copy_from_slice(k);
                    rotate_heads(&mut row[..wide + narrow], angles, -1.0);
                    row[wide + narrow..].copy_from_slice(v);
                }
            },
        );
    }

    fn angles_at(&self, position: usize) -> [&[f32]; 2] {
        let half = self.sizes.head_dim / 2;
        self.angles.map(|table| &table[position * half..][..half])
    }

    fn forward(
        &self,
        scratch: &mut Scratch,
        rows: Range<usize>,
        slot: Slot<'_>,
        keep: bool,
    ) -> (Filled, Option<Block>) {
        let (count, sizes, arithmetic) = (rows.len(), self.sizes, self.arithmetic);
        let width = self.normed.width();
        let narrow = Part::whole(count, width);
        let slot_of_normal = Slot::of(&mut scratch.normal, count * width);
        let (normal, _) = self.normed.forward(&rows, slot_of_normal);
        let read = Ready::left(arithmetic, (&*normal, narrow));
        let qkv = room(&mut scratch.qkv, count * self.total());
        let [to_q, to_k, to_v, to_output] = &self.passages;
        let [q, k, v] = self.parts(count);
        let low_q = to_q.apply(&read, count, (qkv, q), false);
        let low_k = to_k.apply(&read, count, (qkv, k), false);
        let low_v = to_v.apply(&read, count, (qkv, v), false);
        let wide = self.heads_width();
        let attended = room(&mut scratch.attended, count * wide);
        let [scores, _] = &mut scratch.scores;
        let items = qkv.chunks_exact(sizes.queries * self.total());
        for (index, (qkv, out)) in items
            .zip(attended.chunks_exact_mut(sizes.query_item()))
            .enumerate()
        {
            self.take_apart(qkv, &mut scratch.item);
            let [q, k, v, _, _] = &scratch.item;
            let index = rows.start / sizes.queries + index;
            let item = self.attention.item([q, k, v], index, sizes);
            self.attention
                .forward_item(item, sizes, room(scores, sizes.block()), out);
        }
        let kept = keep.then(|| {
            vectorised(
                #[inline(always)]
                || [Kept::new(arithmetic, qkv), Kept::new(arithmetic, attended)],
            )
        });
        let (out, filled) = slot.copy(self.normed.block(&rows));
        let read = Ready::left(arithmetic, (&*attended, Part::whole(count, wide)));
        let low_output = to_output.apply(&read, count, (out, narrow), true);
        let kept = kept.map(|[qkv, attended]| Block {
            qkv,
            attended,
            low: [low_q, low_k, low_v, low_output],
        });
        (filled, kept)
    }

    /// The gradient of the block's input in `slot`. Returns sums over its rows: for the norm's weight, and the low-rank
    /// factors where `adapters` learn; and proof that the factors of weights' gradients are in their slots.
    fn backward(
        &self,
        scratch: &mut Scratch,
        rows: Range<usize>,
        gradient: &[f32],
        slot: Slot<'_>,
        (slots, kept): (Option<[Slot<'_>; FACTORS]>, &Block),
        adapters: bool,
    ) -> (Filled, ([Filled; FACTORS], Vec<Vec<f32>>)) {
        let (count, arithmetic, width) = (rows.len(), self.arithmetic, self.normed.width());
        let gradient = rows_of(gradient, &rows, width);
        let narrow = Part::whole(count, width);
        let wide = self.heads_width();
        let over_heads = Part::whole(count, wide);
        let [to_q, to_k, to_v, to_output] = &self.passages;
        let incoming = room(&mut scratch.incoming, count * wide);
        let read = Ready::left(arithmetic, (gradient, narrow));
        let back_output = to_output.apply(&read, count, (incoming, over_heads), false);
        let [qkv, attended, normal] = slots.unwrap_or_else(|| {
            [
                Slot::of(&mut scratch.qkv, count * self.total()),
                Slot::of(&mut scratch.attended, count * wide),
                Slot::of(&mut scratch.normal, count * width),
            ]
        });
        let (qkv, of_qkv) = vectorised(
            #[inline(always)]
            || kept.qkv.read(qkv),
        );
        let (attended, of_attended) = vectorised(
            #[inline(always)]
            || kept.attended.read(attended),
        );
        self.through_attention(&rows, qkv, incoming, &mut scratch.item, &mut scratch.scores);
        let (normal, of_normal) = self.normed.forward(&rows, normal);
        let hidden = room(&mut scratch.hidden, count * width);
        let parts = self.parts(count);
        let mut back = Vec::with_capacity(4);
        for (index, (passage, part)) in [to_q, to_k, to_v].into_iter().zip(parts).enumerate() {
            let read = Ready::left(arithmetic, (&*qkv, part));
            back.push(passage.apply(&read, count, (hidden, narrow), index > 0));
        }
        back.push(back_output);
        let (dx, filled) = slot.copy(gradient);
        let mut sums = vec![vec![0.0; width]];
        self.normed.backward(&rows, hidden, dx, &mut sums[0]);
        if adapters {
            let right = |values, part| Ready::right(arithmetic, (values, part));
            let normal = right(normal, narrow);
            let [q, k, v] = parts.map(|part| right(qkv, part));
            let attended = right(attended, over_heads);
            let gradient = right(gradient, narrow);
            let maps = [
                [&normal, &q],
                [&normal, &k],
                [&normal, &v],
                [&attended, &gradient],
            ];
            let passages = self
                .passages
                .iter()
                .zip(maps)
                .zip(kept.low.iter().zip(&back));
            for ((passage, factors), (forward, backward)) in passages {
                sums.extend(passage.low_gradients(count, [forward, backward], factors));
            }
        }
        (filled, ([of_qkv, of_attended, of_normal], sums))
    }

    /// Puts gradients in the places of the queries, keys and values in `qkv`, by those of what attention gave, which are
    /// overwritten.
    fn through_attention(
        &self,
        rows: &Range<usize>,
        qkv: &mut [f32],
        incoming: &mut [f32],
        item: &mut [Vec<f32>; 5],
        scores: &mut [Vec<f32>; 2],
    ) {
        let sizes = self.sizes;
        for scores in &mut *scores {
            room(scores, sizes.block());
        }
        let items = qkv.chunks_exact_mut(sizes.queries * self.total());
        let items = items.zip(incoming.chunks_exact_mut(sizes.query_item()));
        for (index, (qkv, incoming)) in items.enumerate() {
            self.take_apart(qkv, item);
            let [q, k, v, dk, dv] = item.each_mut();
            let [dk, dv] = [dk, dv].map(|buffer| room(buffer, sizes.key_item()));
            dk.fill(0.0);
            dv.fill(0.0);
            let index = rows.start / sizes.queries + index;
            let item = self.attention.item([q, k, v], index, sizes);
            let gradients = [&mut *incoming, &mut *dk, &mut *dv];
            self.attention.backward_item(item, sizes, gradients, scores);
            self.put_together([incoming, dk, dv], qkv);
        }
    }
}

impl Kernel<8> for AttentionHalf {
    type Saved = Saved;

    fn forward(
        &self,
        inputs: [FlexTensor; 8],
        wanted: [bool; 8],
    ) -> (FlexTensor, Option<Self::Saved>) {
        self.run(inputs.into(), wanted.contains(&true))
    }

    fn backward(
        &self,
        saved: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; 8],
    ) -> [Option<FlexTensor>; 8] {
        list(self.gradients(&saved, gradient, &wanted))
    }
}

impl Kernel<16> for AttentionHalf {
    type Saved = Saved;

    fn forward(
        &self,
        inputs: [FlexTensor; 16],
        wanted: [bool; 16],
    ) -> (FlexTensor, Option<Self::Saved>) {
        self.run(inputs.into(), wanted.contains(&true))
    }

    fn backward(
        &self,
        saved: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; 16],
    ) -> [Option<FlexTensor>; 16] {
        list(self.gradients(&saved, gradient, &wanted))
    }
}
