//! What the engines spell differently. Everything else of a query is the same text for all.

use serde::Deserialize;

/// A SQL engine that a plan of pairs can be written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Apache Spark SQL, from 3.3 on.
    Spark,
    /// DuckDB.
    DuckDb,
    /// Apache DataFusion.
    DataFusion,
}

impl Dialect {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Spark => "Spark",
            Self::DuckDb => "DuckDB",
            Self::DataFusion => "DataFusion",
        }
    }

    /// The type of texts of any length.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Spark => "STRING",
            Self::DuckDb | Self::DataFusion => "VARCHAR",
        }
    }

    /// A column of ids as text, without the blanks around it that the built-in reader takes away:
    /// those of Unicode's property White_Space.
    pub(super) fn id(self, column: &str) -> String {
        const BLANKS: &str = r"[\p{Z}\t-\r\x{85}]+";
        let text = self.text();
        match self {
            Self::Spark => {
                format!("regexp_replace(CAST({column} AS {text}), r'^{BLANKS}|{BLANKS}$', '')")
            }
            Self::DuckDb | Self::DataFusion => {
                format!("regexp_replace(CAST({column} AS {text}), '^{BLANKS}|{BLANKS}$', '', 'g')")
            }
        }
    }

    /// The whole part of the quotient of two whole numbers of at least 0.
    pub(super) fn quotient(self, number: &str, divisor: impl std::fmt::Display) -> String {
        match self {
            Self::Spark => format!("({number} div {divisor})"),
            Self::DuckDb => format!("({number} // {divisor})"),
            Self::DataFusion => format!("({number} / {divisor})"),
        }
    }

    pub(super) fn xor(self, one: &str, other: &str) -> String {
        match self {
            Self::DuckDb => format!("xor({one}, {other})"),
            Self::Spark | Self::DataFusion => format!("({one} ^ {other})"),
        }
    }

    /// The 64 bits of a BIGINT, shifted; zeros come in from the left.
    pub(super) fn shift_right(self, bits: &str, by: u32) -> String {
        match self {
            Self::Spark => format!("shiftrightunsigned({bits}, {by})"),
            Self::DuckDb | Self::DataFusion => {
                format!("(({bits} >> {by}) & {})", u64::MAX >> by)
            }
        }
    }

    /// The low 64 bits of a product, as a BIGINT. DataFusion's own product is that; the others
    /// refuse to overflow, so they multiply wider and wrap the product around.
    pub(super) fn low_product(self, bits: &str, factor: i64) -> String {
        let wide = match self {
            Self::DataFusion => return format!("({bits} * {factor})"),
            Self::DuckDb => "HUGEINT",
            Self::Spark => "DECIMAL(19, 0)",
        };
        let (half, whole) = ("9223372036854775808", "18446744073709551616");
        format!(
            "CAST(((CAST({bits} AS {wide}) * CAST({factor} AS {wide}) + {half}) % {whole} \
             + {whole}) % {whole} - {half} AS BIGINT)"
        )
    }

    /// The bytes of a text in UTF-8, two capital digits each.
    pub(super) fn hexadecimal(self, text: &str) -> String {
        match self {
            Self::Spark | Self::DuckDb => format!("hex({text})"),
            Self::DataFusion => format!("upper(encode(CAST({text} AS BYTEA), 'hex'))"),
        }
    }
}
