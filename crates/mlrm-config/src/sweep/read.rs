//! Reading a sweep's file.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Axis, Point, Sweep};
use crate::error::Finding;
use crate::suggest::closest;

const KEYS: [&str; 8] = [
    "base",
    "dir",
    "seeds",
    "set",
    "metric",
    "metrics",
    "reference",
    "axes",
];
const AXIS_KEYS: [&str; 4] = ["key", "values", "name", "groups"];
const GROUP_KEYS: [&str; 2] = ["name", "set"];

/// Reads the file, and collects what is wrong in it.
pub(super) struct Reader<'a> {
    pub(super) path: &'a Path,
    pub(super) findings: Vec<Finding>,
}

impl Reader<'_> {
    pub(super) fn find(&mut self, key: &str, message: &str, help: &str) {
        let place = self.path.display();
        let message = match key.is_empty() {
            true => format!("{place}: {message}"),
            false => format!("{place}: `{key}`: {message}"),
        };
        self.findings.push(Finding::new(key, message).help(help));
    }

    fn known(&mut self, at: &str, table: &Table, keys: &[&'static str]) {
        for key in table.keys().filter(|key| !keys.contains(&key.as_str())) {
            let meant = closest(key, keys.iter().copied());
            let meant = meant.map(|meant| format!("did you mean `{meant}`? "));
            let help = format!("{}known: {}", meant.unwrap_or_default(), keys.join(", "));
            self.find(&format!("{at}{key}"), "no such key", &help);
        }
    }

    fn text(&mut self, at: &str, table: &Table, key: &str) -> Option<String> {
        match table.get(key) {
            Some(Value::String(text)) if !text.trim().is_empty() => Some(text.clone()),
            Some(_) => {
                let help = format!("{key} = \"…\"");
                self.find(&format!("{at}{key}"), "is no text", &help);
                None
            }
            None => None,
        }
    }

    fn texts(&mut self, at: &str, table: &Table, key: &str) -> Vec<String> {
        let Some(value) = table.get(key) else {
            return Vec::new();
        };
        let texts = value.as_array().and_then(|items| {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>()
        });
        texts.unwrap_or_else(|| {
            let help = format!("{key} = [\"…\", \"…\"]");
            self.find(&format!("{at}{key}"), "is no list of texts", &help);
            Vec::new()
        })
    }

    fn required(&mut self, table: &Table, key: &str, help: &str) -> PathBuf {
        if !table.contains_key(key) {
            self.find(key, "is missing", help);
        }
        self.text("", table, key).unwrap_or_default().into()
    }

    pub(super) fn sweep(&mut self, table: &Table) -> Sweep {
        self.known("", table, &KEYS);
        let base = self.required(table, "base", "name the config that all runs start from");
        let folder = self.path.parent().unwrap_or(Path::new(""));
        Sweep {
            base: folder.join(base),
            dir: self.required(table, "dir", "name the folder for all runs"),
            seeds: self.seeds(table),
            set: self.texts("", table, "set"),
            metric: self.text("", table, "metric"),
            metrics: self.texts("", table, "metrics"),
            reference: self.text("", table, "reference"),
            axes: self.axes(table),
        }
    }

    fn seeds(&mut self, table: &Table) -> Vec<u64> {
        let Some(value) = table.get("seeds") else {
            return vec![1];
        };
        let number = |value: &Value| value.as_integer().and_then(|number| number.try_into().ok());
        let seeds: Option<Vec<u64>> = value
            .as_array()
            .and_then(|seeds| seeds.iter().map(number).collect());
        match seeds {
            Some(seeds) if !seeds.is_empty() => seeds,
            _ => {
                self.find("seeds", "is no list of whole numbers", "seeds = [1, 2, 3]");
                Vec::new()
            }
        }
    }

    fn axes(&mut self, table: &Table) -> Vec<Axis> {
        let axes = match table.get("axes") {
            None => return Vec::new(),
            Some(Value::Array(axes)) => axes,
            Some(_) => {
                self.find(
                    "axes",
                    "is no list of axes",
                    "begin each axis with [[axes]]",
                );
                return Vec::new();
            }
        };
        let mut read: Vec<Axis> = Vec::new();
        for (index, axis) in axes.iter().enumerate() {
            let at = format!("axes[{index}].");
            let Some(axis) = axis.as_table() else {
                self.find(
                    &format!("axes[{index}]"),
                    "is no axis",
                    "begin it with [[axes]]",
                );
                continue;
            };
            self.known(&at, axis, &AXIS_KEYS);
            let axis = match (axis.contains_key("key"), axis.contains_key("groups")) {
                (true, false) => self.key_axis(&at, axis),
                (false, true) => self.group_axis(&at, axis),
                _ => {
                    let help = "give it `key` and `values`, or `name` and `groups`";
                    self.find(
                        &format!("axes[{index}]"),
                        "is neither of a key nor of groups",
                        help,
                    );
                    continue;
                }
            };
            if read.iter().any(|other| other.name == axis.name) {
                let message = format!("there are two axes `{}`", axis.name);
                self.find("axes", &message, "name each axis once");
            }
            if axis.points.is_empty() {
                self.find(
                    &format!("axes[{index}]"),
                    "the axis is empty",
                    "give it points",
                );
            }
            read.push(axis);
        }
        read
    }

    fn key_axis(&mut self, at: &str, table: &Table) -> Axis {
        let key = self.text(at, table, "key").unwrap_or_default();
        let short = key.rsplit('.').next().unwrap_or_default();
        let values = match table.get("values") {
            Some(Value::Array(values)) => values.as_slice(),
            _ => {
                self.find(&format!("{at}values"), "is no list", "values = [1, 2, 4]");
                &[]
            }
        };
        let point = |value: &Value| {
            let shown = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            Point {
                label: format!("{short}={shown}"),
                set: vec![format!("{key}={value}")],
                number: match value {
                    Value::Integer(number) => Some(*number as f64),
                    Value::Float(number) => Some(*number),
                    _ => None,
                },
            }
        };
        Axis {
            points: values.iter().map(point).collect(),
            name: key,
        }
    }

    fn group_axis(&mut self, at: &str, table: &Table) -> Axis {
        let groups = match table.get("groups") {
            Some(Value::Array(groups)) => groups.as_slice(),
            _ => {
                let help = "groups = [{ name = \"a\", set = [\"section.key=value\"] }]";
                self.find(&format!("{at}groups"), "is no list", help);
                &[]
            }
        };
        let mut points = Vec::new();
        for (index, group) in groups.iter().enumerate() {
            let at = format!("{at}groups[{index}].");
            let Some(group) = group.as_table() else {
                self.find(
                    &at[..at.len() - 1],
                    "is no group",
                    "{ name = \"a\", set = [] }",
                );
                continue;
            };
            self.known(&at, group, &GROUP_KEYS);
            let Some(label) = self.text(&at, group, "name") else {
                self.find(&at[..at.len() - 1], "the group has no name", "name = \"a\"");
                continue;
            };
            points.push(Point {
                label,
                set: self.texts(&at, group, "set"),
                number: None,
            });
        }
        Axis {
            name: self
                .text(at, table, "name")
                .unwrap_or_else(|| "group".into()),
            points,
        }
    }
}
