//! Number formats and sizes on the command line.

use std::str::FromStr;

use clap::ValueEnum;
use mlrm_config::{DType, Quantisation};
use mlrm_train::device::{self, Format};

/// A number format of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// 32-bit floating point.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl FormatArg {
    /// Burn's name of it.
    pub fn format(self) -> Format {
        device::dtype(match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::Bf16,
            Self::F16 => DType::F16,
        })
    }
}

/// How matrices that do not learn are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QuantisationArg {
    /// One byte per value.
    Q8,
    /// Four bits per value.
    Q4,
}

impl From<QuantisationArg> for Quantisation {
    fn from(arg: QuantisationArg) -> Self {
        match arg {
            QuantisationArg::Q8 => Self::Q8,
            QuantisationArg::Q4 => Self::Q4,
        }
    }
}

/// A number of bytes such as `500MB`, `2GiB` or `1000000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let scale: Option<u64> = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => Some(1),
            "kb" => Some(1_000),
            "mb" => Some(1_000_000),
            "gb" => Some(1_000_000_000),
            "kib" => Some(1 << 10),
            "mib" => Some(1 << 20),
            "gib" => Some(1 << 30),
            _ => None,
        };
        let number: Option<u64> = digits.parse().ok().filter(|&n| n > 0);
        let bytes = number
            .zip(scale)
            .and_then(|(n, scale)| n.checked_mul(scale));
        bytes
            .map(Self)
            .ok_or_else(|| "write it as a whole number and a unit, such as 500MB or 2GiB".into())
    }
}

/// Bytes for people.
pub fn bytes(count: u64) -> String {
    let count = count as f64;
    match count {
        _ if count < 1e6 => format!("{:.1} kB", count / 1e3),
        _ if count < 1e9 => format!("{:.1} MB", count / 1e6),
        _ => format!("{:.2} GB", count / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("7", 7),
            ("500MB", 500_000_000),
            ("2gib", 2 << 30),
            ("3kb", 3000),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
        }
        for text in ["", "MB", "1.5GB", "-1", "0", "5 parsecs", "99999999999GB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }
}
