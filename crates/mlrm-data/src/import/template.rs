//! Texts made of columns: `"{brand} {title}"`, `"{article_id:0>10}.jpg"`.

use serde::de::{Deserialize, Deserializer, Error as _};
use serde_json::{Map, Value};

use super::html;
use super::value::ValuePath;
use crate::error::Problem;

/// Literals with columns between them. `{{` and `}}` are braces.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// What stands before each column.
    parts: Vec<(String, Column)>,
    /// What stands after the last.
    end: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Column {
    path: ValuePath,
    /// Filled up with this character to this width; on the left or else on the right.
    fill: Option<(char, bool, usize)>,
    /// Only so many characters of it.
    most: Option<usize>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '{' | '}' if chars.peek() == Some(&char) => {
                    chars.next();
                    literal.push(char);
                }
                '{' => {
                    let mut inside = String::new();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some(char) => inside.push(char),
                            None => return Err(format!("`{{{inside}` has no closing brace")),
                        }
                    }
                    parts.push((std::mem::take(&mut literal), Column::parse(&inside)?));
                }
                '}' => return Err("`}` closes no brace; write `}}` for the character".into()),
                char => literal.push(char),
            }
        }
        Ok(Self {
            parts,
            end: literal,
        })
    }

    /// The paths in it.
    pub(super) fn paths(&self) -> impl Iterator<Item = &ValuePath> {
        self.parts.iter().map(|(_, column)| &column.path)
    }

    /// The text of a row, as it is: none where a column is missing.
    pub(super) fn whole(&self, fields: &Map<String, Value>) -> Result<Option<String>, Problem> {
        self.whole_if(fields, |_| Ok(()))
    }

    /// As [`Self::whole`], if every value passes.
    pub(super) fn whole_if(
        &self,
        fields: &Map<String, Value>,
        check: impl Fn(&str) -> Result<(), Problem>,
    ) -> Result<Option<String>, Problem> {
        let mut text = String::new();
        for (before, column) in &self.parts {
            let Some(value) = column.path.texts(fields)?.into_iter().next() else {
                return Ok(None);
            };
            check(&value)?;
            text.push_str(before);
            text.push_str(&column.form(value));
        }
        text.push_str(&self.end);
        Ok(Some(text).filter(|text| !text.trim().is_empty()))
    }

    /// The text of a row for people: a column that is missing goes with the literal that ties it
    /// to its neighbour. Several values of a column are joined by `join`.
    pub(super) fn readable(
        &self,
        fields: &Map<String, Value>,
        join: &str,
        strip: bool,
    ) -> Result<String, Problem> {
        if self.parts.is_empty() {
            return Ok(self.end.trim().to_owned());
        }
        let mut text = String::new();
        let mut any = false;
        let mut last = false;
        for (index, (before, column)) in self.parts.iter().enumerate() {
            let mut values = column.path.texts(fields)?;
            if strip {
                values = values.iter().map(|value| html::strip(value)).collect();
                values.retain(|value| !value.is_empty());
            }
            last = !values.is_empty();
            if last {
                if index == 0 || any {
                    text.push_str(before);
                }
                text.push_str(&column.form(values.join(join)));
                any = true;
            }
        }
        if last {
            text.push_str(&self.end);
        }
        Ok(text.trim().to_owned())
    }
}

impl Column {
    /// `path`, `path:0>10`, `path:.3`, `path:0>10.3`.
    fn parse(text: &str) -> Result<Self, String> {
        let (path, form) = match text.split_once(':') {
            Some((path, form)) => (path, Some(form)),
            None => (text, None),
        };
        let path = ValuePath::parse(path)?;
        let bad = || {
            format!(
                "`{{{text}}}` is not understood; write {{column}}, {{column:0>10}} (filled with 0 \
                 on the left to 10 characters), {{column:.3}} (its first 3 characters) or \
                 {{column:0>10.3}}"
            )
        };
        let mut column = Self {
            path,
            fill: None,
            most: None,
        };
        let Some(form) = form else {
            return Ok(column);
        };
        let chars: Vec<char> = form.chars().collect();
        let rest = match chars[..] {
            [fill, side @ ('<' | '>'), ..] => {
                let digits: String = chars[2..]
                    .iter()
                    .take_while(|c| c.is_ascii_digit())
                    .collect();
                let width = digits
                    .parse()
                    .ok()
                    .filter(|width| *width <= 1000)
                    .ok_or_else(bad)?;
                column.fill = Some((fill, side == '>', width));
                chars[2 + digits.len()..].iter().collect::<String>()
            }
            _ => form.to_owned(),
        };
        match rest.strip_prefix('.') {
            Some(most) => column.most = Some(most.parse().map_err(|_| bad())?),
            None if rest.is_empty() && column.fill.is_some() => {}
            None => return Err(bad()),
        }
        Ok(column)
    }

    fn form(&self, value: String) -> String {
        let mut value = value;
        if let Some((fill, left, width)) = self.fill {
            let missing = width.saturating_sub(value.chars().count());
            let filling: String = std::iter::repeat_n(fill, missing).collect();
            value = match left {
                true => filling + &value,
                false => value + &filling,
            };
        }
        match self.most {
            Some(most) => value.chars().take(most).collect(),
            None => value,
        }
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row() -> Map<String, Value> {
        json!({"brand": "ACME", "title": "Shoe", "year": "", "id": 7, "all": ["a", "b"]})
            .as_object()
            .cloned()
            .unwrap()
    }

    #[test]
    fn missing_parts_go_with_what_ties_them() {
        for (template, wanted) in [
            ("{brand} {title}", "ACME Shoe"),
            ("{none} {title}", "Shoe"),
            ("{title} ({year})", "Shoe"),
            ("{none} - {title}", "Shoe"),
            ("{brand}, {none}, {title}", "ACME, Shoe"),
            ("by {none}", ""),
            ("{{{brand}}}", "{ACME}"),
            ("{all}", "a; b"),
            ("always", "always"),
        ] {
            let text = Template::parse(template).unwrap();
            assert_eq!(
                text.readable(&row(), "; ", false).unwrap(),
                wanted,
                "{template}"
            );
        }
    }

    #[test]
    fn names_are_filled_and_cut_and_never_half_there() {
        for (template, wanted) in [
            ("{id:0>10}.jpg", Some("0000000007.jpg")),
            ("{id:0>10.3}/{id:_<3}", Some("000/7__")),
            ("{title:.2}", Some("Sh")),
            ("{none}.jpg", None),
        ] {
            let text = Template::parse(template).unwrap();
            assert_eq!(text.whole(&row()).unwrap().as_deref(), wanted, "{template}");
        }
        for bad in [
            "{",
            "a}",
            "{}",
            "{a:}",
            "{a:x}",
            "{a:0>}",
            "{a:.x}",
            "{a:0>99999999999}",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
