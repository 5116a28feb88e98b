//! Places of data: paths of this machine, and addresses in object stores.

use std::path::{Path, PathBuf};

use crate::{DataSettings, DataSource};

/// How addresses begin, and what is there.
pub const SCHEMES: [(&str, &str); 5] = [
    ("s3", "S3 and what speaks its language"),
    ("gs", "Google Cloud Storage"),
    ("az", "Azure Blob Storage"),
    ("http", "a web server"),
    ("https", "a web server"),
];

/// Why a text that looks like an address is none that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AddressError {
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

/// Whether a path is an address, such as `s3://bucket/folder`; [`check_address`] says whether it is one that is read.
pub fn is_address(path: &Path) -> bool {
    scheme(path).is_some()
}

/// `path` below `root`, where it is neither absolute nor an address.
pub fn place(root: &Path, path: &Path) -> PathBuf {
    if is_address(path) {
        return path.to_path_buf();
    }
    if !is_address(root) {
        return root.join(path);
    }
    let root = root.to_string_lossy();
    let root = root.trim_end_matches('/');
    match path.to_string_lossy().trim_start_matches("./") {
        "" | "." => PathBuf::from(root),
        path => PathBuf::from(format!("{root}/{path}")),
    }
}

/// Whether an address can be read by this program.
///
/// # Errors
/// An unknown scheme; no bucket or host; secrets in it; a program built without the feature `object-store`.
pub fn check_address(path: &Path) -> Result<(), AddressError> {
    let Some((scheme, rest)) = scheme(path) else {
        return Ok(());
    };
    let wrong = |message: String, help: &str| {
        Err(AddressError {
            message,
            help: help.into(),
        })
    };
    if !SCHEMES.iter().any(|(known, _)| *known == scheme) {
        let known: Vec<String> = SCHEMES
            .iter()
            .map(|(known, _)| format!("{known}://"))
            .collect();
        return wrong(
            format!("`{scheme}://` addresses are not read"),
            &format!(
                "name a path, or an address that begins with {}",
                known.join(", ")
            ),
        );
    }
    let host = rest.split('/').next().unwrap_or_default();
    // What stands in a config is shown, logged and kept.
    if host.contains('@') || rest.contains(['?', '#']) {
        return wrong(
            format!("the `{scheme}://` address holds a password or a signature, or `?` or `#`"),
            "secrets belong in environment variables, such as AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY",
        );
    }
    if host.is_empty() {
        return wrong(
            format!("`{}` names no bucket or host", path.display()),
            "write s3://bucket/folder, or https://host/shards/{000..031}.tar",
        );
    }
    if !cfg!(feature = "object-store") {
        return wrong(
            format!(
                "`{}` is an address, and this program was built without the cargo feature \
                 `object-store`",
                path.display()
            ),
            "build it with --features mlrm-cli/object-store, or name a path of this machine",
        );
    }
    Ok(())
}

/// What stands before and behind `://`.
fn scheme(path: &Path) -> Option<(&str, &str)> {
    let (scheme, rest) = path.to_str()?.split_once("://")?;
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    (!scheme.is_empty() && scheme.chars().all(word)).then_some((scheme, rest))
}

impl DataSettings {
    /// A path of this section, below `root` where it is neither absolute nor an address.
    pub fn place(&self, path: &Path) -> PathBuf {
        place(&self.root, path)
    }

    /// The places that are set, by their keys.
    pub(crate) fn places(&self) -> Vec<(&'static str, &Path)> {
        let mut places = vec![
            ("data.root", self.root.as_path()),
            ("data.notes", &self.notes),
            ("data.images", &self.images),
        ];
        let optional = [
            ("data.interactions", &self.interactions),
            ("data.pairs_file", &self.pairs_file),
        ];
        places.extend(
            optional
                .into_iter()
                .filter_map(|(key, path)| Some((key, path.as_deref()?))),
        );
        places
    }

    /// Whether the sample set would be drawn at an address.
    pub(crate) fn draws_at_address(&self) -> bool {
        self.source == DataSource::Synth && is_address(&self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_below_their_root_and_addresses_stay() {
        let joined = |root: &str, path: &str| {
            let place = place(Path::new(root), Path::new(path));
            place.to_string_lossy().into_owned()
        };
        assert_eq!(
            joined("data", "x/y"),
            Path::new("data").join("x/y").to_string_lossy()
        );
        assert_eq!(joined("data", "s3://b/x"), "s3://b/x");
        assert_eq!(
            joined("s3://b/set/", "notes.jsonl"),
            "s3://b/set/notes.jsonl"
        );
        assert_eq!(joined("s3://b/set", "."), "s3://b/set");
        assert_eq!(joined("s3://b", "gs://c/x"), "gs://c/x");
    }

    #[test]
    fn what_is_no_address_that_can_be_read_is_said() {
        let said = |text: &str| check_address(Path::new(text)).map_err(|error| error.message);
        for path in ["a/b", "", "/s3:/x", "a b://x", "hf:a/b"] {
            assert_eq!(said(path), Ok(()), "{path}");
        }
        for (text, words) in [
            ("ftp://host/x", "`ftp://` addresses are not read"),
            ("s3://KEY:SECRET@bucket/x", "holds a password"),
            ("https://host/x.tar?X-Amz-Signature=abc", "a signature"),
            ("s3:///x", "names no bucket"),
        ] {
            let message = said(text).unwrap_err();
            assert!(message.contains(words), "{message}");
            assert!(
                !message.contains("SECRET") && !message.contains("abc"),
                "{message}"
            );
        }
        let message = said("s3://bucket/x");
        match cfg!(feature = "object-store") {
            true => assert_eq!(message, Ok(())),
            false => assert!(
                message
                    .unwrap_err()
                    .contains("cargo feature `object-store`")
            ),
        }
    }
}
