//! `mlrm verify`: the real model, loss, gradients and saliency against values from PyTorch.

mod case;
mod compute;
mod tolerance;

pub use case::GoldenCase;
pub use compute::compute;
pub use tolerance::Tolerance;

use std::path::Path;

use burn::tensor::{DType, Device};
use mlrm_config::MatmulPrecision;
use mlrm_model::weights::{Checkpoint, ExportedTensor};
use mlrm_model::{ModelError, ops};
use serde::Serialize;

use tolerance::{Limits, cosine, norm};

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
    /// Euclidean norm of the error over that of the expected tensor.
    pub norm_error: f64,
    /// Euclidean norm of the expected tensor.
    #[serde(skip)]
    norm: f64,
    /// Of embeddings: the largest 1 − cosine of a row with the expected one.
    pub cosine_error: Option<f64>,
    /// What it is held to.
    pub tolerance: Tolerance,
    /// Whether it holds.
    pub passed: bool,
}

impl Comparison {
    /// The error that the tolerance is about.
    pub fn judged_error(&self) -> f64 {
        match self.tolerance {
            Tolerance::OfLargest(_) => self.relative_error,
            Tolerance::Absolute(_) => self.absolute_error,
            Tolerance::OfNorm(_) => self.norm_error,
            Tolerance::Cosine(_) => self.cosine_error.unwrap_or(f64::INFINITY),
        }
    }
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

/// Runs one case, with products of the precision `matmul`, and compares every expected tensor; also returns what was
/// computed.
///
/// # Errors
/// As [`GoldenCase::open`] and [`compute`].
pub fn verify(
    folder: &Path,
    device: &Device,
    dtype: DType,
    matmul: MatmulPrecision,
) -> Result<(CaseReport, Vec<ExportedTensor>), ModelError> {
    ops::set_matmul_precision(MatmulPrecision::F32);
    let limits = Limits::of(folder, device, shorter(dtype, matmul))?;
    let case = GoldenCase::open(folder, device, dtype)?;
    ops::set_matmul_precision(matmul);
    let computed = compute(&case)?;
    let report = CaseReport {
        comparisons: comparisons(&expected(&case)?, &computed, &limits),
        case: case.name,
    };
    Ok((report, computed))
}

/// The shorter format of what is stored and what is multiplied.
fn shorter(dtype: DType, matmul: MatmulPrecision) -> DType {
    match (dtype, matmul) {
        (DType::F32, MatmulPrecision::Bf16) => DType::BF16,
        _ => dtype,
    }
}

/// What the case expects, in the order of the file.
fn expected(case: &GoldenCase) -> Result<Vec<ExportedTensor>, ModelError> {
    let mut tensors = Vec::new();
    for name in case.expected.names() {
        if let Some((shape, values)) = read_expected(&case.expected, name)? {
            tensors.push((name.to_owned(), shape, values));
        }
    }
    Ok(tensors)
}

/// Compares every expected tensor with the computed one of its name and shape.
fn comparisons(
    expected: &[ExportedTensor],
    computed: &[ExportedTensor],
    limits: &Limits,
) -> Vec<Comparison> {
    let valid = expected.iter().find(|(name, ..)| name == "valid_mask");
    let valid = valid.map(|(_, _, mask)| mask.as_slice());
    let compare = |(name, shape, values): &ExportedTensor| {
        let found = computed.iter().find(|(n, s, _)| n == name && s == shape);
        let mask = valid.filter(|_| name.starts_with("llm."));
        let found = found.map(|(_, _, values)| values.as_slice());
        compare(
            name,
            shape.clone(),
            values,
            found,
            mask,
            limits.tolerance(name),
        )
    };
    expected.iter().map(compare).collect()
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
    tolerance: Tolerance,
) -> Comparison {
    let width = mask.map_or(1, |mask| expected.len() / mask.len().max(1));
    let counts = |index: &usize| mask.is_none_or(|mask| mask[index / width] == 1.0);
    let counted = |values: &[f32]| -> Vec<f32> {
        let indices = (0..values.len()).filter(counts);
        indices.map(|index| values[index]).collect()
    };
    let expected = counted(expected);
    let computed = computed.map(counted);
    let errors = computed.as_ref().map(|computed| -> Vec<f32> {
        let pairs = computed.iter().zip(&expected);
        pairs.map(|(found, wanted)| found - wanted).collect()
    });
    let absolute_error = errors.as_deref().map_or(f64::INFINITY, largest);
    let norm_error = errors.as_deref().map_or(f64::INFINITY, norm);
    let cosine_error = name.ends_with(".embedding").then(|| {
        let rows = shape.last().copied().unwrap_or(1).max(1);
        let computed = computed.as_deref();
        computed.map_or(f64::INFINITY, |computed| {
            let pairs = computed.chunks_exact(rows).zip(expected.chunks_exact(rows));
            let errors = pairs.map(|(found, wanted)| 1.0 - cosine(found, wanted));
            errors.fold(
                0.0,
                |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b) },
            )
        })
    });
    let mut comparison = Comparison {
        tensor: name.to_owned(),
        shape,
        absolute_error,
        relative_error: over(absolute_error, largest(&expected)),
        norm_error: over(norm_error, norm(&expected)),
        norm: norm(&expected),
        cosine_error,
        tolerance,
        passed: false,
    };
    comparison.passed = comparison.judged_error() <= tolerance.limit();
    comparison
}

/// The largest absolute value; infinite where any is not a number.
fn largest(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |largest: f64, value| {
        if value.is_nan() {
            f64::INFINITY
        } else {
            largest.max(f64::from(value.abs()))
        }
    })
}

/// `error / scale`; 0 where nothing differs, also from 0, and infinite where it is not a number.
fn over(error: f64, scale: f64) -> f64 {
    match error {
        0.0 => 0.0,
        error if error.is_nan() => f64::INFINITY,
        error => error / scale,
    }
}
