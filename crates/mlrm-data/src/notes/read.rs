//! Notes from a table.

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::{Map, Value};

use super::Note;
use super::parquet_keys::path_of;
use crate::error::{Problem, ProblemKind, Result, shorten};
use crate::table::{Header, PictureColumn, Table, TableOptions};

/// Fields of a note that are more than kept.
const FIELDS: [&str; 6] = ["id", "title", "topics", "content", "image", "category"];

/// The order of the fields in the released files of NoteLLM and NoteLLM-2, which have no header.
const AUTHORS: [&str; 5] = ["id", "title", "content", "image", "category"];

/// Hands every note of a file to `each`, with its line (of Parquet its row) counted from 1, until
/// `each` breaks. Rows that are no note are handed over as problems; what makes the whole file
/// unreadable is the error. Gives what the user should know of how the file was read. Notes in
/// several files ([`table_files`](crate::files::table_files)) are read one file after the other.
///
/// # Errors
/// A file that is no table or has no column of ids.
pub fn for_each_note(
    path: &Path,
    mut each: impl FnMut(u64, Result<Note, Problem>) -> ControlFlow<()>,
) -> Result<Vec<String>> {
    let options = TableOptions {
        known: &FIELDS,
        header: Header::Optional {
            names: &AUTHORS,
            fields: AUTHORS.len()..=AUTHORS.len(),
        },
        ..TableOptions::default()
    };
    let table = Table::open(path, &options)?;
    if !table.columns().is_empty() {
        table.require(&["id"])?;
    }
    let mut notices = table.notices().to_vec();
    let pictures = table.picture_column();
    let mut left_out = table.left_out();
    left_out.retain(|name| pictures.is_none() || *name != PictureColumn::NAME);
    if !left_out.is_empty() {
        let names = shorten(&left_out.join(", "));
        notices.push(format!(
            "columns that no note can keep are left out: {names}"
        ));
    }
    let to_note = match (table.is_delimited(), table.has_header()) {
        (false, _) => Note::from_fields,
        (true, true) => named_note,
        (true, false) => authors_note,
    };
    table.objects(|row, fields| {
        let note = fields.and_then(|fields| match pictures {
            Some(_) => note_with_picture(fields),
            None => to_note(fields),
        });
        each(row, note)
    })?;
    Ok(notices)
}

/// A row of a Parquet file that holds the picture as well: its key is its path, or else the note's id.
fn note_with_picture(mut fields: Map<String, Value>) -> Result<Note, Problem> {
    let path = fields.remove("image").and_then(|picture| path_of(&picture));
    let mut note = Note::from_fields(fields)?;
    note.image = path.or_else(|| Some(note.id.clone()));
    Ok(note)
}

/// A row of text fields with a header: topics are a JSON list, or texts between vertical bars.
fn named_note(mut fields: Map<String, Value>) -> Result<Note, Problem> {
    if let Some(Value::String(text)) = fields.get("topics") {
        let topics = match text.trim_start().starts_with('[') {
            true => serde_json::from_str(text).map_err(|_| {
                let message = format!("`topics` is `{}`, no JSON list", shorten(text));
                let mend = "write one|two, or [\"one\", \"two\"]";
                Problem::new(ProblemKind::BadField, message, mend)
            })?,
            false => text
                .split('|')
                .map(str::trim)
                .filter(|topic| !topic.is_empty())
                .collect(),
        };
        fields.insert("topics".into(), topics);
    }
    Note::from_fields(fields)
}

/// A row of the authors' files. Hashtags stand in the content as `#name[话题]#`; the category is a
/// path `a@b@`.
fn authors_note(mut fields: Map<String, Value>) -> Result<Note, Problem> {
    for value in fields.values_mut() {
        if let Value::String(text) = value {
            text.retain(|symbol| symbol != '\0');
        }
    }
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let (content, topics) = take_hashtags(text("content"));
    let mut levels = text("category")
        .split('@')
        .filter(|level| !level.is_empty());
    let category = levels.next().unwrap_or_default().to_owned();
    let subcategory = levels.next().map(str::to_owned);
    fields.insert("content".into(), content.into());
    fields.insert("topics".into(), topics.into());
    fields.insert("category".into(), category.into());
    if let Some(subcategory) = subcategory {
        fields.insert("subcategory".into(), subcategory.into());
    }
    Note::from_fields(fields)
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
