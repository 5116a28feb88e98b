//! Files of pairs: CSV or Parquet with query_id, target_id, weight.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::PairList;
use crate::error::{Problem, ProblemKind, Result};
use crate::table::{Cell, Header, Table, TableOptions};
use crate::write::write_file;

const COLUMNS: [&str; 3] = ["query_id", "target_id", "weight"];

/// A row of a pairs file, before its ids become numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RawPair<'a> {
    /// Id of the query note.
    pub query: &'a str,
    /// Id of the target note.
    pub target: &'a str,
    /// The weight; 1 where the file has none.
    pub weight: f64,
}

/// Hands every pair of a table to `each`, with its line (of Parquet its row) counted from 1, until
/// `each` breaks. Separated fields may come without a header row, as in the files of the NoteLLM
/// authors (query id, target id). Rows that are no pair are handed over as problems; what makes the
/// whole file unreadable is the error. Gives what the user should know of how the file was read.
///
/// # Errors
/// A file that is no table or lacks a column.
pub fn for_each_pair(
    path: &Path,
    mut each: impl FnMut(u64, Result<RawPair<'_>, Problem>) -> ControlFlow<()>,
) -> Result<Vec<String>> {
    let options = TableOptions {
        known: &COLUMNS,
        header: Header::Optional {
            names: &COLUMNS,
            fields: 2..=3,
        },
        ..TableOptions::default()
    };
    let table = Table::open(path, &options)?;
    let [query_id, target_id, _] = COLUMNS;
    if !table.columns().is_empty() {
        table.require(&[query_id, target_id])?;
    }
    let notices = table.notices().to_vec();
    table.rows(&COLUMNS, |row, cells| {
        let cells = cells.and_then(|cells| Ok((cells.cell(0)?, cells.cell(1)?, cells.cell(2)?)));
        let (query, target, weight) = match cells {
            Ok(cells) => cells,
            Err(problem) => return each(row, Err(problem)),
        };
        let ids = query
            .id(query_id)
            .and_then(|query| Ok((query, target.id(target_id)?)));
        match ids.and_then(|ids| Ok((ids, weight_field(&weight)?))) {
            Ok(((query, target), weight)) => each(
                row,
                Ok(RawPair {
                    query: &query,
                    target: &target,
                    weight,
                }),
            ),
            Err(problem) => each(row, Err(problem)),
        }
    })?;
    Ok(notices)
}

fn weight_field(cell: &Cell<'_>) -> Result<f64, Problem> {
    let bad = |found: String| {
        let mend = match found.replacen(',', ".", 1).trim().parse::<f64>() {
            Ok(_) if found.contains(',') => "write a decimal point where the comma is",
            _ => "write a finite number of at least 0, or leave the column out",
        };
        let found = crate::error::shorten(&found);
        Problem::new(
            ProblemKind::BadWeight,
            format!("`weight` is `{found}`"),
            mend,
        )
    };
    match cell.number().map_err(bad)? {
        Some(weight) if weight < 0.0 => Err(bad(weight.to_string())),
        Some(weight) => Ok(weight),
        None => Ok(1.0),
    }
}

/// Reads a pairs file.
///
/// # Errors
/// The first row that is no pair.
pub fn read_pairs(path: &Path) -> Result<PairList> {
    let mut list = PairList::default();
    let mut failed = None;
    list.notices = for_each_pair(path, |row, pair| match pair {
        Ok(pair) => {
            list.push(pair);
            ControlFlow::Continue(())
        }
        Err(problem) => {
            failed = Some(problem.at(path, row));
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(list), Err)
}

/// Writes pairs, whole or not at all: Parquet when the name ends in `.parquet`, else CSV with a
/// header row. Weights read back as the same double.
pub fn write_pairs<'a>(path: &Path, pairs: impl IntoIterator<Item = RawPair<'a>>) -> Result<()> {
    let pairs = pairs.into_iter();
    if path.extension().is_some_and(|ending| ending == "parquet") {
        write_file(path, |out| {
            write_parquet(out.get_mut(), pairs).map_err(std::io::Error::other)
        })
    } else {
        write_file(path, |out| write_pairs_csv(out, pairs))
    }
}

/// Writes pairs as CSV with a header row.
pub fn write_pairs_csv<'a>(
    out: impl Write,
    pairs: impl IntoIterator<Item = RawPair<'a>>,
) -> std::io::Result<()> {
    let mut out = csv::Writer::from_writer(out);
    out.write_record(COLUMNS)?;
    for pair in pairs {
        out.write_record([pair.query, pair.target, &pair.weight.to_string()])?;
    }
    out.flush()
}

fn write_parquet<'a>(
    file: impl Write + Send,
    mut pairs: impl Iterator<Item = RawPair<'a>>,
) -> parquet::errors::Result<()> {
    const ROWS_AT_A_TIME: usize = 1 << 16;
    let [query, target, weight] = COLUMNS;
    let schema = Arc::new(Schema::new(vec![
        Field::new(query, DataType::Utf8, false),
        Field::new(target, DataType::Utf8, false),
        Field::new(weight, DataType::Float64, false),
    ]));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties))?;
    loop {
        let rows: Vec<_> = pairs.by_ref().take(ROWS_AT_A_TIME).collect();
        if rows.is_empty() {
            break;
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(
                rows.iter().map(|pair| pair.query),
            )),
            Arc::new(StringArray::from_iter_values(
                rows.iter().map(|pair| pair.target),
            )),
            Arc::new(Float64Array::from_iter_values(
                rows.iter().map(|pair| pair.weight),
            )),
        ];
        writer.write(&RecordBatch::try_new(schema.clone(), columns)?)?;
    }
    writer.close()?;
    Ok(())
}
