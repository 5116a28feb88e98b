//! One field of a row.

use std::borrow::Cow;

use serde_json::Value;

use crate::error::{Problem, ProblemKind};

/// One field of a row, as its file has it.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// Nothing there: an absent column or field, or a null.
    Null,
    /// Text, as in every field of a CSV file. Whole numbers that 64 bits with a sign do not hold
    /// are text too.
    Text(Cow<'a, str>),
    /// A whole number of a Parquet column or of JSON.
    Integer(i64),
    /// A floating point number of a Parquet column or of JSON.
    Number(f64),
    /// A truth value of a Parquet column or of JSON.
    Boolean(bool),
    /// A day or a point in time of a Parquet column that has such a type: Unix seconds, rounded
    /// down. Times without a zone are taken as UTC.
    Time(i64),
    /// A list, an object, or what else has several parts; and what has no other form.
    Nested(Value),
}

impl Cell<'_> {
    /// An id: non-empty text or a whole number, which becomes its decimal text. Blanks around a
    /// text are not part of it.
    ///
    /// # Errors
    /// Nothing there, or something else; `column` is the name for the message.
    #[inline]
    pub fn id(&self, column: &str) -> Result<Cow<'_, str>, Problem> {
        let what = match self {
            Self::Text(text) if !text.trim().is_empty() => return Ok(Cow::Borrowed(text.trim())),
            Self::Integer(number) => return Ok(Cow::Owned(number.to_string())),
            Self::Number(number) => {
                return Err(Problem::new(
                    ProblemKind::BadField,
                    format!("`{column}` is the floating point number {number:?}"),
                    FLOAT_IDS,
                ));
            }
            Self::Null | Self::Text(_) => {
                return Err(Problem::new(
                    ProblemKind::BadField,
                    format!("`{column}` is empty"),
                    "give the id or delete the row",
                ));
            }
            Self::Boolean(_) => "a truth value",
            Self::Time(_) => "a time",
            Self::Nested(_) => "a list or an object",
        };
        Err(Problem::new(
            ProblemKind::BadField,
            format!("`{column}` is {what}"),
            "write ids as text or whole numbers",
        ))
    }

    /// A finite number, or `None` when nothing is there.
    ///
    /// # Errors
    /// What stands there instead, for a message.
    pub fn number(&self) -> Result<Option<f64>, String> {
        let number = match self {
            Self::Null => return Ok(None),
            Self::Text(text) if text.trim().is_empty() => return Ok(None),
            Self::Text(text) => text.trim().parse().map_err(|_| text.to_string())?,
            Self::Integer(number) => *number as f64,
            Self::Number(number) => *number,
            Self::Boolean(truth) => return Err(truth.to_string()),
            Self::Time(_) => return Err("a time".into()),
            Self::Nested(value) => return Err(value.to_string()),
        };
        if f64::is_finite(number) {
            Ok(Some(number))
        } else {
            Err(number.to_string())
        }
    }
}

/// How to mend ids that went through a floating point column: whether `7.0` was `7`, `007` or `7.0`
/// is lost.
pub(crate) const FLOAT_IDS: &str = "write ids as text or whole numbers (tools turn a column of \
                                    whole numbers into floating point where one value is missing)";
