//! `mlrm verify`: the real model, loss, gradients and saliency against values from PyTorch.

mod case;
mod compute;

pub use case::GoldenCase;
pub use compute::compute;

use std::path::Path;

use burn::tensor::{DType, Device};
use mlrm_model::ModelError;
use mlrm_model::weights::{Checkpoint, ExportedTensor};
use serde::Serialize;

/// How a tensor is judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "limit")]
pub enum Tolerance {
    /// Largest absolute error over the largest absolute expected value.
    OfLargest(f64),
    /// Largest absolute error.
    Absolute(f64),
}

impl Tolerance {
    /// The limits at f32 (docs, "Numerics"): forward tensors 1e-4 and gradients and saliency 1e-3 of
    /// each tensor's largest value, losses 1e-5 relative, positions exactly. A key bias of the
    /// Q-Former or of OPT adds the same to all scores of a row, so its gradient is 0 in theory and
    /// rounding noise in practice: judged absolutely. (In the other decoders a rotation follows the
    /// bias, and its gradient is a real one.)
    pub fn for_tensor(name: &str) -> Self {
        let opt = name.starts_with("grad.llm.model.decoder.");
        let key_bias = name.ends_with(".key.bias") || opt && name.ends_with(".k_proj.bias");
        match name {
            _ if name.starts_with("grad.") && key_bias => Self::Absolute(1e-5),
            _ if name.starts_with("grad.") => Self::OfLargest(1e-3),
            "saliency.range" | "valid_mask" => Self::Absolute(0.0),
            _ if name.starts_with("position.") => Self::Absolute(0.0),
            _ if name.starts_with("saliency") => Self::OfLargest(1e-3),
            _ if name.starts_with("loss") => Self::OfLargest(1e-5),
            _ => Self::OfLargest(1e-4),
        }
    }
}

/// One tensor's comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Name in `expected.safetensors`.
    pub tensor: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Largest absolute error; infinite where the tensor was not computed or has another shape.
    pub absolute_error: f64,
    /// Largest absolute error over the largest absolute expected value.
    pub relative_error: f64,
    /// What it is held to.
    pub tolerance: Tolerance,
    /// Whether it holds.
    pub passed: bool,
}

/// A case's comparisons, in the order of computation.
#[derive(Debug, Clone, Serialize)]
pub struct CaseReport {
    /// Name of the case.
    pub case: String,
    /// One row a tensor.
    pub comparisons: Vec<Comparison>,
}

impl CaseReport {
    /// Whether every tensor holds.
    pub fn passed(&self) -> bool {
        !self.comparisons.is_empty() && self.comparisons.iter().all(|c| c.passed)
    }
}

/// Runs one case and compares every expected tensor; also returns what was computed.
pub fn verify(
    folder: &Path,
    device: &Device,
    dtype: DType,
) -> Result<(CaseReport, Vec<ExportedTensor>), ModelError> {
    let case = GoldenCase::open(folder, device, dtype)?;
    let computed = compute(&case)?;
    let valid = read_expected(&case.expected, "valid_mask")?.map(|(_, mask)| mask);
    let mut comparisons = Vec::new();
    for name in case.expected.names() {
        let Some((shape, expected)) = read_expected(&case.expected, name)? else {
            continue;
        };
        let found = computed.iter().find(|(n, s, _)| n == name && *s == shape);
        let mask = valid.as_deref().filter(|_| name.starts_with("llm."));
        let values = found.map(|(_, _, values)| values.as_slice());
        comparisons.push(compare(name, shape, &expected, values, mask));
    }
    let report = CaseReport {
        case: case.name,
        comparisons,
    };
    Ok((report, computed))
}

/// A tensor's shape and its row-major values.
type ShapeAndValues = (Vec<usize>, Vec<f32>);

/// An expected tensor as f32, whether stored as floats or as int64 positions.
fn read_expected(expected: &Checkpoint, name: &str) -> Result<Option<ShapeAndValues>, ModelError> {
    if let Ok(Some((shape, values))) = expected.get_i64(name) {
        return Ok(Some((
            shape,
            values.into_iter().map(|v| v as f32).collect(),
        )));
    }
    Ok(expected.get(name)?.map(|t| (t.shape, t.values)))
}

/// Compares two tensors; with `mask` `[notes, seq]` only where it is 1 (padding is not defined).
fn compare(
    name: &str,
    shape: Vec<usize>,
    expected: &[f32],
    computed: Option<&[f32]>,
    mask: Option<&[f32]>,
) -> Comparison {
    let tolerance = Tolerance::for_tensor(name);
    let width = mask.map_or(1, |mask| expected.len() / mask.len().max(1));
    let counts = |index: usize| mask.is_none_or(|mask| mask[index / width] == 1.0);
    let largest = |values: &mut dyn Iterator<Item = f64>| {
        values.fold(
            0.0,
            |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) },
        )
    };
    let scale = largest(
        &mut (0..expected.len())
            .filter(|&i| counts(i))
            .map(|i| f64::from(expected[i].abs())),
    );
    let absolute_error = match computed {
        None => f64::INFINITY,
        Some(computed) => largest(
            &mut (0..expected.len())
                .filter(|&i| counts(i))
                .map(|i| (f64::from(computed[i]) - f64::from(expected[i])).abs()),
        ),
    };
    let relative_error = if absolute_error == 0.0 {
        0.0
    } else {
        absolute_error / scale
    };
    let passed = match tolerance {
        Tolerance::OfLargest(limit) => relative_error <= limit,
        Tolerance::Absolute(limit) => absolute_error <= limit,
    };
    Comparison {
        tensor: name.to_owned(),
        shape,
        absolute_error,
        relative_error,
        tolerance,
        passed,
    }
}
