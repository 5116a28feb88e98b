//! Activations of feed-forward networks.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::buffer::{
    build, dense, in_place, pair_in_place, rows_and_width, tensor, values, values_mut,
};
use super::kernel::{Gradients, Kernel, Output};
use super::vector::{erf, exp, sigmoid};

/// `silu(gate) * up`; inputs gate, up.
#[derive(Debug, Clone)]
pub(crate) struct SwiGlu;

impl Kernel<2> for SwiGlu {
    type Saved = [FlexTensor; 2];

    fn forward(&self, inputs: [FlexTensor; 2], wanted: [bool; 2]) -> Output<Self::Saved> {
        let keep = wanted.contains(&true);
        let inputs = inputs.map(dense);
        let (rows, width) = rows_and_width(&inputs[0]);
        let [gate, up] = inputs.each_ref().map(values);
        let output = build(
            rows,
            width,
            #[inline(always)]
            |row, slot| {
                let gate = &gate[row * width..][..width];
                let up = &up[row * width..][..width];
                slot.fill(gate.iter().zip(up).map(|(g, u)| g * sigmoid(*g) * u))
            },
        );
        (tensor(output, inputs[0].shape()), keep.then_some(inputs))
    }

    /// With s = σ(gate): ∂up = gate s ∂ and ∂gate = up s (1 + gate (1 − s)) ∂, written over up and
    /// gate.
    fn backward(
        &self,
        [mut gate, mut up]: Self::Saved,
        gradient: FlexTensor,
        _: [bool; 2],
    ) -> Gradients<2> {
        let gradient = dense(gradient);
        let incoming = values(&gradient);
        pair_in_place(
            values_mut(&mut gate),
            values_mut(&mut up),
            #[inline(always)]
            |start: usize, gates: &mut [f32], ups: &mut [f32]| {
                let incoming = &incoming[start..][..gates.len()];
                for ((gate, up), incoming) in gates.iter_mut().zip(ups).zip(incoming) {
                    let (g, u, s) = (*gate, *up, sigmoid(*gate));
                    *gate = u * s * (1.0 + g * (1.0 - s)) * incoming;
                    *up = g * s * incoming;
                }
            },
        );
        [Some(gate), Some(up)]
    }
}

/// A function of one element; input x.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pointwise {
    /// x Φ(x), Φ the distribution function of the normal distribution.
    Gelu,
    /// x σ(1.702 x)
    QuickGelu,
    /// x (1 + tanh u) / 2 = x σ(2u), u = √(2/π) (x + 0.044715 x³)
    GeluTanh,
}

impl Pointwise {
    /// Overwrites all values by the function of each.
    #[inline(always)]
    pub(super) fn apply(self, values: &mut [f32]) {
        match self {
            Self::Gelu => values.iter_mut().for_each(|x| *x = gelu(*x)),
            Self::QuickGelu => values.iter_mut().for_each(|x| *x = quick_gelu(*x)),
            Self::GeluTanh => values.iter_mut().for_each(|x| *x = gelu_tanh(*x)),
        }
    }
}

impl Kernel<1> for Pointwise {
    type Saved = FlexTensor;

    fn forward(&self, [x]: [FlexTensor; 1], wanted: [bool; 1]) -> Output<Self::Saved> {
        let keep = wanted.contains(&true);
        let x = dense(x);
        let output = match self {
            Self::Gelu => map(&x, gelu),
            Self::QuickGelu => map(&x, quick_gelu),
            Self::GeluTanh => map(&x, gelu_tanh),
        };
        (output, keep.then_some(x))
    }

    fn backward(&self, x: Self::Saved, gradient: FlexTensor, _: [bool; 1]) -> Gradients<1> {
        let gradient = dense(gradient);
        [Some(match self {
            Self::Gelu => scale_by_slope(
                gradient,
                &x,
                #[inline(always)]
                |x| {
                    // 1 / sqrt(2 π)
                    let density = 0.398_942_3 * exp(-0.5 * x * x);
                    normal_distribution(x) + x * density
                },
            ),
            Self::QuickGelu => scale_by_slope(
                gradient,
                &x,
                #[inline(always)]
                |x| {
                    let s = sigmoid(1.702 * x);
                    s + 1.702 * x * s * (1.0 - s)
                },
            ),
            Self::GeluTanh => scale_by_slope(
                gradient,
                &x,
                #[inline(always)]
                |x| {
                    let s = sigmoid(TWICE_ROOT * (x + CUBIC * x * x * x));
                    let inner = TWICE_ROOT * (1.0 + 3.0 * CUBIC * x * x);
                    s + x * s * (1.0 - s) * inner
                },
            ),
        })]
    }
}

/// 2 √(2/π)
const TWICE_ROOT: f32 = 1.595_769;
/// Weight of x³ in the tanh approximation of GELU.
const CUBIC: f32 = 0.044_715;

#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * normal_distribution(x)
}

#[inline(always)]
fn quick_gelu(x: f32) -> f32 {
    x * sigmoid(1.702 * x)
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    x * sigmoid(TWICE_ROOT * (x + CUBIC * x * x * x))
}

/// Φ(x)
#[inline(always)]
fn normal_distribution(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

fn map(x: &FlexTensor, f: impl Fn(f32) -> f32 + Sync) -> FlexTensor {
    let (rows, width) = rows_and_width(x);
    let input = values(x);
    let output = build(
        rows,
        width,
        #[inline(always)]
        |row, slot| slot.fill(input[row * width..][..width].iter().map(|x| f(*x))),
    );
    tensor(output, x.shape())
}

fn scale_by_slope(
    mut gradient: FlexTensor,
    x: &FlexTensor,
    slope: impl Fn(f32) -> f32 + Sync,
) -> FlexTensor {
    let x = values(x);
    in_place(
        values_mut(&mut gradient),
        #[inline(always)]
        |start, gradient| {
            let x = &x[start..][..gradient.len()];
            for (g, x) in gradient.iter_mut().zip(x) {
                *g *= slope(*x);
            }
        },
    );
    gradient
}
