//! What one key means.

use std::fmt;

use crate::catalog::{Choice, Entry, Kind, Section, catalog, join};
use crate::check::unknown;
use crate::error::{ConfigError, Finding};

/// Everything there is to say about a key or a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The dotted key.
    pub key: String,
    /// Its type and bounds: `number in [0, 1)`; `section` for a section.
    pub kind: String,
    /// Its default as TOML writes it; `None` when it is not set by default.
    pub default: Option<String>,
    /// Whether it has to be given.
    pub required: bool,
    /// What it does.
    pub meaning: String,
    /// Where the key or its default comes from: the method's section, the paper, mlrm itself.
    pub source: String,
    /// The values to choose from, if it is a choice.
    pub allowed: Vec<Choice>,
    /// The keys of a section, each with the first sentence of its meaning.
    pub keys: Vec<(String, String)>,
}

/// Explains a key (`train.learning_rate`) or a section (`model.llm`; `""` lists the sections).
///
/// # Errors
/// When there is no such key, naming the nearest.
pub fn explain(key: &str) -> Result<Explanation, ConfigError> {
    // `[train]` and `eval.slices[0].name` are how keys look in files and messages.
    let key = key.trim().trim_start_matches('[').trim_end_matches(']');
    let key = without_indices(key);
    let root = catalog();
    if key.is_empty() {
        return Ok(Explanation::of_section(root, "mlrm"));
    }
    let mut section = root;
    let mut names = key.split('.').peekable();
    while let Some(name) = names.next() {
        let Some(entry) = section.entry(name) else {
            let path = join(&section.key, name);
            return Err(ConfigError::Invalid(vec![
                unknown("key", name, &path, section).0,
            ]));
        };
        match &entry.kind {
            _ if names.peek().is_none() => return Ok(Explanation::of(entry, section)),
            Kind::Table(inner) | Kind::Tables(inner) => section = inner,
            _ => {
                let plain = join(&section.key, name);
                let message = format!("unknown key `{key}`");
                let help = format!("`{plain}` is a plain key: nothing is below it");
                return Err(ConfigError::Invalid(vec![
                    Finding::new(key, message).help(help),
                ]));
            }
        }
    }
    Ok(Explanation::of_section(section, "mlrm"))
}

/// A key as in messages without the places in lists: `eval.slices[0].name` → `eval.slices.name`.
fn without_indices(key: &str) -> String {
    let names = key.split('.');
    let plain = names.map(|name| name.split('[').next().unwrap_or_default());
    plain.collect::<Vec<_>>().join(".")
}

impl Explanation {
    fn of(entry: &Entry, section: &Section) -> Self {
        let key = join(&section.key, &entry.name);
        let keys = match &entry.kind {
            Kind::Table(section) | Kind::Tables(section) => key_lines(section),
            _ => Vec::new(),
        };
        Self {
            kind: match &entry.kind {
                Kind::Table(_) => "section".into(),
                Kind::Tables(_) => format!("list of sections, each written [[{key}]]"),
                kind => kind.to_string(),
            },
            default: entry.default.clone(),
            required: entry.required,
            meaning: entry.meaning.clone(),
            source: entry.source.clone(),
            allowed: entry.kind.choices().to_vec(),
            keys,
            key,
        }
    }

    fn of_section(section: &Section, source: &str) -> Self {
        Self {
            key: section.key.clone(),
            kind: "section".into(),
            default: None,
            required: false,
            meaning: section.meaning.clone(),
            source: source.into(),
            allowed: Vec::new(),
            keys: key_lines(section),
        }
    }
}

fn key_lines(section: &Section) -> Vec<(String, String)> {
    let entries = section.entries.iter();
    entries
        .map(|entry| {
            (
                join(&section.key, &entry.name),
                first_sentence(&entry.meaning),
            )
        })
        .collect()
}

/// Up to the first full stop that ends a sentence.
fn first_sentence(text: &str) -> String {
    match text.find(". ") {
        Some(end) => text[..=end].to_owned(),
        None => text.to_owned(),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            writeln!(f, "{}\n", self.key)?;
        }
        writeln!(f, "  type     {}", self.kind)?;
        if self.keys.is_empty() {
            let default = match (&self.default, self.required) {
                (Some(default), _) => default,
                (None, true) => "none: it has to be given",
                (None, false) => "not set",
            };
            writeln!(f, "  default  {default}")?;
        }
        writeln!(f, "  meaning  {}", self.meaning)?;
        writeln!(f, "  source   {}", self.source)?;
        if !self.allowed.is_empty() {
            writeln!(f, "\n  values")?;
            let values: Vec<(String, String)> = self
                .allowed
                .iter()
                .map(|choice| (crate::text::quote(&choice.value), choice.meaning.clone()))
                .collect();
            write_aligned(f, &values)?;
        }
        if !self.keys.is_empty() {
            writeln!(f, "\n  keys")?;
            write_aligned(f, &self.keys)?;
        }
        Ok(())
    }
}

/// Two columns, the second aligned.
fn write_aligned(f: &mut fmt::Formatter<'_>, rows: &[(String, String)]) -> fmt::Result {
    let width = rows.iter().map(|(left, _)| left.chars().count()).max();
    let width = width.unwrap_or_default();
    for (left, right) in rows {
        writeln!(f, "    {left:width$}  {right}")?;
    }
    Ok(())
}
