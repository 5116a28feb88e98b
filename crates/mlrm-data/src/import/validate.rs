//! What can be known of a spec before a row is read.

use std::path::Path;

use super::findings::Findings;
use super::spec::{Filter, HeaderSpec, Repeated, Spec};
use super::tables;

/// Adds everything that is wrong.
pub(super) fn check(spec: &Spec, from: &Path, findings: &mut Findings) {
    for (name, table) in &spec.tables {
        let key = |key: &str| format!("tables.{name}.{key}");
        if let Err(error) = tables::files(table, from) {
            findings.key(&key("path"), error);
        }
        if table.separator.as_ref().is_some_and(String::is_empty) {
            findings.key(
                &key("separator"),
                "it is empty; leave it out to have it found",
            );
        }
        if table.columns.is_empty()
            && matches!(table.header, Some(HeaderSpec::None | HeaderSpec::Auto))
        {
            findings.key(
                &key("header"),
                "the first row may be data, so `columns` has to name the columns",
            );
        }
        if !table.columns.is_empty() && table.header == Some(HeaderSpec::First) {
            findings.key(
                &key("columns"),
                "the first row names the columns; leave out one of `columns` and `header`",
            );
        }
        if table.surplus.is_some() && table.separator.is_none() {
            findings.key(&key("surplus"), "say the separator too");
        }
        if let Some(surplus) = &table.surplus
            && !table.columns.is_empty()
            && !table.columns.contains(surplus)
        {
            findings.key(
                &key("surplus"),
                format!("`{surplus}` is none of the columns"),
            );
        }
    }
    known(spec, "notes.table", &spec.notes.table, findings);
    filters("notes", &spec.notes.filters, findings);
    if spec.notes.repeated == Repeated::Last {
        findings.key(
            "notes.repeated",
            "the last row of an id cannot be known in one pass; write \"first\" or \"error\"",
        );
    }
    if spec.notes.category.is_some() && spec.notes.category_from_topics {
        findings.key(
            "notes.category_from_topics",
            "`notes.category` is set too; leave out one of them",
        );
    }
    for name in [
        "id",
        "title",
        "topics",
        "content",
        "image",
        "category",
        "image_url",
    ] {
        if spec.notes.fields.contains_key(name) {
            findings.key(
                &format!("notes.fields.{name}"),
                "the name is taken; take another",
            );
        }
    }
    if spec
        .notes
        .image
        .as_ref()
        .is_some_and(|image| image.path.is_none() && image.url.is_empty())
    {
        findings.key(
            "notes.image",
            "neither `path` nor `url` says where pictures are",
        );
    }
    for (index, join) in spec.notes.join.iter().enumerate() {
        known(
            spec,
            &format!("notes.join[{index}].table"),
            &join.table,
            findings,
        );
    }
    let Some(events) = &spec.events else {
        return;
    };
    known(spec, "events.table", &events.table, findings);
    filters("events", &events.filters, findings);
    if events.min_rating.is_some() && events.rating.is_none() {
        findings.key(
            "events.min_rating",
            "`events.rating` does not name the column of ratings",
        );
    }
}

fn known(spec: &Spec, key: &str, table: &str, findings: &mut Findings) {
    if !spec.tables.contains_key(table) {
        let names: Vec<&str> = spec.tables.keys().map(String::as_str).collect();
        findings.key(
            key,
            format!(
                "there is no table `{table}`; the tables are {}",
                names.join(", ")
            ),
        );
    }
}

fn filters(part: &str, filters: &[Filter], findings: &mut Findings) {
    for (index, filter) in filters.iter().enumerate() {
        if !filter.asks() {
            findings.key(
                &format!("{part}.filters[{index}]"),
                "it asks for nothing; write equals, in, at_least, at_most or not_empty",
            );
        }
    }
}
