//! One event, one line: the encoding of the log.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::event::Event;
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
        // Events hold nothing that JSON lacks: string keys only, non-finite numbers as strings, and
        // `Value`s, which are JSON already.
        let line = self.event.line(self.time_seconds);
        line.expect("events are representable in JSON")
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
        Ok(Self {
            time_seconds: header.time_seconds,
            event: Event::read(&header.event, line)?,
        })
    }
}

/// An event's line, `fields` after its name and time.
pub(crate) fn line_of<T: Serialize>(
    event: &str,
    time_seconds: f64,
    fields: &T,
) -> serde_json::Result<String> {
    serde_json::to_string(&Line {
        event,
        time_seconds,
        fields,
    })
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
