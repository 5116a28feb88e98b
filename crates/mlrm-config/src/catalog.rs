//! Every key that a config can hold: type, bounds, default, meaning and source.
//!
//! Read once from the JSON schema that the settings types derive, so that the types stay the only
//! place where a key is written down.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::LazyLock;

use serde_json::Value as Json;

use crate::RunConfig;
use crate::text;

/// The schema of [`RunConfig`] with every type written out in place.
pub(crate) fn json_schema() -> Json {
    schemars::generate::SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<RunConfig>()
        .into()
}

/// The catalogue of [`RunConfig`].
pub(crate) fn catalog() -> &'static Section {
    static CATALOG: LazyLock<Section> =
        LazyLock::new(|| Section::read(String::new(), &json_schema(), "mlrm"));
    &CATALOG
}

/// A table of the file: `[data.pairs]`.
#[derive(Debug)]
pub(crate) struct Section {
    /// Dotted path; empty for the whole file.
    pub(crate) key: String,
    pub(crate) meaning: String,
    /// Its keys and sub-tables, in the order of the types.
    pub(crate) entries: Vec<Entry>,
}

/// A key, or a sub-table.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// As TOML writes it; `None` when the key is not set by default.
    pub(crate) default: Option<String>,
    /// Whether the key must be given (only in `[[…]]` tables).
    pub(crate) required: bool,
    pub(crate) meaning: String,
    /// Where the key or its default comes from.
    pub(crate) source: String,
}

/// What a key takes.
#[derive(Debug)]
pub(crate) enum Kind {
    Boolean,
    Integer(Bounds),
    Number(Bounds),
    Text {
        allow_empty: bool,
    },
    OneOf(Vec<Choice>),
    List {
        item: Box<Kind>,
        min_items: usize,
        max_items: Option<usize>,
    },
    Either(Vec<Kind>),
    Table(Section),
    /// `[[…]]`: a list of tables.
    Tables(Section),
}

/// One of the values that a key can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The value, as written between quotes.
    pub value: String,
    /// What it does.
    pub meaning: String,
}

/// The values that a number can have.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) above: Option<f64>,
    pub(crate) below: Option<f64>,
}

impl Bounds {
    fn read(schema: &Json) -> Self {
        let bound = |name: &str| schema.get(name).and_then(Json::as_f64);
        let (lowest, highest) = match schema.get("format").and_then(Json::as_str) {
            Some("uint32") => (Some(0.0), Some(f64::from(u32::MAX))),
            Some("int32") => (Some(f64::from(i32::MIN)), Some(f64::from(i32::MAX))),
            _ => (None, None),
        };
        Self {
            min: bound("minimum").or(lowest),
            max: bound("maximum").or(highest),
            above: bound("exclusiveMinimum"),
            below: bound("exclusiveMaximum"),
        }
    }

    /// A largest value that only the machine word sets, and that the text therefore leaves out.
    pub(crate) fn unstated_max(&self) -> Option<f64> {
        self.max.filter(|max| !worth_stating(*max))
    }

    /// Whether a value is within all bounds; NaN never is.
    pub(crate) fn contains(&self, value: f64) -> bool {
        value.is_finite()
            && self.min.is_none_or(|min| value >= min)
            && self.max.is_none_or(|max| value <= max)
            && self.above.is_none_or(|above| value > above)
            && self.below.is_none_or(|below| value < below)
    }
}

/// Whether a bound is more than the end of a machine word.
fn worth_stating(bound: f64) -> bool {
    bound.abs() < f64::from(i32::MAX)
}

/// ` ≥ 1`, ` in [0, 1)`; empty without bounds. Bounds that only a machine word sets are not worth a
/// word.
impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stated = |bound: Option<f64>| bound.filter(|bound| worth_stating(*bound));
        let lower = match (self.above, stated(self.min)) {
            (Some(above), _) => Some((above, '(', '>')),
            (None, Some(min)) => Some((min, '[', '≥')),
            (None, None) => None,
        };
        let upper = match (self.below, stated(self.max)) {
            (Some(below), _) => Some((below, ')', '<')),
            (None, Some(max)) => Some((max, ']', '≤')),
            (None, None) => None,
        };
        let bound = text::bound;
        match (lower, upper) {
            (None, None) => Ok(()),
            (Some((low, _, sign)), None) => write!(f, " {sign} {}", bound(low)),
            (None, Some((high, _, sign))) => write!(f, " {sign} {}", bound(high)),
            (Some((low, open, _)), Some((high, close, _))) => {
                write!(f, " in {open}{}, {}{close}", bound(low), bound(high))
            }
        }
    }
}

impl Kind {
    fn read(key: &str, schema: &Json, source: &str) -> Self {
        if let Some(options) = schema.get("anyOf").and_then(Json::as_array) {
            let kinds = options.iter().filter(|option| !is_null(option));
            return Self::Either(kinds.map(|k| Self::read(key, k, source)).collect());
        }
        if let Some(options) = schema.get("oneOf").and_then(Json::as_array) {
            return Self::OneOf(options.iter().map(Choice::read).collect());
        }
        match type_name(schema) {
            "boolean" => Self::Boolean,
            "integer" => Self::Integer(Bounds::read(schema)),
            "number" => Self::Number(Bounds::read(schema)),
            "array" => Self::read_array(key, schema, source),
            "object" => Self::Table(Section::read(key.into(), schema, source)),
            _ => Self::Text {
                allow_empty: schema.get("minLength").is_none(),
            },
        }
    }

    fn read_array(key: &str, schema: &Json, source: &str) -> Self {
        let length = |name: &str| schema.get(name).and_then(Json::as_u64).map(|n| n as usize);
        match Self::read(key, schema.get("items").unwrap_or(&Json::Null), source) {
            Self::Table(section) => Self::Tables(section),
            item => Self::List {
                item: Box::new(item),
                min_items: length("minItems").unwrap_or(0),
                max_items: length("maxItems"),
            },
        }
    }

    /// The plural of what it is, for `list of …`.
    fn plural(&self) -> String {
        match self {
            Self::Boolean => "booleans".into(),
            Self::Integer(bounds) => format!("integers{bounds}"),
            Self::Number(bounds) => format!("numbers{bounds}"),
            Self::Text { .. } => "strings".into(),
            other => other.to_string(),
        }
    }

    /// The values to choose from, if it is a choice or a list of choices.
    pub(crate) fn choices(&self) -> &[Choice] {
        match self {
            Self::OneOf(choices) => choices,
            Self::List { item, .. } => item.choices(),
            _ => &[],
        }
    }
}

/// `integer ≥ 1`, `one of "f32", "bf16", "f16"`, `list of 2 numbers`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean (true or false)"),
            Self::Integer(bounds) => write!(f, "integer{bounds}"),
            Self::Number(bounds) => write!(f, "number{bounds}"),
            Self::Text { .. } => f.write_str("string"),
            Self::OneOf(choices) => {
                let values: Vec<String> = choices.iter().map(|c| text::quote(&c.value)).collect();
                let of = if values.len() == 1 { "" } else { "one of " };
                write!(f, "{of}{}", values.join(", "))
            }
            Self::List {
                item,
                min_items,
                max_items,
            } => match max_items {
                Some(max) if max == min_items => write!(f, "list of {max} {}", item.plural()),
                _ => write!(f, "list of {}", item.plural()),
            },
            Self::Either(kinds) => {
                let kinds: Vec<String> = kinds.iter().map(Kind::to_string).collect();
                f.write_str(&kinds.join(" or "))
            }
            Self::Table(_) => f.write_str("table"),
            Self::Tables(_) => f.write_str("list of tables"),
        }
    }
}

impl Choice {
    fn read(schema: &Json) -> Self {
        let value = schema.get("const").or_else(|| schema.pointer("/enum/0"));
        Self {
            value: value.and_then(Json::as_str).unwrap_or_default().into(),
            meaning: description(schema),
        }
    }
}

impl Section {
    fn read(key: String, schema: &Json, source: &str) -> Self {
        let source = source_of(schema).unwrap_or(source);
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Json::as_array)
            .map(|names| names.iter().filter_map(Json::as_str).collect())
            .unwrap_or_default();
        let properties = schema.get("properties").and_then(Json::as_object);
        let entries = properties.into_iter().flatten().map(|(name, property)| {
            let path = join(&key, name);
            Entry {
                kind: Kind::read(&path, property, source),
                default: property.get("default").and_then(toml_text),
                required: required.contains(&name.as_str()),
                meaning: description(property),
                source: source_of(property).unwrap_or(source).to_owned(),
                name: name.clone(),
            }
        });
        Self {
            entries: entries.collect(),
            meaning: description(schema),
            key,
        }
    }

    /// The entry of this name.
    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The names of all entries.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// This section and all below it, in the order of the types.
    pub(crate) fn sections(&self) -> Vec<&Section> {
        let mut all = vec![self];
        for entry in &self.entries {
            if let Kind::Table(section) | Kind::Tables(section) = &entry.kind {
                all.extend(section.sections());
            }
        }
        all
    }

    /// Every key below this section, sub-tables too, with its dotted path.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.sections()
            .into_iter()
            .flat_map(|section| section.names().map(|name| join(&section.key, name)))
            .collect()
    }

    /// The entry at a dotted path below this section.
    pub(crate) fn find(&self, path: &str) -> Option<&Entry> {
        let (name, rest) = match path.split_once('.') {
            Some((name, rest)) => (name, Some(rest)),
            None => (path, None),
        };
        let entry = self.entry(name)?;
        match (rest, &entry.kind) {
            (None, _) => Some(entry),
            (Some(rest), Kind::Table(section) | Kind::Tables(section)) => section.find(rest),
            (Some(_), _) => None,
        }
    }
}

/// `section.name`, or `name` at the top.
pub(crate) fn join(section: &str, name: &str) -> String {
    if section.is_empty() {
        name.to_owned()
    } else {
        format!("{section}.{name}")
    }
}

fn description(schema: &Json) -> String {
    let doc = schema.get("description").and_then(Json::as_str);
    text::unwrap(doc.unwrap_or_default())
}

fn source_of(schema: &Json) -> Option<&str> {
    schema.get("x-source").and_then(Json::as_str)
}

fn is_null(schema: &Json) -> bool {
    schema.get("type").and_then(Json::as_str) == Some("null")
}

/// The schema's type; of `["string", "null"]` the one that is not null.
fn type_name(schema: &Json) -> &str {
    match schema.get("type") {
        Some(Json::String(name)) => name,
        Some(Json::Array(names)) => names
            .iter()
            .filter_map(Json::as_str)
            .find(|name| *name != "null")
            .unwrap_or_default(),
        _ => "",
    }
}

/// A default as TOML writes it; `None` for null and for whole tables.
fn toml_text(json: &Json) -> Option<String> {
    match json {
        Json::Null | Json::Object(_) => None,
        Json::Bool(value) => Some(value.to_string()),
        Json::Number(number) if number.is_f64() => number.as_f64().map(text::number),
        Json::Number(number) => Some(number.to_string()),
        Json::String(string) => Some(text::quote(string)),
        Json::Array(items) => {
            let items: Vec<String> = items.iter().filter_map(toml_text).collect();
            Some(format!("[{}]", items.join(", ")))
        }
    }
}
