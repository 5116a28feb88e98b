//! The events: each a line of a list, its fields a struct in `records`.

mod records;

pub use records::*;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::line::line_of;

/// A map that keeps the order in which it was filled, as the log keeps it.
pub type Named<T> = IndexMap<String, T>;

/// Metric name (`recall@10`, `ndcg@10`, `mrr@10`, `hit@10`) → value, as fractions of 1.
///
/// A metric may be followed by the bounds of its 95 % confidence interval, named with the suffixes
/// `:low` and `:high` (`recall@10:low`).
pub type Metrics = Named<f64>;

/// Slice name (`all`, `short_query`, …) → its metrics.
pub type Slices = Named<Metrics>;

/// One layer's `[S_v, S_t, S_o]`: visual, textual and other (method §4), means over notes, not yet
/// divided by their sum.
pub type ModalityShares = [f64; 3];

/// Each kind of event: its fields, its name in the log, and which of its fields is the step that it
/// belongs to.
macro_rules! events {
    ($($(#[$doc:meta])* $event:ident($fields:ty) = $name:literal, $step:ident;)*) => {
        /// Something that happened in a run.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Event {
            $($(#[$doc])* $event($fields),)*
            /// An event of a newer version.
            Unknown(UnknownEvent),
        }

        impl Event {
            /// The event's name in the log.
            pub fn name(&self) -> &str {
                match self {
                    $(Event::$event(_) => $name,)*
                    Event::Unknown(unknown) => &unknown.name,
                }
            }

            /// The step that the event belongs to, where it has one.
            pub fn step(&self) -> Option<u64> {
                match self {
                    $(Event::$event(event) => event.$step.into(),)*
                    Event::Unknown(event) => event.fields.get("step").and_then(Value::as_u64),
                }
            }

            /// The event of this name, its fields read from the line of the log.
            pub(crate) fn read(name: &str, line: &str) -> serde_json::Result<Self> {
                Ok(match name {
                    $($name => Event::$event(serde_json::from_str(line)?),)*
                    name => {
                        let mut fields: Map<String, Value> = serde_json::from_str(line)?;
                        fields.shift_remove("event");
                        fields.shift_remove("time_seconds");
                        let name = name.to_owned();
                        Event::Unknown(UnknownEvent { name, fields })
                    }
                })
            }

            /// The line of the log that says that the event happened at a Unix time.
            pub(crate) fn line(&self, time_seconds: f64) -> serde_json::Result<String> {
                match self {
                    $(Event::$event(fields) => line_of(self.name(), time_seconds, fields),)*
                    Event::Unknown(event) => line_of(self.name(), time_seconds, &event.fields),
                }
            }
        }
    };
}

events! {
    /// A process began (or resumed) training.
    RunStarted(Box<RunStarted>) = "run_started", resumed_from_step;
    /// One optimiser step.
    TrainStep(TrainStep) = "train_step", step;
    /// How the fusion gate's values are distributed.
    GateHistogram(GateHistogram) = "gate_histogram", step;
    /// Retrieval was measured.
    Evaluation(Evaluation) = "evaluation", step;
    /// Modality saliency was measured on the probe set.
    Saliency(Saliency) = "saliency", step;
    /// Attention mass (attention without its gradient) was measured: the cheaper live probe.
    AttentionMass(AttentionMass) = "attention_mass", step;
    /// The embeddings of a fixed batch of pairs were looked at.
    EmbeddingProbe(EmbeddingProbe) = "embedding_probe", step;
    /// Use of the machine.
    System(System) = "system", step;
    /// What the run is predicted to take.
    Preflight(Preflight) = "preflight", step;
    /// A checkpoint is on disk, whole.
    CheckpointSaved(CheckpointSaved) = "checkpoint_saved", step;
    /// Something a person should look at.
    Warning(Warning) = "warning", step;
    /// The trainer did what it was asked for.
    Control(Control) = "control", step;
    /// The process ended training.
    RunEnded(RunEnded) = "run_ended", step;
}

/// An event that this version does not know, kept as it was read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UnknownEvent {
    /// Its name.
    pub name: String,
    /// Its fields without `event` and `time_seconds`.
    pub fields: Map<String, Value>,
}
