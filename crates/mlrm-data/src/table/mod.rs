//! Rows of named columns, from CSV or Parquet alike.

mod parquet;

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

pub(crate) use self::parquet::{View, read_parquet};

use self::parquet::parquet_rows;
use crate::error::{DataError, Problem, ProblemKind, Result};

/// One field of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell<'a> {
    /// Nothing there: an absent optional column, or a null of a Parquet file.
    Null,
    /// Text, as in every CSV field.
    Text(Cow<'a, str>),
    /// A whole number of a Parquet column, or the seconds of a timestamp column.
    Integer(i64),
    /// A floating point number of a Parquet column.
    Number(f64),
}

impl Cell<'_> {
    /// An id: non-empty text or a whole number.
    pub(crate) fn id(&self, column: &str) -> Result<Cow<'_, str>, Problem> {
        match self {
            Self::Text(text) if !text.trim().is_empty() => Ok(Cow::Borrowed(text.trim())),
            Self::Integer(number) => Ok(Cow::Owned(number.to_string())),
            Self::Number(number) => Err(Problem::new(
                ProblemKind::BadField,
                format!("`{column}` is the floating point number {number}"),
                "write ids as text or whole numbers",
            )),
            Self::Null | Self::Text(_) => Err(Problem::new(
                ProblemKind::BadField,
                format!("`{column}` is empty"),
                "give the id or delete the row",
            )),
        }
    }

    /// A finite number, or `None` when nothing is there.
    pub(crate) fn number(&self) -> Result<Option<f64>, String> {
        let number = match self {
            Self::Null => return Ok(None),
            Self::Text(text) if text.trim().is_empty() => return Ok(None),
            Self::Text(text) => text.trim().parse().map_err(|_| text.to_string())?,
            Self::Integer(number) => *number as f64,
            Self::Number(number) => *number,
        };
        if f64::is_finite(number) {
            Ok(Some(number))
        } else {
            Err(number.to_string())
        }
    }
}

/// How a CSV file without a header row is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// The header row names the columns.
    Required,
    /// A first row with none of the names is data: the columns come in the given order.
    Optional,
}

/// The columns that a caller wants.
pub(crate) struct Columns<const N: usize> {
    /// Names, in the order in which the cells are handed over.
    pub(crate) names: [&'static str; N],
    /// The first so many must be there; the others are null when absent.
    pub(crate) required: usize,
    /// Whether a CSV file may come without a header row.
    pub(crate) header: Header,
}

/// What [`read_table`] hands over for each row: its number and its cells, or why it has none.
pub(crate) type Row<'a, const N: usize> = Result<[Cell<'a>; N], Problem>;

/// Whether the file is Parquet, judged by its first bytes.
pub(crate) fn is_parquet(path: &Path) -> Result<bool> {
    let mut magic = [0; 4];
    let mut file = File::open(path).map_err(DataError::io("read", path))?;
    match file.read_exact(&mut magic) {
        Ok(()) => Ok(&magic == b"PAR1"),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(DataError::io("read", path)(error)),
    }
}

/// Hands every row of a CSV or Parquet file to `each`, with its line (CSV) or row (Parquet)
/// counted from 1, until `each` breaks. Broken rows are handed over as problems; what makes the
/// whole file unreadable is the error.
pub(crate) fn read_table<const N: usize>(
    path: &Path,
    columns: &Columns<N>,
    mut each: impl FnMut(u64, Row<'_, N>) -> ControlFlow<()>,
) -> Result<()> {
    if is_parquet(path)? {
        read_parquet(path, Some(&columns.names), |batch, first_row| {
            parquet_rows(path, columns, batch, first_row, &mut each)
        })
    } else {
        read_csv(path, columns, &mut each)
    }
}

fn read_csv<const N: usize>(
    path: &Path,
    columns: &Columns<N>,
    each: &mut impl FnMut(u64, Row<'_, N>) -> ControlFlow<()>,
) -> Result<()> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(1 << 18)
        .from_path(path)
        .map_err(|error| csv_error(path, error))?;
    let mut record = csv::ByteRecord::new();
    let mut plan: Option<CsvPlan<N>> = None;
    while reader
        .read_byte_record(&mut record)
        .map_err(|error| csv_error(path, error))?
    {
        let row = record.position().map_or(0, csv::Position::line);
        let plan = match &plan {
            Some(plan) => plan,
            None => {
                let made = CsvPlan::new(path, columns, &record)?;
                let is_header = made.has_header;
                let made = plan.insert(made);
                if is_header {
                    continue;
                }
                made
            }
        };
        if each(row, plan.cells(&record)).is_break() {
            return Ok(());
        }
    }
    if plan.is_none() && columns.header == Header::Required {
        return Err(wrong_columns(path, columns, "the file is empty"));
    }
    Ok(())
}

/// Where the wanted columns stand in a CSV file.
struct CsvPlan<const N: usize> {
    positions: [Option<usize>; N],
    fields: usize,
    has_header: bool,
}

impl<const N: usize> CsvPlan<N> {
    fn new(path: &Path, columns: &Columns<N>, first: &csv::ByteRecord) -> Result<Self> {
        let find = |name: &str| {
            first
                .iter()
                .position(|field| field.trim_ascii() == name.as_bytes())
        };
        let positions = columns.names.map(find);
        let fields = first.len();
        if positions[..columns.required].iter().all(Option::is_some) {
            return Ok(Self {
                positions,
                fields,
                has_header: true,
            });
        }
        let none_named = positions.iter().all(Option::is_none);
        let plausible = (columns.required..=N).contains(&fields);
        if columns.header == Header::Optional && none_named && plausible {
            return Ok(Self {
                positions: std::array::from_fn(|index| (index < fields).then_some(index)),
                fields,
                has_header: false,
            });
        }
        let found: Vec<_> = first.iter().map(String::from_utf8_lossy).collect();
        let found = crate::error::shorten(&found.join(","));
        Err(wrong_columns(
            path,
            columns,
            &format!("the first row is `{found}`"),
        ))
    }

    fn cells<'a>(&self, record: &'a csv::ByteRecord) -> Row<'a, N> {
        if record.len() != self.fields {
            return Err(Problem::new(
                ProblemKind::WrongColumns,
                format!(
                    "{} fields where the first row has {}",
                    record.len(),
                    self.fields
                ),
                "give every row the same fields, and quote fields that hold a comma",
            ));
        }
        let mut cells = std::array::from_fn(|_| Cell::Null);
        for (cell, position) in cells.iter_mut().zip(self.positions) {
            let Some(field) = position.and_then(|position| record.get(position)) else {
                continue;
            };
            let text = std::str::from_utf8(field).map_err(|_| {
                Problem::new(
                    ProblemKind::BadField,
                    "the row is no UTF-8 text",
                    "save the file as UTF-8",
                )
            })?;
            *cell = Cell::Text(Cow::Borrowed(text));
        }
        Ok(cells)
    }
}

fn csv_error(path: &Path, error: csv::Error) -> DataError {
    match error.into_kind() {
        csv::ErrorKind::Io(source) => DataError::io("read", path)(source),
        kind => DataError::file(path, format!("no CSV: {kind:?}"), "check the file"),
    }
}

fn wrong_columns<const N: usize>(path: &Path, columns: &Columns<N>, found: &str) -> DataError {
    let names = columns.names[..columns.required].join(",");
    DataError::row(
        path,
        1,
        format!("the columns {names} are not all there: {found}"),
        format!("begin the file with a header row that names {names}"),
    )
}
