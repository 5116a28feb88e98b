//! Checkpoints of a run, and the model that it ends with.

use mlrm_events::{CheckpointSaved, Event};
use mlrm_model::embedder::Provenance;

use super::{Trainer, due};
use crate::checkpoint;
use crate::error::TrainError;
use crate::plan::open_model;

impl Trainer<'_> {
    /// Last evaluation and checkpoint; puts the chosen weights into the plan and writes its model
    /// folder. Returns the step of those weights.
    pub(super) fn finish(&mut self) -> Result<usize, TrainError> {
        let step = self.state.step;
        let every = self.plan.config.train.eval_every_steps;
        if !self.stopping && !due(step, every) {
            self.validate()?;
        }
        self.save(if self.stopping {
            "stopped"
        } else {
            "completed"
        })?;
        let mut chosen = step;
        if let Some((_, best)) = self.state.best.filter(|(_, best)| *best != step) {
            let checkpoint = self.folder.root.join("best/model");
            let model = open_model(&checkpoint, &self.plan.device, &self.plan.config)?;
            self.plan.embedder = model.embedder;
            chosen = best;
        }
        let folder = self.folder.root.join("model");
        let provenance = self.provenance(chosen);
        let plan = &self.plan;
        let earlier = self.earlier.as_deref();
        checkpoint::write_model(
            &folder,
            &plan.embedder,
            &plan.encoding,
            &provenance,
            earlier,
        )?;
        Ok(chosen)
    }

    /// Writes a checkpoint, points `last` and, where it is the best, `best` at it, and removes old
    /// ones.
    pub(super) fn save(&mut self, reason: &str) -> Result<(), TrainError> {
        let step = self.state.step;
        let best = self.state.best.is_some_and(|(_, best)| best == step);
        self.state.seconds = self.seconds();
        let provenance = self.provenance(step);
        let root = &self.folder.root;
        let path = checkpoint::save(
            root,
            &self.plan.embedder,
            &self.plan.encoding,
            &self.optimiser,
            &self.state,
            &provenance,
            self.earlier.as_deref(),
        )?;
        self.earlier = Some(root.join(&path).join("model"));
        checkpoint::point(root, "last", &path)?;
        if best {
            checkpoint::point(root, "best", &path)?;
        }
        let spared: Vec<usize> = self.state.best.iter().map(|(_, step)| *step).collect();
        self.saved_step = Some(step);
        checkpoint::prune(root, self.plan.config.train.keep_checkpoints, &spared)?;
        self.emit(Event::CheckpointSaved(CheckpointSaved {
            step: step as u64,
            path: path.display().to_string(),
            best,
            reason: reason.into(),
        }))
    }

    fn provenance(&self, step: usize) -> Provenance {
        Provenance {
            mlrm_version: env!("CARGO_PKG_VERSION").into(),
            step: Some(step),
            seed: Some(self.plan.config.run.seed),
        }
    }
}
