//! The arithmetic of an optimiser step, outside the autodiff graph.

use burn::tensor::Tensor;

#[cfg(feature = "flex")]
use super::flex;
use super::generic;

/// A parameter with its running moments, flat, `[elements]` each, in f32.
#[derive(Debug, Clone)]
pub struct AdamState {
    /// The values.
    pub parameter: Tensor<1>,
    /// Running mean of the gradient.
    pub first: Tensor<1>,
    /// Running mean of the squared gradient.
    pub second: Tensor<1>,
}

/// What is the same for every step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamRule {
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second moment.
    pub beta_2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// 1 − learning rate · weight decay.
    pub keep: f32,
}

/// One AdamW update (Loshchilov & Hutter, arXiv 1711.05101) of a parameter.
///
/// `control`, `[4]`, stays on the device: whether the update is taken (1, or 0: everything stays as
/// it is, whatever the gradient holds); what the gradient is multiplied by first (clipping);
/// learning rate / (1 − β₁ᵗ); and 1 / sqrt(1 − β₂ᵗ).
pub fn adamw(
    state: AdamState,
    gradient: Tensor<1>,
    rule: AdamRule,
    control: Tensor<1>,
) -> AdamState {
    #[cfg(feature = "flex")]
    {
        let AdamState {
            parameter,
            first,
            second,
        } = &state;
        let all = [parameter, first, second, &gradient, &control];
        if all.into_iter().all(flex::holds) {
            return flex::adamw(state, gradient, rule, control);
        }
    }
    generic::adamw(state, gradient, rule, control)
}

/// Σ v², `[1]`.
pub fn squared_norm(values: Tensor<1>) -> Tensor<1> {
    #[cfg(feature = "flex")]
    if flex::holds(&values) {
        return flex::squared_norm(values);
    }
    generic::squared_norm(values)
}
