//! One event, one line: the encoding of the log.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event::{Event, UnknownEvent};
use crate::number;

/// An event and when it happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamped {
    /// Unix time.
    pub time_seconds: f64,
    /// What happened.
    pub event: Event,
}

/// What every line has; read first, so that the rest is read straight into its type.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(with = "number")]
    time_seconds: f64,
}

#[derive(Serialize)]
struct Line<'a, T> {
    event: &'a str,
    #[serde(with = "number")]
    time_seconds: f64,
    #[serde(flatten)]
    fields: &'a T,
}

impl Stamped {
    /// Stamps `event` with the current time.
    pub fn now(event: Event) -> Self {
        // A clock before 1970 is no reason to stop a training run.
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            time_seconds: since_epoch.as_secs_f64(),
            event,
        }
    }

    /// The event as one line of the log, without the line break.
    pub fn to_line(&self) -> String {
        match &self.event {
            Event::RunStarted(fields) => self.line_of(fields),
            Event::TrainStep(fields) => self.line_of(fields),
            Event::GateHistogram(fields) => self.line_of(fields),
            Event::Evaluation(fields) => self.line_of(fields),
            Event::Saliency(fields) => self.line_of(fields),
            Event::AttentionMass(fields) => self.line_of(fields),
            Event::EmbeddingProbe(fields) => self.line_of(fields),
            Event::System(fields) => self.line_of(fields),
            Event::Preflight(fields) => self.line_of(fields),
            Event::CheckpointSaved(fields) => self.line_of(fields),
            Event::Warning(fields) => self.line_of(fields),
            Event::Control(fields) => self.line_of(fields),
            Event::RunEnded(fields) => self.line_of(fields),
            Event::Unknown(unknown) => self.line_of(&unknown.fields),
        }
    }

    fn line_of<T: Serialize>(&self, fields: &T) -> String {
        let line = Line {
            event: self.event.name(),
            time_seconds: self.time_seconds,
            fields,
        };
        // The types above hold nothing that JSON lacks: string keys only, non-finite numbers as
        // strings, and `Value`s, which are JSON already.
        serde_json::to_string(&line).expect("events are representable in JSON")
    }

    /// Reads one line of the log.
    ///
    /// # Errors
    ///
    /// The line is not a JSON object, lacks `event` or `time_seconds`, or a known event lacks a
    /// field or has one of the wrong type.
    pub fn from_line(line: &str) -> Result<Self, serde_json::Error> {
        let header = match quick_header(line) {
            Some(header) => header,
            None => serde_json::from_str(line)?,
        };
        let event = match header.event.as_ref() {
            "run_started" => Event::RunStarted(fields_of(line)?),
            "train_step" => Event::TrainStep(fields_of(line)?),
            "gate_histogram" => Event::GateHistogram(fields_of(line)?),
            "evaluation" => Event::Evaluation(fields_of(line)?),
            "saliency" => Event::Saliency(fields_of(line)?),
            "attention_mass" => Event::AttentionMass(fields_of(line)?),
            "embedding_probe" => Event::EmbeddingProbe(fields_of(line)?),
            "system" => Event::System(fields_of(line)?),
            "preflight" => Event::Preflight(fields_of(line)?),
            "checkpoint_saved" => Event::CheckpointSaved(fields_of(line)?),
            "warning" => Event::Warning(fields_of(line)?),
            "control" => Event::Control(fields_of(line)?),
            "run_ended" => Event::RunEnded(fields_of(line)?),
            name => Event::Unknown(unknown(name, fields_of(line)?)),
        };
        Ok(Self {
            time_seconds: header.time_seconds,
            event,
        })
    }
}

/// The header of a line that begins as [`Stamped::to_line`] writes it, without a walk through the
/// rest of the line; `None` for every other line. (The rest is checked when its fields are read.)
fn quick_header(line: &str) -> Option<Header<'_>> {
    let rest = line.strip_prefix(r#"{"event":""#)?;
    let (event, rest) = rest.split_once(r#"","time_seconds":"#)?;
    if !event
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    {
        return None;
    }
    let end = rest.find([',', '}'])?;
    let time_seconds = serde_json::from_str(&rest[..end]).ok()?;
    Some(Header {
        event: Cow::Borrowed(event),
        time_seconds,
    })
}

fn fields_of<T: DeserializeOwned>(line: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(line)
}

fn unknown(name: &str, mut fields: Map<String, Value>) -> UnknownEvent {
    fields.shift_remove("event");
    fields.shift_remove("time_seconds");
    UnknownEvent {
        name: name.to_owned(),
        fields,
    }
}
