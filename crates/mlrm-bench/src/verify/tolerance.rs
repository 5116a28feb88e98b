//! What a computed tensor is held to: fixed limits at f32, and in shorter formats limits that follow
//! from the format's rounding, the depth and the condition of the model. The guide has the reasons
//! ("Numerics").

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use mlrm_model::ModelError;
use mlrm_model::weights::map_parameters;
use serde::Serialize;

use super::case::GoldenCase;
use super::compute::compute;
use super::{Comparison, comparisons};

/// How a tensor is judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "limit")]
pub enum Tolerance {
    /// Largest absolute error over the largest absolute expected value.
    OfLargest(f64),
    /// Largest absolute error.
    Absolute(f64),
    /// Euclidean norm of the error over that of the expected tensor.
    OfNorm(f64),
    /// 1 − cosine of each row with the expected one.
    Cosine(f64),
}

impl Tolerance {
    /// The number that the error must not exceed.
    pub fn limit(self) -> f64 {
        match self {
            Self::OfLargest(limit)
            | Self::Absolute(limit)
            | Self::OfNorm(limit)
            | Self::Cosine(limit) => limit,
        }
    }

    /// The limits at f32 (docs, "Numerics"): forward tensors 1e-4 and gradients and saliency 1e-3 of
    /// each tensor's largest value, losses 1e-5 relative, positions exactly. A key bias of the
    /// Q-Former or of OPT adds the same to all scores of a row, so its gradient is 0 in theory and
    /// rounding noise in practice: judged absolutely. (In the other decoders a rotation follows the
    /// bias, and its gradient is a real one.)
    fn at_f32(name: &str) -> Self {
        match name {
            _ if is_exact(name) => Self::Absolute(0.0),
            _ if is_key_bias(name) => Self::Absolute(1e-5),
            _ if name.starts_with("grad.") => Self::OfLargest(1e-3),
            _ if name.starts_with("saliency") => Self::OfLargest(1e-3),
            _ if name.starts_with("loss") => Self::OfLargest(1e-5),
            _ => Self::OfLargest(1e-4),
        }
    }
}

/// Positions, ranges and masks: whole numbers.
fn is_exact(name: &str) -> bool {
    name.starts_with("position.") || matches!(name, "saliency.range" | "valid_mask")
}

fn is_key_bias(name: &str) -> bool {
    let opt = name.starts_with("grad.llm.model.decoder.") && name.ends_with(".k_proj.bias");
    name.starts_with("grad.") && name.ends_with(".key.bias") || opt
}

/// Unit roundoff u of a format: half the gap behind 1. The significand has 8 bits in bf16, 11 in f16.
fn unit_roundoff(dtype: DType) -> Option<f64> {
    match dtype {
        DType::BF16 => Some(1.0 / 256.0),
        DType::F16 => Some(1.0 / 2048.0),
        _ => None,
    }
}

/// Of the tensors that are rounded in a layer, results and weights, at least three in ten are weights
/// (a decoder layer rounds 41, 12 of them weights), and independent errors add in squares: all
/// roundings do what larger errors of the weights alone would do.
const ROUNDINGS_PER_WEIGHT: f64 = 10.0 / 3.0;
/// Draws of random errors.
const DRAWS: u64 = 8;
/// Limits are this many standard deviations: some hundred tensors are judged, so that three would be
/// passed by chance.
const DEVIATIONS: f64 = 4.0;

/// The limits of a case in one number format.
pub(super) enum Limits {
    /// Fixed.
    F32,
    /// Of each tensor, what random errors of the format's size do to it.
    Short(BTreeMap<String, Response>),
}

/// What random errors in the weights do to a tensor, root mean squares over the draws.
#[derive(Default)]
pub(super) struct Response {
    /// Relative error in the Euclidean norm.
    relative: f64,
    /// Largest 1 − cosine of a row; a mean, since it is quadratic in the error already.
    cosine: Option<f64>,
    /// Norm of the tensor without errors.
    norm: f64,
}

impl Limits {
    /// The limits of the case in `folder`, whose condition is measured on `device` in f32.
    pub(super) fn of(folder: &Path, device: &Device, dtype: DType) -> Result<Self, ModelError> {
        let Some(unit) = unit_roundoff(dtype) else {
            return Ok(Self::F32);
        };
        let mut case = GoldenCase::open(folder, device, DType::F32)?;
        let exact = case.embedder.clone();
        // Not what the file expects: a wrong expectation must not widen its own limit.
        let reference = compute(&case)?;
        let mut responses: BTreeMap<String, Response> = BTreeMap::new();
        for draw in 0..DRAWS {
            let largest = unit * ROUNDINGS_PER_WEIGHT.sqrt();
            let mut random = SplitMix(draw);
            case.embedder.core = with_errors(exact.core.clone(), largest, &mut random);
            let vision = exact.vision.clone();
            case.embedder.vision = vision.map(|vision| with_errors(vision, largest, &mut random));
            let computed = compute(&case)?;
            for found in comparisons(&reference, &computed, &Self::F32) {
                responses
                    .entry(found.tensor.clone())
                    .or_default()
                    .add(&found);
            }
        }
        Ok(Self::Short(responses))
    }

    /// What the tensor of this name is held to.
    pub(super) fn tolerance(&self, name: &str) -> Tolerance {
        let Self::Short(responses) = self else {
            return Tolerance::at_f32(name);
        };
        let of = |name: &str| responses.get(name);
        let relative = |name: &str| of(name).map_or(0.0, |found| DEVIATIONS * found.relative);
        if is_exact(name) {
            return Tolerance::Absolute(0.0);
        }
        if is_key_bias(name) {
            // The noise of sums that cancel: as large as the error of what the key's weight gets.
            let weight = name.replace(".bias", ".weight");
            let norm = of(&weight).map_or(0.0, |found| found.norm);
            return Tolerance::Absolute(relative(&weight) * norm);
        }
        match of(name).and_then(|found| found.cosine) {
            Some(cosine) => Tolerance::Cosine(DEVIATIONS.powi(2) * cosine),
            None => Tolerance::OfNorm(relative(name)),
        }
    }
}

impl Response {
    fn add(&mut self, found: &Comparison) {
        let draws = DRAWS as f64;
        self.relative = self.relative.hypot(found.norm_error / draws.sqrt());
        self.norm = found.norm;
        if let Some(cosine) = found.cosine_error {
            *self.cosine.get_or_insert(0.0) += cosine / draws;
        }
    }
}

/// `module` with every weight times 1 + e, e evenly spread over ± `largest`.
fn with_errors<M: Module>(module: M, largest: f64, random: &mut SplitMix) -> M {
    map_parameters(module, &mut |param| {
        let factor = |_| (1.0 + largest * random.next()) as f32;
        let factors: Vec<f32> = (0..param.elements()).map(factor).collect();
        param.update(Box::new(|exact| {
            let factors = TensorData::new(factors, exact.dims());
            let factors = Tensor::from_data(factors, &exact.device());
            exact * factors
        }));
    })
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
struct SplitMix(u64);

impl SplitMix {
    /// Evenly spread over [−1, 1).
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// Euclidean norm.
pub(super) fn norm(values: &[f32]) -> f64 {
    let squares = values.iter().map(|v| f64::from(*v).powi(2));
    squares.sum::<f64>().sqrt()
}

/// Cosine of two vectors of one length.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    products.sum::<f64>() / (norm(a) * norm(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_errors_are_evenly_spread() {
        let mut random = SplitMix(3);
        let values: Vec<f64> = (0..10_000).map(|_| random.next()).collect();
        assert!(values.iter().all(|value| (-1.0..1.0).contains(value)));
        let mean = |power: i32| values.iter().map(|v| v.powi(power)).sum::<f64>() / 1e4;
        assert!(mean(1).abs() < 0.02, "{}", mean(1));
        assert!((mean(2) - 1.0 / 3.0).abs() < 0.01, "{}", mean(2));
    }

    #[test]
    fn a_cosine_is_that_of_the_angle() {
        assert!((cosine(&[1.0, 0.0], &[3.0, 3.0]) - 0.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(norm(&[3.0, 4.0]), 5.0);
    }
}
