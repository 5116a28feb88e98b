//! Rows → the log.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use serde_json::{Map, Value};

use super::findings::{Dropped, Findings};
use super::notes::Notes;
use super::spec::{EventsSpec, Filter, OnFault, Spec};
use super::tables::{self, Pass, Verdict, needed};
use super::value::ValuePath;
use crate::error::{DataError, Problem, ProblemKind, Result, shorten};
use crate::interactions::COLUMNS;
use crate::table::{Cell, json_cell};
use crate::time::TimeColumn;

/// What the log's table gave.
#[derive(Debug, Default)]
pub(super) struct Events {
    pub(super) users: u64,
    pub(super) events: u64,
}

/// Writes the log into `folder`, where the spec has one.
pub(super) fn write(
    spec: &Spec,
    from: &Path,
    folder: &Path,
    notes: &Notes,
    findings: &mut Findings,
    dropped: &mut Dropped,
    notices: &mut Vec<String>,
) -> Result<Events> {
    let Some(rules) = &spec.events else {
        return Ok(Events::default());
    };
    let path = folder.join("interactions.csv");
    let write_error = |error: csv::Error| DataError::io("write", &path)(error.into());
    let file = File::create(&path).map_err(DataError::io("write", &path))?;
    let mut out = csv::Writer::from_writer(BufWriter::with_capacity(1 << 18, file));
    out.write_record(COLUMNS).map_err(write_error)?;
    let threshold = rules
        .min_rating
        .zip(rules.rating.as_ref())
        .map(|(least, rating)| Filter {
            column: rating.clone(),
            equals: None,
            one_of: None,
            at_least: Some(least),
            at_most: None,
            not_empty: false,
        });
    let filters: Vec<&Filter> = rules.filters.iter().chain(&threshold).collect();
    let mut times = TimeColumn::new(rules.time_unit);
    let mut users = HashSet::new();
    let mut events = Events::default();
    let columns = columns_of(rules);
    let mut pass = Pass {
        table: &rules.table,
        columns: &columns,
        findings,
        dropped,
        notices,
    };
    let read = tables::read(
        &spec.tables[&rules.table],
        from,
        &mut pass,
        |_, row, fields| {
            let event = match event_of(rules, &filters, row, &fields, notes, &mut times) {
                Ok(Row::Event(event)) => event,
                Ok(Row::Dropped(reason)) => return Ok(Verdict::Dropped(reason)),
                Err(mut problem) => {
                    problem.mend = problem.mend.replace("data.time_unit", "events.time_unit");
                    return Ok(problem.into());
                }
            };
            out.write_record(&event).map_err(write_error)?;
            let [user, _, _] = event;
            users.insert(user);
            events.events += 1;
            Ok(Verdict::Used)
        },
    );
    read?;
    match times.notice() {
        Ok(said) => pass
            .notices
            .extend(said.map(|said| said.replace("data.time_unit", "events.time_unit"))),
        Err(problem) => pass.findings.key(
            "events.time",
            format!(
                "{}; {}",
                problem.message,
                problem.mend.replace("data.time_unit", "events.time_unit")
            ),
        ),
    }
    out.flush().map_err(DataError::io("write", &path))?;
    events.users = users.len() as u64;
    Ok(events)
}

enum Row {
    Event([String; 3]),
    Dropped(String),
}

fn event_of(
    rules: &EventsSpec,
    filters: &[&Filter],
    row: u64,
    fields: &Map<String, Value>,
    notes: &Notes,
    times: &mut TimeColumn,
) -> Result<Row, Problem> {
    for filter in filters {
        if !filter.passes(fields)? {
            return Ok(Row::Dropped(filter.reason()));
        }
    }
    let user = needed(rules.user.whole(fields)?, "events.user")?;
    let note = needed(rules.note.whole(fields)?, "events.note")?;
    if !notes.ids.contains(&note) {
        if notes.filtered.contains(&note) {
            return Ok(Row::Dropped("the note was left out by a filter".into()));
        }
        if rules.unknown_notes == OnFault::Drop {
            return Ok(Row::Dropped("no note has the id".into()));
        }
        return Err(Problem::new(
            ProblemKind::DanglingId,
            format!("no note has the id `{}`", shorten(&note)),
            "give the tables of the same release, or write `unknown_notes = \"drop\"` in [events]",
        ));
    }
    let time = match rules.time.find(fields)[..] {
        [value] => json_cell(value),
        _ => Cell::Null,
    };
    let time = times.seconds(row, &time)?;
    Ok(Row::Event([user, note, time.to_string()]))
}

fn columns_of(rules: &EventsSpec) -> Vec<(String, &ValuePath)> {
    let mut all: Vec<(String, &ValuePath)> = vec![("events.time".into(), &rules.time)];
    all.extend(
        rules
            .user
            .paths()
            .map(|path| ("events.user".to_owned(), path)),
    );
    all.extend(
        rules
            .note
            .paths()
            .map(|path| ("events.note".to_owned(), path)),
    );
    // A rating that nothing asks for may be absent.
    let rating = rules.rating.iter().filter(|_| rules.min_rating.is_some());
    all.extend(rating.map(|path| ("events.rating".to_owned(), path)));
    all.extend(
        rules
            .filters
            .iter()
            .map(|filter| ("events.filters".to_owned(), &filter.column)),
    );
    all
}
