//! A TOML document as a tree whose every value remembers where it was written.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use crate::error::{Finding, Location};

/// A text that settings were read from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: SourceName,
    pub(crate) text: String,
}

/// What kind of text, and what to call it in messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceName {
    File(PathBuf),
    /// A text without a name.
    Text,
    /// One `--set key=value`, as written.
    Override,
}

/// Where one key and its value stand.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) source: Arc<Source>,
    pub(crate) key: Range<usize>,
    pub(crate) value: Range<usize>,
}

impl Origin {
    /// The place of the key, for messages about what is set.
    pub(crate) fn key_location(&self) -> Location {
        Location::of(&self.source, &self.key)
    }

    /// The place of the value, for messages about its type.
    pub(crate) fn value_location(&self) -> Location {
        Location::of(&self.source, &self.value)
    }
}

/// A value and where it was written; settings made in a program have no origin.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Option<Origin>,
}

/// A TOML value.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Table(Vec<(String, Node)>),
    List(Vec<Node>),
    Boolean(bool),
    Integer(i64),
    /// An integer outside 64 bits, as written.
    HugeInteger(String),
    Float(f64),
    String(String),
    Datetime(String),
    /// Put back to its default by an override without a value.
    Unset,
}

impl Value {
    /// What the value is, as a person would say it: `the string "fast"`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Table(_) => "a table".into(),
            Self::List(items) if items.is_empty() => "an empty list".into(),
            Self::List(items) => format!("a list of {}", items.len()),
            Self::Boolean(value) => format!("the boolean {value}"),
            Self::Integer(value) => format!("the integer {value}"),
            Self::HugeInteger(text) => format!("the integer {text}"),
            Self::Float(value) => format!("the number {}", crate::text::number(*value)),
            Self::String(text) => format!("the string {}", crate::text::quote(text)),
            Self::Datetime(text) => format!("the date {text}"),
            Self::Unset => "not set".into(),
        }
    }
}

impl Node {
    /// Parses a whole document. All syntax errors are reported, not just the first.
    pub(crate) fn parse(source: &Arc<Source>) -> Result<Self, Vec<Finding>> {
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        if !errors.is_empty() {
            return Err(errors.iter().map(|e| syntax_finding(source, e)).collect());
        }
        Ok(Self {
            value: convert_table(table.get_ref(), source),
            origin: None,
        })
    }

    /// Parses one value that stands at `offset` in its source, or `None` when it is not TOML.
    pub(crate) fn parse_value(text: &str, offset: usize, source: &Arc<Source>) -> Option<Value> {
        let value = DeValue::parse(text).ok()?;
        let mut value = convert(value.get_ref(), source);
        shift(&mut value, offset);
        Some(value)
    }

    /// The tree of settings made in a program.
    pub(crate) fn from_value(value: toml::Value) -> Self {
        let value = match value {
            toml::Value::Table(table) => Value::Table(
                table
                    .into_iter()
                    .map(|(key, value)| (key, Self::from_value(value)))
                    .collect(),
            ),
            toml::Value::Array(items) => {
                Value::List(items.into_iter().map(Self::from_value).collect())
            }
            toml::Value::Boolean(value) => Value::Boolean(value),
            toml::Value::Integer(value) => Value::Integer(value),
            toml::Value::Float(value) => Value::Float(value),
            toml::Value::String(text) => Value::String(text),
            toml::Value::Datetime(value) => Value::Datetime(value.to_string()),
        };
        Self {
            value,
            origin: None,
        }
    }

    /// The plain TOML value, for deserialising. What no key takes (integers past 64 bits, dates) has
    /// been refused and removed by then, and so have keys put back to their defaults.
    pub(crate) fn to_value(&self) -> toml::Value {
        match &self.value {
            Value::Table(entries) => toml::Value::Table(
                entries
                    .iter()
                    .map(|(key, node)| (key.clone(), node.to_value()))
                    .collect(),
            ),
            Value::List(items) => toml::Value::Array(items.iter().map(Self::to_value).collect()),
            Value::Boolean(value) => toml::Value::Boolean(*value),
            Value::Integer(value) => toml::Value::Integer(*value),
            Value::Float(value) => toml::Value::Float(*value),
            Value::String(text) | Value::HugeInteger(text) | Value::Datetime(text) => {
                toml::Value::String(text.clone())
            }
            Value::Unset => toml::Value::String(String::new()),
        }
    }
}

/// A syntax error with its place.
fn syntax_finding(source: &Source, error: &toml::de::Error) -> Finding {
    let mut finding = Finding::new("", format!("not valid TOML: {}", error.message()));
    finding.location = error.span().map(|span| Location::of(source, &span));
    finding
}

fn convert_table(table: &DeTable<'_>, source: &Arc<Source>) -> Value {
    let mut entries: Vec<(String, Node)> = table
        .iter()
        .map(|(key, value)| {
            let node = Node {
                value: convert(value.get_ref(), source),
                origin: Some(Origin {
                    source: Arc::clone(source),
                    key: key.span(),
                    value: value.span(),
                }),
            };
            (key.get_ref().to_string(), node)
        })
        .collect();
    // The parser sorts by name; findings read better in the order of the file.
    entries.sort_by_key(|(_, node)| node.origin.as_ref().map(|o| (o.key.start, o.value.start)));
    Value::Table(entries)
}

fn convert(value: &DeValue<'_>, source: &Arc<Source>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(value) => Value::Integer(value),
            Err(_) => Value::HugeInteger(integer.to_string()),
        },
        // The parser has checked the spelling: it is one that Rust reads too.
        DeValue::Float(float) => Value::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(value) => Value::Datetime(value.to_string()),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| Node {
                    value: convert(item.get_ref(), source),
                    origin: Some(Origin {
                        source: Arc::clone(source),
                        key: item.span(),
                        value: item.span(),
                    }),
                })
                .collect(),
        ),
        DeValue::Table(table) => convert_table(table, source),
    }
}

/// Moves the origins of a value that was parsed by itself to where it stands in its source.
fn shift(value: &mut Value, offset: usize) {
    let nodes: Vec<&mut Node> = match value {
        Value::Table(entries) => entries.iter_mut().map(|(_, node)| node).collect(),
        Value::List(items) => items.iter_mut().collect(),
        _ => return,
    };
    for node in nodes {
        if let Some(origin) = &mut node.origin {
            for span in [&mut origin.key, &mut origin.value] {
                *span = span.start + offset..span.end + offset;
            }
        }
        shift(&mut node.value, offset);
    }
}
