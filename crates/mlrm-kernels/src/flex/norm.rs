//! Norms over the last axis.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::buffer::{build, dense, rows_and_width, rows_in_place, tensor, values, values_mut};
use super::kernel::{Gradients, Kernel, Output};
use super::vector::{sum_1, sum_2, sum_3};

/// `x / sqrt(mean(x²) + epsilon) * weight`; inputs x, weight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RmsNorm {
    pub(crate) epsilon: f64,
}

impl RmsNorm {
    /// 1 / sqrt(mean(x²) + ε)
    #[inline(always)]
    fn scale(&self, x: &[f32]) -> f32 {
        let mean = sum_1(x, |x| x * x) / x.len() as f32;
        1.0 / (mean + self.epsilon as f32).sqrt()
    }

    /// A row, normalised.
    #[inline(always)]
    pub(super) fn row(&self, x: &[f32], weight: &[f32]) -> impl Iterator<Item = f32> {
        let scale = self.scale(x);
        x.iter().zip(weight).map(move |(x, w)| x * scale * w)
    }

    /// With r = 1 / sqrt(mean(x²) + ε), n = width and h = g ⊙ w: g becomes ∂x = r h − x r³ Σ(h x) / n, and g x r is added to
    /// `sums`, which become ∂w.
    #[inline(always)]
    pub(super) fn row_gradient(&self, x: &[f32], weight: &[f32], g: &mut [f32], sums: &mut [f32]) {
        let scale = self.scale(x);
        let product = sum_3(g, weight, x, |g, w, x| g * w * x);
        let pull = product * scale * scale * scale / x.len() as f32;
        for (((g, x), w), sum) in g.iter_mut().zip(x).zip(weight).zip(sums) {
            *sum += *g * x * scale;
            *g = *g * w * scale - x * pull;
        }
    }
}

impl Kernel<2> for RmsNorm {
    type Saved = [FlexTensor; 2];

    fn forward(&self, inputs: [FlexTensor; 2], wanted: [bool; 2]) -> Output<Self::Saved> {
        let keep = wanted.contains(&true);
        let inputs = inputs.map(dense);
        let (rows, width) = rows_and_width(&inputs[0]);
        let [x, weight] = inputs.each_ref().map(values);
        let output = build(
            rows,
            width,
            #[inline(always)]
            |row, slot| slot.fill(self.row(&x[row * width..][..width], weight)),
        );
        (tensor(output, inputs[0].shape()), keep.then_some(inputs))
    }

    fn backward(&self, saved: Self::Saved, gradient: FlexTensor, _: [bool; 2]) -> Gradients<2> {
        let mut gradient = dense(gradient);
        let (_, width) = rows_and_width(&gradient);
        let [x, weight] = saved.each_ref().map(values);
        let sums = rows_in_place(
            values_mut(&mut gradient),
            width,
            width,
            #[inline(always)]
            |row, g, sums| {
                self.row_gradient(&x[row * width..][..width], weight, g, sums);
            },
        );
        [Some(gradient), Some(tensor(sums, [width]))]
    }
}

/// `(x - mean) / sqrt(var + epsilon) * weight + bias`; inputs x, weight, bias.
#[derive(Debug, Clone)]
pub(crate) struct LayerNorm {
    pub(crate) epsilon: f64,
}

impl LayerNorm {
    /// Mean and 1 / sqrt(var + ε).
    #[inline(always)]
    fn moments(&self, x: &[f32]) -> (f32, f32) {
        let mean = sum_1(x, |x| x) / x.len() as f32;
        let variance = sum_1(x, |x| (x - mean) * (x - mean)) / x.len() as f32;
        (mean, 1.0 / (variance + self.epsilon as f32).sqrt())
    }
}

impl Kernel<3> for LayerNorm {
    type Saved = [FlexTensor; 2];

    fn forward(&self, inputs: [FlexTensor; 3], wanted: [bool; 3]) -> Output<Self::Saved> {
        let keep = wanted.contains(&true);
        let inputs = inputs.map(dense);
        let (rows, width) = rows_and_width(&inputs[0]);
        let [x, weight, bias] = inputs.each_ref().map(values);
        let output = build(
            rows,
            width,
            #[inline(always)]
            |row, slot| {
                let x = &x[row * width..][..width];
                let (mean, scale) = self.moments(x);
                let both = weight.iter().zip(bias);
                slot.fill(
                    x.iter()
                        .zip(both)
                        .map(|(x, (w, b))| (x - mean) * scale * w + b),
                )
            },
        );
        let output = tensor(output, inputs[0].shape());
        let [x, weight, _] = inputs;
        (output, keep.then_some([x, weight]))
    }

    /// With n = (x − mean) r and h = g ⊙ w: ∂x = r (h − mean(h) − n mean(h n)), ∂w = Σ_rows g n,
    /// ∂b = Σ_rows g.
    fn backward(&self, saved: Self::Saved, gradient: FlexTensor, _: [bool; 3]) -> Gradients<3> {
        let mut gradient = dense(gradient);
        let (_, width) = rows_and_width(&gradient);
        let [x, weight] = saved.each_ref().map(values);
        let mut weights = rows_in_place(
            values_mut(&mut gradient),
            width,
            2 * width,
            #[inline(always)]
            |row: usize, g: &mut [f32], sums: &mut [f32]| {
                let x = &x[row * width..][..width];
                let (mean, scale) = self.moments(x);
                let level = sum_2(g, weight, |g, w| g * w) / width as f32;
                let slope =
                    sum_3(g, weight, x, |g, w, x| g * w * (x - mean)) * scale / width as f32;
                let (weights, biases) = sums.split_at_mut(width);
                let sums = weights.iter_mut().zip(biases);
                for (((g, x), w), (weight_sum, bias_sum)) in
                    g.iter_mut().zip(x).zip(weight).zip(sums)
                {
                    let normal = (x - mean) * scale;
                    *weight_sum += *g * normal;
                    *bias_sum += *g;
                    *g = scale * (*g * w - level - normal * slope);
                }
            },
        );
        let biases = weights.split_off(width);
        let [weights, biases] = [weights, biases].map(|sums| Some(tensor(sums, [width])));
        [Some(gradient), weights, biases]
    }
}
