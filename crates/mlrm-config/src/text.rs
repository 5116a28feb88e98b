//! How values look in messages and in the reference.

/// A number as a person writes it in TOML: `0.1`, `3e-6`, `10000.0`.
pub(crate) fn number(value: f64) -> String {
    let magnitude = value.abs();
    if value.is_finite() && magnitude != 0.0 && !(1e-3..1e7).contains(&magnitude) {
        format!("{value:e}")
    } else {
        format!("{value:?}").to_lowercase()
    }
}

/// A bound as a person writes it: without the `.0` of a whole number.
pub(crate) fn bound(value: f64) -> String {
    let text = number(value);
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// A string as TOML writes it.
pub(crate) fn quote(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}

/// `a`, `b` and `c`.
pub(crate) fn and_list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// A doc comment as one paragraph: its lines were wrapped for the source file.
pub(crate) fn unwrap(doc: &str) -> String {
    doc.split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n\n")
}
