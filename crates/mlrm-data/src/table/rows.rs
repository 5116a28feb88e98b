//! Rows of a table, as cells or as JSON objects.

use std::ops::ControlFlow;
use std::path::Path;

use arrow_array::RecordBatch;
use csv::ByteRecord;
use serde_json::{Map, Value};

use super::row::{Row, RowForm, utf8};
use super::view::{View, is_bytes};
use super::{Form, Table, json};
use crate::error::{DataError, Problem, Result, shorten};

impl Table {
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
