//! Settings with which a run fits into memory.

use mlrm_config::{BackendName, MicroBatchNotes, Quantisation, Tune};

use crate::device;
use crate::error::TrainError;
use crate::memory::{self, Change, PlanSizes, Prompts, TrainingMemory};
use crate::plan::RunPlan;

/// The memory that a model computes in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Room {
    /// Whether the device has a memory of its own.
    pub(super) own_memory: bool,
    /// What it may hold; `None` where nothing tells.
    pub(super) limit_bytes: Option<u64>,
}

impl Room {
    pub(super) fn of(plan: &RunPlan) -> Self {
        let name = &plan.device_name;
        let own_memory = !name.starts_with(BackendName::Flex.name());
        let limit = plan.config.backend.max_memory_bytes;
        let found = || match own_memory {
            true => device::memory_bytes(name),
            // The processes of this machine share it.
            false => memory::total_bytes().map(|all| all / plan.processes as u64),
        };
        Self {
            own_memory,
            limit_bytes: limit.or_else(found),
        }
    }

    /// The predicted peak in it.
    pub(super) fn peak(&self, memory: &TrainingMemory) -> u64 {
        match self.own_memory {
            true => memory.device_bytes(),
            false => memory.total_bytes,
        }
    }
}

/// Share of the memory that `auto` fills by its prediction, which is off by some percent.
const FILLED: f64 = 0.85;

/// Puts a number in the place of `train.micro_batch_notes = "auto"`: `previous`, that of the run which goes
/// on, or the largest that is predicted to fit. False where a number was set.
///
/// # Errors
/// As [`PlanSizes::new`].
pub fn settle_micro_batch(
    plan: &mut RunPlan,
    previous: Option<usize>,
    prompts: Prompts,
) -> Result<bool, TrainError> {
    if plan.config.train.micro_batch_notes.set().is_some() {
        return Ok(false);
    }
    let notes = match previous {
        Some(notes) => notes,
        None => most_notes(plan, prompts)?,
    };
    plan.config.train.micro_batch_notes = MicroBatchNotes::Notes(notes);
    Ok(true)
}

/// The most notes at a time that fit, 0 for all of them: as few parts as that allows, of like size; 1
/// where nothing fits.
fn most_notes(plan: &RunPlan, prompts: Prompts) -> Result<usize, TrainError> {
    let room = Room::of(plan);
    let set = plan.config.backend.max_memory_bytes;
    let limit = match room.own_memory || set.is_some() {
        true => room.limit_bytes,
        // Others may hold a part of the host's memory.
        false => room.limit_bytes.map(|limit| {
            let there = memory::available_bytes().zip(memory::resident_bytes());
            there.map_or(limit, |(free, own)| {
                limit.min(free / plan.processes as u64 + own)
            })
        }),
    };
    let Some(limit) = limit else {
        return Ok(0);
    };
    let sizes = PlanSizes::new(plan, prompts)?;
    let now = sizes.as_set();
    let fits = |micro_batch_notes: usize| -> Result<bool, TrainError> {
        let memory = sizes.predict(Change {
            micro_batch_notes,
            ..now
        })?;
        Ok(room.peak(&memory) as f64 <= FILLED * limit as f64)
    };
    if fits(0)? {
        return Ok(0);
    }
    let notes = sizes.batch_notes(now.batch_pairs);
    // Of one worker.
    let notes = notes.div_ceil(plan.workers as u64) as usize;
    let (mut fit, mut too_many) = (1, notes.max(2));
    while too_many - fit > 1 {
        let middle = fit.midpoint(too_many);
        match fits(middle)? {
            true => fit = middle,
            false => too_many = middle,
        }
    }
    Ok(notes.div_ceil(notes.div_ceil(fit)))
}

/// What may make a run fit, the mildest first: settings that change no result, then those that do.
pub(super) fn changes(now: Change) -> Vec<(String, Change)> {
    let notes = 2 * now.batch_pairs;
    let held = match now.micro_batch_notes {
        0 => notes,
        held => held.min(notes),
    };
    let halves =
        |from: usize| std::iter::successors(Some(from / 2), |n| Some(n / 2)).take_while(|n| *n > 0);
    let micro = |base: Change, also: &str| -> Vec<(String, Change)> {
        let parts = halves(held).map(|notes| {
            let change = Change {
                micro_batch_notes: notes,
                ..base
            };
            (format!("train.micro_batch_notes = {notes}{also}"), change)
        });
        parts.collect()
    };
    let mut all = micro(now, "");
    let layers = Change {
        checkpoint_layers: true,
        ..now
    };
    if !now.checkpoint_layers {
        let also = "train.checkpoint_layers = true";
        all.push((also.into(), layers));
        all.extend(micro(layers, &format!(" and {also}")));
    }
    let smallest = Change {
        micro_batch_notes: 1,
        ..layers
    };
    let with = "with train.micro_batch_notes = 1 and train.checkpoint_layers = true";
    if now.tune == Tune::Full {
        for (name, tune) in [("lora", Tune::Lora), ("frozen", Tune::Frozen)] {
            let change = Change { tune, ..now };
            all.push((format!("model.llm.tune = \"{name}\""), change));
            let change = Change { tune, ..smallest };
            all.push((format!("model.llm.tune = \"{name}\" {with}"), change));
        }
    }
    if now.quantisation == Quantisation::None {
        let tune = match now.tune {
            Tune::Frozen => Tune::Frozen,
            Tune::Full | Tune::Lora => Tune::Lora,
        };
        let name = if tune == Tune::Frozen {
            "frozen"
        } else {
            "lora"
        };
        for (bits, quantisation) in [("q8", Quantisation::Q8), ("q4", Quantisation::Q4)] {
            let settings =
                format!("model.llm.quantisation = \"{bits}\" (model.llm.tune = \"{name}\")");
            let change = Change {
                quantisation,
                tune,
                ..now
            };
            all.push((settings.clone(), change));
            let change = Change {
                quantisation,
                tune,
                ..smallest
            };
            all.push((format!("{settings} {with}"), change));
        }
    }
    all.extend(
        halves(now.batch_pairs)
            .filter(|pairs| *pairs >= 2)
            .map(|pairs| {
                let change = Change {
                    batch_pairs: pairs,
                    ..smallest
                };
                (format!("train.batch_pairs = {pairs} {with}"), change)
            }),
    );
    all
}
