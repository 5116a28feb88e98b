//! What is wrong with a config, where, and how to correct it.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::document::{Source, SourceName};

/// Longest source line that is shown whole below a finding, in characters.
const MAX_SNIPPET_CHARS: usize = 120;

/// Why a config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("error: cannot read the config {}: {source}\n  help: {}", path.display(), read_help(source))]
    Read {
        /// The file as named by the user.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The settings cannot be used. Holds everything that was found, in the order of the file.
    #[error("{}", FindingsDisplay(.0))]
    Invalid(Vec<Finding>),
}

impl ConfigError {
    /// The findings; empty when the file could not be read at all.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid(findings) => findings,
        }
    }
}

/// What helps where a file cannot be read.
fn read_help(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            "give the path of a TOML file, seen from the current folder; `configs/` holds examples"
        }
        std::io::ErrorKind::InvalidData => "TOML files are UTF-8 text; is this the right file?",
        std::io::ErrorKind::IsADirectory => "this is a folder; give the TOML file in it",
        _ => "check the file and its permissions",
    }
}

/// One thing that is wrong: what, where and how to correct it.
///
/// Displays without its kind and place: `unknown key `train.learning_rat``.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The key that the finding is about, as in `--set`: `train.betas[1]`. Empty for a syntax error.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// How to correct it.
    pub help: Option<String>,
    /// Where it is written; `None` for settings made in a program and for defaults.
    pub location: Option<Location>,
    /// Further keys that the finding depends on.
    pub(crate) related: Vec<String>,
}

impl Finding {
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
            help: None,
            location: None,
            related: Vec::new(),
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn at(mut self, location: Option<Location>) -> Self {
        self.location = location;
        self
    }

    pub(crate) fn related<'a>(mut self, keys: impl IntoIterator<Item = &'a str>) -> Self {
        self.related.extend(keys.into_iter().map(str::to_owned));
        self
    }

    /// The finding over several lines: `kind` (`error`, `warning`) and message, place, help.
    pub fn report(&self, kind: &str) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text, kind);
        text.trim_end().to_owned()
    }

    fn write(&self, f: &mut dyn fmt::Write, kind: &str) -> fmt::Result {
        writeln!(f, "{kind}: {}", self.message)?;
        if let Some(location) = &self.location {
            location.write_snippet(f)?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "  help: {help}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Where something is written.
///
/// Displays as `configs/demo.toml:12:1`, or as `--set train.batch_pairs=1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file; `None` for a text without a name and for overrides.
    pub path: Option<PathBuf>,
    /// The override as written, without `--set`.
    pub set: Option<String>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    line_text: String,
    marked_chars: usize,
}

impl Location {
    /// The place of a byte range of a text.
    pub(crate) fn of(source: &Source, span: &Range<usize>) -> Self {
        let text = source.text.as_str();
        let start = floor_char_boundary(text, span.start);
        let end = floor_char_boundary(text, span.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..]
            .find('\n')
            .map_or(text.len(), |newline| start + newline);
        let marked_end = end.min(line_end).max(start);
        Self {
            path: match &source.name {
                SourceName::File(path) => Some(path.clone()),
                SourceName::Text | SourceName::Override => None,
            },
            set: (source.name == SourceName::Override).then(|| text.to_owned()),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            line_text: text[line_start..line_end].trim_end().to_owned(),
            marked_chars: text[start..marked_end].trim_end().chars().count().max(1),
        }
    }

    /// `  --> file:line:column`, the line and a mark below it.
    fn write_snippet(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(f, "  --> {self}")?;
        let shown = self.line_text.chars().count() <= MAX_SNIPPET_CHARS;
        if self.set.is_some() || !shown || self.line_text.is_empty() {
            return Ok(());
        }
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        // Tabs are as wide above the mark as below it.
        let lead: String = self
            .line_text
            .chars()
            .take(self.column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        writeln!(f, "   {margin} |")?;
        writeln!(f, "   {number} | {}", self.line_text)?;
        writeln!(f, "   {margin} | {lead}{}", "^".repeat(self.marked_chars))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.path, &self.set) {
            (_, Some(set)) => write!(f, "--set {set}"),
            (Some(path), None) => write!(f, "{}:{}:{}", path.display(), self.line, self.column),
            (None, None) => write!(f, "line {}, column {}", self.line, self.column),
        }
    }
}

/// The largest character boundary that is not past `index`.
fn floor_char_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// All findings, a blank line between them, their number last when there are several.
struct FindingsDisplay<'a>(&'a [Finding]);

impl fmt::Display for FindingsDisplay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for (index, finding) in self.0.iter().enumerate() {
            if index > 0 {
                text.push('\n');
            }
            finding.write(&mut text, "error")?;
        }
        if self.0.len() > 1 {
            text.push_str(&format!("\n{} errors in the config", self.0.len()));
        }
        f.write_str(text.trim_end())
    }
}
