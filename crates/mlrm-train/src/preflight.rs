//! What a run will take, told before its first step: memory by part, disk, and, once a few steps are
//! timed, the time to its end. A run that cannot fit is refused.

mod fitting;

use std::fmt::Write;

use mlrm_config::Tune;
use mlrm_events::text::bytes;
use mlrm_events::{Named, Preflight as PreflightEvent};

use crate::device::{self, Format};
use crate::error::TrainError;
use crate::features::KeptSize;
use crate::folders::{free_bytes, share_disk};
use crate::memory::{PlanSizes, Prompts, TrainingMemory};
use crate::plan::RunPlan;
pub use fitting::settle_micro_batch;
use fitting::{Room, changes};

/// What a run is predicted to take.
#[derive(Debug, Clone, PartialEq)]
pub struct Preflight {
    /// Memory by part.
    pub memory: TrainingMemory,
    /// The memory that the model computes in.
    room: Room,
    /// Places of notes in a batch.
    places: usize,
    /// Notes that a batch is expected to embed: each of its notes once, or one at each place.
    batch_notes: u64,
    /// Notes that are held at a time; 0 for all of the batch.
    micro_batch_notes: usize,
    /// Whether that number was found by `auto`.
    automatic: bool,
    /// What the run folder may grow to, the checkpoint that is being written included.
    pub disk_bytes: u64,
    /// What is free where the run folder lies; `None` where the system does not tell.
    pub disk_free_bytes: Option<u64>,
    /// What features of pictures may take, where they are kept.
    pub features: Option<KeptSize>,
}

impl Preflight {
    /// The prediction for `plan`, in whose config a number takes the place of
    /// `train.micro_batch_notes = "auto"`: `previous`, that of the run which goes on, or the largest that fits.
    ///
    /// # Errors
    /// A run that does not fit into memory or on the disk, with the settings that would make it fit;
    /// adapters or notes that cannot be read.
    pub fn of(plan: &mut RunPlan, previous: Option<usize>) -> Result<Self, TrainError> {
        let preflight = Self::in_memory(plan, previous, Prompts::OfNotes)?;
        preflight.check_disk(plan)?;
        Ok(preflight)
    }

    /// The prediction for steps of `plan` that are measured, whose prompts all have the length of the token budget, and that
    /// write nothing.
    ///
    /// # Errors
    /// Steps that do not fit into memory; adapters or notes that cannot be read.
    pub fn of_measured_steps(plan: &mut RunPlan) -> Result<Self, TrainError> {
        Self::in_memory(plan, None, Prompts::OfBudget)
    }

    fn in_memory(
        plan: &mut RunPlan,
        previous: Option<usize>,
        prompts: Prompts,
    ) -> Result<Self, TrainError> {
        let automatic = settle_micro_batch(plan, previous, prompts)?;
        let sizes = PlanSizes::new(plan, prompts)?;
        let now = sizes.as_set();
        let memory = sizes.predict(now)?;
        let preflight = Self {
            room: Room::of(plan),
            places: 2 * now.batch_pairs,
            batch_notes: sizes.batch_notes(now.batch_pairs),
            micro_batch_notes: now.micro_batch_notes,
            automatic,
            disk_bytes: disk_bytes(plan, &sizes, &memory),
            disk_free_bytes: free_bytes(&plan.config.run.dir),
            features: KeptSize::of(plan),
            memory,
        };
        preflight.check_memory(&sizes)?;
        Ok(preflight)
    }

    fn check_memory(&self, sizes: &PlanSizes<'_>) -> Result<(), TrainError> {
        let Some(limit) = self.room.limit_bytes else {
            return Ok(());
        };
        let peak = self.room.peak(&self.memory);
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
            let peak = self.room.peak(&sizes.predict(change)?);
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
        Err(TrainError::Refused(message))
    }

    fn check_disk(&self, plan: &RunPlan) -> Result<(), TrainError> {
        let root = &plan.config.run.dir;
        let same_disk = |features: &&KeptSize| share_disk(root, &features.folder);
        let features = self.features.as_ref().filter(same_disk);
        let needed = self.disk_bytes + features.map_or(0, |features| features.bytes);
        let Some(free) = self.disk_free_bytes.filter(|free| *free < needed) else {
            return Ok(());
        };
        Err(TrainError::Refused(format!(
            "the run may take {} on the disk{}, but {} are free at {}: make room, name another `run.dir`, or \
             lower train.keep_checkpoints = {}{}",
            bytes(needed),
            features.map_or(String::new(), |features| format!(
                ", {} of it for features of pictures (train.feature_cache)",
                bytes(features.bytes)
            )),
            bytes(free),
            root.display(),
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
            "  batch         {}\n  held          {}\n  by turns      {}; at most {}\n",
            self.batch(),
            held.join(", "),
            at_work.join(", "),
            bytes(self.memory.largest_at_work_bytes)
        );
        let limit = self
            .room
            .limit_bytes
            .map_or(String::new(), |limit| format!(" of {}", bytes(limit)));
        let peak = bytes(self.room.peak(&self.memory));
        let _ = match self.room.own_memory {
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
        if let Some(features) = &self.features {
            let _ = writeln!(
                text,
                "  features      at most {} in {}",
                bytes(features.bytes),
                features.folder.display()
            );
        }
        text
    }

    /// How many notes a batch has, and how many of them are held at a time.
    fn batch(&self) -> String {
        let all = match self.batch_notes == self.places as u64 {
            true => format!("{} notes", self.places),
            false => format!(
                "about {} different notes at {} places",
                self.batch_notes, self.places
            ),
        };
        let held = match self.micro_batch_notes {
            0 => "all held at a time".into(),
            notes => format!("{notes} held at a time"),
        };
        let found = if self.automatic { " (auto)" } else { "" };
        format!("{all}, {held}{found}")
    }

    /// As an event after `step`, with the seconds to the end where steps were timed.
    pub(crate) fn event(&self, step: usize, timed: Option<(usize, f64)>) -> PreflightEvent {
        let parts = self.parts().into_iter();
        let memory_bytes: Named<u64> = parts.map(|(name, size)| (name.to_owned(), size)).collect();
        PreflightEvent {
            step: step as u64,
            memory_bytes,
            peak_host_bytes: match self.room.own_memory {
                true => self.memory.host_bytes(),
                false => self.memory.total_bytes,
            },
            peak_device_bytes: self.room.own_memory.then(|| self.memory.device_bytes()),
            memory_limit_bytes: self.room.limit_bytes,
            batch_notes: Some(self.batch_notes),
            micro_batch_notes: Some(self.micro_batch_notes as u64),
            feature_cache_bytes: self.features.as_ref().map(|features| features.bytes),
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
