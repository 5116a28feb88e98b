//! `--set section.key=value` on the command line.

use std::sync::Arc;

use crate::catalog::{Entry, Kind, catalog};
use crate::document::{Node, Origin, Source, SourceName, Value};
use crate::error::{Finding, Location};

/// Puts overrides into a config, later ones over earlier ones. Those that cannot be read are
/// reported together; whether their keys and values are right is checked with the file's.
pub(crate) fn apply(root: &mut Node, overrides: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for text in overrides {
        let source = Arc::new(Source {
            name: SourceName::Override,
            text: text.clone(),
        });
        match Override::parse(&source) {
            Ok(parsed) => parsed.apply(root),
            Err(finding) => findings.push(*finding),
        }
    }
    findings
}

/// One override, taken apart.
struct Override {
    keys: Vec<String>,
    /// `None` puts the key back to its default.
    value: Option<Value>,
    origin: Origin,
}

impl Override {
    fn parse(source: &Arc<Source>) -> Result<Self, Box<Finding>> {
        let text = source.text.as_str();
        let error = |message: String| {
            let finding = Finding::new("", message)
                .help("write it as section.key=value: --set train.batch_pairs=32")
                .at(Some(Location::of(source, &(0..text.len()))));
            Box::new(finding)
        };
        let Some((path, written)) = text.split_once('=') else {
            return Err(error(format!("the override `{text}` has no `=`")));
        };
        let keys: Vec<String> = path.split('.').map(|key| key.trim().to_owned()).collect();
        if keys.iter().any(String::is_empty) {
            return Err(error(format!("the override `{text}` names no key")));
        }
        let value = written.trim();
        let start = path.len() + 1 + (written.len() - written.trim_start().len());
        let entry = catalog().find(&keys.join("."));
        let value = (!value.is_empty()).then(|| read_value(value, start, entry, source));
        Ok(Self {
            keys,
            value,
            origin: Origin {
                source: Arc::clone(source),
                key: 0..path.len(),
                value: start..text.len(),
            },
        })
    }

    fn apply(self, root: &mut Node) {
        let Some((last, sections)) = self.keys.split_last() else {
            return;
        };
        let mut table = root;
        for name in sections {
            table = child(table, name, &self.origin);
        }
        match self.value {
            Some(value) => merge(child(table, last, &self.origin), value, self.origin),
            None => remove(table, last, self.origin),
        }
    }
}

/// Reads a value as TOML; what is not TOML, and whatever is meant for a key that takes a string,
/// is taken literally, so that paths and names need no quotes.
fn read_value(written: &str, start: usize, entry: Option<&Entry>, source: &Arc<Source>) -> Value {
    let literal = || Value::String(written.to_owned());
    let parsed = Node::parse_value(written, start, source);
    match (entry.map(|entry| &entry.kind), parsed) {
        (_, None) => literal(),
        (_, Some(text @ Value::String(_))) => text,
        (Some(Kind::Text { .. }), Some(_)) => literal(),
        (Some(Kind::Either(_)), Some(list @ Value::List(_))) => list,
        (Some(Kind::Either(kinds)), Some(_)) if kinds.iter().any(takes_text) => literal(),
        (_, Some(value)) => value,
    }
}

fn takes_text(kind: &Kind) -> bool {
    matches!(kind, Kind::Text { .. })
}

/// The entry `name` of a table, made when it is not there. What stands in the way of a table (an
/// override such as `train.betas.first=1`) gives way, and is then refused by the check of keys.
fn child<'a>(table: &'a mut Node, name: &str, origin: &Origin) -> &'a mut Node {
    if !matches!(table.value, Value::Table(_)) {
        table.value = Value::Table(Vec::new());
        table.origin = Some(origin.clone());
    }
    let Value::Table(entries) = &mut table.value else {
        unreachable!("made a table above");
    };
    let index = match entries.iter().position(|(key, _)| key == name) {
        Some(index) => index,
        None => {
            let node = Node {
                value: Value::Table(Vec::new()),
                origin: Some(origin.clone()),
            };
            entries.push((name.to_owned(), node));
            entries.len() - 1
        }
    };
    &mut entries[index].1
}

/// Tables are merged key by key, everything else is replaced.
fn merge(node: &mut Node, value: Value, origin: Origin) {
    match (&mut node.value, value) {
        (Value::Table(_), Value::Table(entries)) => {
            for (name, entry) in entries {
                let origin = entry.origin.clone().unwrap_or_else(|| origin.clone());
                merge(child(node, &name, &origin), entry.value, origin);
            }
        }
        (_, value) => {
            *node = Node {
                value,
                origin: Some(origin),
            };
        }
    }
}

/// Takes a key out, so that its default holds; a key that nobody knows stays, to be refused.
fn remove(table: &mut Node, name: &str, origin: Origin) {
    let node = child(table, name, &origin);
    node.origin = Some(origin);
    node.value = Value::Unset;
}
