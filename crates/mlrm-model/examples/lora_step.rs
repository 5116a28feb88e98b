//! What an adapter costs beside its weight, and merged into it as Burn's own LoRA does it.
//!
//! ```sh
//! cargo run --release -p mlrm-model --example lora_step -- beside   # or merged, or frozen
//! ```
//!
//! Forward and backward pass through the seven maps of a decoder layer, eight layers deep, at the
//! sizes of `configs/bench-cpu.toml` (3,584 rows, width 512, rank 16); seconds of the median of five
//! passes after one, and the process's largest resident memory.

use std::time::Instant;

use burn::module::Module;
use burn::tensor::module::linear as affine;
use burn::tensor::{Device, Distribution, Tensor};
use mlrm_model::nn::{AdapterShape, DropoutClock, Linear, attach_adapters, linear};

const ROWS: usize = 3584;
const LAYERS: usize = 8;
/// Inputs and outputs of a layer's maps.
const MAPS: [[usize; 2]; 7] = [
    [512, 512],
    [512, 128],
    [512, 128],
    [512, 512],
    [512, 1408],
    [512, 1408],
    [1408, 512],
];

fn adapted(sizes: [usize; 2], adapter: bool, device: &Device) -> Linear {
    let mut map = linear(sizes[0], sizes[1], false, device).no_grad();
    map.weight = map.weight.map(|old| {
        let normal = Distribution::Normal(0.0, 0.02);
        Tensor::random(old.dims(), normal, &old.device())
    });
    let shape = AdapterShape {
        rank: 16,
        scale: 2.0,
        dropout: 0.0,
        clock: DropoutClock::default(),
    };
    attach_adapters(map, &shape, &mut |_| adapter.then_some(0))
}

fn main() {
    let mode = std::env::args().nth(1).unwrap_or_default();
    assert!(
        ["beside", "merged", "frozen"].contains(&mode.as_str()),
        "say beside, merged or frozen"
    );
    let device = Device::flex().autodiff();
    let layer = |_| MAPS.map(|sizes| adapted(sizes, mode != "frozen", &device));
    let layers: Vec<[Linear; 7]> = (0..LAYERS).map(layer).collect();
    let apply = |map: &Linear, x: Tensor<2>| match mode.as_str() {
        "merged" => affine(x, map.weight.val(), None),
        _ => map.forward(x),
    };
    let pass = || {
        let x = Tensor::random([ROWS, 512], Distribution::Default, &device).require_grad();
        let begin = Instant::now();
        let mut state = x.clone();
        for [q, k, v, o, gate, up, down] in &layers {
            let narrow = apply(k, state.clone()) + apply(v, state.clone());
            let wide = Tensor::cat(vec![narrow; 4], 1);
            state = state.clone() + apply(o, apply(q, state) + wide);
            let inner = apply(gate, state.clone()) * apply(up, state.clone());
            state = state + apply(down, inner);
        }
        let gradients = state.sum().backward();
        assert!(x.grad(&gradients).is_some());
        begin.elapsed().as_secs_f64()
    };
    pass();
    let mut seconds: Vec<f64> = (0..5).map(|_| pass()).collect();
    seconds.sort_by(f64::total_cmp);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    println!(
        "{mode}: {:.2} s a pass; {}",
        seconds[2],
        peak.unwrap_or("no peak known")
    );
}
