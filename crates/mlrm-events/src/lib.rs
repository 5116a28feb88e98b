//! What a run tells about itself: typed events, their log on disk, and readers of that log.
//!
//! A run writes `events.jsonl`, append-only JSON Lines: one object a line, `"event"` first, then
//! `"time_seconds"` (Unix time), then the event's own fields. The trainer knows no screen; the
//! dashboard, the plain log lines, TensorBoard and the report all read these events, so a finished
//! or a remote run replays as it looked live.
//!
//! ```
//! use mlrm_events::{Event, Stamped, Warning};
//!
//! let event = Event::Warning(Warning { step: Some(3), message: "loss is not finite".into() });
//! let line = Stamped { time_seconds: 1.5, event }.to_line();
//! assert_eq!(
//!     line,
//!     r#"{"event":"warning","time_seconds":1.5,"step":3,"message":"loss is not finite"}"#
//! );
//! assert_eq!(Stamped::from_line(&line).unwrap().to_line(), line);
//! ```
//!
//! # Where to read
//!
//! `event` has the events, one line of a list and one struct each; `line` writes and reads one; `log`
//! appends, `read` and `tail` read what is there and what comes; [`EventSink`] is whoever listens.
//! [`text`] makes words safe for terminals and pages.
//!
//! # Numbers
//!
//! Finite numbers round-trip bit for bit. JSON has no other numbers, so those are written as the
//! strings `"NaN"`, `"Infinity"` and `"-Infinity"`; `null` means "does not apply" (an `Option` that
//! is `None`). A reader takes a `null` where a number must stand as NaN.
//!
//! # Versions
//!
//! A reader skips fields that it does not know and keeps events that it does not know
//! ([`Event::Unknown`]), so logs of newer versions can be read.

mod event;
mod interval;
mod line;
mod log;
mod number;
mod read;
mod sink;
mod tail;
pub mod text;

pub use event::{
    Action, AttentionMass, CheckpointSaved, Control, EmbeddingProbe, EndReason, Evaluation, Event,
    GATE_BINS, GateHistogram, KeptFeatures, Metrics, ModalityShares, Named, Preflight, RunEnded,
    RunStarted, Saliency, Slices, Split, System, TrainStep, Transfers, UnknownEvent, Warning,
};
pub use interval::{Interval, means};
pub use line::Stamped;
pub use log::EventLog;
pub use read::{LineError, Log, ReadError, read_log};
pub use sink::EventSink;
pub use tail::{EventTail, TailBatch};
