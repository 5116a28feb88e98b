//! Going on from a checkpoint: after a process ended, or after the run diverged.

use std::path::{Path, PathBuf};

use mlrm_events::{Event, Warning};

use super::{Trainer, events};
use crate::checkpoint::{self, RunState, check, folder_of, linked_step};
use crate::error::TrainError;
use crate::folders::{point, remove};
use crate::optimiser::AdamW;
use crate::plan::{RunPlan, open_model, total_steps};
use crate::run_folder::RunFolder;
use crate::schedule::LearningRate;

/// What the learning rate is multiplied by when a run goes back to a checkpoint.
const SLOWER: f64 = 0.5;

/// How much slower than its settings say a run may become before it gives up.
const SLOWEST: f64 = 0.25;

/// Where a run goes on.
pub(super) struct Resumed {
    pub(super) state: RunState,
    /// The checkpoint's folder.
    pub(super) folder: PathBuf,
    /// What a person should know of the choice.
    pub(super) notes: Vec<String>,
}

/// Reads the checkpoint that `last` points at into plan and optimiser; where it is damaged or gone,
/// the newest one that is whole. `None` where the run was killed before its first one.
pub(super) fn resume(
    folder: &mut RunFolder,
    plan: &mut RunPlan,
    optimiser: &mut AdamW,
) -> Result<Option<Resumed>, TrainError> {
    let mut candidates = checkpoint::list(&folder.root)?;
    if candidates.is_empty() {
        let note = "the run holds no checkpoint yet, and begins again".into();
        folder.notes.push(note);
        return Ok(None);
    }
    let folder = &*folder;
    let root = &folder.root;
    let mut notes = Vec::new();
    match linked_step(root, "last") {
        Some(last) if candidates.iter().any(|(step, _)| *step == last) => {
            candidates.sort_by_key(|(step, _)| *step != last);
        }
        Some(last) => notes.push(format!("`last` points at step {last}, which is gone")),
        None => notes.push("there is no link `last`".into()),
    }
    for (step, path) in candidates {
        let state = match read(root, &path, plan, optimiser) {
            Ok(state) => state,
            Err(error) => {
                let name = folder_of(step);
                notes.push(format!("{} is passed over: {error}", name.display()));
                continue;
            }
        };
        check_place(&state, &path, folder, plan)?;
        if !notes.is_empty() {
            notes.push(format!("goes on from step {step}"));
        }
        let mut resumed = Resumed {
            state,
            folder: path,
            notes,
        };
        resumed.repair_best(root)?;
        resumed.notes.extend(schedule_note(folder, plan, step));
        return Ok(Some(resumed));
    }
    Err(TrainError::Refused(format!(
        "{} holds no checkpoint that is whole: {}; begin a new run by --overwrite or --set run.dir=…",
        root.display(),
        notes.join("; ")
    )))
}

/// Reads a checkpoint into plan and optimiser; they stay as they are where it cannot be read.
fn read(
    root: &Path,
    folder: &Path,
    plan: &mut RunPlan,
    optimiser: &mut AdamW,
) -> Result<RunState, TrainError> {
    let state = check(folder)?;
    let mut moments = AdamW::new(&plan.config.train);
    checkpoint::load(folder, &state, &mut moments, &plan.device)?;
    let mut model = open_model(&folder.join("model"), &plan.device, &plan.config)?;
    model.encoding.keep_template(root)?;
    plan.replace_model(model)?;
    *optimiser = moments;
    Ok(state)
}

/// Refuses a place that is not one of this run.
fn check_place(
    state: &RunState,
    path: &Path,
    folder: &RunFolder,
    plan: &RunPlan,
) -> Result<(), TrainError> {
    let path = path.display();
    let (step, total) = (state.step, plan.total_steps);
    if step > total {
        return Err(TrainError::Refused(format!(
            "{path} is at step {step}, past the end of a run of {total} steps; raise train.max_steps \
             (or train.epochs)"
        )));
    }
    // With other pairs or batches the place is only where the order goes on.
    if !state.accepted.is_empty() || !folder.accepted.is_empty() {
        return Ok(());
    }
    let pairs = plan.pairs.pairs.train.len() as u128;
    let [epoch, position] = [state.cursor.epoch, state.cursor.position].map(u128::from);
    let drawn = step as u128 * plan.config.train.batch_pairs as u128;
    // Before it was written down, batches may have changed without a word.
    let elsewhere = state.format > 0 && epoch * pairs + position != drawn;
    if position >= pairs.max(1) || elsewhere {
        return Err(TrainError::Refused(format!(
            "{path} is at pair {position} of pass {epoch} over {pairs} pairs, which is not where step \
             {step} of {} pairs ends; its state.json was changed, or is of another run",
            plan.config.train.batch_pairs
        )));
    }
    Ok(())
}

impl Resumed {
    /// Forgets a best checkpoint that is damaged or gone, and points both links at what is there.
    fn repair_best(&mut self, root: &Path) -> Result<(), TrainError> {
        let Some((score, best)) = self.state.best else {
            return remove(&root.join("best"));
        };
        let folder = folder_of(best);
        if let Err(error) = check(&root.join(&folder)) {
            self.notes.push(format!(
                "the best checkpoint so far, step {best} with {score:.4}, is damaged or gone and no \
                 longer counts: {error}"
            ));
            self.state.best = None;
            return remove(&root.join("best"));
        }
        point(root, "best", &folder)
    }
}

/// What other settings do to the learning rate from here on.
fn schedule_note(folder: &RunFolder, plan: &RunPlan, step: usize) -> Option<String> {
    let previous = &folder.previous.as_ref()?.train;
    let planned = total_steps(previous, plan.pairs.pairs.train.len());
    let before = LearningRate::new(previous, planned).at(step);
    let now = plan.learning_rate.at(step);
    let total = plan.total_steps;
    if planned == total && before == now {
        return None;
    }
    Some(format!(
        "the schedule of the learning rate now spans {total} steps, where the run was begun with \
         {planned}: step {} takes {now:.3e} instead of {before:.3e}",
        step + 1
    ))
}

impl Trainer<'_> {
    /// Goes back to the newest checkpoint from before the run diverged, with a lower learning rate;
    /// an error that says what to try where there is none or it has done so often enough.
    pub(super) fn retreat(&mut self, what: &str) -> Result<(), TrainError> {
        let step = self.state.step;
        let first_bad = step + 1 - self.refused.max(1);
        let factor = self.state.rate_factor * SLOWER;
        // What the run holds now is not worth a checkpoint.
        self.in_step = true;
        let rate = self.plan.learning_rate.at(first_bad.saturating_sub(1)) * self.state.rate_factor;
        let give_up = |reason: &str| {
            TrainError::Diverged(format!(
                "the run has diverged at step {first_bad}: {what}. {reason} The learning rate was \
                 {rate:.3e} there: lower train.learning_rate, raise train.warmup_ratio, set \
                 train.clip_norm, or use backend.dtype = \"f32\""
            ))
        };
        if factor < SLOWEST {
            return Err(give_up(
                "It went back to a checkpoint with half the learning rate twice before.",
            ));
        }
        let root = self.folder.root.clone();
        let mut found = None;
        for (saved, path) in checkpoint::list(&root)? {
            if saved >= first_bad {
                continue;
            }
            if let Ok(state) = read(&root, &path, &mut self.plan, &mut self.optimiser) {
                found = Some((state, path));
                break;
            }
        }
        let Some((state, path)) = found else {
            return Err(give_up("There is no checkpoint from before to go back to."));
        };
        for (saved, path) in checkpoint::list(&root)? {
            if saved > state.step {
                remove(&path)?;
            }
        }
        point(&root, "last", &folder_of(state.step))?;
        let mut resumed = Resumed {
            state,
            folder: path,
            notes: Vec::new(),
        };
        resumed.repair_best(&root)?;
        self.take_up(resumed);
        self.watch.forget();
        self.state.rate_factor = factor;
        self.retreated = true;
        let back = self.state.step;
        let warning = Event::Warning(Warning {
            step: Some(step as u64),
            message: format!(
                "the run has diverged at step {first_bad}: {what}. It goes back to step {back} with \
                 {factor} of the learning rate: {:.3e} at step {}",
                self.learning_rate(),
                back + 1
            ),
        });
        self.emit(warning)?;
        self.emit(events::run_started(&self.plan, back))
    }

    /// Stands where a checkpoint stands, whose model and optimiser are read already.
    pub(super) fn take_up(&mut self, resumed: Resumed) {
        // Memory that ran out since is no larger there.
        let held = self.state.most_notes_held;
        self.state = resumed.state;
        self.state.most_notes_held = [held, self.state.most_notes_held]
            .into_iter()
            .flatten()
            .min();
        self.previous = Some(resumed.folder.join("model"));
        self.saved = Some((self.state.step, self.state.best));
        self.refused = 0;
        self.weights_are_shared = false;
        self.in_step = false;
    }
}
