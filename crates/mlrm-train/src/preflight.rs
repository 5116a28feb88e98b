//! What a run will take, told before its first step: memory by part, disk, and, once a few steps are
//! timed, the time to its end. A run that cannot fit is refused.

use std::fmt::Write;

use mlrm_config::{BackendName, Quantisation, Tune};
use mlrm_events::text::bytes;
use mlrm_events::{Named, Preflight as PreflightEvent};

use crate::device::{self, Format};
use crate::error::TrainError;
use crate::folders::free_bytes;
use crate::memory::{self, Change, PlanSizes, TrainingMemory};
use crate::plan::RunPlan;

/// What a run is predicted to take.
#[derive(Debug, Clone, PartialEq)]
pub struct Preflight {
    /// Memory by part.
    pub memory: TrainingMemory,
    /// Whether the device has a memory of its own.
    own_memory: bool,
    /// What the memory of the device, or of the host, may hold; `None` where nothing tells.
    pub memory_limit_bytes: Option<u64>,
    /// What the run folder may grow to, the checkpoint that is being written included.
    pub disk_bytes: u64,
    /// What is free where the run folder lies; `None` where the system does not tell.
    pub disk_free_bytes: Option<u64>,
}

impl Preflight {
    /// The prediction for `plan`.
    ///
    /// # Errors
    /// A run that does not fit into memory or on the disk, with the settings that would make it fit;
    /// adapters or notes that cannot be read.
    pub fn of(plan: &RunPlan) -> Result<Self, TrainError> {
        let sizes = PlanSizes::new(plan)?;
        let memory = sizes.predict(sizes.as_set())?;
        let name = &plan.device_name;
        let own_memory = !name.starts_with(BackendName::Flex.name());
        let limit = plan.config.backend.max_memory_bytes;
        let found = || match own_memory {
            true => device::memory_bytes(name),
            // The processes of this machine share it.
            false => memory::total_bytes().map(|all| all / plan.processes as u64),
        };
        let preflight = Self {
            own_memory,
            memory_limit_bytes: limit.or_else(found),
            disk_bytes: disk_bytes(plan, &sizes, &memory),
            disk_free_bytes: free_bytes(&plan.config.run.dir),
            memory,
        };
        preflight.check_memory(&sizes)?;
        preflight.check_disk(plan)?;
        Ok(preflight)
    }

    /// The predicted peak where the model computes.
    fn peak(&self, memory: &TrainingMemory) -> u64 {
        match self.own_memory {
            true => memory.device_bytes(),
            false => memory.total_bytes,
        }
    }

    fn check_memory(&self, sizes: &PlanSizes<'_>) -> Result<(), TrainError> {
        let Some(limit) = self.memory_limit_bytes else {
            return Ok(());
        };
        let peak = self.peak(&self.memory);
        if peak <= limit {
            return Ok(());
        }
        let mut message = format!(
            "training would take {} of memory, but there are {}:\n{}",
            bytes(peak),
            bytes(limit),
            self.table()
        );
        let mut found = 0;
        for (settings, change) in changes(sizes.as_set()) {
            let peak = self.peak(&sizes.predict(change)?);
            if peak <= limit {
                let _ = writeln!(message, "it would fit with {settings}: {}", bytes(peak));
                found += 1;
            }
            if found == MOST_SUGGESTIONS {
                break;
            }
        }
        if found == 0 {
            let _ = writeln!(
                message,
                "neither smaller batches nor adapters, frozen or quantised weights would make it fit: \
                 take a smaller model, or a machine with more memory"
            );
        }
        message.push_str(
            "backend.max_memory_bytes sets the limit, where the machine has more than is said here",
        );
        Err(TrainError::Run(message))
    }

    fn check_disk(&self, plan: &RunPlan) -> Result<(), TrainError> {
        let Some(free) = self.disk_free_bytes.filter(|free| *free < self.disk_bytes) else {
            return Ok(());
        };
        Err(TrainError::Run(format!(
            "the run may take {} on the disk, but {} are free at {}: make room, name another `run.dir`, or \
             lower train.keep_checkpoints = {}{}",
            bytes(self.disk_bytes),
            bytes(free),
            plan.config.run.dir.display(),
            plan.config.train.keep_checkpoints,
            match plan.config.model.llm.tune {
                Tune::Full => "; model.llm.tune = \"lora\" has far smaller checkpoints",
                Tune::Lora | Tune::Frozen => "",
            }
        )))
    }

    /// Part and predicted bytes, in the order of the table.
    fn parts(&self) -> [(&'static str, u64); 11] {
        let memory = &self.memory;
        [
            ("program", memory.program_bytes),
            ("loader", memory.loader_bytes),
            ("weights", memory.weights_bytes),
            ("optimiser", memory.optimiser_bytes),
            ("gradients", memory.gradients_bytes),
            ("activations", memory.activations_bytes),
            ("loss", memory.loss_bytes),
            ("pictures", memory.pictures_bytes),
            ("probe", memory.probe_bytes),
            ("evaluation", memory.evaluation_bytes),
            ("saving", memory.saving_bytes),
        ]
    }

    /// A few lines for a person.
    pub fn table(&self) -> String {
        let mut held = Vec::new();
        let mut at_work = Vec::new();
        for (index, (name, size)) in self.parts().into_iter().enumerate() {
            let part = format!("{name} {}", bytes(size));
            match index < HELD_PARTS {
                true => held.push(part),
                false => at_work.push(part),
            }
        }
        let mut text = format!(
            "  held          {}\n  by turns      {}; at most {}\n",
            held.join(", "),
            at_work.join(", "),
            bytes(self.memory.largest_at_work_bytes)
        );
        let limit = self
            .memory_limit_bytes
            .map_or(String::new(), |limit| format!(" of {}", bytes(limit)));
        let peak = bytes(self.peak(&self.memory));
        let _ = match self.own_memory {
            true => writeln!(
                text,
                "  peak          {peak}{limit} on the device, {} on the host",
                bytes(self.memory.host_bytes())
            ),
            false => writeln!(text, "  peak          {peak}{limit}"),
        };
        let free = self
            .disk_free_bytes
            .map_or(String::new(), |free| format!(", of {} free", bytes(free)));
        let _ = writeln!(
            text,
            "  disk          at most {}{free}",
            bytes(self.disk_bytes)
        );
        text
    }

    /// As an event after `step`, with the seconds to the end where steps were timed.
    pub(crate) fn event(&self, step: usize, timed: Option<(usize, f64)>) -> PreflightEvent {
        let parts = self.parts().into_iter();
        let memory_bytes: Named<u64> = parts.map(|(name, size)| (name.to_owned(), size)).collect();
        PreflightEvent {
            step: step as u64,
            memory_bytes,
            peak_host_bytes: match self.own_memory {
                true => self.memory.host_bytes(),
                false => self.memory.total_bytes,
            },
            peak_device_bytes: self.own_memory.then(|| self.memory.device_bytes()),
            memory_limit_bytes: self.memory_limit_bytes,
            disk_bytes: self.disk_bytes,
            disk_free_bytes: self.disk_free_bytes,
            timed_steps: timed.map(|(steps, _)| steps as u64),
            seconds_left: timed.map(|(_, seconds)| seconds),
        }
    }
}

/// Parts of the table that are held throughout.
const HELD_PARTS: usize = 4;

/// Ways out that a refusal names.
const MOST_SUGGESTIONS: usize = 3;

/// What may make a run fit, the mildest first: settings that change no result, then those that do.
fn changes(now: Change) -> Vec<(String, Change)> {
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

/// What the run folder may hold at a time: the checkpoints that are kept, the best one, one that is being
/// written, and the model; what training does not change is on the disk once.
fn disk_bytes(plan: &RunPlan, sizes: &PlanSizes<'_>, memory: &TrainingMemory) -> u64 {
    let number = match device::dtype(plan.config.backend.dtype) {
        Format::F32 => 4,
        _ => 2,
    };
    let all: u64 = sizes.parameters().iter().sum();
    let changes = memory.trained_parameters.min(all) * number;
    let frozen = (all * number).saturating_sub(changes);
    let best = u64::from(!plan.pairs.pairs.validation.is_empty());
    let checkpoints = plan.config.train.keep_checkpoints as u64 + best + 1;
    frozen + checkpoints * (changes + memory.optimiser_bytes) + changes
}
