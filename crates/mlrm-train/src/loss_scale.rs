//! Loss scaling: what keeps gradients within the range of f16.

use burn::tensor::DType;
use serde::{Deserialize, Serialize};

/// At the beginning of a run.
const INITIAL: f64 = 65_536.0;

/// Beyond this no gradient of any use would be finite.
const MOST: f64 = 16_777_216.0;

/// Steps with finite gradients after which the factor is doubled.
const STEPS_TO_GROW: u32 = 2000;

/// What gradients are multiplied by on their way from the embeddings to the parameters, where the model
/// computes in f16: they are small, and below 6e-8 nothing is left of them there. The gradients of the
/// parameters are divided by it again in f32; it is a power of two, so that no digit changes.
///
/// It is as large as it can be: doubled after 2000 steps without overflow, halved with each step whose
/// gradients overflow, and that step is left out (Micikevicius et al., arXiv 1710.03740).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    /// The factor.
    pub factor: f64,
    /// Steps in a row with finite gradients at this factor.
    pub finite_steps: u32,
    /// Steps of the run that were left out.
    pub overflows: u64,
}

impl LossScale {
    /// That of a new run of a model in `format`; `None` where none is needed.
    pub fn of(format: DType) -> Option<Self> {
        (format == DType::F16).then_some(Self {
            factor: INITIAL,
            finite_steps: 0,
            overflows: 0,
        })
    }

    /// Counts a step whose gradients are finite.
    pub fn count_finite(&mut self) {
        self.finite_steps += 1;
        if self.finite_steps == STEPS_TO_GROW {
            self.finite_steps = 0;
            self.factor = (self.factor * 2.0).min(MOST);
        }
    }

    /// Counts a step with a finite loss whose gradients are not, and halves the factor; `false` where
    /// there is nothing to halve, so that it is not the factor that made them so.
    pub fn count_overflow(&mut self) -> bool {
        self.finite_steps = 0;
        let scaled = self.factor > 1.0;
        if scaled {
            self.factor /= 2.0;
            self.overflows += 1;
        }
        scaled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_grows_slowly_and_is_halved_at_once() {
        assert_eq!([DType::F32, DType::BF16].map(LossScale::of), [None; 2]);
        let mut scale = LossScale::of(DType::F16).unwrap();
        for _ in 0..STEPS_TO_GROW - 1 {
            scale.count_finite();
        }
        assert_eq!(scale.factor, INITIAL);
        // An overflow begins the count anew.
        assert!(scale.count_overflow());
        for _ in 0..STEPS_TO_GROW {
            assert_eq!(scale.factor, INITIAL / 2.0);
            scale.count_finite();
        }
        assert_eq!((scale.factor, scale.overflows), (INITIAL, 1));
        for _ in 0..20 * STEPS_TO_GROW {
            scale.count_finite();
        }
        assert_eq!(scale.factor, MOST);
        for _ in 0..24 {
            assert!(scale.count_overflow());
        }
        assert!(!scale.count_overflow());
        assert_eq!((scale.factor, scale.overflows), (1.0, 25));
    }
}
