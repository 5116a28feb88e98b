//! The configuration reference of the guide, and the schema for editors.

use std::fmt::Write;

use serde_json::Value as Json;

use crate::catalog::{self, Entry, Kind, Section, catalog, join};

const HEAD: &str = "\
# Configuration reference

<!-- Generated from the settings types by `cargo run --release --example reference`. -->

Every key that a config can hold. `mlrm config explain KEY` prints the same in a terminal. How a
config is written, checked and overridden is told in [Configuration](config.md). *Source* says where
a key or its default comes from; the sections of the method are those of [The method](method.md).
";

/// The configuration reference as Markdown: `docs/src/configuration.md`.
pub fn reference_markdown() -> String {
    let mut text = String::from(HEAD);
    for section in catalog().sections() {
        if !section.key.is_empty() {
            write_section(&mut text, section);
        }
    }
    text
}

/// The JSON schema of a config, for editors that complete and check TOML.
pub fn json_schema() -> Json {
    catalog::json_schema()
}

fn write_section(text: &mut String, section: &Section) {
    let parent = section
        .key
        .rsplit_once('.')
        .map_or("", |(parent, _)| parent);
    let is_list = catalog()
        .find(&section.key)
        .is_some_and(|entry| matches!(entry.kind, Kind::Tables(_)));
    let title = if is_list {
        format!("[[{}]]", section.key)
    } else {
        format!("[{}]", section.key)
    };
    let level = if parent.is_empty() { "##" } else { "###" };
    // Writing to a string cannot fail.
    let _ = write!(text, "\n{level} `{title}`\n\n{}\n", section.meaning);
    let keys: Vec<&Entry> = section
        .entries
        .iter()
        .filter(|entry| !matches!(entry.kind, Kind::Table(_)))
        .collect();
    if keys.is_empty() {
        return;
    }
    text.push_str(
        "\n| key | type | default | meaning | source |\n| --- | --- | --- | --- | --- |\n",
    );
    for entry in keys {
        write_row(text, entry, section);
    }
}

fn write_row(text: &mut String, entry: &Entry, section: &Section) {
    let choices = entry.kind.choices();
    let kind = match &entry.kind {
        Kind::OneOf(_) => "choice".to_owned(),
        Kind::List { .. } if !choices.is_empty() => "list of choices".to_owned(),
        Kind::Tables(_) => format!("list of `[[{}]]`", join(&section.key, &entry.name)),
        kind => kind.to_string(),
    };
    let default = match (&entry.default, entry.required) {
        (Some(default), _) => format!("`{default}`"),
        (None, true) => "required".into(),
        (None, false) => "not set".into(),
    };
    let mut meaning = entry.meaning.clone();
    for choice in choices {
        let _ = write!(meaning, "<br>`{}`: {}", choice.value, choice.meaning);
    }
    let cells = [
        format!("`{}`", entry.name),
        kind,
        default,
        meaning,
        entry.source.clone(),
    ];
    let cells = cells.map(|cell| cell.replace('|', "\\|").replace("\n\n", "<br>"));
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}
