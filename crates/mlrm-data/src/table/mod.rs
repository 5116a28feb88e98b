//! Rows of named columns, alike from JSON Lines, CSV and its kin, and Parquet.
//!
//! | form | known by | packing |
//! | --- | --- | --- |
//! | Parquet | its first bytes | every codec of the format |
//! | CSV: commas, tabs, semicolons or vertical bars | the name's ending, or else that it is no JSON | gzip and zstd, known by their first bytes |
//! | JSON Lines | the name's ending, or else a `{` at the beginning | gzip and zstd |
//!
//! [`Table::open`] finds the form and the columns; [`Table::rows`] hands over the cells of some
//! columns and [`Table::objects`] whole rows as JSON objects. Both stream: what is in memory is a
//! row (of Parquet a batch).
//!
//! ```
//! use std::ops::ControlFlow;
//! use mlrm_data::table::{Table, TableOptions};
//!
//! # let home = tempfile::tempdir().unwrap();
//! # let path = home.path().join("shop.csv");
//! # std::fs::write(&path, "sku;name\n7;shoe\n").unwrap();
//! let table = Table::open(&path, &TableOptions::default())?;
//! assert_eq!(table.columns(), ["sku", "name"]);
//! table.rows(&["name", "sku"], |line, row| {
//!     let sku = row.and_then(|row| Ok(row.cell(1)?.id("sku")?.into_owned()));
//!     assert_eq!((line, sku), (2, Ok("7".to_owned())));
//!     ControlFlow::Continue(())
//! })?;
//! # Ok::<(), mlrm_data::DataError>(())
//! ```

mod cell;
mod delimited;
mod input;
mod json;
mod options;
mod parquet;
mod row;
mod source;
mod view;

use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use csv::ByteRecord;
use serde_json::{Map, Value};

pub use self::cell::Cell;
pub use self::input::{Encoding, find_encoding};
pub use self::options::{Format, Header, TableOptions};
pub use self::row::Row;

pub(crate) use self::cell::FLOAT_IDS;
pub(crate) use self::parquet::{PictureColumn, guarded};
pub(crate) use self::row::json_cell;
pub(crate) use self::source::{Source, Spans, joined};

use self::delimited::Delimited;
use self::input::{Input, Text};
use self::parquet::ParquetFile;
use self::row::{RowForm, utf8};
use self::view::{View, is_bytes};
use crate::error::{DataError, Problem, Result, shorten};

/// A file of rows, open at its first.
pub struct Table {
    path: PathBuf,
    columns: Vec<String>,
    notices: Vec<String>,
    known: Vec<String>,
    form: Form,
}

enum Form {
    Parquet(ParquetFile),
    Json(Text),
    Delimited(Delimited),
}

impl Table {
    /// Opens a file and finds its form and its columns.
    ///
    /// # Errors
    /// A file that cannot be read, that is no table (UTF-16, archives, spreadsheets, …), or whose
    /// first bytes cannot be unpacked.
    pub fn open(path: &Path, options: &TableOptions<'_>) -> Result<Self> {
        let mut notices = Vec::new();
        let (columns, form) = match input::open(path, options.encoding)? {
            Input::Parquet(file) => {
                let file = ParquetFile::open(path, Source::File(file))?;
                (file.columns.clone(), Form::Parquet(file))
            }
            Input::Text(_) if options.format == Format::Parquet => {
                return Err(DataError::file(
                    path,
                    "this is no Parquet file",
                    "name the form that it has, or leave the form out",
                ));
            }
            Input::Text(text)
                if match options.format {
                    Format::Jsonl => true,
                    Format::Csv => false,
                    _ => is_json(path, text.head()),
                } =>
            {
                (json::first_fields(&text), Form::Json(text))
            }
            Input::Text(text) => {
                let file = Delimited::open(path, text, options, &mut notices)?;
                (file.columns.clone(), Form::Delimited(file))
            }
        };
        Ok(Self {
            path: path.to_path_buf(),
            columns,
            notices,
            known: options
                .known
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
            form,
        })
    }

    /// A Parquet file that is elsewhere, of which at least the footer is held.
    ///
    /// # Errors
    /// No footer that can be read.
    pub(crate) fn of_spans(path: &Path, spans: Spans) -> Result<Self> {
        let file = ParquetFile::open(path, Source::Spans(spans))?;
        Ok(Self {
            path: path.to_path_buf(),
            columns: file.columns.clone(),
            notices: Vec::new(),
            known: Vec::new(),
            form: Form::Parquet(file),
        })
    }

    /// Names of the columns; of JSON Lines the fields of the first object, others may follow.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Whether the fields are text between separators.
    pub fn is_delimited(&self) -> bool {
        matches!(self.form, Form::Delimited(_))
    }

    /// Whether every row names its own fields.
    pub fn is_json(&self) -> bool {
        matches!(self.form, Form::Json(_))
    }

    /// Whether the names of the columns stand in the file.
    pub fn has_header(&self) -> bool {
        match &self.form {
            Form::Delimited(file) => file.has_header,
            Form::Parquet(_) | Form::Json(_) => true,
        }
    }

    /// What was found out about the file and the user should know: its separator, that it has no
    /// header row.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The columns that [`Self::objects`] leaves out: those of bytes, and those without a name.
    pub fn left_out(&self) -> Vec<&str> {
        match &self.form {
            Form::Parquet(file) => file.bytes_columns(),
            Form::Json(_) => Vec::new(),
            Form::Delimited(_) => {
                let unnamed = self.columns.iter().filter(|name| name.is_empty());
                unnamed.map(|_| "(a column without a name)").collect()
            }
        }
    }

    /// The column of pictures of a Parquet file.
    pub(crate) fn picture_column(&self) -> Option<PictureColumn> {
        match &self.form {
            Form::Parquet(file) => file.picture_column(),
            Form::Json(_) | Form::Delimited(_) => None,
        }
    }

    /// Which bytes of a Parquet file [`Self::rows`] of these columns reads beside its footer.
    pub(crate) fn ranges(&self, names: &[&str]) -> Vec<Range<u64>> {
        match &self.form {
            Form::Parquet(file) => file.ranges(names),
            Form::Json(_) | Form::Delimited(_) => Vec::new(),
        }
    }

    /// Where the offset index of a leaf column begins, in the Parquet files that have one.
    pub(crate) fn offset_index(&self, leaf: usize) -> Option<u64> {
        match &self.form {
            Form::Parquet(file) => file.offset_index(leaf),
            Form::Json(_) | Form::Delimited(_) => None,
        }
    }

    /// Refuses a file without these columns. Of JSON Lines nothing is known before its rows are.
    ///
    /// # Errors
    /// Names that are not there, with those that are.
    pub fn require(&self, names: &[&str]) -> Result<()> {
        let has = |name: &&str| self.columns.iter().any(|column| column == name);
        if matches!(self.form, Form::Json(_)) || names.iter().all(has) {
            return Ok(());
        }
        let wanted = names.join(",");
        let found = match self.columns.is_empty() {
            true => "the file is empty".to_owned(),
            false => format!("the file has {}", shorten(&self.columns.join(","))),
        };
        let nearly = names.iter().filter(|name| !has(name)).find_map(|name| {
            let mut columns = self.columns.iter();
            let column = columns.find(|column| column.eq_ignore_ascii_case(name))?;
            Some(format!("write `{name}` for `{}`", shorten(column)))
        });
        Err(DataError::row(
            &self.path,
            1,
            format!("the columns {wanted} are not all there: {found}"),
            nearly.unwrap_or_else(|| {
                format!(
                    "begin the file with a header row that names {wanted}, or let \
                     `mlrm data import` read these from columns of other names"
                )
            }),
        ))
    }

    /// Hands every row to `each`, with its line (of Parquet its row) counted from 1, until `each`
    /// breaks. Cells are found by their place in `names`. Broken rows are handed over as problems;
    /// what makes the whole file unreadable is the error.
    ///
    /// # Errors
    /// A name that two columns have; a column of a type that has no cells; damaged files.
    pub fn rows(
        self,
        names: &[&str],
        mut each: impl FnMut(u64, Result<Row<'_>, Problem>) -> ControlFlow<()>,
    ) -> Result<()> {
        for name in names {
            self.refuse_doubled(name)?;
        }
        let path = &self.path;
        match self.form {
            Form::Parquet(file) => file.read(path, Some(names), |batch, first_row| {
                let views = views_of(path, batch, names)?;
                for row in 0..batch.num_rows() {
                    let cells = Row(RowForm::Parquet(&views, row));
                    if each(first_row + row as u64, Ok(cells)).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            }),
            Form::Json(text) => json::read(path, text, |row, fields| match fields {
                Ok(fields) => each(row, Ok(Row(RowForm::Json(&fields, names)))),
                Err(problem) => each(row, Err(problem)),
            }),
            Form::Delimited(mut file) => {
                let place = |name: &&str| self.columns.iter().position(|column| column == name);
                let positions: Vec<_> = names.iter().map(place).collect();
                let mut record = ByteRecord::new();
                while let Some(row) = file.next(path, &mut record)? {
                    let cells = match file.problem_of(&record) {
                        Some(problem) => Err(problem),
                        None => Ok(Row(RowForm::Delimited(&record, &positions))),
                    };
                    if each(row, cells).is_break() {
                        break;
                    }
                }
                Ok(())
            }
        }
    }

    /// As [`Self::rows`], with every field of the row as JSON. Nulls of Parquet and empty fields of
    /// CSV are absent; days and times of Parquet are texts (ISO 8601); bytes are left out
    /// ([`Self::left_out`]), but refused in a known column.
    ///
    /// # Errors
    /// As of [`Self::rows`].
    pub fn objects(
        mut self,
        mut each: impl FnMut(u64, Result<Map<String, Value>, Problem>) -> ControlFlow<()>,
    ) -> Result<()> {
        for index in 0..self.columns.len() {
            let name = std::mem::take(&mut self.columns[index]);
            if !name.is_empty() && self.columns[index + 1..].contains(&name) {
                return Err(doubled(&self.path, &name));
            }
            self.columns[index] = name;
        }
        let path = &self.path;
        match self.form {
            Form::Parquet(file) => file.read(path, None, |batch, first_row| {
                for name in &self.known {
                    views_of(path, batch, &[name])?;
                }
                let schema = batch.schema();
                let columns = schema.fields().iter().zip(batch.columns());
                let views = columns.map(|(field, array)| (field.name(), View::of(array)));
                let views: Vec<_> = views.collect();
                for row in 0..batch.num_rows() {
                    let mut fields = Map::new();
                    for (name, view) in &views {
                        match view.json(row) {
                            Value::Null => {}
                            value => _ = fields.insert((*name).clone(), value),
                        }
                    }
                    if each(first_row + row as u64, Ok(fields)).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            }),
            Form::Json(text) => json::read(path, text, each),
            Form::Delimited(mut file) => {
                let mut record = ByteRecord::new();
                while let Some(row) = file.next(path, &mut record)? {
                    let fields = match file.problem_of(&record) {
                        Some(problem) => Err(problem),
                        None => text_fields(&self.columns, &record),
                    };
                    if each(row, fields).is_break() {
                        break;
                    }
                }
                Ok(())
            }
        }
    }

    fn refuse_doubled(&self, name: &str) -> Result<()> {
        match self.columns.iter().filter(|column| *column == name).nth(1) {
            Some(name) => Err(doubled(&self.path, name)),
            None => Ok(()),
        }
    }
}

fn doubled(path: &Path, name: &str) -> DataError {
    DataError::row(
        path,
        1,
        format!("two columns have the name `{}`", shorten(name)),
        "rename one of them",
    )
}

/// By the ending of the name, without that of a packing; or else by the first character.
fn is_json(path: &Path, head: &[u8]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_ascii_lowercase();
    let bare = [".gz", ".zst", ".zstd"]
        .iter()
        .find_map(|ending| name.strip_suffix(ending));
    let ending = bare
        .unwrap_or(&name)
        .rsplit_once('.')
        .map_or("", |(_, ending)| ending);
    match ending {
        "jsonl" | "ndjson" | "json" => true,
        "csv" | "tsv" | "tab" => false,
        _ => head.trim_ascii_start().starts_with(b"{"),
    }
}

fn views_of<'a>(
    path: &Path,
    batch: &'a RecordBatch,
    names: &[&str],
) -> Result<Vec<Option<View<'a>>>> {
    let view = |name: &&str| {
        let Some(array) = batch.column_by_name(name) else {
            return Ok(None);
        };
        match is_bytes(array.data_type()) {
            true => Err(bytes_column(path, name, array.data_type())),
            false => Ok(Some(View::of(array))),
        }
    };
    names.iter().map(view).collect()
}

fn bytes_column(path: &Path, name: &str, found: &arrow_schema::DataType) -> DataError {
    DataError::file(
        path,
        format!("column `{name}` has the type {found}, which is neither text nor number"),
        "write it as text, a number or a list of these",
    )
}

fn text_fields(columns: &[String], record: &ByteRecord) -> Result<Map<String, Value>, Problem> {
    let mut fields = Map::new();
    for (name, field) in columns.iter().zip(record) {
        let text = utf8(field)?;
        if !name.is_empty() && !text.is_empty() {
            fields.insert(name.clone(), text.into());
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests;
