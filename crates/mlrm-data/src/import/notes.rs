//! Rows → notes.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::findings::{Dropped, Findings};
use super::html;
use super::pictures::{Pictures, Search};
use super::spec::{ImageSpec, JoinSpec, NotesSpec, Repeated, Spec, TextRule, TopicsRule};
use super::tables::{self, Pass, Verdict, needed};
use super::value::ValuePath;
use crate::error::{DataError, Problem, ProblemKind, Result, shorten};
use crate::notes::Note;

/// Field of a note that holds the address of its picture until that is fetched.
pub(crate) const IMAGE_URL: &str = "image_url";

/// What the notes' table gave.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) ids: HashSet<String>,
    /// Notes that a filter left out: events of these are no surprise.
    pub(super) filtered: HashSet<String>,
    pub(super) pictures: u64,
    pub(super) urls: u64,
    pub(super) missing_pictures: u64,
    /// Where the first of them were looked for.
    missing_at: Vec<PathBuf>,
    pub(super) with_content: u64,
}

/// Pictures that are not there whose paths are told.
const MISSING_SHOWN: usize = 3;

type Joined = HashMap<String, Map<String, Value>>;

/// Writes the notes into `folder`.
pub(super) fn write(
    spec: &Spec,
    from: &Path,
    folder: &Path,
    findings: &mut Findings,
    dropped: &mut Dropped,
    notices: &mut Vec<String>,
) -> Result<Notes> {
    let rules = &spec.notes;
    let mut joined = Vec::new();
    for (index, join) in rules.join.iter().enumerate() {
        let columns = columns_of_join(join, index);
        let mut pass = Pass {
            table: &join.table,
            columns: &columns,
            findings,
            dropped,
            notices,
        };
        joined.push(read_join(&spec.tables[&join.table], from, join, &mut pass)?);
    }
    let columns = columns_of_notes(rules);
    let path = folder.join("notes.jsonl");
    let write_error = |error| DataError::io("write", &path)(error);
    let mut out = BufWriter::new(File::create(&path).map_err(write_error)?);
    let mut notes = Notes::default();
    let mut pictures = match &rules.image {
        Some(image) => Some(Pictures::new(image, from, folder)?),
        None => None,
    };
    let mut pass = Pass {
        table: &rules.table,
        columns: &columns,
        findings,
        dropped,
        notices,
    };
    tables::read(
        &spec.tables[&rules.table],
        from,
        &mut pass,
        |_, _, mut fields| {
            let verdict = join_row(rules, &joined, &mut fields)
                .and_then(|()| note_of(rules, &fields, &mut notes));
            let mut note = match verdict {
                Ok(Row::Note(note)) => note,
                Ok(Row::Dropped(reason)) => return Ok(Verdict::Dropped(reason)),
                Err(problem) => return Ok(problem.into()),
            };
            if let Some(pictures) = &mut pictures {
                match pictures.find(&fields, &note.id)? {
                    Search::Wrong(problem) => return Ok(problem.into()),
                    Search::File(key) => {
                        notes.pictures += 1;
                        note.image = Some(key);
                    }
                    Search::Url(url) => {
                        notes.urls += 1;
                        note.extra.insert(IMAGE_URL.into(), url.into());
                    }
                    Search::Missing(path) => {
                        notes.missing_pictures += 1;
                        if notes.missing_at.len() < MISSING_SHOWN {
                            notes.missing_at.push(path);
                        }
                    }
                    Search::None => {}
                }
            }
            notes.with_content += u64::from(!note.content.is_empty());
            serde_json::to_writer(&mut out, &note).map_err(|error| write_error(error.into()))?;
            out.write_all(b"\n").map_err(write_error)?;
            Ok(Verdict::Used)
        },
    )?;
    out.flush().map_err(write_error)?;
    notices.extend(missing_notice(&notes, &rules.image));
    Ok(notes)
}

/// Where pictures were looked for and are not.
fn missing_notice(notes: &Notes, rules: &Option<ImageSpec>) -> Option<String> {
    let paths: Vec<String> = notes
        .missing_at
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let endings = rules
        .as_ref()
        .map_or(&[][..], |rules| &rules.endings)
        .join(", .");
    let endings = match endings.is_empty() {
        true => String::new(),
        false => format!(" (with .{endings})"),
    };
    (!paths.is_empty()).then(|| {
        format!(
            "pictures that `notes.image.path` names and that are not there: {}; their notes have none. Looked for, first of \
             all: {}{endings}",
            notes.missing_pictures,
            paths.join(", ")
        )
    })
}

enum Row {
    Note(Note),
    Dropped(String),
}

fn note_of(
    rules: &NotesSpec,
    fields: &Map<String, Value>,
    notes: &mut Notes,
) -> Result<Row, Problem> {
    let id = needed(rules.id.whole(fields)?, "notes.id")?;
    for filter in &rules.filters {
        if !filter.passes(fields)? {
            notes.filtered.insert(id);
            return Ok(Row::Dropped(filter.reason()));
        }
    }
    if notes.ids.contains(&id) {
        if rules.repeated == Repeated::First {
            return Ok(Row::Dropped("the id is that of an earlier row".into()));
        }
        return Err(Problem::new(
            ProblemKind::DuplicateId,
            format!("the id `{}` occurs twice", shorten(&id)),
            "delete one of its rows, or write `repeated = \"first\"` in [notes]",
        ));
    }
    let text = |rule: &Option<TextRule>| match rule {
        Some(rule) => rule.template.readable(fields, &rule.join, rule.strip_html),
        None => Ok(String::new()),
    };
    let topics = rules
        .topics
        .as_ref()
        .map_or(Ok(Vec::new()), |rule| topics_of(rule, fields))?;
    let mut category = Some(text(&rules.category)?).filter(|label| !label.is_empty());
    if rules.category_from_topics {
        category = topics.first().cloned();
    }
    let mut note = Note {
        id,
        title: text(&rules.title)?,
        content: text(&rules.content)?,
        category,
        topics,
        ..Note::default()
    };
    for (name, path) in &rules.fields {
        let value = match path.find(fields)[..] {
            [] => continue,
            [value] => value.clone(),
            ref several => Value::Array(several.iter().map(|value| (*value).clone()).collect()),
        };
        note.extra.insert(name.clone(), value);
    }
    notes.ids.insert(note.id.clone());
    Ok(Row::Note(note))
}

fn topics_of(rule: &TopicsRule, fields: &Map<String, Value>) -> Result<Vec<String>, Problem> {
    let mut topics = Vec::new();
    for column in &rule.columns {
        for text in column.texts(fields)? {
            let text = match rule.strip_html {
                true => html::strip(&text),
                false => text,
            };
            match &rule.separator {
                Some(separator) => {
                    topics.extend(text.split(separator).map(|topic| topic.trim().to_owned()))
                }
                None => topics.push(text),
            }
        }
    }
    for flag in &rule.flags {
        match fields
            .get(flag)
            .map(|value| match value {
                Value::String(text) => text.trim().to_ascii_lowercase(),
                value => value.to_string(),
            })
            .as_deref()
        {
            Some("1" | "true" | "yes") => topics.push(flag.clone()),
            None | Some("" | "0" | "false" | "no" | "null") => {}
            Some(other) => {
                return Err(Problem::new(
                    ProblemKind::BadField,
                    format!("`{flag}` is `{}`, no truth value", shorten(other)),
                    "write 1 or 0",
                ));
            }
        }
    }
    topics.retain(|topic| !topic.is_empty() && !rule.skip.contains(topic));
    Ok(topics)
}

fn join_row(
    rules: &NotesSpec,
    joined: &[Joined],
    fields: &mut Map<String, Value>,
) -> Result<(), Problem> {
    for (join, rows) in rules.join.iter().zip(joined) {
        let key = join.with.whole(fields)?;
        if let Some(row) = key.and_then(|key| rows.get(key.trim())) {
            fields.insert(join.table.clone(), Value::Object(row.clone()));
        }
    }
    Ok(())
}

fn read_join(
    table: &super::spec::TableSpec,
    from: &Path,
    join: &JoinSpec,
    pass: &mut Pass<'_>,
) -> Result<Joined> {
    let mut rows = Joined::new();
    tables::read(table, from, pass, |_, _, fields| {
        let key = join
            .key
            .whole(&fields)
            .and_then(|key| needed(key, "notes.join.key"));
        let key = match key {
            Ok(key) => key,
            Err(problem) => return Ok(problem.into()),
        };
        if rows.contains_key(&key) {
            match join.repeated {
                Repeated::Last => {}
                Repeated::First => {
                    return Ok(Verdict::Dropped("the key is that of an earlier row".into()));
                }
                Repeated::Error => {
                    return Ok(Verdict::Wrong(Problem::new(
                        ProblemKind::DuplicateId,
                        format!("the key `{}` occurs twice", shorten(&key)),
                        "delete one of its rows, or write `repeated = \"first\"` in [[notes.join]]",
                    )));
                }
            }
        }
        rows.insert(key, fields);
        Ok(Verdict::Used)
    })?;
    Ok(rows)
}

/// Every path of the notes' rules with its key.
fn all_paths(rules: &NotesSpec) -> Vec<(String, &ValuePath)> {
    let mut all: Vec<(String, &ValuePath)> = Vec::new();
    all.extend(rules.id.paths().map(|path| ("notes.id".to_owned(), path)));
    for (key, rule) in [
        ("title", &rules.title),
        ("content", &rules.content),
        ("category", &rules.category),
    ] {
        let paths = rule.iter().flat_map(|rule| rule.template.paths());
        all.extend(paths.map(|path| (format!("notes.{key}"), path)));
    }
    let topics = rules.topics.iter().flat_map(|rule| &rule.columns);
    all.extend(topics.map(|path| ("notes.topics".to_owned(), path)));
    all.extend(
        rules
            .fields
            .iter()
            .map(|(name, path)| (format!("notes.fields.{name}"), path)),
    );
    all.extend(
        rules
            .filters
            .iter()
            .map(|filter| ("notes.filters".to_owned(), &filter.column)),
    );
    if let Some(image) = &rules.image {
        all.extend(
            image
                .path
                .iter()
                .flat_map(|path| path.paths())
                .map(|path| ("notes.image.path".to_owned(), path)),
        );
        all.extend(
            image
                .url
                .iter()
                .flat_map(|url| url.paths())
                .map(|path| ("notes.image.url".to_owned(), path)),
        );
    }
    all
}

fn columns_of_notes(rules: &NotesSpec) -> Vec<(String, &ValuePath)> {
    let joined = |path: &ValuePath| rules.join.iter().any(|join| join.table == path.column());
    let mut all = all_paths(rules);
    all.retain(|(_, path)| !joined(path));
    for (index, join) in rules.join.iter().enumerate() {
        all.extend(
            join.with
                .paths()
                .map(|path| (format!("notes.join[{index}].with"), path)),
        );
    }
    all
}

fn columns_of_join(join: &JoinSpec, index: usize) -> Vec<(String, &ValuePath)> {
    join.key
        .paths()
        .map(|path| (format!("notes.join[{index}].key"), path))
        .collect()
}
