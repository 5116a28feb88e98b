//! The operations as chains of tensor operations: what every backend but flex runs, in every
//! number format, and the oracle of the kernels.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use burn::tensor::activation::{sigmoid, silu};
use burn::tensor::{DType, Tensor, module};

use super::{AdamRule, AdamState, Map};

/// See [`super::rms_norm`].
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let dtype = x.dtype();
    let x = x.cast(DType::F32);
    let scale = (x.clone().square().mean_dim(D - 1) + epsilon)
        .sqrt()
        .recip();
    (x * scale).cast(dtype) * weight.unsqueeze()
}

/// See [`super::layer_norm`].
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let dtype = x.dtype();
    let x = x.cast(DType::F32);
    let centred = x.clone() - x.mean_dim(D - 1);
    let variance = centred.clone().square().mean_dim(D - 1);
    let normal = centred * variance.add_scalar(epsilon).sqrt().recip();
    let weight = weight.cast(DType::F32).unsqueeze();
    let bias = bias.cast(DType::F32).unsqueeze();
    (normal * weight + bias).cast(dtype)
}

/// See [`super::repeat`].
pub fn repeat<const D: usize>(x: Tensor<D>, batch: usize) -> Tensor<D> {
    let mut shape = x.dims();
    shape[0] = batch;
    x.expand(shape)
}

/// See [`super::swiglu`].
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    silu(gate) * up
}

/// See [`super::gated_mlp`].
pub fn gated_mlp(x: Tensor<2>, norm: Tensor<1>, epsilon: f64, maps: [Map; 3]) -> Tensor<2> {
    let read = rms_norm(x.clone(), norm, epsilon);
    let [gate, up, down] = maps;
    let activated = swiglu(mapped(read.clone(), gate), mapped(read, up));
    x + mapped(activated, down)
}

/// `x` through a map.
fn mapped(x: Tensor<2>, map: Map) -> Tensor<2> {
    let y = linear(x.clone(), map.weight, None);
    match map.low {
        Some(low) => add_low_rank(y, x.cast(DType::F32), low.a, low.b, low.scale),
        None => y,
    }
}

/// See [`super::gelu`].
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    // Burn's own is exact forward, but its gradient on GPUs is that of the tanh approximation, which
    // is off by up to 8.7e-4; the gradient of erf is exact everywhere.
    let dtype = x.dtype();
    let x = x.cast(DType::F32);
    let below = (x.clone().mul_scalar(FRAC_1_SQRT_2).erf() + 1.0).mul_scalar(0.5);
    (x * below).cast(dtype)
}

/// See [`super::quick_gelu`].
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clone() * sigmoid(x.mul_scalar(1.702))
}

/// See [`super::gelu_tanh`].
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    // Burn's own takes the cube as a power, which GPUs do not have for negative numbers.
    let cube = x.clone().square() * x.clone();
    let inner = (x.clone() + cube.mul_scalar(0.044_715)).mul_scalar(FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
    x * (inner.tanh() + 1.0).mul_scalar(0.5)
}

/// See [`super::rotate`].
pub fn rotate(x: Tensor<4>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<4> {
    let [_, seq, _, head_dim] = x.dims();
    let half = head_dim / 2;
    let dtype = x.dtype();
    let table = |t: Tensor<2>| {
        t.slice([0..seq, 0..half])
            .reshape([1, seq, 1, half])
            .cast(dtype)
    };
    let (cos, sin) = (table(cos), table(sin));
    let first = x.clone().narrow(3, 0, half);
    let second = x.narrow(3, half, half);
    Tensor::cat(
        vec![
            first.clone() * cos.clone() - second.clone() * sin.clone(),
            second * cos + first * sin,
        ],
        3,
    )
}

/// See [`super::patches`].
pub fn patches(pixels: Tensor<4>, patch: usize) -> Tensor<2> {
    let [pictures, channels, height, width] = pixels.dims();
    let (rows, columns) = (height / patch, width / patch);
    let (high, wide) = (rows * patch, columns * patch);
    let pixels = match (height, width) == (high, wide) {
        true => pixels,
        false => pixels.slice([0..pictures, 0..channels, 0..high, 0..wide]),
    };
    pixels
        .reshape([pictures, channels, rows, patch, columns, patch])
        .permute([0, 2, 4, 1, 3, 5])
        .reshape([pictures * rows * columns, channels * patch * patch])
}

/// See [`super::linear`].
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    module::linear(x, weight, bias)
}

/// See [`super::add_low_rank`].
pub fn add_low_rank(
    y: Tensor<2>,
    x: Tensor<2>,
    a: Tensor<2>,
    b: Tensor<2>,
    scale: f64,
) -> Tensor<2> {
    // Scaled where it is narrowest.
    let change = x.matmul(a).mul_scalar(scale).matmul(b);
    let dtype = y.dtype();
    y + change.cast(dtype)
}

/// See [`super::adamw`].
pub fn adamw(
    state: AdamState,
    gradient: Tensor<1>,
    rule: AdamRule,
    control: Tensor<1>,
) -> AdamState {
    let number = |index: usize| control.clone().narrow(0, index, 1);
    let [take, scale, step_size, second_scale] = [0, 1, 2, 3].map(number);
    let elements = gradient.dims();
    let gradient = gradient * scale;
    let first = state.first.clone().mul_scalar(rule.beta_1)
        + gradient.clone().mul_scalar(1.0 - rule.beta_1);
    let second = state.second.clone().mul_scalar(rule.beta_2)
        + gradient.square().mul_scalar(1.0 - rule.beta_2);
    let root = second.clone().sqrt() * second_scale;
    let change = first.clone() / root.add_scalar(rule.epsilon) * step_size;
    let parameter = state.parameter.clone().mul_scalar(rule.keep) - change;
    // A selection and not a product: the refused values may be NaN.
    let refused = take.equal_elem(0.0).expand(elements);
    let keep = |new: Tensor<1>, old: Tensor<1>| new.mask_where(refused.clone(), old);
    AdamState {
        parameter: keep(parameter, state.parameter),
        first: keep(first, state.first),
        second: keep(second, state.second),
    }
}

/// See [`super::squared_norm`].
pub fn squared_norm(values: Tensor<1>) -> Tensor<1> {
    values.square().sum()
}
