//! The gated feed-forward half of a layer, from its norm to its sum.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::buffer::{Buffers, Filled, Slot, build_blocks, dense, rows_and_width, tensor, values};
use super::kernel::{Gradients, Kernel, Output};
use super::maps::{
    Kept, Map, Normed, Passage, adapter_gradients, blocks, list, ready, room, rows_of, total,
    weight_gradients,
};
use super::norm::RmsNorm;
use super::product::{Arithmetic, Part, Ready, Strips};
use super::vector::{sigmoid, vectorised};

/// `x + down(silu(gate(n)) * up(n))` with n = rms_norm(x); inputs x `[rows, hidden]`, the norm's weight, the weights of
/// gate, up and down, and then, where the maps have low-rank changes, their factors a and b in the same order.
///
/// Each thread takes a block of rows through all of it. Beside x, the backward pass keeps what gate and up gave, and
/// computes norm and activation again.
#[derive(Debug, Clone)]
pub(crate) struct GatedMlp {
    epsilon: f64,
    /// Of the low-rank changes.
    scales: [f32; 3],
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
    gate: Kept,
    up: Kept,
    /// Between the factors of each low-rank change, scaled.
    low: [Vec<f32>; 3],
}

/// Buffers that a thread uses for one block after the other.
#[derive(Default)]
struct Scratch {
    hidden: Vec<f32>,
    incoming: Vec<f32>,
    inner: [Vec<f32>; 3],
    normal: Vec<f32>,
}

/// Buffers whose products are gradients of weights: the gradients of gate and up, what goes into down, and the normalised
/// input.
const FACTORS: usize = 4;

/// What a pass over the blocks reads.
struct Pass<'a> {
    normed: Normed<'a>,
    inner: usize,
    arithmetic: Arithmetic,
    passages: [Passage<'a>; 3],
}

impl GatedMlp {
    /// With a norm of `epsilon`, and low-rank changes of `scales`.
    pub(crate) fn new(epsilon: f64, scales: [f64; 3]) -> Self {
        let scales = scales.map(|scale| scale as f32);
        Self { epsilon, scales }
    }

    fn maps<'a>(&self, tensors: &'a [FlexTensor], wanted: &[bool]) -> [Map<'a>; 3] {
        [0, 1, 2].map(|map| {
            let low = tensors.get(5 + 2 * map..7 + 2 * map);
            Map::new((&tensors[2 + map], wanted[2 + map]), low, self.scales[map])
        })
    }

    fn pass<'a>(
        &self,
        tensors: &'a [FlexTensor],
        arithmetic: Arithmetic,
        passages: [Passage<'a>; 3],
    ) -> Pass<'a> {
        Pass {
            normed: Normed {
                norm: RmsNorm {
                    epsilon: self.epsilon,
                },
                weight: values(&tensors[1]),
                x: values(&tensors[0]),
            },
            inner: tensors[2].shape()[1],
            arithmetic,
            passages,
        }
    }

    fn run(&self, tensors: Vec<FlexTensor>, wanted: &[bool]) -> Output<Saved> {
        let keep = wanted.contains(&true);
        let tensors = ready(tensors);
        let (rows, hidden) = rows_and_width(&tensors[0]);
        let maps = self.maps(&tensors, wanted);
        let arithmetic = Arithmetic::of(rows * hidden * maps[0].outputs());
        let passages = maps.map(|map| map.forward(arithmetic));
        let pass = self.pass(&tensors, arithmetic, passages);
        let blocks = blocks(rows);
        let parts = vec![(); blocks.len()];
        let (out, kept) = build_blocks(&blocks, hidden, parts, |scratch, rows, slot, ()| {
            pass.forward(scratch, rows, slot, keep)
        });
        let output = tensor(out, tensors[0].shape());
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
        let (rows, hidden) = rows_and_width(&gradient);
        let (tensors, arithmetic) = (&saved.tensors, saved.arithmetic);
        let maps = self.maps(tensors, wanted);
        let passages = maps.map(|map| map.backward(arithmetic));
        let pass = self.pass(tensors, arithmetic, passages);
        let blocks = blocks(rows);
        let widths = [pass.inner, pass.inner, pass.inner, hidden];
        let [weights, adapters] = [&wanted[2..5], &wanted[5..]].map(|part| part.contains(&true));
        let mut buffers = Buffers::new(widths);
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
        let mut found = vec![Some(tensor(dx, gradient.shape()))];
        found.push(sums.next().map(|sums| tensor(sums, [hidden])));
        match weights {
            true => {
                let [gate, up, down, normal] = buffers.whole(&blocks, filled);
                let narrow = Part::whole(rows, hidden);
                let wide = Part::whole(rows, pass.inner);
                let gradient = values(&gradient);
                let learns = [wanted[2], wanted[3], wanted[4]];
                found.extend(weight_gradients(
                    learns,
                    [
                        ((&normal, narrow), (&gate, wide)),
                        ((&normal, narrow), (&up, wide)),
                        ((&down, wide), (gradient, narrow)),
                    ],
                ));
            }
            false => found.extend([None, None, None]),
        }
        if adapters {
            found.extend(adapter_gradients(&mut sums, &maps));
        }
        found.resize_with(wanted.len(), || None);
        found
    }
}

impl Pass<'_> {
    fn forward(
        &self,
        scratch: &mut Scratch,
        rows: Range<usize>,
        slot: Slot<'_>,
        keep: bool,
    ) -> (Filled, Option<Block>) {
        let (count, arithmetic) = (rows.len(), self.arithmetic);
        let x = self.normed.block(&rows);
        let narrow = Part::whole(count, self.normed.width());
        let slot_of_normal = Slot::of(&mut scratch.normal, x.len());
        let (normal, _) = self.normed.forward(&rows, slot_of_normal);
        let read = Ready::left(arithmetic, (&*normal, narrow));
        let [gate, up, _] = scratch.inner.each_mut();
        let [to_gate, to_up, to_down] = &self.passages;
        let [low_gate, low_up] = [to_gate, to_up].map(|map| map.narrow(&read, count));
        let [of_gate, of_up] =
            [(to_gate, &low_gate), (to_up, &low_up)].map(|(map, low)| map.between(low));
        let mut keep = keep.then(|| [(); 2].map(|()| Kept::room(arithmetic, count * self.inner)));
        let mut activated = Strips::new(arithmetic, count, self.inner);
        for columns in activated.ranges() {
            let strip = Part::whole(count, columns.len());
            let gate = room(gate, count * columns.len());
            let up = room(up, count * columns.len());
            let reads = [&of_gate, &of_up].map(|low| (&read, low.as_ref()));
            to_gate.apply_part(reads[0], columns.clone(), (gate, strip), false);
            to_up.apply_part(reads[1], columns.clone(), (up, strip), false);
            vectorised(
                #[inline(always)]
                || {
                    if let Some([kept_gate, kept_up]) = &mut keep {
                        kept_gate.put(self.inner, &columns, gate);
                        kept_up.put(self.inner, &columns, up);
                    }
                    let pairs = gate.iter_mut().zip(&*up);
                    pairs.for_each(|(gate, up)| *gate = *gate * sigmoid(*gate) * up);
                },
            );
            activated.put(&columns, gate);
        }
        let (out, filled) = slot.copy(x);
        let activated = activated.ready(gate);
        let low_down = to_down.apply(&activated, count, (out, narrow), true);
        let kept = keep.map(|[gate, up]| Block {
            gate,
            up,
            low: [low_gate, low_up, low_down],
        });
        (filled, kept)
    }

    /// The gradient of the block's input in `slot`. Returns sums over its rows: for the norm's weight, and the low-rank
    /// factors where `adapters` learn; and proof that the factors of weights' gradients are in their slots.
    ///
    /// With s = σ(gate) and h what goes into down: ∂up = gate s ∂h and ∂gate = up s (1 + gate (1 − s)) ∂h.
    fn backward(
        &self,
        scratch: &mut Scratch,
        rows: Range<usize>,
        gradient: &[f32],
        slot: Slot<'_>,
        (slots, kept): (Option<[Slot<'_>; FACTORS]>, &Block),
        adapters: bool,
    ) -> (Filled, ([Filled; FACTORS], Vec<Vec<f32>>)) {
        let (count, arithmetic) = (rows.len(), self.arithmetic);
        let width = self.normed.width();
        let gradient = rows_of(gradient, &rows, width);
        let narrow = Part::whole(count, width);
        let wide = Part::whole(count, self.inner);
        let [to_gate, to_up, to_down] = &self.passages;
        let Scratch {
            hidden,
            incoming,
            inner: [first, second, third],
            normal,
        } = scratch;
        let length = count * self.inner;
        let [gate, up, down, normal] = slots.unwrap_or_else(|| {
            let [first, second, third] =
                [first, second, third].map(|buffer| Slot::of(buffer, length));
            [first, second, third, Slot::of(normal, count * width)]
        });
        let incoming = room(incoming, length);
        let read = Ready::left(arithmetic, (gradient, narrow));
        let back_down = to_down.apply(&read, count, (incoming, wide), false);
        let (gate, of_gate) = vectorised(
            #[inline(always)]
            || kept.gate.read(gate),
        );
        let (up, of_up) = vectorised(
            #[inline(always)]
            || kept.up.read(up),
        );
        let (down, of_down) = vectorised(
            #[inline(always)]
            || {
                let pairs = gate.iter().zip(&*up);
                down.init(pairs.map(|(gate, up)| gate * sigmoid(*gate) * up))
            },
        );
        vectorised(
            #[inline(always)]
            || {
                for ((gate, up), incoming) in gate.iter_mut().zip(&mut *up).zip(&*incoming) {
                    let (g, u, s) = (*gate, *up, sigmoid(*gate));
                    *gate = u * s * (1.0 + g * (1.0 - s)) * incoming;
                    *up = g * s * incoming;
                }
            },
        );
        let (normal, of_normal) = self.normed.forward(&rows, normal);
        let hidden = room(hidden, count * width);
        let read = Ready::left(arithmetic, (&*gate, wide));
        let back_gate = to_gate.apply(&read, count, (hidden, narrow), false);
        let read = Ready::left(arithmetic, (&*up, wide));
        let back_up = to_up.apply(&read, count, (hidden, narrow), true);
        let (dx, filled) = slot.copy(gradient);
        let mut sums = vec![self.normed.backward(&rows, hidden, dx)];
        if adapters {
            let right = |values, part| Ready::right(arithmetic, (values, part));
            let normal = right(normal, narrow);
            let maps = [
                (&back_gate, &normal, &right(gate, wide)),
                (&back_up, &normal, &right(up, wide)),
                (&back_down, &right(down, wide), &right(gradient, narrow)),
            ];
            for ((passage, forward), (backward, x, dy)) in
                self.passages.iter().zip(&kept.low).zip(maps)
            {
                sums.extend(passage.low_gradients(count, [forward, backward], [x, dy]));
            }
        }
        (filled, ([of_gate, of_up, of_down, of_normal], sums))
    }
}

/// With and without low-rank changes: the factors of these are the inputs that follow the others.
impl<const N: usize> Kernel<N> for GatedMlp {
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
