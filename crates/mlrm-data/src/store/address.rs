//! An address: scheme, bucket or host, and what is named there.

use std::path::{Path, PathBuf};

use super::check;
use crate::error::{DataError, Result};

/// An address, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub scheme: String,
    /// The bucket, the container, or host and port.
    pub bucket: String,
    /// Key, prefix or pattern, without slashes at its ends.
    pub key: String,
}

impl Address {
    pub fn of(path: &Path) -> Result<Self> {
        check(path)?;
        let text = path.to_string_lossy();
        let parts = text
            .split_once("://")
            .map(|(scheme, rest)| match rest.split_once('/') {
                Some((bucket, key)) => (scheme, bucket, key),
                None => (scheme, rest, ""),
            });
        let Some((scheme, bucket, key)) = parts else {
            return Err(DataError::file(
                path,
                "this is no address",
                "write s3://bucket/folder",
            ));
        };
        // `.` is what `data.images = "."` leaves.
        let key = key.trim_end_matches("/.").trim_matches('/');
        Ok(Self {
            scheme: scheme.to_owned(),
            bucket: bucket.to_owned(),
            key: if key == "." {
                String::new()
            } else {
                key.to_owned()
            },
        })
    }

    /// The address of a key of the same bucket.
    pub fn with_key(&self, key: &str) -> PathBuf {
        PathBuf::from(format!("{}://{}/{key}", self.scheme, self.bucket))
    }

    /// Whether a plain web server is meant, which lists nothing.
    pub fn is_web(&self) -> bool {
        self.scheme.starts_with("http")
    }

    /// The keys that braces in the key stand for: `{000..031}` and `{a,b}`.
    pub fn keys(&self) -> Result<Vec<String>> {
        expand(&self.key).map_err(|message| {
            DataError::file(
                self.with_key(&self.key),
                message,
                "write {000..031} or {train,test}",
            )
        })
    }
}

/// Most names that braces stand for.
const MOST_NAMES: usize = 1_000_000;

fn expand(text: &str) -> Result<Vec<String>, String> {
    let Some((before, rest)) = text.split_once('{') else {
        return Ok(vec![text.to_owned()]);
    };
    let (inner, after) = rest.split_once('}').ok_or("a `{` has no `}`")?;
    let choices = match inner.split_once("..") {
        Some((first, last)) => numbers(first, last)?,
        None => inner.split(',').map(str::to_owned).collect(),
    };
    let ends = expand(after)?;
    if choices.len().saturating_mul(ends.len()) > MOST_NAMES {
        return Err(format!("the braces stand for more than {MOST_NAMES} names"));
    }
    let pairs = choices
        .iter()
        .flat_map(|choice| ends.iter().map(move |end| (choice, end)));
    Ok(pairs
        .map(|(choice, end)| format!("{before}{choice}{end}"))
        .collect())
}

/// The numbers of a range, with the zeros that its ends have.
fn numbers(first: &str, last: &str) -> Result<Vec<String>, String> {
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u32>().ok().filter(|_| digits)
    };
    let (Some(low), Some(high)) = (number(first), number(last)) else {
        return Err(format!("`{{{first}..{last}}}` is no range of numbers"));
    };
    if low > high || (high - low) as usize >= MOST_NAMES {
        return Err(format!(
            "`{{{first}..{last}}}` is empty, or has more than {MOST_NAMES} numbers"
        ));
    }
    let padded = first.starts_with('0') && first.len() > 1;
    let width = if padded { first.len() } else { 1 };
    Ok((low..=high)
        .map(|number| format!("{number:0width$}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let of = |text: &str| Address::of(Path::new(text)).map(|a| (a.scheme, a.bucket, a.key));
        let parts = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(of("s3://b/x/y.tar").unwrap(), parts("s3", "b", "x/y.tar"));
        assert_eq!(of("gs://b").unwrap(), parts("gs", "b", ""));
        assert_eq!(of("az://b/x//").unwrap(), parts("az", "b", "x"));
        assert_eq!(of("http://h:80/x/.").unwrap(), parts("http", "h:80", "x"));
        assert!(of("s3://k:s@b/x").is_err());
    }

    #[test]
    fn braces_stand_for_names() {
        let all = |text: &str| expand(text).unwrap().join(" ");
        assert_eq!(all("a.tar"), "a.tar");
        assert_eq!(
            all("s-{008..011}.tar"),
            "s-008.tar s-009.tar s-010.tar s-011.tar"
        );
        assert_eq!(all("{a,b}/{1..2}"), "a/1 a/2 b/1 b/2");
        for text in [
            "a{",
            "{1..x}",
            "{3..1}",
            "{0..4000000000}",
            "{0..999999}{0..9}",
        ] {
            assert!(expand(text).is_err(), "{text}");
        }
    }
}
