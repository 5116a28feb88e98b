//! How a table is to be read.

use std::ops::RangeInclusive;

use super::Encoding;

/// How a table is to be read; the default reads a file whose first row names its columns.
#[derive(Debug, Clone)]
pub struct TableOptions<'a> {
    /// Columns that the caller looks for. They help to find the separator, and bytes in them are
    /// refused, where bytes in other columns are left out.
    pub known: &'a [&'a str],
    /// Whether a file of separated fields has a header row.
    pub header: Header<'a>,
    /// What stands between fields; found in the first row by default. Several characters (`::`)
    /// know no quotes.
    pub separator: Option<&'a str>,
    /// Whether quotes keep separators and line breaks together.
    pub quotes: bool,
    /// Encoding of the text.
    pub encoding: Encoding,
    /// Form of the file; found by default.
    pub format: Format,
    /// Column of separated fields that takes what a row has too much, with the separators between:
    /// for a text that holds the separator and is not quoted.
    pub surplus: Option<&'a str>,
}

impl Default for TableOptions<'_> {
    fn default() -> Self {
        Self {
            known: &[],
            header: Header::First,
            separator: None,
            quotes: true,
            encoding: Encoding::Utf8,
            format: Format::Auto,
            surplus: None,
        }
    }
}

/// Form of a file of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Found by the first bytes and the ending of the name.
    #[default]
    Auto,
    /// One JSON object a line.
    Jsonl,
    /// Fields between separators.
    Csv,
    /// Parquet.
    Parquet,
}

/// Where the names of the columns of separated fields come from.
#[derive(Debug, Clone)]
pub enum Header<'a> {
    /// The first row.
    First,
    /// They are these; the first row is data.
    None(&'a [&'a str]),
    /// The first row, if it holds a known name; or else they are these, and the first row is data
    /// of so many fields.
    Optional {
        /// Names, in the order of the fields.
        names: &'a [&'a str],
        /// How many fields a file without header may have.
        fields: RangeInclusive<usize>,
    },
}
