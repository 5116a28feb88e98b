//! Which rows stay.

use serde_json::{Map, Value};

use super::spec::Filter;
use crate::error::{Problem, ProblemKind, shorten};

impl Filter {
    /// Whether the row passes.
    ///
    /// # Errors
    /// A text where a number is compared.
    pub(super) fn passes(&self, fields: &Map<String, Value>) -> Result<bool, Problem> {
        let texts = self.column.texts(fields)?;
        let is = |wanted: &Value| texts.iter().any(|text| *text == plain(wanted));
        if self.equals.as_ref().is_some_and(|wanted| !is(wanted))
            || self
                .one_of
                .as_ref()
                .is_some_and(|wanted| !wanted.iter().any(is))
            || (self.not_empty && texts.is_empty())
        {
            return Ok(false);
        }
        if self.at_least.is_none() && self.at_most.is_none() {
            return Ok(true);
        }
        let Some(text) = texts.first() else {
            return Ok(false);
        };
        let number: f64 = text.parse().map_err(|_| {
            Problem::new(
                ProblemKind::BadField,
                format!("`{}` is `{}`, no number", self.column, shorten(text)),
                "correct the row, or the filter",
            )
        })?;
        Ok(self.at_least.is_none_or(|least| number >= least)
            && self.at_most.is_none_or(|most| number <= most))
    }

    /// Why a row is left out.
    pub(super) fn reason(&self) -> String {
        let mut rules = Vec::new();
        if let Some(wanted) = &self.equals {
            rules.push(format!("is not {}", plain(wanted)));
        }
        if let Some(wanted) = &self.one_of {
            let wanted: Vec<String> = wanted.iter().map(plain).collect();
            rules.push(format!("is none of {}", shorten(&wanted.join(", "))));
        }
        if let Some(least) = self.at_least {
            rules.push(format!("is not at least {least}"));
        }
        if let Some(most) = self.at_most {
            rules.push(format!("is not at most {most}"));
        }
        if self.not_empty {
            rules.push("is empty".into());
        }
        format!("{} {}", self.column, rules.join(" or "))
    }

    /// Whether it asks for anything.
    pub(super) fn asks(&self) -> bool {
        self.equals.is_some()
            || self.one_of.is_some()
            || self.at_least.is_some()
            || self.at_most.is_some()
            || self.not_empty
    }
}

/// A value as a table writes it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_pass_or_are_left_out() {
        let row = serde_json::json!({"n": "4.5", "t": "x", "tags": ["a", "b"], "no": ""});
        let row = row.as_object().unwrap();
        for (filter, wanted) in [
            ("column = 'n'\nat_least = 4", true),
            ("column = 'n'\nat_most = 4", false),
            ("column = 't'\nequals = 'x'", true),
            ("column = 'tags'\nin = ['b', 'c']", true),
            ("column = 'tags'\nin = ['c']", false),
            ("column = 'no'\nnot_empty = true", false),
            ("column = 'no'\nat_least = 0", false),
        ] {
            let filter: Filter = toml::from_str(filter).unwrap();
            assert_eq!(filter.passes(row).unwrap(), wanted, "{filter:?}");
        }
        let filter: Filter = toml::from_str("column = 't'\nat_least = 4").unwrap();
        assert!(
            filter
                .passes(row)
                .unwrap_err()
                .message
                .contains("no number")
        );
    }
}
