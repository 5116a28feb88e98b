//! The tables of a spec: their files, and the rows of these.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mlrm_files::folder_of;
use serde_json::{Map, Value};

use super::findings::{Dropped, Findings};
use super::spec::{EncodingSpec, HeaderSpec, OnFault, TableSpec};
use crate::error::{DataError, Problem, ProblemKind, Result, shorten};
use crate::files::fits;
use crate::table::{Encoding, Header, Table, TableOptions, find_encoding};

/// The files of a table, in the order of their names.
///
/// # Errors
/// No such file, unless the table is optional.
pub(super) fn files(spec: &TableSpec, from: &Path) -> Result<Vec<PathBuf>> {
    for pattern in &spec.path {
        let path = from.join(pattern);
        if path.is_file() {
            return Ok(vec![path]);
        }
        let Some(name) = path.file_name() else {
            continue;
        };
        let name = name.to_string_lossy();
        let Ok(entries) = fs::read_dir(folder_of(&path)) else {
            continue;
        };
        let meant = |path: &PathBuf| {
            let found = path.file_name().unwrap_or_default().to_string_lossy();
            let excluded = spec.exclude.as_ref().is_some_and(|not| fits(not, &found));
            path.is_file() && fits(&name, &found) && !excluded
        };
        let mut found: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(meant)
            .collect();
        found.sort();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    if spec.optional {
        return Ok(Vec::new());
    }
    let tried: Vec<String> = spec
        .path
        .iter()
        .map(|path| from.join(path).display().to_string())
        .collect();
    Err(DataError::Several(format!(
        "there is no file `{}`; name the folder of the data with --from, or correct the path",
        tried.join("` or `")
    )))
}

/// What a pass over a table tells.
pub(super) struct Pass<'a> {
    /// Name of the table.
    pub(super) table: &'a str,
    /// Columns that the spec names, with the key that does.
    pub(super) columns: &'a [(String, &'a super::value::ValuePath)],
    pub(super) findings: &'a mut Findings,
    pub(super) dropped: &'a mut Dropped,
    pub(super) notices: &'a mut Vec<String>,
}

/// What `each` says of a row: it is used, left out for a reason, or wrong.
pub(super) enum Verdict {
    Used,
    Dropped(String),
    Wrong(Problem),
}

impl From<Problem> for Verdict {
    fn from(problem: Problem) -> Self {
        Self::Wrong(problem)
    }
}

/// Hands every row of the table to `each`.
///
/// # Errors
/// A file that cannot be read at all. Rows at fault, and columns that are not there, are findings.
pub(super) fn read(
    spec: &TableSpec,
    from: &Path,
    pass: &mut Pass<'_>,
    mut each: impl FnMut(&Path, u64, Map<String, Value>) -> Result<Verdict>,
) -> Result<()> {
    for path in files(spec, from)? {
        let table = open(spec, &path, pass)?;
        let Some(table) = table else {
            continue;
        };
        let mut failed = None;
        table.objects(|row, fields| {
            let verdict = match fields {
                Ok(fields) => match each(&path, row, fields) {
                    Ok(verdict) => verdict,
                    Err(error) => {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                },
                Err(problem) => Verdict::Wrong(problem),
            };
            match verdict {
                Verdict::Used => {}
                Verdict::Dropped(reason) => {
                    pass.dropped.count(&format!("{}: {reason}", pass.table))
                }
                Verdict::Wrong(_) if spec.bad_rows == OnFault::Drop => {
                    pass.dropped
                        .count(&format!("{}: the row cannot be read", pass.table));
                }
                Verdict::Wrong(problem) => pass.findings.row(&path, row, &problem),
            }
            ControlFlow::Continue(())
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(())
}

fn open(spec: &TableSpec, path: &Path, pass: &mut Pass<'_>) -> Result<Option<Table>> {
    let encoding = match spec.encoding {
        EncodingSpec::Utf8 => Encoding::Utf8,
        EncodingSpec::Latin1 => Encoding::Latin1,
        EncodingSpec::Auto => find_encoding(path)?,
    };
    if encoding == Encoding::Latin1 && spec.encoding == EncodingSpec::Auto {
        pass.notices.push(format!(
            "{}: the text is no UTF-8 and was read as Latin-1",
            path.display()
        ));
    }
    let names: Vec<&str> = spec.columns.iter().map(String::as_str).collect();
    let wanted: Vec<&str> = pass.columns.iter().map(|(_, path)| path.column()).collect();
    let header = match (spec.header, names.is_empty()) {
        (Some(HeaderSpec::First), _) | (None, true) => Header::First,
        (Some(HeaderSpec::None), _) | (None, false) => Header::None(&names),
        (Some(HeaderSpec::Auto), _) => Header::Optional {
            names: &names,
            fields: names.len()..=match spec.surplus {
                Some(_) => usize::MAX,
                None => names.len(),
            },
        },
    };
    let known = match spec.header {
        Some(HeaderSpec::Auto) => &names,
        _ => &wanted,
    };
    let table = Table::open(
        path,
        &TableOptions {
            known,
            header,
            separator: spec.separator.as_deref(),
            quotes: spec.quotes,
            encoding,
            format: spec.format,
            surplus: spec.surplus.as_deref(),
        },
    )?;
    let said = table.notices().iter();
    pass.notices
        .extend(said.map(|said| format!("{}: {said}", path.display())));
    let columns = table.columns();
    // Fields of JSON Lines may be in some rows only.
    let lacks = |path: &super::value::ValuePath| {
        let there = |name: &str| columns.iter().any(|column| column == name);
        !there(path.column()) && !there(&path.to_string())
    };
    let mut whole = true;
    if !table.is_json() {
        for (key, column) in pass.columns.iter().filter(|(_, column)| lacks(column)) {
            whole = false;
            pass.findings.key(
                key,
                format!(
                    "`{}` has no column `{}`; it has {}",
                    path.display(),
                    shorten(column.column()),
                    shorten(&columns.join(", "))
                ),
            );
        }
    }
    Ok(whole.then_some(table))
}

/// The one text of an id or a key.
pub(super) fn needed(text: Option<String>, key: &str) -> Result<String, Problem> {
    let empty = || {
        Problem::new(
            ProblemKind::BadField,
            format!("`{key}` is empty"),
            "give the row what it lacks, delete it, or leave such rows out with `bad_rows = \"drop\"`",
        )
    };
    text.map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
        .ok_or_else(empty)
}
