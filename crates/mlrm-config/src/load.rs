//! From a file and overrides to a checked config.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use crate::check::{Report, check};
use crate::document::{Node, Source, SourceName, Value};
use crate::error::{ConfigError, Finding, Location};
use crate::validate::{cross_checks, foreign_words, unread_keys};
use crate::{PairSettings, RunConfig, overrides};

/// A checked config and where its values were written.
#[derive(Debug, Clone)]
pub struct LoadedConfig {
    /// The settings.
    pub config: RunConfig,
    /// Where each key that is not at its default was written.
    pub places: Places,
    /// Keys that were set but that nothing will read, and why; and words that weights have not learnt.
    pub warnings: Vec<Finding>,
}

impl LoadedConfig {
    /// The value of a key, or of a whole section, as TOML writes it; `None` when it is not set.
    pub fn value(&self, key: &str) -> Option<String> {
        let root = toml::Value::try_from(&self.config).ok()?;
        let mut names = key.split('.');
        let value = names.try_fold(&root, |value, name| value.get(name))?;
        Some(value.to_string())
    }
}

/// Where the keys of a config were written: in which line of the file, or in which `--set`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<String, Location>);

impl Places {
    /// The place of a key (`train.batch_pairs`), or of the list or section around it; `None` when
    /// it is at its default.
    pub fn of(&self, key: &str) -> Option<&Location> {
        let mut key = key;
        loop {
            if let Some(location) = self.0.get(key) {
                return Some(location);
            }
            key = &key[..key.rfind(['.', '['])?];
            // A section's own header is the place of none of its keys.
            if !key.contains('.') {
                return None;
            }
        }
    }

    /// Whether this very key was written.
    pub(crate) fn written(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Whether an override set this key.
    pub(crate) fn overridden(&self, key: &str) -> bool {
        let location = self.0.get(key);
        location.is_some_and(|location| location.set.is_some())
    }

    fn collect(node: &Node, path: &str, places: &mut BTreeMap<String, Location>) {
        match &node.value {
            Value::Table(entries) => {
                for (name, node) in entries {
                    Self::collect(node, &crate::catalog::join(path, name), places);
                }
            }
            value => {
                if let Some(origin) = &node.origin {
                    places.insert(path.to_owned(), origin.key_location());
                }
                if let Value::List(items) = value {
                    for (index, item) in items.iter().enumerate() {
                        Self::collect(item, &format!("{path}[{index}]"), places);
                    }
                }
            }
        }
    }
}

impl RunConfig {
    /// Reads a TOML file, puts the overrides (`section.key=value`) over it and checks everything.
    ///
    /// # Errors
    /// When the file cannot be read, or with everything that is wrong in it: syntax, unknown keys,
    /// wrong types, impossible values, each with its place and how to correct it.
    pub fn load(path: impl AsRef<Path>, overrides: &[String]) -> Result<Self, ConfigError> {
        Self::load_with_places(path, overrides).map(|loaded| loaded.config)
    }

    /// Like [`RunConfig::load`], and also says where each key was written and which are not read.
    ///
    /// # Errors
    /// As [`RunConfig::load`].
    pub fn load_with_places(
        path: impl AsRef<Path>,
        overrides: &[String],
    ) -> Result<LoadedConfig, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        read(SourceName::File(path.to_owned()), text, overrides)
    }

    /// Reads and checks settings from a TOML text.
    ///
    /// # Errors
    /// As [`RunConfig::load`], naming lines of the text.
    pub fn from_toml_str(text: &str) -> Result<Self, ConfigError> {
        read(SourceName::Text, text.to_owned(), &[]).map(|loaded| loaded.config)
    }

    /// The defaults with overrides (`section.key=value`) over them, checked.
    ///
    /// # Errors
    /// As [`RunConfig::load`], naming overrides.
    pub fn from_overrides(overrides: &[String]) -> Result<Self, ConfigError> {
        read(SourceName::Text, String::new(), overrides).map(|loaded| loaded.config)
    }

    /// Checks settings made in a program: ranges, and what the keys demand of each other.
    ///
    /// # Errors
    /// With everything that was found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        refuse_if_any(self.findings()?)
    }

    fn findings(&self) -> Result<Vec<Finding>, ConfigError> {
        let value = toml::Value::try_from(self).map_err(not_writable)?;
        let mut root = Node::from_value(value);
        let Report {
            mut findings,
            tainted,
        } = check(&mut root);
        findings.extend(without_tainted(cross_checks(self), &tainted));
        Ok(findings)
    }

    /// The settings as TOML, every key written out: what is stored with a run. Reading it back
    /// gives the same settings, numbers included.
    ///
    /// # Errors
    /// When a value has no TOML form: a path that is not UTF-8, a seed past 2^63 - 1.
    pub fn to_toml_string(&self) -> Result<String, ConfigError> {
        // The writer puts integers past 64 bits down, which no reader takes; this refuses them.
        toml::Value::try_from(self).map_err(not_writable)?;
        toml::to_string(self).map_err(not_writable)
    }
}

impl PairSettings {
    /// Checks this section alone, as [`RunConfig::validate`] checks all of them.
    ///
    /// # Errors
    /// With everything that was found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut config = RunConfig::default();
        config.data.pairs = self.clone();
        let mut findings = config.findings()?;
        findings.retain(|finding| finding.key.starts_with("data.pairs."));
        refuse_if_any(findings)
    }
}

fn not_writable(error: toml::ser::Error) -> ConfigError {
    let finding = Finding::new("", format!("the config has no TOML form: {error}"));
    ConfigError::Invalid(vec![finding.help(
        "paths have to be UTF-8 text and integers at most 9223372036854775807",
    )])
}

fn read(name: SourceName, text: String, overrides: &[String]) -> Result<LoadedConfig, ConfigError> {
    // Editors on Windows put a byte order mark first, which is no part of the text.
    let text = text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text);
    let source = Arc::new(Source { name, text });
    let mut root = Node::parse(&source).map_err(ConfigError::Invalid)?;
    let mut findings = overrides::apply(&mut root, overrides);
    let mut places = BTreeMap::new();
    Places::collect(&root, "", &mut places);
    let places = Places(places);

    let report = check(&mut root);
    findings.extend(report.findings);
    match RunConfig::deserialize(root.to_value()) {
        Ok(config) => {
            let crossed = without_tainted(cross_checks(&config), &report.tainted);
            findings.extend(crossed.into_iter().map(|finding| place(finding, &places)));
            refuse_if_any(findings)?;
            let mut warnings = unread_keys(&config, &places);
            warnings.extend(foreign_words(&config, &places));
            Ok(LoadedConfig {
                config,
                places,
                warnings,
            })
        }
        // What was not refused above is known and of the right type, unless a type deserialises
        // more strictly than its schema says; the text then says so without a place.
        Err(error) if findings.is_empty() => Err(ConfigError::Invalid(vec![Finding::new(
            "",
            error.message().to_owned(),
        )])),
        Err(_) => Err(ConfigError::Invalid(findings)),
    }
}

/// Findings that do not rest on a key that was refused before: those would only repeat it.
fn without_tainted(findings: Vec<Finding>, tainted: &[String]) -> Vec<Finding> {
    let rests_on = |key: &str| {
        tainted.iter().any(|tainted| {
            key.strip_prefix(tainted.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    };
    findings
        .into_iter()
        .filter(|f| !rests_on(&f.key) && !f.related.iter().any(|key| rests_on(key)))
        .collect()
}

/// Gives a finding the place of its key, or of the first related key that was written.
fn place(mut finding: Finding, places: &Places) -> Finding {
    if finding.location.is_none() {
        finding.location = std::iter::once(&finding.key)
            .chain(&finding.related)
            .find_map(|key| places.of(key))
            .cloned();
    }
    finding
}

fn refuse_if_any(mut findings: Vec<Finding>) -> Result<(), ConfigError> {
    if findings.is_empty() {
        return Ok(());
    }
    // Overrides first, then the file from top to bottom, then what stands nowhere.
    findings.sort_by_key(|finding| match &finding.location {
        Some(location) if location.set.is_some() => (0, 0, 0),
        Some(location) => (1, location.line, location.column),
        None => (2, 0, 0),
    });
    Err(ConfigError::Invalid(findings))
}
