//! The file that says how tables become notes and a log.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use mlrm_config::TimeUnit;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::template::Template;
use super::value::ValuePath;
use crate::table::Format;

/// How tables become notes, a log and a folder of pictures.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// What data this is for, in one line.
    #[serde(default)]
    pub about: String,
    /// Text of the README that is written beside the data.
    pub readme: Option<String>,
    /// The tables, by the names that the rest of the file uses.
    pub tables: BTreeMap<String, TableSpec>,
    /// How rows become notes.
    pub notes: NotesSpec,
    /// How rows become events of the log.
    pub events: Option<EventsSpec>,
}

/// `[tables.NAME]`: files of rows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSpec {
    /// Path below the folder of the data; `*` stands for any characters of a file's name, and all
    /// files that match are read. Of several paths the first that is there.
    #[serde(deserialize_with = "one_or_many")]
    pub path: Vec<String>,
    /// Names that `path` does not mean, with `*` as there.
    pub exclude: Option<String>,
    /// Whether nothing is amiss when there is no such file.
    #[serde(default)]
    pub optional: bool,
    /// Form of the files.
    #[serde(default)]
    pub format: Format,
    /// Encoding of text.
    #[serde(default)]
    pub encoding: EncodingSpec,
    /// What stands between fields; found by default.
    pub separator: Option<String>,
    /// Whether quotes keep separators together.
    #[serde(default = "yes")]
    pub quotes: bool,
    /// Names of the columns, in their order, where the file does not have them.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Whether the first row names the columns; by default if `columns` does not.
    pub header: Option<HeaderSpec>,
    /// The column that takes surplus fields: an unquoted text that may hold the separator.
    pub surplus: Option<String>,
    /// What to do with a row that cannot be read.
    #[serde(default)]
    pub bad_rows: OnFault,
}

/// Encoding of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum EncodingSpec {
    /// UTF-8 if the whole file is, or else Latin-1.
    #[serde(rename = "auto")]
    Auto,
    /// UTF-8.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// ISO 8859-1.
    #[serde(rename = "latin-1")]
    Latin1,
}

/// Where the names of the columns are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderSpec {
    /// In the first row.
    First,
    /// In `columns`.
    None,
    /// In the first row, if it has one of the names of `columns`; or else there.
    Auto,
}

/// What to do with what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFault {
    /// Nothing is imported, and every such row is named.
    #[default]
    Error,
    /// The row is left out and counted.
    Drop,
}

/// `[notes]`: how the rows of a table become notes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotesSpec {
    /// The table.
    pub table: String,
    /// Id of the note.
    pub id: Template,
    /// Title.
    #[serde(default, deserialize_with = "optional_short")]
    pub title: Option<TextRule>,
    /// Body text.
    #[serde(default, deserialize_with = "optional_short")]
    pub content: Option<TextRule>,
    /// Label for slices.
    #[serde(default, deserialize_with = "optional_short")]
    pub category: Option<TextRule>,
    /// Whether the first topic is the category.
    #[serde(default)]
    pub category_from_topics: bool,
    /// Topics.
    #[serde(default, deserialize_with = "optional_short")]
    pub topics: Option<TopicsRule>,
    /// Further fields, kept as they are.
    #[serde(default)]
    pub fields: BTreeMap<String, ValuePath>,
    /// Tables whose rows are added to those of the table.
    #[serde(default)]
    pub join: Vec<JoinSpec>,
    /// Rows that stay: those that pass every filter.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// What to do with a second row of an id.
    #[serde(default)]
    pub repeated: Repeated,
    /// Where the pictures are.
    pub image: Option<ImageSpec>,
}

/// What to do with a second row of the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repeated {
    /// Nothing is imported, and every such row is named.
    #[default]
    Error,
    /// The first stays.
    First,
    /// The last stays; for joined tables only.
    Last,
}

/// A text: a template, or a table with more than that.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextRule {
    /// The text.
    pub template: Template,
    /// Whether tags are taken out and entities become characters.
    #[serde(default)]
    pub strip_html: bool,
    /// What stands between the values of a list.
    #[serde(default = "blank")]
    pub join: String,
}

/// Topics: the name of a column, or a table with more than that.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicsRule {
    /// Columns of topics: lists, or texts.
    pub columns: Vec<ValuePath>,
    /// What stands between topics of a text.
    pub separator: Option<String>,
    /// Columns of truth values (1, true, …), whose names are topics where they are true.
    pub flags: Vec<String>,
    /// Topics to leave out.
    pub skip: Vec<String>,
    /// Whether tags are taken out and entities become characters.
    pub strip_html: bool,
}

/// `[[notes.join]]`: a table whose columns are read as `{TABLE.column}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinSpec {
    /// The other table.
    pub table: String,
    /// Its key.
    pub key: Template,
    /// What the key is equal to in a row of the notes.
    pub with: Template,
    /// What to do with a second row of a key.
    #[serde(default)]
    pub repeated: Repeated,
}

/// `[[notes.filters]]`, `[[events.filters]]`: what a column must be for its row to stay.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The column.
    pub column: ValuePath,
    /// It is this.
    pub equals: Option<Value>,
    /// It is one of these.
    #[serde(rename = "in")]
    pub one_of: Option<Vec<Value>>,
    /// It is a number that is no smaller.
    pub at_least: Option<f64>,
    /// It is a number that is no greater.
    pub at_most: Option<f64>,
    /// There is something in it.
    #[serde(default)]
    pub not_empty: bool,
}

/// `[notes.image]`: where the picture of a row is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageSpec {
    /// Path below the folder of the data.
    pub path: Option<Template>,
    /// Endings that are tried after it, without the dot.
    pub endings: Vec<String>,
    /// Whether pictures are copied or linked (hard links; copied where the file system has none).
    pub place: Place,
    /// Where it is on the web: the first of these that the row has.
    #[serde(deserialize_with = "one_or_many")]
    pub url: Vec<Template>,
}

/// How pictures come into the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// As copies.
    #[default]
    Copy,
    /// As hard links.
    Link,
}

/// `[events]`: how the rows of a table become events.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsSpec {
    /// The table.
    pub table: String,
    /// Id of the user.
    pub user: Template,
    /// Id of the note.
    pub note: Template,
    /// The time.
    pub time: ValuePath,
    /// Unit of times that are numbers.
    #[serde(default)]
    pub time_unit: TimeUnit,
    /// The rating.
    pub rating: Option<ValuePath>,
    /// Events of a smaller rating are left out.
    pub min_rating: Option<f64>,
    /// Rows that stay: those that pass every filter.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// What to do with an event of a note that the notes' table does not have.
    #[serde(default)]
    pub unknown_notes: OnFault,
}

fn yes() -> bool {
    true
}

fn blank() -> String {
    " ".into()
}

/// Something that may be written as one text.
trait Short: Sized {
    /// What it is, for messages.
    const WHAT: &'static str;
    fn short(text: &str) -> Result<Self, String>;
}

impl Short for TextRule {
    const WHAT: &'static str = "a template such as \"{brand} {title}\", or { template = \"…\", … }";
    fn short(text: &str) -> Result<Self, String> {
        Ok(Self {
            template: Template::parse(text)?,
            strip_html: false,
            join: blank(),
        })
    }
}

impl Short for TopicsRule {
    const WHAT: &'static str = "a column such as \"tags\", or { columns = [\"tags\"], … }";
    fn short(text: &str) -> Result<Self, String> {
        Ok(Self {
            columns: vec![ValuePath::parse(text)?],
            ..Self::default()
        })
    }
}

struct ShortVisitor<T>(PhantomData<T>);

impl<'de, T: Short + Deserialize<'de>> Visitor<'de> for ShortVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(T::WHAT)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        T::short(text).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(serde::de::value::MapAccessDeserializer::new(map))
    }
}

fn optional_short<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Short + Deserialize<'de>,
{
    deserializer
        .deserialize_any(ShortVisitor(PhantomData))
        .map(Some)
}

struct ManyVisitor<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for ManyVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text or a list of texts")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<T>, E> {
        let text = serde::de::value::StrDeserializer::<E>::new(text);
        Ok(vec![T::deserialize(text)?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        match all.is_empty() {
            true => Err(A::Error::custom("the list is empty")),
            false => Ok(all),
        }
    }
}

fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    deserializer.deserialize_any(ManyVisitor(PhantomData))
}
