//! Notes from JSON Lines, Parquet, or the NoteLLM authors' headerless CSV.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::{Map, Value};

use super::Note;
use crate::error::{DataError, Problem, ProblemKind, Result, shorten};
use crate::table::{self, View};

/// Hands every note of a file to `each`, with its line (or Parquet row) counted from 1, until
/// `each` breaks. Rows that are no note are handed over as problems; what makes the whole file
/// unreadable is the error.
pub fn for_each_note(
    path: &Path,
    mut each: impl FnMut(u64, Result<Note, Problem>) -> ControlFlow<()>,
) -> Result<()> {
    if table::is_parquet(path)? {
        table::read_parquet(path, None, |batch, first_row| {
            parquet_notes(path, batch, first_row, &mut each)
        })
    } else if path.extension().is_some_and(|ending| ending == "csv") {
        csv_notes(path, &mut each)
    } else {
        json_notes(path, &mut each)
    }
}

fn json_notes(
    path: &Path,
    each: &mut impl FnMut(u64, Result<Note, Problem>) -> ControlFlow<()>,
) -> Result<()> {
    let file = File::open(path).map_err(DataError::io("read", path))?;
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut line = Vec::new();
    let mut row = 0;
    loop {
        line.clear();
        let read = reader
            .read_until(b'\n', &mut line)
            .map_err(DataError::io("read", path))?;
        if read == 0 {
            return Ok(());
        }
        row += 1;
        let mut text = line.as_slice();
        if row == 1 {
            text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        if each(row, json_note(text)).is_break() {
            return Ok(());
        }
    }
}

fn json_note(line: &[u8]) -> Result<Note, Problem> {
    let bad = |message: String| {
        Problem::new(
            ProblemKind::BadJson,
            message,
            "write one JSON object a line, as UTF-8",
        )
    };
    match serde_json::from_slice(line) {
        Ok(Value::Object(fields)) => Note::from_fields(fields),
        Ok(_) => Err(bad("the line is JSON, but no object".into())),
        Err(error) => Err(bad(format!(
            "no JSON: {}",
            // Its own line number is always 1 and would only confuse.
            error.to_string().replace(" at line 1 column", " at column")
        ))),
    }
}

fn parquet_notes(
    path: &Path,
    batch: &arrow_array::RecordBatch,
    first_row: u64,
    each: &mut impl FnMut(u64, Result<Note, Problem>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let schema = batch.schema();
    if schema.column_with_name("id").is_none() {
        return Err(DataError::row(
            path,
            1,
            "there is no column `id`",
            "notes need the column id, and may have title, topics, content, image, category",
        ));
    }
    let mut views = Vec::with_capacity(batch.num_columns());
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        views.push((field.name(), View::of(path, field.name(), array)?));
    }
    for row in 0..batch.num_rows() {
        let mut fields = Map::new();
        for (name, view) in &views {
            // A null of a Parquet column is an absent field, not a field that says null.
            match view.json(row) {
                Value::Null => {}
                value => _ = fields.insert((*name).clone(), value),
            }
        }
        if each(first_row + row as u64, Note::from_fields(fields)).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The released files of NoteLLM and NoteLLM-2: note id, title, content, image id, category, no
/// header. Hashtags stand in the content as `#name[话题]#`; the category is a path `a@b@`.
fn csv_notes(
    path: &Path,
    each: &mut impl FnMut(u64, Result<Note, Problem>) -> ControlFlow<()>,
) -> Result<()> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_path(path)
        .map_err(|error| DataError::file(path, format!("no CSV: {error}"), "check the file"))?;
    let mut record = csv::ByteRecord::new();
    while reader
        .read_byte_record(&mut record)
        .map_err(|error| DataError::file(path, format!("no CSV: {error}"), "check the file"))?
    {
        let row = record.position().map_or(0, csv::Position::line);
        if each(row, csv_note(&record)).is_break() {
            break;
        }
    }
    Ok(())
}

fn csv_note(record: &csv::ByteRecord) -> Result<Note, Problem> {
    const FIELDS: usize = 5;
    if record.len() != FIELDS {
        return Err(Problem::new(
            ProblemKind::WrongColumns,
            format!("{} fields where {FIELDS} are needed", record.len()),
            "write note id, title, content, image, category without a header, or use JSON Lines",
        ));
    }
    let field = |index: usize| {
        let bytes = record.get(index).unwrap_or_default();
        let text = std::str::from_utf8(bytes).map_err(|_| {
            Problem::new(
                ProblemKind::BadField,
                "the row is no UTF-8 text",
                "save the file as UTF-8",
            )
        })?;
        Ok::<_, Problem>(text.replace('\0', ""))
    };
    let (content, topics) = take_hashtags(&field(2)?);
    let mut fields = Map::new();
    fields.insert("id".into(), field(0)?.into());
    fields.insert("title".into(), field(1)?.into());
    fields.insert("topics".into(), topics.into());
    fields.insert("content".into(), content.into());
    fields.insert("image".into(), field(3)?.into());
    let levels = field(4)?;
    let mut levels = levels.split('@').filter(|level| !level.is_empty());
    fields.insert("category".into(), levels.next().unwrap_or_default().into());
    if let Some(subcategory) = levels.next() {
        fields.insert("subcategory".into(), subcategory.into());
    }
    Note::from_fields(fields).map_err(|mut problem| {
        problem.message = shorten(&problem.message);
        problem
    })
}

/// Moves `#name#` out of a content as the authors' `split_content_hashtag` does: at most 16
/// characters with both marks, and every repetition of a tag goes as well.
fn take_hashtags(content: &str) -> (String, Vec<String>) {
    const MOST_CHARS: usize = 16;
    let marked = content.replace("[话题]", "");
    let mut rest = marked.clone();
    let mut topics = Vec::new();
    let mut at = 0;
    while let Some(start) = marked[at..].find('#').map(|found| at + found) {
        let name = &marked[start + 1..];
        let length = name
            .find(|symbol: char| !symbol.is_alphanumeric() && symbol != '_')
            .unwrap_or(name.len());
        if length == 0 || !name[length..].starts_with('#') {
            at = start + 1;
            continue;
        }
        let name = &name[..length];
        if name.chars().count() + 2 <= MOST_CHARS {
            topics.push(name.to_owned());
            rest = rest.replace(&format!("#{name}#"), "");
        }
        at = start + length + 2;
    }
    (rest, topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashtags_move_to_the_topics() {
        let (content, topics) = take_hashtags("So cute #Doll[话题]# #a_b#!#no end");
        assert_eq!(topics, ["Doll", "a_b"]);
        assert_eq!(content, "So cute  !#no end");
        let (content, topics) =
            take_hashtags("##x#y# #a hashtag that is no word# #ABCDEFGHIJKLMNO#");
        assert_eq!(topics, ["x"]);
        assert_eq!(content, "#y# #a hashtag that is no word# #ABCDEFGHIJKLMNO#");
    }

    #[test]
    fn any_text_is_survived() {
        proptest::proptest!(|(text in "[#a话题\\[\\] é]{0,40}")| {
            take_hashtags(&text);
        });
    }
}
