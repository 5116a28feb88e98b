//! A feed-forward network of two maps, outside the autodiff graph.

use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::tensor::Tensor;

use super::activation::Pointwise;
use super::buffer::{Slot, build_blocks, dense, tensor, values};
use super::kernel::{unwrap, wrap};
use super::maps::{blocks, ready, room, rows_of};
use super::product::{Arithmetic, Part, Ready, Right, Strips, multiply_ready};
use super::vector::vectorised;
use crate::Layer;

/// `activation(x w₁ + b₁) w₂ + b₂`; x `[rows, inputs]`, the maps `[inputs, inner]` and `[inner, outputs]`. All tensors are
/// f32 on flex, outside the graph.
///
/// Each thread takes a block of rows through both maps; what is between them is made strip by strip.
pub(crate) fn two_layers(x: Tensor<2>, layers: [Layer; 2], activation: Pointwise) -> Tensor<2> {
    let x = dense(unwrap(x));
    let layers =
        layers.map(|(weight, bias)| (unwrap(weight), bias.map(|bias| dense(unwrap(bias)))));
    let [(first, first_bias), (second, second_bias)] = layers;
    let weights = ready(vec![first, second]);
    let [first, second] = [0, 1].map(|index| Right::weight(&weights[index], false));
    let (rows, inner, outputs) = (x.shape()[0], first.columns(), second.columns());
    let arithmetic = Arithmetic::of(rows * first.rows() * inner);
    let [first, second] = [first, second].map(|weight| Ready::shared(arithmetic, weight));
    let [first_bias, second_bias] =
        [&first_bias, &second_bias].map(|bias| bias.as_ref().map(values));
    let blocks = blocks(rows);
    let parts = vec![(); blocks.len()];
    let work = |scratch: &mut Vec<f32>, rows: Range<usize>, slot: Slot<'_>, ()| {
        let count = rows.len();
        let (read, part) = (values(&x), Part::whole(count, x.shape()[1]));
        let read = Ready::left(arithmetic, (rows_of(read, &rows, part.columns()), part));
        let mut activated = Strips::new(arithmetic, count, inner);
        for columns in activated.ranges() {
            let width = columns.len();
            let strip = room(scratch, count * width);
            if let Some(bias) = first_bias {
                let rows = strip.chunks_exact_mut(width);
                rows.for_each(|row| row.copy_from_slice(&bias[columns.clone()]));
            }
            let weight = first.part_of_columns(columns.clone());
            let to = (&mut *strip, Part::whole(count, width));
            multiply_ready(to, (&read, &weight), None, 1.0, first_bias.is_some());
            vectorised(
                #[inline(always)]
                || activation.apply(strip),
            );
            activated.put(&columns, strip);
        }
        let (out, filled) = slot.rows(outputs, |_, slot| match second_bias {
            Some(bias) => slot.copy(bias).1,
            None => slot.fill(std::iter::repeat(0.0)),
        });
        let to = (out, Part::whole(count, outputs));
        multiply_ready(to, (&activated.ready(scratch), &second), None, 1.0, true);
        (filled, ())
    };
    let (out, _) = build_blocks(&blocks, outputs, parts, work);
    wrap(tensor(out, [rows, outputs]))
}
