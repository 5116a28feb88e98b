//! Where a value lies in a row: `title`, `details.brand`, `images[0].large`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde_json::{Map, Value};

use crate::error::{Problem, ProblemKind, shorten};

/// The way to a value from the fields of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValuePath {
    text: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Item(usize),
}

impl ValuePath {
    /// Reads a path.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let bad = |what: &str| Err(format!("`{}` {what}", shorten(text)));
        let mut steps = Vec::new();
        for part in text.split('.') {
            let (name, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
            if name.is_empty() {
                return bad("has an empty name; write columns and fields as in `details.brand`");
            }
            steps.push(Step::Field(name.to_owned()));
            while !rest.is_empty() {
                let item = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
                let Some((Ok(item), after)) = item.map(|(item, after)| (item.parse(), after))
                else {
                    return bad("has no whole number in brackets; write `images[0].large`");
                };
                steps.push(Step::Item(item));
                rest = after;
            }
        }
        Ok(Self {
            text: text.to_owned(),
            steps,
        })
    }

    /// The column that it begins with, if the row has no column of the whole text.
    pub(super) fn column(&self) -> &str {
        match &self.steps[0] {
            Step::Field(name) => name,
            Step::Item(_) => &self.text,
        }
    }

    /// The values there: none, one, or those of every item of a list whose fields are asked for.
    pub(super) fn find<'a>(&self, fields: &'a Map<String, Value>) -> Vec<&'a Value> {
        // A column may have dots in its name.
        if let Some(value) = fields.get(&self.text) {
            return vec![value];
        }
        let mut steps = self.steps.iter();
        let Some(Step::Field(first)) = steps.next() else {
            return Vec::new();
        };
        let mut found: Vec<&Value> = fields.get(first).into_iter().collect();
        for step in steps {
            found = match step {
                Step::Item(item) => match found[..] {
                    // One list: its item. Fields of several items: the item of these.
                    [Value::Array(items)] => items.get(*item).into_iter().collect(),
                    _ => found.get(*item).copied().into_iter().collect(),
                },
                Step::Field(name) => found
                    .into_iter()
                    .flat_map(|value| field(value, name))
                    .collect(),
            };
        }
        found
    }

    /// The texts there, without blank ones; numbers are written out.
    ///
    /// # Errors
    /// An object, which is no text.
    pub(super) fn texts(&self, fields: &Map<String, Value>) -> Result<Vec<String>, Problem> {
        let mut texts = Vec::new();
        for value in self.find(fields) {
            self.push(value, &mut texts)?;
        }
        Ok(texts)
    }

    fn push(&self, value: &Value, texts: &mut Vec<String>) -> Result<(), Problem> {
        match value {
            Value::Null => {}
            Value::String(text) if text.trim().is_empty() => {}
            Value::String(text) => texts.push(text.trim().to_owned()),
            Value::Array(items) => return items.iter().try_for_each(|item| self.push(item, texts)),
            Value::Bool(_) | Value::Number(_) => texts.push(value.to_string()),
            Value::Object(_) => {
                return Err(Problem::new(
                    ProblemKind::BadField,
                    format!("`{}` is an object", self.text),
                    format!("name one of its fields, as in `{}.name`", self.text),
                ));
            }
        }
        Ok(())
    }
}

/// A field of an object, or of every object of a list.
fn field<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    match value {
        Value::Array(items) => {
            let fields = items.iter().filter_map(|item| item.get(name));
            fields.filter(|value| !value.is_null()).collect()
        }
        value => value.get(name).into_iter().collect(),
    }
}

impl fmt::Display for ValuePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for ValuePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nested_fields_and_items_are_found() {
        let Value::Object(fields) = json!({
            "a.b": "dotted", "details": {"brand": " x "}, "n": 7, "list": ["a", "", "b"],
            "images": [{"hi": null, "large": "one"}, {"hi": "two"}], "columns": {"hi": ["three"]},
        }) else {
            unreachable!("an object");
        };
        for (path, wanted) in [
            ("a.b", vec!["dotted"]),
            ("details.brand", vec!["x"]),
            ("n", vec!["7"]),
            ("list", vec!["a", "b"]),
            ("list[2]", vec!["b"]),
            ("images[0].large", vec!["one"]),
            ("images.hi[0]", vec!["two"]),
            ("columns.hi[0]", vec!["three"]),
            ("images[9].large", vec![]),
            ("nothing.at.all", vec![]),
        ] {
            let texts = ValuePath::parse(path).unwrap().texts(&fields).unwrap();
            assert_eq!(texts, wanted, "{path}");
        }
        let object = ValuePath::parse("details").unwrap().texts(&fields);
        assert!(object.unwrap_err().mend.contains("details.name"));
        for bad in ["", "a..b", "a[", "a[x]", "a[0]b"] {
            assert!(ValuePath::parse(bad).is_err(), "{bad}");
        }
    }
}
