//! A block of the attention half, forward and backward.

use std::ops::Range;

use super::super::attention::{Attention, Sizes};
use super::super::buffer::{Filled, Slot};
use super::super::maps::{Kept, Normed, Passage, room, rows_of};
use super::super::product::{Arithmetic, Part, Ready};
use super::super::rotary::rotate_heads;
use super::super::vector::vectorised;
use super::Block;

/// Buffers that a thread uses for one block after the other.
#[derive(Default)]
pub(super) struct Scratch {
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

/// What a pass over the blocks reads.
pub(super) struct Pass<'a> {
    pub(super) attention: &'a Attention,
    pub(super) normed: Normed<'a>,
    pub(super) sizes: Sizes,
    pub(super) angles: [&'a [f32]; 2],
    pub(super) arithmetic: Arithmetic,
    pub(super) passages: [Passage<'a>; 4],
}

impl Pass<'_> {
    /// Width of all heads of queries.
    pub(super) fn heads_width(&self) -> usize {
        self.sizes.heads * self.sizes.head_dim
    }

    /// Width of queries, keys and values together.
    pub(super) fn total(&self) -> usize {
        (self.sizes.heads + 2 * self.sizes.kv_heads) * self.sizes.head_dim
    }

    /// Queries, keys and values of `rows` positions that have all three side by side.
    pub(super) fn parts(&self, rows: usize) -> [Part; 3] {
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

    pub(super) fn forward(
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
    pub(super) fn backward(
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
        let mut sums = vec![self.normed.backward(&rows, hidden, dx)];
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
