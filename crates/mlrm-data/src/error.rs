//! The crate's error type: every message says what is wrong, where, and how to mend it.

use std::path::{Path, PathBuf};

/// Shorthand for results of this crate.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// Everything that can go wrong between files on disk and a batch.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refused to read or write.
    #[error("cannot {action} `{}`: {source}", shown(path))]
    Io {
        /// What was tried, as a verb: "read", "write", "list", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// One row of a file is not what it should be.
    #[error("{}:{row}: {message}; {mend}", shown(path))]
    Row {
        /// The file.
        path: PathBuf,
        /// Line of a text file, or row of a Parquet file; counted from 1.
        row: u64,
        /// What is wrong.
        message: String,
        /// How to mend it.
        mend: String,
    },
    /// A file as a whole is not what it should be.
    #[error("`{}`: {message}; {mend}", shown(path))]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        message: String,
        /// How to mend it.
        mend: String,
    },
    /// A picture cannot be used.
    #[error("image `{key}`: {message}; {mend}")]
    Image {
        /// The key that the note gives.
        key: String,
        /// What is wrong.
        message: String,
        /// How to mend it.
        mend: String,
    },
    /// Something about one note, found while its batch was made.
    #[error("note `{id}`: {source}")]
    Note {
        /// The note's id.
        id: String,
        /// What is wrong with it.
        source: Box<DataError>,
    },
    /// Several things are wrong, each with its place.
    #[error("{0}")]
    Several(String),
    /// A setting has a value that cannot work with this data.
    #[error("`{key}`: {message}; {mend}")]
    Setting {
        /// Full name of the setting, as in `data.pairs.window_days`.
        key: &'static str,
        /// What is wrong.
        message: String,
        /// How to mend it.
        mend: String,
    },
}

impl DataError {
    /// For `map_err`: wraps an operating system error with what was tried and where.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// A row of `path` is wrong.
    pub fn row(
        path: impl AsRef<Path>,
        row: u64,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::Row {
            path: path.as_ref().to_path_buf(),
            row,
            message: message.into(),
            mend: mend.into(),
        }
    }

    /// `path` as a whole is wrong.
    pub fn file(
        path: impl AsRef<Path>,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::File {
            path: path.as_ref().to_path_buf(),
            message: message.into(),
            mend: mend.into(),
        }
    }

    /// The picture `key` is wrong.
    pub fn image(
        key: impl Into<String>,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::Image {
            key: key.into(),
            message: message.into(),
            mend: mend.into(),
        }
    }

    /// The setting `key` cannot work.
    pub fn setting(key: &'static str, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Setting {
            key,
            message: message.into(),
            mend: mend.into(),
        }
    }
}

/// What is wrong with settings, each finding with what helps.
impl From<mlrm_config::ConfigError> for DataError {
    fn from(error: mlrm_config::ConfigError) -> Self {
        let said = |finding: &mlrm_config::Finding| match &finding.help {
            Some(help) => format!("{finding}; {help}"),
            None => finding.to_string(),
        };
        let all: Vec<String> = error.findings().iter().map(said).collect();
        Self::Several(all.join("\n"))
    }
}

/// What kind of problem a row, a file or a picture has; the names are those of `mlrm data check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The file is not there or cannot be read.
    UnreadableFile,
    /// A needed column is missing, or a row has another number of fields than the header.
    WrongColumns,
    /// The line is no JSON object.
    BadJson,
    /// A field is missing or has the wrong type.
    BadField,
    /// An id that an earlier row has already.
    DuplicateId,
    /// An id that no note has.
    DanglingId,
    /// Neither title nor topics nor content.
    EmptyText,
    /// A time that is no whole number of Unix seconds.
    BadTime,
    /// A weight that is no finite number of at least 0.
    BadWeight,
    /// The same query and target as an earlier row.
    DuplicatePair,
    /// A pair of a note with itself.
    SelfPair,
    /// A key that leads outside the image folder.
    BadImageKey,
    /// No picture under the note's key.
    MissingImage,
    /// More pixels or bytes than allowed.
    OversizedImage,
    /// An object store that does not answer, or not to this user.
    UnreachableStore,
    /// A picture whose file ends too early.
    TruncatedImage,
    /// A file that no decoder takes.
    UndecodableImage,
    /// Warning: a note without a picture in a set whose other notes have one.
    NoImage,
    /// Warning: EXIF data say that the picture is to be turned, and the settings do not.
    TurnedImage,
    /// Warning: channels of 16 bits, of which 8 are kept.
    SixteenBitImage,
    /// Warning: transparent pixels, which are put on white.
    TransparentImage,
    /// Warning: far longer than wide, or wider than long.
    ExtremeShape,
    /// Warning: files whose names differ by their Unicode normal form only.
    TwinImages,
    /// Warning: HTML in a text.
    Markup,
    /// Warning: a text without anything to see.
    InvisibleText,
    /// Warning: events of a user at the same time.
    TiedTimes,
}

impl ProblemKind {
    /// The name in reports, as in `duplicate_id`.
    pub fn name(self) -> &'static str {
        match self {
            Self::UnreadableFile => "unreadable_file",
            Self::WrongColumns => "wrong_columns",
            Self::BadJson => "bad_json",
            Self::BadField => "bad_field",
            Self::DuplicateId => "duplicate_id",
            Self::DanglingId => "dangling_id",
            Self::EmptyText => "empty_text",
            Self::BadTime => "bad_time",
            Self::BadWeight => "bad_weight",
            Self::DuplicatePair => "duplicate_pair",
            Self::SelfPair => "self_pair",
            Self::BadImageKey => "bad_image_key",
            Self::MissingImage => "missing_image",
            Self::OversizedImage => "oversized_image",
            Self::UnreachableStore => "unreachable_store",
            Self::TruncatedImage => "truncated_image",
            Self::UndecodableImage => "undecodable_image",
            Self::NoImage => "no_image",
            Self::TurnedImage => "turned_image",
            Self::SixteenBitImage => "sixteen_bit_image",
            Self::TransparentImage => "transparent_image",
            Self::ExtremeShape => "extreme_shape",
            Self::TwinImages => "twin_images",
            Self::Markup => "markup",
            Self::InvisibleText => "invisible_text",
            Self::TiedTimes => "tied_times",
        }
    }
}

/// A problem before it is known in which file and row: readers that stop turn it into a
/// [`DataError`], the checker collects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind of problem.
    pub kind: ProblemKind,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub mend: String,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: ProblemKind, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            mend: mend.into(),
        }
    }

    /// The error of a reader that stops here.
    pub fn at(self, path: impl AsRef<Path>, row: u64) -> DataError {
        DataError::row(path, row, self.message, self.mend)
    }
}

/// What stands in place of a file that Git LFS keeps, until it is pulled.
pub(crate) const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// The beginning of a text of unknown length, fit for a message: one line, control characters
/// escaped.
pub(crate) fn shorten(text: &str) -> String {
    const MOST: usize = 80;
    let mut short: String = text
        .chars()
        .take(MOST)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}

/// A path or title with everything escaped that a terminal obeys instead of showing: control
/// characters, and those that change the direction or the look of the text around them.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_obeyed(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// [`visible`] of a path.
pub(crate) fn shown(path: &Path) -> String {
    visible(&path.display().to_string())
}

fn is_obeyed(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(c, '\u{2028}' | '\u{2029}');
    c.is_control() || turns || breaks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_the_rest_stays() {
        let title = "Ünïcode 日本 👩\u{200d}👧 \"x\" \\";
        assert_eq!(visible(title), title);
        let bad = "a\u{1b}[2Jb\u{202e}c\u{2066}d\n\u{85}";
        assert_eq!(visible(bad), "a\\u{1b}[2Jb\\u{202e}c\\u{2066}d\\n\\u{85}");
        let error = DataError::file("x\u{1b}[31m.jsonl", "what is wrong", "how to mend it");
        assert!(!error.to_string().contains('\u{1b}'), "{error}");
    }
}
