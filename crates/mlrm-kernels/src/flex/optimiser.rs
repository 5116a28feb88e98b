//! The optimiser's passes over parameters, each in one go.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::buffer::{dense, share_out, tensor, values, values_mut};
use super::kernel::{unwrap, wrap};
use super::vector::{sum_1, vectorised};
use crate::{AdamRule, AdamState};

/// Elements that a thread takes at a time.
const CHUNK: usize = 16 * 1024;

/// See [`crate::adamw`]; the new parameter takes the gradient's buffer, and the moments change
/// in their places.
pub(crate) fn adamw(
    state: AdamState,
    gradient: Tensor<1>,
    rule: AdamRule,
    control: Tensor<1>,
) -> AdamState {
    let control = dense(unwrap(control));
    let [take, scale, step_size, second_scale] = [0, 1, 2, 3].map(|index| values(&control)[index]);
    if take == 0.0 {
        return state;
    }
    let update = Update {
        rule,
        scale,
        step_size,
        second_scale,
    };
    let tensors = [state.parameter, gradient, state.first, state.second];
    let [parameter, first, second] = update.apply(tensors.map(|t| dense(unwrap(t)))).map(wrap);
    AdamState {
        parameter,
        first,
        second,
    }
}

struct Update {
    rule: AdamRule,
    scale: f32,
    step_size: f32,
    second_scale: f32,
}

impl Update {
    /// Parameter, gradient and moments become parameter and moments.
    fn apply(
        &self,
        [parameter, mut gradient, mut first, mut second]: [FlexTensor; 4],
    ) -> [FlexTensor; 3] {
        let elements = values(&parameter).len();
        let old = values(&parameter).chunks(CHUNK);
        let new = values_mut(&mut gradient).chunks_mut(CHUNK);
        let firsts = values_mut(&mut first).chunks_mut(CHUNK);
        let seconds = values_mut(&mut second).chunks_mut(CHUNK);
        let chunks = old.zip(new).zip(firsts).zip(seconds).collect();
        share_out(chunks, elements, |_, (((old, new), first), second)| {
            vectorised(
                #[inline(always)]
                || self.chunk(old, new, first, second),
            );
        });
        [gradient, first, second]
    }

    /// `new` holds the gradient and becomes the parameter.
    #[inline(always)]
    fn chunk(&self, old: &[f32], new: &mut [f32], first: &mut [f32], second: &mut [f32]) {
        let AdamRule {
            beta_1,
            beta_2,
            epsilon,
            keep,
        } = self.rule;
        let moments = first.iter_mut().zip(second);
        for ((old, new), (first, second)) in old.iter().zip(new).zip(moments) {
            let gradient = *new * self.scale;
            *first = *first * beta_1 + gradient * (1.0 - beta_1);
            *second = *second * beta_2 + gradient * gradient * (1.0 - beta_2);
            let root = second.sqrt() * self.second_scale;
            *new = old * keep - *first / (root + epsilon) * self.step_size;
        }
    }
}

/// See [`crate::squared_norm`]; sums of chunks are added up in f64.
pub(crate) fn squared_norm(flat: Tensor<1>) -> Tensor<1> {
    let flat = dense(unwrap(flat));
    let square = |chunk: &[f32]| {
        f64::from(vectorised(
            #[inline(always)]
            || {
                sum_1(
                    chunk,
                    #[inline(always)]
                    |v| v * v,
                )
            },
        ))
    };
    let partial: Vec<f64> = values(&flat).par_chunks(CHUNK).map(square).collect();
    let total: f64 = partial.into_iter().sum();
    wrap(tensor(vec![total as f32], [1]))
}
