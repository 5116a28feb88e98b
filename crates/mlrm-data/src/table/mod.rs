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
mod rows;
mod source;
mod view;

use std::ops::Range;
use std::path::{Path, PathBuf};

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
use crate::error::{DataError, Result, shorten};

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

#[cfg(test)]
mod tests;
