//! The numbers of a step, from the device to the host.

use burn::tensor::{DType, Tensor};

use super::StepStats;
use crate::error::TrainError;
use mlrm_model::transfer::read;

/// The numbers of a step while they are on the device, `[1]` each.
#[derive(Debug, Clone)]
pub(super) struct StepNumbers {
    /// The minimised loss.
    pub loss: Tensor<1>,
    /// L(E_m).
    pub multimodal: Tensor<1>,
    /// L(E_v), with mICL.
    pub visual: Option<Tensor<1>>,
    /// t before the update.
    pub temperature: Tensor<1>,
    /// Mean of the gate.
    pub gate_mean: Option<Tensor<1>>,
    /// Square of the global gradient norm before clipping.
    pub squared_norm: Tensor<1>,
    /// 1 where the update was taken, else 0.
    pub taken: Tensor<1>,
}

impl StepNumbers {
    /// Reads all of them back at once.
    ///
    /// # Errors
    /// A device that failed during the step.
    pub fn read(self) -> Result<StepStats, TrainError> {
        let (has_visual, has_gate) = (self.visual.is_some(), self.gate_mean.is_some());
        let always = [
            self.loss,
            self.multimodal,
            self.temperature,
            self.squared_norm,
            self.taken,
        ];
        let all = always
            .into_iter()
            .chain(self.visual)
            .chain(self.gate_mean)
            .map(|number| number.cast(DType::F32))
            .collect();
        let values = read::<1, f32>(Tensor::cat(all, 0));
        let failed = |reason| TrainError::Device {
            what: "the device failed during the step".into(),
            reason,
        };
        let values = values.map_err(|e| failed(format!("{e:?}")))?;
        let Some((always, sometimes)) = values.split_first_chunk::<5>() else {
            return Err(failed("not all of its numbers came back".into()));
        };
        let [
            loss,
            loss_multimodal,
            temperature_logit,
            squared_norm,
            taken,
        ] = always.map(f64::from);
        let mut sometimes = sometimes.iter().copied().map(f64::from);
        let mut next = |present: bool| present.then(|| sometimes.next()).flatten();
        Ok(StepStats {
            loss,
            loss_multimodal,
            loss_visual: next(has_visual),
            temperature_logit,
            gate_mean: next(has_gate),
            gradient_norm: squared_norm.sqrt(),
            updated: taken == 1.0,
            ..StepStats::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn every_number_comes_back_in_its_place() {
        let number = |value: f32| Tensor::from_floats([value], &Device::flex());
        for (visual, gate_mean) in [(None, None), (Some(6.0), None), (None, Some(7.0))] {
            let numbers = StepNumbers {
                loss: number(1.0),
                multimodal: number(2.0),
                visual: visual.map(number),
                temperature: number(3.0),
                gate_mean: gate_mean.map(number),
                squared_norm: number(16.0),
                taken: number(1.0),
            };
            let expected = StepStats {
                loss: 1.0,
                loss_multimodal: 2.0,
                loss_visual: visual.map(f64::from),
                temperature_logit: 3.0,
                gate_mean: gate_mean.map(f64::from),
                gradient_norm: 4.0,
                updated: true,
                ..StepStats::default()
            };
            assert_eq!(numbers.read().unwrap(), expected);
        }
    }
}
