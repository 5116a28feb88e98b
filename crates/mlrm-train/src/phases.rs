//! Seconds of the phases of a step.

use std::time::Instant;

use burn::tensor::Device;
use mlrm_events::Named;

use crate::error::TrainError;

/// A clock that is read at the borders of phases.
///
/// Devices that compute asynchronously are waited for only where phases are measured apart: a
/// training step is then not held up for its own figures, which say when work was handed over.
pub struct PhaseClock<'a> {
    waits_for: Option<&'a Device>,
    last: Instant,
    /// Phase → seconds, in the order of the phases.
    pub seconds: Named<f64>,
}

impl<'a> PhaseClock<'a> {
    /// A clock that starts now; with `sync` it waits for `device` at each border.
    pub fn new(device: &'a Device, sync: bool) -> Self {
        Self {
            waits_for: sync.then_some(device),
            last: Instant::now(),
            seconds: Named::default(),
        }
    }

    /// Ends a phase, or one more part of it; the next one begins.
    ///
    /// # Errors
    /// A device that fails while it is waited for.
    pub fn lap(&mut self, phase: &str) -> Result<(), TrainError> {
        if let Some(device) = self.waits_for {
            let synced = device.sync();
            synced.map_err(|e| TrainError::device("the device failed", e))?;
        }
        let now = Instant::now();
        let seconds = now.duration_since(self.last).as_secs_f64();
        *self.seconds.entry(phase.to_owned()).or_insert(0.0) += seconds;
        self.last = now;
        Ok(())
    }
}
