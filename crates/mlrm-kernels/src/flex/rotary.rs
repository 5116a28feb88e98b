//! Rotary positions.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::buffer::{dense, rows_in_place, values, values_mut};
use super::kernel::{Gradients, Kernel, Output};

/// Rotates the halves of each head; inputs x `[batch, seq, heads, head_dim]`, and the cosines and
/// sines, `[seq or more, head_dim / 2]`, which are constants.
#[derive(Debug, Clone)]
pub(crate) struct Rotate;

impl Kernel<3> for Rotate {
    type Saved = [FlexTensor; 2];

    fn forward(&self, inputs: [FlexTensor; 3], wanted: [bool; 3]) -> Output<Self::Saved> {
        let keep = wanted.contains(&true);
        let [x, cos, sin] = inputs.map(dense);
        let output = rotate(x, &cos, &sin, 1.0);
        (output, keep.then_some([cos, sin]))
    }

    /// The rotation by the opposite angle.
    fn backward(
        &self,
        [cos, sin]: Self::Saved,
        gradient: FlexTensor,
        _: [bool; 3],
    ) -> Gradients<3> {
        [Some(rotate(dense(gradient), &cos, &sin, -1.0)), None, None]
    }
}

/// Rotates `x` in its place (a copy where others share it); `sign` is the sign of the angle.
fn rotate(mut x: FlexTensor, cos: &FlexTensor, sin: &FlexTensor, sign: f32) -> FlexTensor {
    let shape = x.shape();
    let (seq, heads, head_dim) = (shape[1], shape[2], shape[3]);
    let half = head_dim / 2;
    let (cos, sin) = (values(cos), values(sin));
    let width = heads * head_dim;
    rows_in_place(
        values_mut(&mut x),
        width,
        0,
        #[inline(always)]
        |row, values, _sums| {
            let angle = row % seq * half;
            let angles = [&cos[angle..][..half], &sin[angle..][..half]];
            rotate_heads(values, angles, sign);
        },
    );
    x
}

/// Rotates the heads of a position by its angles' cosines and sines; `sign` is the sign of the angles.
#[inline(always)]
pub(super) fn rotate_heads(heads: &mut [f32], [cos, sin]: [&[f32]; 2], sign: f32) {
    let half = cos.len();
    for head in heads.chunks_exact_mut(2 * half) {
        let (first, second) = head.split_at_mut(half);
        let angles = cos.iter().zip(sin);
        for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
            let sin = sign * sin;
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
