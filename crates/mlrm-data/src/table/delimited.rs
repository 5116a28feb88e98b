//! CSV and its kin: fields between separators.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use csv::ByteRecord;

use super::input::Text;
use super::{Header, TableOptions};
use crate::error::{DataError, Problem, ProblemKind, Result, shorten};

impl Text {
    /// The separator that spreadsheets name in a line of its own before all others (`sep=;`), which is taken
    /// off.
    fn take_separator(&mut self) -> Option<&'static str> {
        let named = |(separator, _): &(&'static str, &str)| {
            let rest = self.head().strip_prefix(b"sep=")?;
            let rest = rest.strip_prefix(separator.as_bytes())?;
            // The line break stays, so that rows keep their numbers.
            let ends = rest.starts_with(b"\r\n") || rest.starts_with(b"\n");
            ends.then(|| (*separator, self.head().len() - rest.len()))
        };
        let (separator, bytes) = SEPARATORS.iter().find_map(named)?;
        self.skip(bytes);
        Some(separator)
    }
}

/// Separators that are looked for, the most usual first.
const SEPARATORS: [(&str, &str); 4] = [
    (",", "commas"),
    ("\t", "tabs"),
    (";", "semicolons"),
    ("|", "vertical bars"),
];

/// A file of separated fields, read up to its first row of data.
pub(super) struct Delimited {
    records: Records,
    /// Names of the columns; those without a name are empty.
    pub(super) columns: Vec<String>,
    /// Whether they stand in the first row.
    pub(super) has_header: bool,
    /// Fields of the first row.
    fields: usize,
    /// Place of the column that takes surplus fields, and what stands between fields.
    surplus: Option<(usize, String)>,
    /// The first row, when it is data.
    first: Option<(u64, ByteRecord)>,
}

enum Records {
    Csv {
        reader: csv::Reader<Tail<Text>>,
        /// Whether lines end in `\r\n`, as the first one does. `csv` ends a row at the `\r` and has not counted the
        /// line of its `\n` when the next row begins.
        crlf: bool,
        /// The line of the last row, if its last field holds a line break.
        open: Option<u64>,
    },
    /// Lines cut at a separator of several characters, which knows no quotes.
    Lines {
        reader: BufReader<Text>,
        separator: String,
        line: Vec<u8>,
        row: u64,
    },
}

/// Text with the last byte that was read of it, line breaks aside.
struct Tail<R> {
    text: R,
    last: u8,
}

impl<R: Read> Read for Tail<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.text.read(buffer)?;
        let mut read = buffer[..count].iter().rev();
        if let Some(last) = read.find(|byte| !matches!(byte, b'\n' | b'\r')) {
            self.last = *last;
        }
        Ok(count)
    }
}

impl Delimited {
    /// Reads the first row; `said` gets what was found out about the file.
    pub(super) fn open(
        path: &Path,
        text: Text,
        options: &TableOptions<'_>,
        said: &mut Vec<String>,
    ) -> Result<Self> {
        let mut text = text;
        let declared = text.take_separator();
        let separator = match (options.separator, declared) {
            (Some(separator), _) => separator,
            (None, Some(separator)) => separator,
            (None, None) => find_separator(text.head(), options),
        };
        let named = |(text, name): &(&str, &'static str)| (*text == separator).then_some(*name);
        if let Some(name) = SEPARATORS[1..].iter().find_map(named)
            && options.separator.is_none()
        {
            said.push(format!("fields are separated by {name}"));
        }
        let mut records = Records::new(text, separator, options.quotes);
        let mut record = ByteRecord::new();
        let row = records.read(path, &mut record)?;
        let first: Vec<String> = record
            .iter()
            .map(|field| String::from_utf8_lossy(field.trim_ascii()).into_owned())
            .collect();
        let fields = match &options.header {
            Header::None(names) => names.len(),
            Header::Optional { names, fields }
                if options.surplus.is_some() && fields.contains(&first.len()) =>
            {
                names.len()
            }
            _ => first.len(),
        };
        let positional = |names: &[&str]| -> Vec<String> {
            let name = |index: usize| names.get(index).copied().unwrap_or_default().to_owned();
            (0..fields).map(name).collect()
        };
        let (columns, is_header) = match &options.header {
            Header::First => (first, true),
            Header::None(names) => (positional(names), false),
            Header::Optional { names, fields } => {
                let is_name =
                    |field: &String| options.known.contains(&field.as_str()) || names_an_id(field);
                match first.iter().any(is_name) || !fields.contains(&first.len()) {
                    true => (first, true),
                    false => {
                        let first = shorten(&first.join(separator));
                        if row.is_some() {
                            said.push(format!(
                                "there is no header row (the first row is `{first}`): the columns \
                                 are {}",
                                names[..names.len().min(fields.end().to_owned())].join(", ")
                            ));
                        }
                        (positional(names), false)
                    }
                }
            }
        };
        let place = |name: &str| columns.iter().position(|column| column == name);
        let surplus = options.surplus.and_then(place);
        let mut delimited = Self {
            surplus: surplus.map(|place| (place, separator.to_owned())),
            records,
            columns,
            has_header: is_header,
            fields,
            first: None,
        };
        delimited.fold(&mut record);
        delimited.first = row.filter(|_| !is_header).map(|row| (row, record));
        Ok(delimited)
    }

    /// Reads the next row, and gives its line; none at the end.
    pub(super) fn next(&mut self, path: &Path, record: &mut ByteRecord) -> Result<Option<u64>> {
        if let Some((row, first)) = self.first.take() {
            *record = first;
            return Ok(Some(row));
        }
        let row = self.records.read(path, record)?;
        self.fold(record);
        Ok(row)
    }

    /// Puts surplus fields into the column that takes them.
    fn fold(&self, record: &mut ByteRecord) {
        let Some((place, separator)) = &self.surplus else {
            return;
        };
        let Some(more @ 1..) = record.len().checked_sub(self.fields) else {
            return;
        };
        let mut folded = ByteRecord::new();
        let mut text = Vec::new();
        for (index, field) in record.iter().enumerate() {
            match (*place..=place + more).contains(&index) {
                false => folded.push_field(field),
                true => {
                    text.extend_from_slice(field);
                    match index == place + more {
                        true => folded.push_field(&text),
                        false => text.extend_from_slice(separator.as_bytes()),
                    }
                }
            }
        }
        folded.set_position(record.position().cloned());
        *record = folded;
    }

    /// Why a row of this many fields is none.
    pub(super) fn problem_of(&self, record: &ByteRecord) -> Option<Problem> {
        if record.len() == self.fields {
            return None;
        }
        let counts = format!(
            "{} fields where the first row has {}",
            record.len(),
            self.fields
        );
        let breaks = record
            .as_slice()
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        Some(match breaks {
            0 => Problem::new(
                ProblemKind::WrongColumns,
                counts,
                "give every row the same fields, and quote fields that hold a separator",
            ),
            _ => Problem::new(
                ProblemKind::WrongColumns,
                format!("{counts}; a quote goes on over {breaks} line breaks"),
                "close the quote, and write quotes inside of quoted fields twice",
            ),
        })
    }
}

impl Records {
    fn new(text: Text, separator: &str, quotes: bool) -> Self {
        match separator.as_bytes() {
            [byte] => Self::Csv {
                crlf: ends_in_crlf(text.head()),
                reader: csv::ReaderBuilder::new()
                    .has_headers(false)
                    .flexible(true)
                    .delimiter(*byte)
                    .quoting(quotes)
                    .buffer_capacity(1 << 18)
                    .from_reader(Tail { text, last: 0 }),
                open: None,
            },
            _ => Self::Lines {
                reader: BufReader::with_capacity(1 << 18, text),
                separator: separator.to_owned(),
                line: Vec::new(),
                row: 0,
            },
        }
    }

    fn read(&mut self, path: &Path, record: &mut ByteRecord) -> Result<Option<u64>> {
        match self {
            Self::Csv { reader, crlf, open } => {
                let more = reader
                    .read_byte_record(record)
                    .map_err(|error| csv_error(path, error))?;
                if more {
                    let line = record.position().map_or(0, |position| {
                        position.line() + u64::from(*crlf && position.byte() > 0)
                    });
                    let last = record.iter().next_back().unwrap_or_default();
                    *open = last.contains(&b'\n').then_some(line);
                    return Ok(Some(line));
                }
                // A field over several lines ends in a quote; without one the file's end closed it.
                match *open {
                    Some(line) if reader.get_ref().last != b'"' => Err(DataError::row(
                        path,
                        line,
                        "a quote goes on over line breaks to the end of the file",
                        "close the quote, and write quotes inside of quoted fields twice",
                    )),
                    _ => Ok(None),
                }
            }
            Self::Lines {
                reader,
                separator,
                line,
                row,
            } => loop {
                line.clear();
                let read = reader.read_until(b'\n', line);
                if read.map_err(DataError::io("read", path))? == 0 {
                    return Ok(None);
                }
                *row += 1;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                record.clear();
                let whole = line.strip_suffix(b"\n").unwrap_or(line);
                let mut rest = whole.strip_suffix(b"\r").unwrap_or(whole);
                let cut = separator.as_bytes();
                while let Some(at) = rest.windows(cut.len()).position(|part| part == cut) {
                    record.push_field(&rest[..at]);
                    rest = &rest[at + cut.len()..];
                }
                record.push_field(rest);
                return Ok(Some(*row));
            },
        }
    }
}

/// Whether the first line ends in `\r\n`.
fn ends_in_crlf(head: &[u8]) -> bool {
    let end = head.iter().position(|&byte| byte == b'\n');
    end.is_some_and(|end| end > 0 && head[end - 1] == b'\r')
}

/// Whether a field of the first row is the name of a column of ids, as in `item_id` or `movieId`:
/// a header row of other names must not become a row of data.
fn names_an_id(field: &str) -> bool {
    field.eq_ignore_ascii_case("id")
        || ["_id", "_ID", "Id"]
            .iter()
            .any(|ending| field.ends_with(ending))
}

/// The separator of the first row: the one that finds most of the known names; where none is
/// found, the one that gives as many fields as a file without header has; or else the one that
/// gives most fields.
fn find_separator(head: &[u8], options: &TableOptions<'_>) -> &'static str {
    let first_row = |separator: &str| {
        let mut records = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(separator.as_bytes()[0])
            .quoting(options.quotes)
            .from_reader(head);
        let mut record = ByteRecord::new();
        let _ = records.read_byte_record(&mut record);
        record
    };
    let rows = SEPARATORS.map(|(separator, _)| (separator, first_row(separator)));
    // Of equals the first: `max_by_key` would take the last.
    let best = |score: &dyn Fn(&ByteRecord) -> usize| {
        let scored = rows
            .iter()
            .rev()
            .map(|(separator, row)| (score(row), *separator));
        scored
            .max_by_key(|(score, _)| *score)
            .filter(|(score, _)| *score > 0)
    };
    let known = |field: &[u8]| {
        let field = field.trim_ascii();
        options.known.iter().any(|name| name.as_bytes() == field)
    };
    let names = best(&|row| row.iter().filter(|field| known(field)).count());
    let by_count = || match &options.header {
        Header::Optional { fields, .. } => best(&|row| usize::from(fields.contains(&row.len()))),
        _ => None,
    };
    let found = names.or_else(by_count).or_else(|| best(&ByteRecord::len));
    found.map_or(",", |(_, separator)| separator)
}

fn csv_error(path: &Path, error: csv::Error) -> DataError {
    match error.into_kind() {
        csv::ErrorKind::Io(source) => DataError::io("read", path)(source),
        kind => DataError::file(path, format!("no CSV: {kind:?}"), "check the file"),
    }
}
