//! Initial values. Every tensor draws from a stream of its own, seeded by the run's seed and the
//! tensor's name, so that values depend neither on the order of construction nor on the backend.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::module::NamedTensor;

/// How a tensor starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum InitRule {
    /// One value everywhere.
    Constant(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Xavier-normal: standard deviation sqrt(2 / (inputs + outputs)).
    XavierNormal,
    /// What PyTorch gives a `nn.Linear` weight: uniform within ± 1 / sqrt(inputs).
    TorchLinear,
    /// Uniform within ± this bound.
    Uniform(f64),
}

/// Values of `tensor` in checkpoint layout.
pub fn initial_values(tensor: &NamedTensor, rule: InitRule, seed: u64, part: &str) -> Vec<f32> {
    let count: usize = tensor.shape.iter().product();
    let mut rng = ChaCha8Rng::seed_from_u64(
        seed ^ stable_hash(part) ^ stable_hash(&tensor.name).rotate_left(1),
    );
    let outputs = tensor.shape.first().copied().unwrap_or(1) as f64;
    let inputs = tensor.shape.iter().skip(1).product::<usize>() as f64;
    let mut normal = |deviation: f64| -> Vec<f32> {
        let draw = |_| -> f64 { StandardNormal.sample(&mut rng) };
        (0..count)
            .map(draw)
            .map(|z| (z * deviation) as f32)
            .collect()
    };
    match rule {
        InitRule::Constant(value) => vec![value; count],
        InitRule::Normal(deviation) => normal(deviation),
        InitRule::XavierNormal => normal((2.0 / (inputs + outputs)).sqrt()),
        InitRule::TorchLinear => uniform(&mut rng, count, inputs.sqrt().recip()),
        InitRule::Uniform(bound) => uniform(&mut rng, count, bound),
    }
}

fn uniform(rng: &mut impl Rng, count: usize, bound: f64) -> Vec<f32> {
    let unit = rand_distr::Uniform::new_inclusive(-1.0f64, 1.0);
    match unit {
        Ok(unit) => (0..count)
            .map(|_| (unit.sample(rng) * bound) as f32)
            .collect(),
        Err(_) => vec![0.0; count],
    }
}

/// FNV-1a, 64 bits: the same on every platform and in every version.
pub(crate) fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
