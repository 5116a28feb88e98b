//! Linear maps to the width of the language model: behind the Q-Former, or alone as in LLaVA
//! (arXiv 2304.08485), where every position of the picture becomes a visual token.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::nn::{Linear, linear};
use crate::ops::gelu;

/// Sizes of the connector that is a projector alone, as `mlrm.toml` stores them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpConfig {
    /// Positions that the vision encoder gives, which become visual tokens (V).
    pub positions: usize,
    /// Width of the vision features (v).
    pub encoder_hidden_size: usize,
}

/// The map from connector width to LLM width: `linear`, or `mlp{n}x_gelu`.
#[derive(Module, Debug)]
pub struct Projector {
    /// Linear maps with the exact GELU between them.
    pub layers: Vec<Linear>,
}

impl Projector {
    /// A projector of zeros. `kind` is `linear` or `mlp{n}x_gelu` with n ≥ 1.
    ///
    /// # Errors
    /// A kind that is not known.
    pub fn new(
        kind: &str,
        inputs: usize,
        outputs: usize,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let count = projector_layers(kind)?;
        let layer = |n: usize| linear(if n == 0 { inputs } else { outputs }, outputs, true, device);
        Ok(Self {
            layers: (0..count).map(layer).collect(),
        })
    }

    /// `[batch, seq, inputs]` → `[batch, seq, outputs]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let mut layers = self.layers.iter();
        let first = layers.next().map(|layer| layer.forward(x.clone()));
        layers.fold(first.unwrap_or(x), |x, layer| layer.forward(gelu(x)))
    }
}

/// The number of linear maps that a projector kind means.
///
/// # Errors
/// A kind that is not known.
pub fn projector_layers(kind: &str) -> Result<usize, ModelError> {
    let depth = |kind: &str| -> Option<usize> {
        let inner = kind.strip_prefix("mlp")?.strip_suffix("x_gelu")?;
        inner.parse().ok().filter(|&n| n >= 1)
    };
    match kind {
        "linear" => Ok(1),
        other => depth(other).ok_or_else(|| {
            let message = format!(
                "projector `{other}` is neither `linear` nor `mlp{{n}}x_gelu`, such as `mlp2x_gelu`"
            );
            ModelError::config(&["projector"], message)
        }),
    }
}
