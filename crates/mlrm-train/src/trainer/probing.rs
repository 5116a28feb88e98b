//! Looks at saliency and embeddings while a run learns.

use mlrm_events::Event;

use super::Trainer;
use crate::error::TrainError;

impl Trainer<'_> {
    /// Looks at the saliency of the probe's notes where that is due.
    pub(super) fn probe_saliency(&mut self) -> Result<(), TrainError> {
        let Some(probe) = &mut self.probe else {
            return Ok(());
        };
        // Of this process: so are the probes' seconds.
        let (step, elapsed) = (self.state.step, self.begun.elapsed().as_secs_f64());
        let model = &self.plan.embedder;
        let Some(event) = probe.measure_due(step, elapsed, model, &self.context.objective)? else {
            return Ok(());
        };
        let warning = match &event {
            Event::Saliency(saliency) => self.watch.saliency(saliency),
            _ => None,
        };
        self.emit(event)?;
        self.warn_all(warning)
    }

    /// Looks at the embeddings of the probe where that is due; `evaluated`: at an evaluation, whose
    /// step may have been looked at already.
    pub(super) fn probe_embeddings(&mut self, evaluated: bool) -> Result<(), TrainError> {
        let step = self.state.step;
        let Some(probe) = &mut self.embedding_probe else {
            return Ok(());
        };
        if probe.is_due(step) == evaluated {
            return Ok(());
        }
        // Weights that are not finite are found where they are evaluated or saved.
        let Some(figures) = probe.measure(step, &self.plan.embedder)? else {
            return Ok(());
        };
        let warnings = self.watch.probe(&figures);
        self.emit(Event::EmbeddingProbe(figures))?;
        self.warn_all(warnings)
    }
}
