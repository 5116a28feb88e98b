//! Checkpoints of a run, and the model that it ends with.

use std::time::Instant;

use burn::tensor::{DType, Tensor};
use mlrm_events::{CheckpointSaved, Event};
use mlrm_model::embedder::Provenance;
use mlrm_model::weights::each_parameter;

use super::{Trainer, due};
use crate::checkpoint;
use crate::error::TrainError;
use crate::folders::point;
use crate::plan::open_model;

impl Trainer<'_> {
    /// Last evaluation and checkpoint; puts the chosen weights into the plan and writes its model
    /// folder. Returns the step of those weights, or nothing where the run went back to an earlier
    /// checkpoint instead.
    pub(super) fn finish(&mut self) -> Result<Option<usize>, TrainError> {
        let step = self.state.step;
        let every = self.plan.config.train.eval_every_steps;
        if !self.stopping && !due(step, every) {
            self.validate()?;
        }
        if !self.retreated {
            self.save(if self.stopping {
                "stopped"
            } else {
                "completed"
            })?;
        }
        if self.retreated {
            return Ok(None);
        }
        let mut chosen = step;
        if let Some((_, best)) = self.state.best.filter(|(_, best)| *best != step) {
            let checkpoint = self.folder.root.join(checkpoint::folder_of(best));
            let model = checkpoint::check(&checkpoint).and_then(|_| {
                let folder = checkpoint.join("model");
                open_model(&folder, &self.plan.device, &self.plan.config)
            });
            match model {
                Ok(model) => {
                    self.plan.replace_model(model)?;
                    // It embeds each note once, for the table: states that are kept would be computed for it alone.
                    self.plan.embedder.core.states = None;
                    chosen = best;
                }
                Err(error) => self.warn(format!(
                    "the best checkpoint, step {best}, is damaged or gone, and the last one is taken \
                     instead: {error}"
                ))?,
            }
        }
        let folder = self.folder.root.join("model");
        let provenance = self.provenance(chosen);
        let plan = &self.plan;
        let previous = self.previous.as_deref();
        checkpoint::write_model(
            &folder,
            &plan.embedder,
            &plan.encoding,
            &provenance,
            previous,
        )?;
        Ok(Some(chosen))
    }

    /// Whether a checkpoint is due by steps or by time. None is written while steps are refused:
    /// it would hold nothing new, and take the place of one to go back to.
    pub(super) fn save_due(&self) -> bool {
        let train = &self.plan.config.train;
        let seconds = train.save_every_minutes * 60.0;
        let late = seconds > 0.0 && self.saved_at.elapsed().as_secs_f64() >= seconds;
        let step = self.state.step;
        let saved = self.saved.is_some_and(|(saved, _)| saved == step);
        // The last one is written once the last evaluation is done.
        let last = step == self.plan.total_steps;
        (late || due(step, train.save_every_steps)) && !saved && !last && self.refused == 0
    }

    /// Writes a checkpoint, unless this step's is there, points `last` and, where it is the best,
    /// `best` at it, and removes old ones. Weights that are not finite are not saved: the run goes
    /// back.
    pub(super) fn save(&mut self, reason: &str) -> Result<(), TrainError> {
        if !self.is_finite()? {
            return self.retreat("weights are not finite");
        }
        let step = self.state.step;
        let best = self.state.best.is_some_and(|(_, best)| best == step);
        let path = checkpoint::folder_of(step);
        let now = Some((step, self.state.best));
        if self.saved != now {
            self.state.seconds = self.seconds();
            self.state.watched = self.watch.watched().clone();
            let provenance = self.provenance(step);
            checkpoint::save(
                &self.folder.root,
                &self.plan.embedder,
                &self.plan.encoding,
                &self.optimiser,
                &self.state,
                &provenance,
                self.previous.as_deref(),
            )?;
            self.saved = now;
        }
        self.saved_at = Instant::now();
        let root = &self.folder.root;
        self.previous = Some(root.join(&path).join("model"));
        point(root, "last", &path)?;
        if best {
            point(root, "best", &path)?;
        }
        let spared = self.state.best.map(|(_, step)| step);
        checkpoint::prune(root, step, self.plan.config.train.keep_checkpoints, spared)?;
        self.emit(Event::CheckpointSaved(CheckpointSaved {
            step: step as u64,
            path: path.display().to_string(),
            best,
            reason: reason.into(),
        }))
    }

    /// Saves what was learnt before `error`, where it is worth it and possible, and says so.
    pub(super) fn rescue(&mut self, error: TrainError) -> TrainError {
        let step = self.state.step;
        let saved = self.saved.map_or(0, |(saved, _)| saved);
        if self.in_step || step <= saved || !self.is_finite().unwrap_or(false) {
            return error;
        }
        let config = self.folder.root.join("config.toml");
        let saved = match self.save("failed") {
            Ok(()) => format!(
                "step {step} is saved: once that is corrected, go on with `mlrm train {} --resume`",
                config.display()
            ),
            Err(second) => format!("step {step} could not be saved either: {second}"),
        };
        let error = Box::new(error);
        TrainError::Failed { error, saved }
    }

    /// Whether every weight that learns is a finite number.
    fn is_finite(&self) -> Result<bool, TrainError> {
        // For each of them 1 where all of it is finite, else 0.
        let mut found: Vec<Tensor<1>> = Vec::new();
        each_parameter(&self.plan.embedder.core, &mut |param| {
            if param.learns() {
                let finite = param.values().is_finite().all();
                found.push(finite.float().cast(DType::F32));
            }
        });
        if found.is_empty() {
            return Ok(true);
        }
        // One read-back for all of them.
        let all = Tensor::cat(found, 0).try_into_vec_as::<f32>();
        let all =
            all.map_err(|e| TrainError::device("the weights cannot be read from the device", e))?;
        Ok(all.iter().all(|&finite| finite == 1.0))
    }

    fn provenance(&self, step: usize) -> Provenance {
        Provenance {
            mlrm_version: env!("CARGO_PKG_VERSION").into(),
            step: Some(step),
            seed: Some(self.plan.config.run.seed),
        }
    }
}
