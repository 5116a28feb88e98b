//! Numbers as people read them.

use jiff::Timestamp;
pub use mlrm_events::text::bytes;
use mlrm_events::text::prefixed;

/// About four significant digits: `0.1234`, `12.34`, `1,234`, `3.0e-6`.
pub fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 {
            "inf".into()
        } else {
            "-inf".into()
        };
    }
    let size = value.abs();
    if size == 0.0 {
        "0".into()
    } else if !(1e-3..1e7).contains(&size) {
        scientific(value)
    } else if size < 1.0 {
        format!("{value:.4}")
    } else if size < 10.0 {
        format!("{value:.3}")
    } else if size < 100.0 {
        format!("{value:.2}")
    } else if size < 1000.0 {
        format!("{value:.1}")
    } else {
        let rounded = value.round();
        let sign = if rounded < 0.0 { "-" } else { "" };
        format!("{sign}{}", count(rounded.abs() as u64))
    }
}

fn scientific(value: f64) -> String {
    let text = format!("{value:.2e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let digits = digits.strip_suffix('0').unwrap_or(digits);
            format!("{digits}e{exponent}")
        }
        None => text,
    }
}

/// Thousands apart: `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits and a decimal prefix: `12.3 M`.
pub fn large(value: u64) -> String {
    prefixed(value as f64, 1000.0, &["", " k", " M", " G", " T"])
}

/// The two largest units that matter: `2 d 04 h`, `1 h 02 m`, `12 m 03 s`, `4.2 s`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".into();
    }
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    if days > 0 {
        format!("{days} d {hours:02} h")
    } else if hours > 0 {
        format!("{hours} h {minutes:02} m")
    } else if minutes > 0 {
        format!("{minutes} m {:02} s", whole % 60)
    } else {
        format!("{whole} s")
    }
}

/// A moment within a run: `0:12:03`.
pub fn clock(seconds: f64) -> String {
    let whole = if seconds.is_finite() {
        seconds.max(0.0) as u64
    } else {
        0
    };
    format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
}

/// Unix time as `2026-11-21 10:01 UTC`.
pub fn date(time_seconds: f64) -> String {
    // A cast takes what is no number for 0, and what no calendar holds is none.
    let time = Timestamp::from_second(time_seconds as i64).unwrap_or_default();
    time.strftime("%F %H:%M UTC").to_string()
}

/// A metric that is a fraction of 1, in percent: `12.34 %`.
pub fn percent(fraction: f64) -> String {
    if fraction.is_finite() {
        format!("{:.2} %", fraction * 100.0)
    } else {
        number(fraction)
    }
}

/// `recall@10` → `Recall@10`, `ndcg@10` → `NDCG@10`, `hit_rate@1` → `Hit rate@1`.
pub fn metric_title(metric: &str) -> String {
    let (family, k) = match metric.split_once('@') {
        Some((family, k)) => (family, format!("@{k}")),
        None => (metric, String::new()),
    };
    let family = match family {
        "ndcg" | "mrr" | "map" => family.to_uppercase(),
        _ => name_title(family),
    };
    family + &k
}

/// `text_only` → `Text only`; `bm25` → `BM25`.
pub fn name_title(name: &str) -> String {
    if name == "bm25" {
        return "BM25".into();
    }
    let spaced = name.replace('_', " ");
    let mut letters = spaced.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().collect::<String>() + letters.as_str(),
        None => spaced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_about_four_digits() {
        for (value, text) in [
            (0.0, "0"),
            (3e-6, "3.0e-6"),
            (1.25e-4, "1.25e-4"),
            (0.04978, "0.0498"),
            (-2.1344, "-2.134"),
            (12.345, "12.35"),
            (123.45, "123.5"),
            (-12_345.6, "-12,346"),
            (2.5e9, "2.5e9"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn units() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(large(7_600_000_000), "7.60 G");
        assert_eq!(large(12), "12");
        assert_eq!(bytes(1_610_612_736), "1.50 GiB");
        assert_eq!(bytes(u64::MAX), "16777216 TiB");
        assert_eq!(duration(4.21), "4.2 s");
        assert_eq!(duration(59.6), "1 m 00 s");
        assert_eq!(duration(3_725.0), "1 h 02 m");
        assert_eq!(duration(187_200.0), "2 d 04 h");
        assert_eq!(duration(f64::NAN), "-");
        assert_eq!(clock(3_725.9), "1:02:05");
    }

    #[test]
    fn dates_are_gregorian() {
        // `date -u -d @T '+%F %R'`
        assert_eq!(date(0.0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400.0), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_709_251_199.0), "2024-02-29 23:59 UTC");
        assert_eq!(date(4_107_542_399.0), "2100-02-28 23:59 UTC");
        assert_eq!(date(4_107_542_400.0), "2100-03-01 00:00 UTC");
    }

    #[test]
    fn names() {
        assert_eq!(metric_title("recall@10"), "Recall@10");
        assert_eq!(metric_title("ndcg@100"), "NDCG@100");
        assert_eq!(metric_title("hit_rate@1"), "Hit rate@1");
        assert_eq!(name_title("text_only"), "Text only");
        assert_eq!(name_title("bm25"), "BM25");
    }
}
