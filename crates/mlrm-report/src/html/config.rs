//! What the runs were started with; of several runs first what differs.

use serde_json::Value;

use super::summary::comparison;
use crate::run::Run;

/// Every key under its full name, in order.
pub(crate) fn flat(value: &Value) -> Vec<(String, String)> {
    fn walk(path: &str, value: &Value, flat: &mut Vec<(String, String)>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    walk(&path, value, flat);
                }
            }
            Value::Null if path.is_empty() => {}
            Value::Null => flat.push((path.to_owned(), "not set".into())),
            other => flat.push((path.to_owned(), other.to_string())),
        }
    }
    let mut entries = Vec::new();
    walk("", value, &mut entries);
    entries
}

pub(super) fn section(runs: &[Run], html: &mut String) {
    let columns: Vec<Vec<(String, String)>> = runs
        .iter()
        .map(|run| {
            run.state
                .started
                .as_ref()
                .map_or(Vec::new(), |(_, run)| flat(&run.config))
        })
        .collect();
    if columns.iter().all(Vec::is_empty) {
        return;
    }
    html.push_str("<section>\n<h2>Config</h2>\n");
    if runs.len() > 1 {
        let differs = |(key, value): &&(String, String)| {
            columns
                .iter()
                .any(|column| !column.iter().any(|(k, v)| k == key && v == value))
        };
        let differing: Vec<Vec<(String, String)>> = columns
            .iter()
            .map(|column| column.iter().filter(differs).cloned().collect())
            .collect();
        if differing.iter().all(Vec::is_empty) {
            html.push_str("<p>All keys are the same.</p>\n");
        } else {
            html.push_str("<p>What differs:</p>\n<div class=\"scroll\">\n");
            comparison(runs, &differing, html);
            html.push_str("</div>\n");
        }
    }
    html.push_str("<details><summary>All keys</summary>\n<div class=\"scroll\">\n");
    comparison(runs, &columns, html);
    html.push_str("</div>\n</details>\n</section>\n");
}
