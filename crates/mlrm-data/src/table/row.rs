//! The cells of a row.

use std::borrow::Cow;

use csv::ByteRecord;
use serde_json::{Map, Value};

use super::Cell;
use super::view::View;
use crate::error::{Problem, ProblemKind, Result};

/// A row, of which only the cells that are asked for are read.
pub struct Row<'a>(pub(super) RowForm<'a>);

pub(super) enum RowForm<'a> {
    Parquet(&'a dyn Cells, usize),
    Json(&'a Map<String, Value>, &'a [&'a str]),
    Delimited(&'a ByteRecord, &'a [Option<usize>]),
}

/// Columns of a batch, whose own lifetime a [`Row`] need not know.
pub(super) trait Cells {
    fn cell(&self, index: usize, row: usize) -> Cell<'_>;
}

impl Cells for Vec<Option<View<'_>>> {
    fn cell(&self, index: usize, row: usize) -> Cell<'_> {
        let view = self.get(index).and_then(Option::as_ref);
        view.map_or(Cell::Null, |view| view.cell(row))
    }
}

impl<'a> Row<'a> {
    /// The cell of the column with this place in the names that [`Table::rows`](super::Table::rows) was given; null
    /// where the file or the row has none.
    ///
    /// # Errors
    /// A text that is not UTF-8.
    #[inline]
    pub fn cell(&self, index: usize) -> Result<Cell<'a>, Problem> {
        Ok(match self.0 {
            RowForm::Parquet(views, row) => views.cell(index, row),
            RowForm::Json(fields, names) => {
                let value = names.get(index).and_then(|name| fields.get(*name));
                value.map_or(Cell::Null, json_cell)
            }
            RowForm::Delimited(record, positions) => {
                let position = positions.get(index).copied().flatten();
                match position.and_then(|position| record.get(position)) {
                    Some(field) => Cell::Text(Cow::Borrowed(utf8(field)?)),
                    None => Cell::Null,
                }
            }
        })
    }
}

/// A JSON value as a cell.
pub(crate) fn json_cell(value: &Value) -> Cell<'_> {
    match value {
        Value::Null => Cell::Null,
        Value::Bool(truth) => Cell::Boolean(*truth),
        Value::String(text) => Cell::Text(Cow::Borrowed(text)),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Cell::Integer(whole),
            (None, Some(large)) => Cell::Text(Cow::Owned(large.to_string())),
            (None, None) => Cell::Number(number.as_f64().unwrap_or(f64::NAN)),
        },
        nested => Cell::Nested(nested.clone()),
    }
}

#[inline]
pub(super) fn utf8(field: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(field).map_err(|_| {
        Problem::new(
            ProblemKind::BadField,
            "the row is no UTF-8 text",
            "save the file as UTF-8",
        )
    })
}
