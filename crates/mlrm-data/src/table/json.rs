//! JSON Lines: one object a line.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::input::Text;
use crate::error::{DataError, Problem, ProblemKind, Result, shorten};

/// Longest line that is read: a file without line breaks must not fill the memory.
const MOST_LINE_BYTES: u64 = 1 << 26;

/// The fields of the first object, as far as it can be read.
pub(super) fn first_fields(text: &Text) -> Vec<String> {
    let mut lines = text.head().split(|&byte| byte == b'\n');
    let first = lines.find(|line| !line.trim_ascii().is_empty());
    match first.map(object) {
        Some(Ok(fields)) => fields.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

/// Hands every object to `each` with its line, until `each` breaks.
pub(super) fn read(
    path: &Path,
    text: Text,
    mut each: impl FnMut(u64, Result<Map<String, Value>, Problem>) -> ControlFlow<()>,
) -> Result<()> {
    let begins_a_list = text.head().trim_ascii_start().starts_with(b"[");
    if begins_a_list {
        return Err(DataError::row(
            path,
            1,
            "the file is one JSON list",
            "write one object a line (JSON Lines), as `jq -c '.[]' FILE` does",
        ));
    }
    if is_spread(text.head()) {
        return Err(DataError::row(
            path,
            1,
            "an object goes on over several lines",
            "write one object a line (JSON Lines), as `jq -c . FILE` does",
        ));
    }
    let mut reader = BufReader::with_capacity(1 << 18, text);
    let mut line = Vec::new();
    let mut row = 0;
    loop {
        line.clear();
        let read = (&mut reader)
            .take(MOST_LINE_BYTES)
            .read_until(b'\n', &mut line)
            .map_err(DataError::io("read", path))?;
        if read == 0 {
            return Ok(());
        }
        row += 1;
        if read as u64 == MOST_LINE_BYTES && line.last() != Some(&b'\n') {
            return Err(DataError::row(
                path,
                row,
                format!("the line is longer than {} MiB", MOST_LINE_BYTES >> 20),
                "write one JSON object a line",
            ));
        }
        let text = line.trim_ascii();
        if !text.is_empty() && each(row, object(text)).is_break() {
            return Ok(());
        }
    }
}

/// Whether the text begins with an object that is laid out over lines, as for people.
fn is_spread(head: &[u8]) -> bool {
    let text = head.trim_ascii_start();
    let mut lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.next().unwrap_or_default();
    let follows = lines.find(|line| !line.is_empty());
    first == b"{" && follows.is_some_and(|line| line.starts_with(b"\""))
}

/// A word that Python's `json` writes and JSON does not have, where an error stands at it.
fn not_a_number(line: &[u8], error: &serde_json::Error) -> Option<&'static str> {
    let at = line.get(error.column().saturating_sub(1)..)?;
    let near = &line[error.column().saturating_sub(2)..];
    // The longer one first: an error may stand behind its sign.
    let words = ["NaN", "-Infinity", "Infinity"];
    let here = |word: &&str| at.starts_with(word.as_bytes()) || near.starts_with(word.as_bytes());
    words.into_iter().find(here)
}

fn object(line: &[u8]) -> Result<Map<String, Value>, Problem> {
    let bad = |message: String| {
        Problem::new(
            ProblemKind::BadJson,
            message,
            "write one JSON object a line, as UTF-8",
        )
    };
    match serde_json::from_slice(line) {
        Ok(Strict(Value::Object(fields))) => Ok(fields),
        Ok(_) => Err(bad("the line is JSON, but no object".into())),
        // Its own line number is always 1 and would only confuse.
        Err(error) => {
            let reason = error.to_string().replace(" at line 1 column", " at column");
            if let Some(word) = not_a_number(line, &error) {
                return Err(Problem::new(
                    ProblemKind::BadJson,
                    format!("`{word}` at column {} is no JSON", error.column()),
                    "write null where there is no number (pandas: `to_json`, not `json.dumps`)",
                ));
            }
            Err(bad(match error.is_data() {
                true => reason,
                false => format!("no JSON: {reason}"),
            }))
        }
    }
}

/// A JSON value no object of which has a key twice: which of the two was meant, nobody can say.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some((name, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if fields.contains_key(&name) {
                let name = shorten(&name);
                return Err(A::Error::custom(format!("the key `{name}` occurs twice")));
            }
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}
