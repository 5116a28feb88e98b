//! Keys of the pictures in a Parquet file.

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::Value;

use crate::error::{DataError, Problem, ProblemKind, Result};
use crate::table::{Cell, PictureColumn, Table};

/// The column of keys, where the pictures have none of their own.
const ID: &str = "id";

/// The column of pictures of a file, which must have one.
pub(super) fn column_of(table: &Table, path: &Path) -> Result<PictureColumn> {
    table.picture_column().ok_or_else(|| {
        DataError::file(
            path,
            "there are no pictures in it",
            "name a folder, tar files, or Parquet files with a column `image` of bytes or of \
             structs {bytes, path}",
        )
    })
}

/// The columns that have the keys.
pub(super) fn key_columns(table: &Table, column: PictureColumn) -> Vec<&'static str> {
    let has_ids = table.columns().iter().any(|column| column == ID);
    let names = [(ID, has_ids), (PictureColumn::NAME, column.has_path)];
    let there = names.into_iter().filter(|(_, there)| *there);
    there.map(|(name, _)| name).collect()
}

/// The key of every picture, by row: its path, or else the row's id.
pub(super) fn keys_of(table: Table, path: &Path, column: PictureColumn) -> Result<Vec<String>> {
    let names = key_columns(&table, column);
    let has_ids = names.contains(&ID);
    let mut keys = Vec::new();
    let mut failed = None;
    table.rows(&names, |row, cells| {
        let key = cells.and_then(|cells| {
            let path = match column.has_path.then(|| cells.cell(usize::from(has_ids))) {
                Some(Ok(Cell::Nested(picture))) => path_of(&picture),
                Some(Err(problem)) => return Err(problem),
                _ => None,
            };
            match path {
                Some(path) => Ok(path),
                None if has_ids => Ok(cells.cell(0)?.id(ID)?.into_owned()),
                None => Err(no_key()),
            }
        });
        match key {
            Ok(key) => {
                keys.push(key);
                ControlFlow::Continue(())
            }
            Err(problem) => {
                failed = Some(problem.at(path, row));
                ControlFlow::Break(())
            }
        }
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok(keys),
    }
}

/// The key that a struct of the column holds.
pub(super) fn path_of(picture: &Value) -> Option<String> {
    let path = picture.get("path")?.as_str()?;
    (!path.is_empty()).then(|| path.to_owned())
}

fn no_key() -> Problem {
    Problem::new(
        ProblemKind::BadField,
        "the picture has no path, and the file no column `id`",
        "give every picture a path, or every row an id",
    )
}
