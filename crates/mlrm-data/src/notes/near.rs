//! Ids that are nearly the same: why an id finds no note.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

use crate::error::shorten;

/// One way in which ids of the same thing come to differ: what is left without it.
type Way = (&'static str, fn(&str) -> String);

const WAYS: [Way; 5] = [
    ("leading zeros", |id| without_zeros(id).to_owned()),
    ("a `.0` at the end", |id| without_fraction(id).to_owned()),
    ("spaces", |id| {
        id.chars().filter(|symbol| !is_blank(*symbol)).collect()
    }),
    ("upper and lower case", str::to_lowercase),
    ("the form of Unicode characters", |id| id.nfkc().collect()),
];

/// Known ids by what is left of them when all of [`WAYS`] are taken away.
pub(crate) struct NearIds<'a> {
    by_rest: HashMap<String, &'a str>,
}

impl<'a> NearIds<'a> {
    pub(crate) fn new(ids: impl IntoIterator<Item = &'a str>) -> Self {
        let mut by_rest = HashMap::new();
        for id in ids {
            by_rest.entry(rest(id)).or_insert(id);
        }
        Self { by_rest }
    }

    /// What a message about the unknown `id` ends with.
    pub(crate) fn hint(&self, id: &str) -> String {
        self.cause(id).map_or(String::new(), |(known, difference)| {
            format!(" (but `{}`, which differs in {difference})", shorten(known))
        })
    }

    /// The known id that `id` was probably meant to be, and in what they differ.
    pub(crate) fn cause(&self, id: &str) -> Option<(&'a str, String)> {
        let known = *self.by_rest.get(&rest(id))?;
        let one = WAYS
            .iter()
            .find(|(_, without)| without(id) == without(known));
        let difference = match one {
            Some((name, _)) => (*name).to_owned(),
            None => {
                let names: Vec<_> = WAYS.iter().map(|(name, _)| *name).collect();
                format!("several of: {}", names.join(", "))
            }
        };
        Some((known, difference))
    }
}

fn rest(id: &str) -> String {
    let plain: String = id.nfkc().filter(|symbol| !is_blank(*symbol)).collect();
    without_zeros(without_fraction(&plain.to_lowercase())).to_owned()
}

/// White space, and the characters that cannot be seen at all.
fn is_blank(symbol: char) -> bool {
    symbol.is_whitespace() || matches!(symbol, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

/// Leading zeros go where a digit follows them.
fn without_zeros(id: &str) -> &str {
    let rest = id.trim_start_matches('0');
    match rest.starts_with(|symbol: char| symbol.is_ascii_digit()) {
        true => rest,
        // All of it is zeros, or what follows is no number.
        false if rest.is_empty() && !id.is_empty() => "0",
        false => id,
    }
}

fn without_fraction(id: &str) -> &str {
    match id.rsplit_once('.') {
        Some((whole, zeros)) if !whole.is_empty() && !zeros.is_empty() => {
            let is_number = whole.bytes().all(|byte| byte.is_ascii_digit());
            if is_number && zeros.bytes().all(|byte| byte == b'0') {
                whole
            } else {
                id
            }
        }
        _ => id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_named() {
        let known = ["7", "0012", "Ab", "x y", "caf\u{e9}", "0", "5.0"];
        let near = NearIds::new(known);
        for (id, wanted, difference) in [
            ("007", "7", "leading zeros"),
            ("12", "0012", "leading zeros"),
            ("7.0", "7", "a `.0` at the end"),
            ("5", "5.0", "a `.0` at the end"),
            ("000", "0", "leading zeros"),
            ("aB", "Ab", "upper and lower case"),
            ("x\u{a0}y", "x y", "spaces"),
            ("7\u{200b}", "7", "spaces"),
            ("cafe\u{301}", "caf\u{e9}", "the form of Unicode characters"),
            ("07.0", "7", "several of: leading zeros"),
        ] {
            let (known, found) = near.cause(id).unwrap_or_else(|| panic!("{id}"));
            assert_eq!(known, wanted, "{id}");
            assert!(found.starts_with(difference), "{id}: {found}");
        }
        assert_eq!(near.cause("8"), None);
        assert_eq!(near.cause(""), None);
    }
}
