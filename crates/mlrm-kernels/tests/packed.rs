//! Weights that kernels keep laid out for products in bf16: the same bits as without, and never those of a weight that was
//! changed since. A process of its own, since the precision of products is the process's.

#![cfg(feature = "flex")]

use burn::tensor::{Device, Distribution, Tensor};
use mlrm_config::MatmulPrecision;
use mlrm_kernels::{self as ops, Activation, AdamRule, AdamState, Map};

const ROWS: usize = 70;
const WIDTH: usize = 48;

fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let device = Device::flex();
    device.seed(seed);
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device)
}

/// The values in a buffer of their own, of which nothing is kept.
fn afresh<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
    Tensor::from_data(tensor.to_data(), &tensor.device())
}

fn bits<const D: usize>(tensor: Tensor<D>) -> Vec<u32> {
    let values = tensor.try_into_vec_as::<f32>().expect("values");
    values.into_iter().map(f32::to_bits).collect()
}

/// Values and gradient of x of a map whose weight does not learn.
fn both_ways(x: &Tensor<2>, weight: &Tensor<2>) -> [Vec<u32>; 2] {
    let leaf = x.clone().autodiff().require_grad();
    let output = ops::linear(leaf.clone(), weight.clone().autodiff(), None);
    let gradients = (output.clone() * output.clone()).sum().backward();
    let gradient = leaf.grad(&gradients).expect("a gradient");
    [bits(output.inner()), bits(gradient.inner())]
}

/// What an optimiser's step makes of a weight, in its place.
fn stepped(weight: Tensor<2>, gradient: Tensor<2>) -> Tensor<2> {
    let flat = |tensor: Tensor<2>| tensor.reshape([WIDTH * WIDTH]);
    let state = AdamState {
        parameter: flat(weight),
        first: flat(gradient.zeros_like()),
        second: flat(gradient.zeros_like()),
    };
    let rule = AdamRule {
        beta_1: 0.9,
        beta_2: 0.999,
        epsilon: 1e-8,
        keep: 1.0,
    };
    let control = Tensor::from_data([1.0, 1.0, 1.0, 30.0], &Device::flex());
    let state = ops::adamw(state, flat(gradient), rule, control);
    state.parameter.reshape([WIDTH, WIDTH])
}

fn without_tiles(test: &str) -> bool {
    ops::set_matmul_precision(MatmulPrecision::Bf16);
    let without = !ops::has_bf16_products();
    if without {
        eprintln!("SKIPPED {test}: the processor multiplies bf16 no faster than f32");
    }
    without
}

#[test]
fn kept_weights_give_the_same_bits() {
    if without_tiles("kept_weights_give_the_same_bits") {
        return;
    }
    let (x, weight) = (random([ROWS, WIDTH], 1), random([WIDTH, WIDTH], 2));
    let expected = both_ways(&x, &afresh(&weight));
    for _ in 0..2 {
        assert_eq!(both_ways(&x, &weight), expected);
    }
    // As Hugging Face's files and views have it: the same values, turned.
    let turned = afresh(&weight.clone().transpose()).transpose();
    for _ in 0..2 {
        assert_eq!(both_ways(&x, &turned), expected);
    }
    let norm = Tensor::ones([WIDTH], &Device::flex());
    let mlp = |weight: &Tensor<2>| {
        let map = || Map {
            weight: weight.clone(),
            low: None,
        };
        bits(ops::gated_mlp(
            x.clone(),
            norm.clone(),
            1e-5,
            [map(), map(), map()],
        ))
    };
    let two = |weight: &Tensor<2>| {
        let layers = [(weight.clone(), None), (weight.clone(), None)];
        bits(ops::two_layers(x.clone(), layers, Activation::Gelu))
    };
    let expected = (mlp(&afresh(&weight)), two(&afresh(&weight)));
    for _ in 0..2 {
        assert_eq!((mlp(&weight), two(&weight)), expected);
    }
}

#[test]
fn a_changed_weight_is_never_read_as_it_was() {
    if without_tiles("a_changed_weight_is_never_read_as_it_was") {
        return;
    }
    let x = random([ROWS, WIDTH], 3);
    let mut weight = random([WIDTH, WIDTH], 4);
    for seed in 5..9 {
        // Outside the graph, as an evaluation, and in a graph where it does not learn: it is kept in both directions.
        let before = bits(ops::linear(x.clone(), weight.clone(), None));
        both_ways(&x, &weight);
        // While it is used elsewhere the step makes a copy; else it writes over the values.
        let shared = (seed % 2 == 0).then(|| weight.clone());
        weight = stepped(weight, random([WIDTH, WIDTH], seed));
        let after = bits(ops::linear(x.clone(), weight.clone(), None));
        assert_ne!(after, before, "a step changes the product");
        assert_eq!(after, bits(ops::linear(x.clone(), afresh(&weight), None)));
        assert_eq!(both_ways(&x, &weight), both_ways(&x, &afresh(&weight)));
        if let Some(shared) = shared {
            assert_eq!(bits(ops::linear(x.clone(), shared, None)), before);
        }
        // One that learns is read as it is, whatever is kept of it.
        let learns = weight.clone().autodiff().require_grad();
        let learnt = ops::linear(x.clone().autodiff(), learns, None).inner();
        assert_eq!(bits(learnt), after);
    }
}

/// Buffers come and go at the same addresses.
#[test]
fn a_new_weight_is_not_taken_for_one_that_is_gone() {
    if without_tiles("a_new_weight_is_not_taken_for_one_that_is_gone") {
        return;
    }
    let x = random([ROWS, WIDTH], 10);
    for seed in 11..60 {
        let weight = random([WIDTH, WIDTH], seed);
        let product = bits(ops::linear(x.clone(), weight.clone(), None));
        let copy = afresh(&weight);
        assert_eq!(product, bits(ops::linear(x.clone(), copy, None)), "{seed}");
    }
}
