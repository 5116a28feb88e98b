//! Each fused operation against its generic body: values and gradients, at odd sizes, on every
//! backend that was compiled in. On flex this holds the kernels against tensor operations.

use burn::tensor::{Device, Tensor, TensorData};
use mlrm_model::nn::{AttentionMask, AttentionProbe, ProbeSite, attend};
use mlrm_model::ops::{self, AdamRule, AdamState, LowRankChange, Map, generic};

/// A device of every backend in this build.
fn devices() -> Vec<Device> {
    vec![
        #[cfg(feature = "flex")]
        Device::flex(),
        #[cfg(feature = "cuda")]
        Device::cuda(0),
        #[cfg(feature = "rocm")]
        Device::rocm(0),
        #[cfg(any(feature = "vulkan", feature = "wgpu", feature = "metal"))]
        Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
    ]
}

/// Seeded values in −2…2, the same on every device, `[count]`.
fn random(count: usize, seed: u64, device: &Device) -> Tensor<1> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u32 << 22) as f32 - 2.0
    };
    let values: Vec<f32> = (0..count).map(|_| next()).collect();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

fn read(tensor: Tensor<1>) -> Vec<f32> {
    tensor.try_into_vec_as().expect("the device answers")
}

/// Rounding alone lies between the two: a few units in the last place of the largest value.
fn close(what: &str, got: Tensor<1>, expected: Tensor<1>) {
    let (got, expected) = (read(got), read(expected));
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    for (index, (g, e)) in got.iter().zip(&expected).enumerate() {
        let close = (g - e).abs() <= 4e-6 * largest.max(1e-3);
        assert!(
            close,
            "{what}[{index}]: {g} instead of {e}, largest {largest}"
        );
    }
}

type Operation<'a> = &'a dyn Fn(&[Tensor<1>]) -> Tensor<1>;

/// Holds `fused` against `body`: their outputs outside the autodiff graph, and their outputs and
/// the gradients of a weighted sum of them with all inputs tracked, and with each one alone.
/// Inputs are flat, of the given `lengths`.
fn agree(what: &str, lengths: &[usize], fused: Operation, body: Operation) {
    for device in devices() {
        let seeded = lengths.iter().zip(0..);
        let inputs: Vec<_> = seeded.map(|(n, seed)| random(*n, seed, &device)).collect();
        close(what, fused(&inputs), body(&inputs));
        let alone = (0..lengths.len()).map(|index| index..index + 1);
        for tracked in alone.chain(std::iter::once(0..lengths.len())) {
            let run = |operation: Operation| {
                let leaf = |(index, input): (usize, &Tensor<1>)| {
                    let input = input.clone().autodiff();
                    match tracked.contains(&index) {
                        true => input.require_grad(),
                        false => input,
                    }
                };
                let leaves: Vec<_> = inputs.iter().enumerate().map(leaf).collect();
                let output = operation(&leaves);
                let weight = random(output.dims()[0], 99, &device);
                let gradients = (output.clone() * weight).sum().backward();
                let leaves = &leaves[tracked.clone()];
                let of = |leaf: &Tensor<1>| leaf.grad(&gradients).expect(what).inner();
                (output.inner(), leaves.iter().map(of).collect::<Vec<_>>())
            };
            let ((output, gradients), (expected, expected_gradients)) = (run(fused), run(body));
            close(what, output, expected);
            for (index, pair) in gradients.into_iter().zip(expected_gradients).enumerate() {
                let what = format!("{what}, gradient of input {}", tracked.start + index);
                close(&what, pair.0, pair.1);
            }
        }
    }
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let elements = tensor.shape().num_elements();
    tensor.reshape([elements])
}

/// One row of one value, fewer than a vector, not a multiple of one, and several chunks of rows on
/// several threads.
const SHAPES: [[usize; 2]; 4] = [[1, 1], [3, 5], [70, 33], [150, 131]];

#[test]
fn norms_agree() {
    // A norm of one value is constant: its gradient is rounding alone.
    for [rows, width] in SHAPES.into_iter().filter(|shape| shape[1] > 1) {
        let x = |t: &[Tensor<1>]| t[0].clone().reshape([rows, width]);
        agree(
            "rms_norm",
            &[rows * width, width],
            &|t| flat(ops::rms_norm(x(t), t[1].clone(), 1e-5)),
            &|t| flat(generic::rms_norm(x(t), t[1].clone(), 1e-5)),
        );
        agree(
            "layer_norm",
            &[rows * width, width, width],
            &|t| flat(ops::layer_norm(x(t), t[1].clone(), t[2].clone(), 1e-5)),
            &|t| flat(generic::layer_norm(x(t), t[1].clone(), t[2].clone(), 1e-5)),
        );
    }
}

#[test]
fn low_rank_changes_agree() {
    for [rows, width] in SHAPES {
        let (outputs, rank) = (width + 2, 3);
        let lengths = [rows * outputs, rows * width, width * rank, rank * outputs];
        let matrices = |t: &[Tensor<1>]| {
            [
                t[0].clone().reshape([rows, outputs]),
                t[1].clone().reshape([rows, width]),
                t[2].clone().reshape([width, rank]),
                t[3].clone().reshape([rank, outputs]),
            ]
        };
        let fused = |t: &[Tensor<1>]| {
            let [y, x, a, b] = matrices(t);
            flat(ops::add_low_rank(y, x, a, b, 0.7))
        };
        let body = |t: &[Tensor<1>]| {
            let [y, x, a, b] = matrices(t);
            flat(generic::add_low_rank(y, x, a, b, 0.7))
        };
        agree("add_low_rank", &lengths, &fused, &body);
    }
}

#[test]
fn activations_agree() {
    for [rows, width] in SHAPES {
        let matrix = |t: &Tensor<1>| t.clone().reshape([rows, width]);
        let n = rows * width;
        agree(
            "swiglu",
            &[n, n],
            &|t| flat(ops::swiglu(matrix(&t[0]), matrix(&t[1]))),
            &|t| flat(generic::swiglu(matrix(&t[0]), matrix(&t[1]))),
        );
        let wide = |t: &Tensor<1>| matrix(t).mul_scalar(3.0);
        agree("gelu", &[n], &|t| flat(ops::gelu(wide(&t[0]))), &|t| {
            flat(generic::gelu(wide(&t[0])))
        });
        agree(
            "quick_gelu",
            &[n],
            &|t| flat(ops::quick_gelu(wide(&t[0]))),
            &|t| flat(generic::quick_gelu(wide(&t[0]))),
        );
    }
}

#[test]
fn repeated_items_agree() {
    for [batch, width] in SHAPES {
        let one = |t: &Tensor<1>| t.clone().reshape([1, width]);
        agree(
            "repeat",
            &[width],
            &|t| flat(ops::repeat(one(&t[0]), batch)),
            &|t| flat(generic::repeat(one(&t[0]), batch)),
        );
    }
}

/// Outside the graph, where the kernel is, and inside; with biases and without.
#[test]
fn networks_of_two_layers_agree() {
    use mlrm_model::nn::Activation::{Gelu, GeluPytorchTanh, QuickGelu};

    let cases = [
        (Gelu, [1, 3]),
        (QuickGelu, [70, 33]),
        (GeluPytorchTanh, [300, 40]),
    ];
    for (activation, [rows, width]) in cases {
        let (inner, outputs) = (2 * width + 1, width + 2);
        let lengths = [rows * width, width * inner, inner * outputs, inner, outputs];
        for count in [3, 5] {
            let x = |t: &[Tensor<1>]| t[0].clone().reshape([rows, width]);
            let layers = |t: &[Tensor<1>]| {
                let maps = (
                    t[1].clone().reshape([width, inner]),
                    t[2].clone().reshape([inner, outputs]),
                );
                [(maps.0, t.get(3).cloned()), (maps.1, t.get(4).cloned())]
            };
            agree(
                "two layers",
                &lengths[..count],
                &|t| flat(ops::two_layers(x(t), layers(t), activation)),
                &|t| {
                    let [(first, b), (second, c)] = layers(t);
                    let inner = activation.apply(generic::linear(x(t), first, b));
                    flat(generic::linear(inner, second, c))
                },
            );
        }
    }
}

#[test]
fn linear_maps_agree() {
    for [rows, inputs, outputs] in [[1, 1, 1], [7, 5, 3], [150, 131, 129]] {
        let x = |t: &[Tensor<1>]| t[0].clone().reshape([rows, inputs]);
        let weight = |t: &[Tensor<1>]| t[1].clone().reshape([inputs, outputs]);
        // As a checkpoint's weight stands in memory.
        let turned = |t: &[Tensor<1>]| t[1].clone().reshape([outputs, inputs]).transpose();
        let lengths = [rows * inputs, inputs * outputs, outputs];
        agree(
            "linear",
            &lengths[..2],
            &|t| flat(ops::linear(x(t), weight(t), None)),
            &|t| flat(generic::linear(x(t), weight(t), None)),
        );
        agree(
            "linear with bias, weight transposed",
            &lengths,
            &|t| flat(ops::linear(x(t), turned(t), Some(t[2].clone()))),
            &|t| flat(generic::linear(x(t), turned(t), Some(t[2].clone()))),
        );
    }
}

#[test]
fn patches_agree() {
    // With and without a remainder at the edges, which has no gradient.
    for (height, width, patch) in [(8, 8, 4), (9, 9, 4), (5, 5, 1), (40, 40, 16), (9, 14, 4)] {
        let pixels = |t: &[Tensor<1>]| t[0].clone().reshape([3, 2, height, width]);
        agree(
            "patches",
            &[3 * 2 * height * width],
            &|t| flat(ops::patches(pixels(t), patch)),
            &|t| flat(generic::patches(pixels(t), patch)),
        );
    }
}

#[test]
fn rotations_agree() {
    for [batch, seq, heads, head_dim] in [[1, 1, 1, 2], [2, 5, 3, 6], [3, 37, 4, 64]] {
        let x = |t: &[Tensor<1>]| t[0].clone().reshape([batch, seq, heads, head_dim]);
        let table = |device: &Device, seed| {
            let rows = seq + 2;
            let device = device.clone().without_autodiff();
            random(rows * head_dim / 2, seed, &device).reshape([rows, head_dim / 2])
        };
        let tables = |t: &[Tensor<1>]| (table(&t[0].device(), 7), table(&t[0].device(), 8));
        agree(
            "rotate",
            &[batch * seq * heads * head_dim],
            &|t| {
                let (cos, sin) = tables(t);
                flat(ops::rotate(x(t), cos, sin))
            },
            &|t| {
                let (cos, sin) = tables(t);
                flat(generic::rotate(x(t), cos, sin))
            },
        );
    }
}

/// `[batch, queries, keys, heads, kv_heads, head_dim]`
type AttentionShape = [usize; 6];

fn attention_agrees(shape: AttentionShape, mask: &AttentionMask) {
    let [batch, queries, keys, heads, kv_heads, head_dim] = shape;
    let lengths = [
        batch * queries * heads * head_dim,
        batch * keys * kv_heads * head_dim,
        batch * keys * kv_heads * head_dim,
    ];
    let run = |t: &[Tensor<1>], probe: Option<&mut AttentionProbe>| {
        let q = t[0].clone().reshape([batch, queries, heads, head_dim]);
        let kv = |t: &Tensor<1>| t.clone().reshape([batch, keys, kv_heads, head_dim]);
        let mask = mask.prepare(batch, heads / kv_heads, &t[0].device());
        flat(attend(q, kv(&t[1]), kv(&t[2]), &mask, probe))
    };
    // A probe needs the scores, so that attention with one is computed step by step.
    agree(
        &format!("attention {shape:?} {mask:?}"),
        &lengths,
        &|t| run(t, None),
        &|t| run(t, Some(&mut AttentionProbe::new(ProbeSite::Scores))),
    );
}

#[test]
fn attention_agrees_under_every_mask() {
    attention_agrees([1, 1, 1, 1, 1, 1], &AttentionMask::None);
    attention_agrees([2, 3, 7, 4, 2, 5], &AttentionMask::None);
    attention_agrees([2, 70, 131, 3, 3, 16], &AttentionMask::None);
    for (seq, window) in [
        (1, None),
        (9, None),
        (131, None),
        (9, Some(1)),
        (131, Some(40)),
    ] {
        let mask = AttentionMask::Causal { seq, window };
        attention_agrees([3, seq, seq, 4, 2, 8], &mask);
    }
    for window in [None, Some(3)] {
        let (last, keys) = (vec![0, 4, 2, 6, 6, 1], 7);
        let mask = AttentionMask::UpTo { last, keys, window };
        attention_agrees([3, 2, 7, 4, 1, 6], &mask);
    }
}

#[test]
fn a_nan_score_is_not_hidden_by_the_softmax() {
    for device in devices() {
        let mut values = vec![0.5; 4];
        values[1] = f32::NAN;
        let q = Tensor::<4>::from_data(TensorData::new(values, [1, 2, 1, 2]), &device);
        let kv = Tensor::<4>::ones([1, 2, 1, 2], &device);
        let mask = AttentionMask::None.prepare(1, 1, &device);
        let out = read(flat(attend(q, kv.clone(), kv, &mask, None)));
        assert!(out[0].is_nan() && !out[2].is_nan(), "{out:?}");
    }
}

/// A map of `inputs` by `outputs` whose parts are the flat tensors from `first` on: weight, and with `low` the factors of a
/// change of rank 3. `turned`: the weight as a checkpoint's stands in memory.
fn map_of(
    t: &[Tensor<1>],
    first: usize,
    [inputs, outputs]: [usize; 2],
    low: Option<usize>,
    turned: bool,
) -> Map {
    let weight = t[first].clone().mul_scalar(0.3);
    let weight = match turned {
        true => weight.reshape([outputs, inputs]).transpose(),
        false => weight.reshape([inputs, outputs]),
    };
    let low = low.map(|at| LowRankChange {
        a: t[at].clone().reshape([inputs, RANK]),
        b: t[at + 1].clone().reshape([RANK, outputs]),
        scale: 0.2,
    });
    Map { weight, low }
}

const RANK: usize = 3;

/// Lengths of what [`map_of`] makes maps of these sizes of: all weights, then all factors.
fn map_lengths(sizes: &[[usize; 2]], low: bool) -> Vec<usize> {
    let weights = sizes.iter().map(|[inputs, outputs]| inputs * outputs);
    let factors = sizes.iter().flat_map(|size| size.map(|side| side * RANK));
    weights.chain(factors.filter(|_| low)).collect()
}

#[test]
fn gated_networks_agree() {
    for [rows, hidden, inner] in [[1, 2, 1], [70, 9, 20], [300, 33, 50]] {
        for low in [false, true] {
            let sizes = [[hidden, inner], [hidden, inner], [inner, hidden]];
            let mut lengths = vec![rows * hidden, hidden];
            lengths.extend(map_lengths(&sizes, low));
            let parts = |t: &[Tensor<1>]| {
                let maps = [0, 1, 2].map(|map| {
                    let factors = low.then_some(5 + 2 * map);
                    map_of(t, 2 + map, sizes[map], factors, map == 1)
                });
                (t[0].clone().reshape([rows, hidden]), t[1].clone(), maps)
            };
            let fused = |t: &[Tensor<1>]| {
                let (x, norm, maps) = parts(t);
                flat(ops::gated_mlp(x, norm, 1e-5, maps))
            };
            let body = |t: &[Tensor<1>]| {
                let (x, norm, maps) = parts(t);
                flat(generic::gated_mlp(x, norm, 1e-5, maps))
            };
            agree(&format!("gated_mlp {rows} {low}"), &lengths, &fused, &body);
        }
    }
}

/// The attention half of a layer as tensor operations.
fn attention_half(
    x: Tensor<3>,
    norm: Tensor<1>,
    maps: [Map; 4],
    [cos, sin]: [Tensor<2>; 2],
    mask: &AttentionMask,
) -> Tensor<3> {
    let [batch, seq, hidden] = x.dims();
    let head_dim = 2 * cos.dims()[1];
    let read = generic::rms_norm(x.clone().reshape([batch * seq, hidden]), norm, 1e-5);
    let map = |x: Tensor<2>, map: Map| {
        let y = generic::linear(x.clone(), map.weight, None);
        match map.low {
            Some(low) => generic::add_low_rank(y, x, low.a, low.b, low.scale),
            None => y,
        }
    };
    let [q, k, v, output] = maps;
    let [q, k, v] = [q, k, v].map(|to| {
        let y = map(read.clone(), to);
        let heads = y.dims()[1] / head_dim;
        y.reshape([batch, seq, heads, head_dim])
    });
    let groups = q.dims()[2] / k.dims()[2];
    let q = generic::rotate(q, cos.clone(), sin.clone());
    let k = generic::rotate(k, cos, sin);
    let mask = mask.prepare(batch, groups, &x.device());
    let mut probe = AttentionProbe::new(ProbeSite::Scores);
    let attended = attend(q, k, v, &mask, Some(&mut probe));
    let width = attended.dims()[2];
    let added = map(attended.reshape([batch * seq, width]), output);
    x + added.reshape([batch, seq, hidden])
}

#[test]
fn attention_halves_agree() {
    for [batch, seq, heads, kv_heads, head_dim] in [
        [1, 1, 1, 1, 2],
        [9, 7, 4, 2, 6],
        [3, 131, 3, 1, 8],
        [17, 30, 2, 2, 4],
    ] {
        for (low, window) in [(false, None), (true, Some(5))] {
            let (hidden, wide, narrow) = (11, heads * head_dim, kv_heads * head_dim);
            let sizes = [
                [hidden, wide],
                [hidden, narrow],
                [hidden, narrow],
                [wide, hidden],
            ];
            let mut lengths = vec![batch * seq * hidden, hidden];
            lengths.extend(map_lengths(&sizes, low));
            let mask = AttentionMask::Causal { seq, window };
            let parts = |t: &[Tensor<1>]| {
                let maps = [0, 1, 2, 3].map(|map| {
                    let factors = low.then_some(6 + 2 * map);
                    map_of(t, 2 + map, sizes[map], factors, map == 2)
                });
                let device = t[0].device().without_autodiff();
                let angles = random((seq + 2) * head_dim / 2, 7, &device);
                let angles = angles.reshape([seq + 2, head_dim / 2]);
                let tables = [angles.clone().cos(), angles.sin()];
                let x = t[0].clone().reshape([batch, seq, hidden]);
                (x, t[1].clone(), maps, tables)
            };
            let body = |t: &[Tensor<1>]| {
                let (x, norm, maps, tables) = parts(t);
                flat(attention_half(x, norm, maps, tables, &mask))
            };
            let fused = |t: &[Tensor<1>]| {
                let (x, norm, maps, tables) = parts(t);
                let prepared = mask.prepare(batch, heads / kv_heads, &x.device());
                let readable = prepared.readable();
                let norm = (norm, 1e-5);
                // What other backends run is the body itself.
                let generic = |_| body(t).reshape([batch, seq, hidden]);
                flat(ops::attention_half(
                    x, norm, maps, tables, readable, generic,
                ))
            };
            let what = format!("attention_half {batch} {seq} {low}");
            agree(&what, &lengths, &fused, &body);
        }
    }
}

fn adam_inputs(elements: usize, device: &Device) -> (AdamState, Tensor<1>) {
    let state = AdamState {
        parameter: random(elements, 1, device),
        first: random(elements, 2, device),
        second: random(elements, 3, device).square(),
    };
    (state, random(elements, 4, device))
}

const RULE: AdamRule = AdamRule {
    beta_1: 0.9,
    beta_2: 0.999,
    epsilon: 1e-8,
    keep: 0.99,
};

#[test]
fn optimiser_steps_agree() {
    for device in devices() {
        for elements in [1, 33, 40_000] {
            let (state, gradient) = adam_inputs(elements, &device);
            let control = Tensor::from_floats([1.0, 0.5, 0.1, 1.5], &device);
            let ours = ops::adamw(state.clone(), gradient.clone(), RULE, control.clone());
            let theirs = generic::adamw(state, gradient.clone(), RULE, control);
            close("parameter", ours.parameter, theirs.parameter);
            close("first moment", ours.first, theirs.first);
            close("second moment", ours.second, theirs.second);
            let norms = [
                ops::squared_norm(gradient.clone()),
                generic::squared_norm(gradient),
            ];
            let [ours, theirs] = norms;
            close("squared norm", ours, theirs);
        }
    }
}

#[test]
fn a_refused_optimiser_step_changes_nothing() {
    for device in devices() {
        let (state, gradient) = adam_inputs(70, &device);
        let nothing = Tensor::from_floats([0.0, f32::NAN, 0.1, 1.5], &device);
        let gradient = gradient * f32::NAN;
        for step in [ops::adamw, generic::adamw] {
            let after = step(state.clone(), gradient.clone(), RULE, nothing.clone());
            assert_eq!(read(after.parameter), read(state.parameter.clone()));
            assert_eq!(read(after.first), read(state.first.clone()));
            assert_eq!(read(after.second), read(state.second.clone()));
        }
    }
}
