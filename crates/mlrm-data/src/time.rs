//! Times of a log, in whatever unit they are written.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use mlrm_config::TimeUnit;

use crate::error::{Problem, ProblemKind, shorten};
use crate::table::Cell;

/// The end of the year 9999 in Unix seconds, the latest time that is taken for seconds. What lies
/// beyond is milliseconds; read as seconds they would silently shrink every window by a thousand.
pub(crate) const LATEST_SECONDS: i64 = 253_402_300_799;

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
    /// ISO 8601 with a zone or an offset from UTC.
    Zoned,
    /// ISO 8601 without, or a day.
    Zoneless,
    /// A day or time of a column that has such a type.
    Typed,
}

impl Form {
    fn per_second(self) -> i64 {
        match self {
            Self::Milliseconds => 1_000,
            Self::Microseconds => 1_000_000,
            Self::Nanoseconds => 1_000_000_000,
            _ => 1,
        }
    }

    /// The unit in which a number is a time of this millennium or the next ones: each unit has the
    /// numbers that would lie after the year 9999 in the next larger one.
    fn by_size(number: i64) -> Self {
        const MOST: i64 = LATEST_SECONDS + 1;
        match number {
            ..MOST => Self::Seconds,
            _ if number < MOST * 1_000 => Self::Milliseconds,
            _ if number < MOST * 1_000_000 => Self::Microseconds,
            _ => Self::Nanoseconds,
        }
    }

    fn of(unit: TimeUnit) -> Option<Self> {
        match unit {
            TimeUnit::Auto => None,
            TimeUnit::S => Some(Self::Seconds),
            TimeUnit::Ms => Some(Self::Milliseconds),
            TimeUnit::Us => Some(Self::Microseconds),
            TimeUnit::Ns => Some(Self::Nanoseconds),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Microseconds => "microseconds",
            Self::Nanoseconds => "nanoseconds",
            Self::Zoned => "ISO 8601 with a zone",
            Self::Zoneless => "ISO 8601 without a zone",
            Self::Typed => "times of the column's type",
        })
    }
}

/// Reads the times of one column, all of which must be written alike.
#[derive(Debug, Clone)]
pub(crate) struct TimeColumn {
    unit: TimeUnit,
    /// How the first time is written, and its row.
    first: Option<(Form, u64)>,
    /// Earliest and latest time, in seconds.
    range: Option<(i64, i64)>,
    /// Whether every number so far reads as a day: 20231001.
    only_compact_days: bool,
    /// Whether a fraction of a second was cut off.
    cut_fractions: bool,
}

impl TimeColumn {
    pub(crate) fn new(unit: TimeUnit) -> Self {
        Self {
            unit,
            first: None,
            range: None,
            only_compact_days: true,
            cut_fractions: false,
        }
    }

    /// The time of a row in whole Unix seconds, rounded down.
    ///
    /// # Errors
    /// No time; one before 1970 or after 9999; one that is written otherwise than the first.
    pub(crate) fn seconds(&mut self, row: u64, cell: &Cell<'_>) -> Result<i64, Problem> {
        let (form, number) = self.parse(cell)?;
        match self.first {
            None => self.first = Some((form, row)),
            Some((first, _)) if first == form => {}
            Some((first, first_row)) => {
                return Err(Problem::new(
                    ProblemKind::BadTime,
                    format!(
                        "`timestamp` {} is written as {form}, that of row {first_row} as {first}",
                        shown(cell)
                    ),
                    match self.unit {
                        TimeUnit::Auto => {
                            "write all times alike, or say the unit of all numbers with \
                             `data.time_unit`"
                        }
                        _ => "write all times alike",
                    },
                ));
            }
        }
        let per_second = form.per_second();
        // Divisions are slow, and most logs need none.
        let seconds = match per_second {
            1 => number,
            _ => number.div_euclid(per_second),
        };
        if number < 0 {
            return Err(bad(format!("`timestamp` {} lies before 1970", shown(cell))));
        }
        if seconds > LATEST_SECONDS {
            return Err(Problem::new(
                ProblemKind::BadTime,
                format!("`timestamp` {} lies after the year 9999", shown(cell)),
                format!("the numbers are no {form}: correct `data.time_unit`"),
            ));
        }
        self.cut_fractions |= per_second > 1 && number % per_second != 0;
        if self.only_compact_days {
            self.only_compact_days = form == Form::Seconds && is_compact_day(number);
        }
        self.range = Some(match self.range {
            Some((earliest, latest)) => (earliest.min(seconds), latest.max(seconds)),
            None => (seconds, seconds),
        });
        Ok(seconds)
    }

    /// How the cell is written, and its number in that form.
    fn parse(&mut self, cell: &Cell<'_>) -> Result<(Form, i64), Problem> {
        let unit = Form::of(self.unit);
        let in_unit = |number: i64| (unit.unwrap_or_else(|| Form::by_size(number)), number);
        match cell {
            Cell::Integer(number) => Ok(in_unit(*number)),
            Cell::Number(number) => match whole(*number) {
                Some(number) => Ok(in_unit(number)),
                None => Err(bad(format!(
                    "`timestamp` is the floating point number {number}"
                ))),
            },
            Cell::Time(seconds) => Ok((Form::Typed, *seconds)),
            Cell::Text(text) => {
                let text = text.trim();
                if let Ok(number) = text.parse() {
                    return Ok(in_unit(number));
                }
                if let Some(number) = text.parse().ok().and_then(whole) {
                    return Ok(in_unit(number));
                }
                let iso = self.iso(text);
                iso.ok_or_else(|| {
                    let text = shorten(text);
                    bad(format!(
                        "`timestamp` is `{text}`, no whole number and no ISO 8601"
                    ))
                })
            }
            Cell::Null => Err(bad("`timestamp` is empty".into())),
            Cell::Boolean(_) | Cell::Nested(_) => {
                Err(bad(format!("`timestamp` is {}", shown(cell))))
            }
        }
    }

    fn iso(&mut self, text: &str) -> Option<(Form, i64)> {
        // `2023-10-01 12:00:00 UTC`, as databases print it.
        let zulu = text.strip_suffix(" UTC").map(|local| format!("{local}Z"));
        let text = zulu.as_deref().unwrap_or(text);
        let (form, point) = match text.parse::<Timestamp>() {
            Ok(point) => (Form::Zoned, point),
            // The name of a zone in brackets must not be passed over.
            Err(_) if text.contains('[') => return None,
            Err(_) => {
                let local = text.parse::<DateTime>();
                let local = local.or_else(|_| text.parse::<Date>().map(DateTime::from));
                let point = local.ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
                (Form::Zoneless, point)
            }
        };
        self.cut_fractions |= point.subsec_nanosecond() != 0;
        // Seconds are cut toward 1970 and have to be rounded down.
        Some((
            form,
            point.as_second() - i64::from(point.subsec_nanosecond() < 0),
        ))
    }

    /// What the user should know about the times: how they were read, and which days they span.
    ///
    /// # Errors
    /// Numbers that are all days written as 20231001, where no unit was set.
    pub(crate) fn notice(&self) -> Result<Option<String>, Problem> {
        let (Some((form, row)), Some((earliest, latest))) = (self.first, self.range) else {
            return Ok(None);
        };
        if self.only_compact_days && self.unit == TimeUnit::Auto {
            return Err(Problem::new(
                ProblemKind::BadTime,
                format!(
                    "every `timestamp` reads as a day without hyphens (that of row {row} is \
                     {earliest})"
                ),
                "write days as 2023-10-01, or set `data.time_unit` to \"s\" if these are seconds",
            ));
        }
        let how = match form {
            Form::Zoned => " (taken to UTC)",
            Form::Zoneless => " (taken as UTC)",
            Form::Typed => " (taken as UTC where it names no zone)",
            _ if self.unit == TimeUnit::Auto => " (by the size of the numbers)",
            _ => " (as `data.time_unit` says)",
        };
        let mut notice = format!(
            "times are {form}{how}, {} to {}",
            day(earliest),
            day(latest)
        );
        if self.cut_fractions {
            notice.push_str("; fractions of a second are cut off");
        }
        Ok(Some(notice))
    }
}

fn bad(message: String) -> Problem {
    Problem::new(
        ProblemKind::BadTime,
        message,
        "write whole Unix seconds (or milliseconds, microseconds, nanoseconds) or ISO 8601 \
         (2023-10-01T12:00:00Z)",
    )
}

fn shown(cell: &Cell<'_>) -> String {
    match cell {
        Cell::Text(text) => shorten(text.trim()),
        Cell::Integer(number) => number.to_string(),
        Cell::Number(number) => number.to_string(),
        Cell::Time(seconds) => Timestamp::from_second(*seconds)
            .map_or_else(|_| seconds.to_string(), |point| point.to_string()),
        Cell::Null => "nothing".into(),
        Cell::Boolean(truth) => truth.to_string(),
        Cell::Nested(_) => "a list or an object".into(),
    }
}

/// A floating point number that is a whole one, of those that 64 bits hold.
fn whole(number: f64) -> Option<i64> {
    const MOST: f64 = 9.2e18;
    (number.fract() == 0.0 && number.abs() < MOST).then_some(number as i64)
}

fn is_compact_day(number: i64) -> bool {
    let (year, month, day) = (number / 10_000, number / 100 % 100, number % 100);
    (1970..2100).contains(&year) && Date::new(year as i16, month as i8, day as i8).is_ok()
}

fn day(seconds: i64) -> String {
    let point = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    jiff::tz::Offset::UTC.to_datetime(point).date().to_string()
}

#[cfg(test)]
mod tests;
