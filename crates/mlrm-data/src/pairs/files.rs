//! Files of pairs: CSV or Parquet with query_id, target_id, weight.

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::{PairList, ScoredPair};
use crate::error::{Problem, ProblemKind, Result};
use crate::table::{Cell, Columns, Header, read_table};
use crate::write::write_file;

const COLUMNS: Columns<3> = Columns {
    names: ["query_id", "target_id", "weight"],
    required: 2,
    header: Header::Optional,
};

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

/// Hands every pair of a file to `each`, with its line (CSV) or row (Parquet) counted from 1, until
/// `each` breaks. CSV may come without a header row, as the files of the NoteLLM authors do (query
/// id, target id). Rows that are no pair are handed over as problems; what makes the whole file
/// unreadable is the error.
pub fn for_each_pair(
    path: &Path,
    mut each: impl FnMut(u64, Result<RawPair<'_>, Problem>) -> ControlFlow<()>,
) -> Result<()> {
    read_table(path, &COLUMNS, |row, cells| {
        let [query, target, weight] = match cells {
            Ok(cells) => cells,
            Err(problem) => return each(row, Err(problem)),
        };
        let ids = query
            .id("query_id")
            .and_then(|query| Ok((query, target.id("target_id")?)));
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
    })
}

fn weight_field(cell: &Cell<'_>) -> Result<f64, Problem> {
    let bad = |found: String| {
        Problem::new(
            ProblemKind::BadWeight,
            format!("`weight` is `{}`", crate::error::shorten(&found)),
            "write a finite number of at least 0, or leave the column out",
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
    for_each_pair(path, |row, pair| match pair {
        Ok(pair) => {
            let pair = ScoredPair {
                query: list.notes.intern(pair.query),
                target: list.notes.intern(pair.target),
                weight: pair.weight,
            };
            list.pairs.push(pair);
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
            write_parquet(out.get_ref(), pairs).map_err(std::io::Error::other)
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
    out.write_record(COLUMNS.names)?;
    for pair in pairs {
        out.write_record([pair.query, pair.target, &pair.weight.to_string()])?;
    }
    out.flush()
}

fn write_parquet<'a>(
    file: &File,
    mut pairs: impl Iterator<Item = RawPair<'a>>,
) -> parquet::errors::Result<()> {
    const ROWS_AT_A_TIME: usize = 1 << 16;
    let [query, target, weight] = COLUMNS.names;
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
