//! The form of a config: are its keys known, do their values have the right type and size?

use crate::catalog::{Bounds, Choice, Kind, Section, catalog, join};
use crate::document::{Node, Value};
use crate::error::Finding;
use crate::suggest::{closest, likeness, nearest};
use crate::text;

/// What a check found, and the keys that a later check must not draw conclusions from.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
    /// Keys whose value was refused, and keys that a refused name probably meant.
    pub(crate) tainted: Vec<String>,
}

/// Checks a whole config and removes from it what it refuses, so that the rest can be read.
pub(crate) fn check(root: &mut Node) -> Report {
    let mut report = Report::default();
    if let Value::Table(entries) = &mut root.value {
        check_table(entries, catalog(), "", &mut report);
    }
    report
}

/// `key` names the table as in messages (`eval.slices[0]`), `section` what it may hold.
fn check_table(
    entries: &mut Vec<(String, Node)>,
    section: &Section,
    key: &str,
    report: &mut Report,
) {
    let given: Vec<String> = entries.iter().map(|(name, _)| name.clone()).collect();
    entries.retain_mut(|(name, node)| {
        let path = join(key, name);
        let Some(entry) = section.entry(name) else {
            let what = match node.value {
                Value::Table(_) => "section",
                _ => "key",
            };
            let (finding, meant) = unknown(what, name, &path, section);
            let location = node.origin.as_ref().map(|origin| origin.key_location());
            report.findings.push(finding.at(location));
            report.tainted.extend(meant);
            return false;
        };
        // An override put it back to its default.
        if matches!(node.value, Value::Unset) {
            return false;
        }
        check_value(node, &entry.kind, &path, report)
    });
    for entry in section.entries.iter().filter(|entry| entry.required) {
        if !given.contains(&entry.name) {
            let path = join(key, &entry.name);
            let finding = Finding::new(&path, format!("`{path}` is missing"))
                .help(format!("add `{} = …`: {}", entry.name, entry.meaning));
            report.findings.push(finding);
            report.tainted.push(section.key.clone());
        }
    }
}

/// Checks one value; false when it was refused and has to go.
fn check_value(node: &mut Node, kind: &Kind, key: &str, report: &mut Report) -> bool {
    let ok = match (&mut node.value, kind) {
        (Value::Table(entries), Kind::Table(section)) => {
            check_table(entries, section, key, report);
            return true;
        }
        (Value::List(items), Kind::Tables(section)) => {
            return check_tables(items, section, key, report);
        }
        (
            Value::List(items),
            Kind::List {
                item,
                min_items,
                max_items,
            },
        ) => {
            let length_fits =
                items.len() >= *min_items && max_items.is_none_or(|max| items.len() <= max);
            if length_fits {
                return check_items(items, item, key, report);
            }
            false
        }
        (_, Kind::Either(kinds)) => {
            // The first option that the value has the form of judges it.
            match kinds.iter().find(|kind| same_form(&node.value, kind)) {
                // What else it takes belongs into the message.
                Some(Kind::OneOf(choices)) => is_one_of(&node.value, choices),
                Some(kind) => return check_value(node, kind, key, report),
                None => false,
            }
        }
        (Value::Boolean(_), Kind::Boolean) => true,
        (Value::Integer(value), Kind::Integer(bounds) | Kind::Number(bounds)) => {
            bounds.contains(*value as f64)
        }
        (Value::Float(value), Kind::Number(bounds)) => bounds.contains(*value),
        (Value::String(text), Kind::Text { allow_empty }) => *allow_empty || !text.is_empty(),
        (value, Kind::OneOf(choices)) => is_one_of(value, choices),
        _ => false,
    };
    if !ok {
        report.findings.push(wrong_value(node, kind, key));
        report.tainted.push(key.to_owned());
    }
    ok
}

fn is_one_of(value: &Value, choices: &[Choice]) -> bool {
    matches!(value, Value::String(text) if choices.iter().any(|choice| choice.value == *text))
}

fn check_tables(items: &mut [Node], section: &Section, key: &str, report: &mut Report) -> bool {
    let before = report.findings.len();
    for (index, item) in items.iter_mut().enumerate() {
        let path = format!("{key}[{index}]");
        match &mut item.value {
            Value::Table(entries) => check_table(entries, section, &path, report),
            other => {
                let message = format!("`{path}` is {}, but takes a table", other.describe());
                let help = format!("write `[[{key}]]` and the keys of the table below it");
                let finding = Finding::new(path, message).help(help);
                let location = item.origin.as_ref().map(|origin| origin.value_location());
                report.findings.push(finding.at(location));
            }
        }
    }
    report.findings[before..]
        .iter_mut()
        .filter(|finding| finding.location.is_none())
        .for_each(|finding| finding.location = place_of_item(items, &finding.key, key));
    refuse_whole(before, key, report)
}

/// The place of the item that `finding` (a key such as `eval.slices[1].name`) lies in.
fn place_of_item(items: &[Node], finding: &str, list: &str) -> Option<crate::Location> {
    let index = finding.strip_prefix(list)?.strip_prefix('[')?;
    let index: usize = index.split(']').next()?.parse().ok()?;
    Some(items.get(index)?.origin.as_ref()?.key_location())
}

fn check_items(items: &mut [Node], kind: &Kind, key: &str, report: &mut Report) -> bool {
    let before = report.findings.len();
    for (index, item) in items.iter_mut().enumerate() {
        check_value(item, kind, &format!("{key}[{index}]"), report);
    }
    refuse_whole(before, key, report)
}

/// A list with a wrong item is refused as a whole: true when nothing was found since `before`.
fn refuse_whole(before: usize, key: &str, report: &mut Report) -> bool {
    let ok = report.findings.len() == before;
    if !ok {
        report.tainted.push(key.to_owned());
    }
    ok
}

/// Whether a value has the form that a kind takes, whatever its size.
fn same_form(value: &Value, kind: &Kind) -> bool {
    matches!(
        (value, kind),
        (Value::Table(_), Kind::Table(_))
            | (Value::List(_), Kind::List { .. } | Kind::Tables(_))
            | (Value::Boolean(_), Kind::Boolean)
            | (Value::Integer(_), Kind::Integer(_) | Kind::Number(_))
            | (Value::Float(_), Kind::Number(_))
            | (Value::String(_), Kind::Text { .. } | Kind::OneOf(_))
    )
}

fn wrong_value(node: &Node, kind: &Kind, key: &str) -> Finding {
    let found = node.value.describe();
    let finding = match (&node.value, kind) {
        (Value::Float(value), Kind::Number(_)) if !value.is_finite() => {
            Finding::new(key, format!("`{key}` is not a finite number"))
                .help(format!("give a {kind}"))
        }
        (Value::HugeInteger(_), Kind::Integer(_) | Kind::Number(_)) => Finding::new(
            key,
            format!("`{key}` is {found}, which does not fit in 64 bits"),
        )
        .help(format!("it takes {}", with_article(kind))),
        (Value::String(text), Kind::OneOf(choices)) => {
            let mut finding = Finding::new(key, format!("`{key}` cannot be {found}"));
            let listed: Vec<String> = choices.iter().map(|c| text::quote(&c.value)).collect();
            let meant = closest(text, choices.iter().map(|choice| choice.value.as_str()));
            finding.help = Some(match meant {
                Some(meant) => format!(
                    "did you mean {}? allowed: {}",
                    text::quote(meant),
                    listed.join(", ")
                ),
                None => format!("allowed: {}", listed.join(", ")),
            });
            finding
        }
        (value, Kind::List { item, .. }) if same_form(value, item) => {
            Finding::new(key, format!("`{key}` is {found}, but takes a {kind}"))
                .help("put square brackets around it")
        }
        (Value::List(_), Kind::List { min_items: 1, .. }) => {
            Finding::new(key, format!("`{key}` is {found}"))
                .help(format!("give at least one; it takes a {kind}"))
        }
        (Value::String(_), Kind::Text { .. }) => Finding::new(key, format!("`{key}` is empty"))
            .help("give it a value, or leave the key out to have its default"),
        (Value::Integer(value), Kind::Integer(bounds) | Kind::Number(bounds)) => {
            out_of_range(key, *value as f64, &value.to_string(), bounds, kind)
        }
        (Value::Float(value), Kind::Number(bounds)) => {
            out_of_range(key, *value, &text::number(*value), bounds, kind)
        }
        _ => Finding::new(
            key,
            format!("`{key}` is {found}, but takes {}", with_article(kind)),
        )
        .help(type_help(&node.value, kind, key)),
    };
    let location = node.origin.as_ref().map(|origin| origin.value_location());
    finding.at(location)
}

fn out_of_range(key: &str, value: f64, shown: &str, bounds: &Bounds, kind: &Kind) -> Finding {
    let mut help = format!("it takes {}", with_article(kind));
    if let Some(max) = bounds.unstated_max().filter(|max| value > *max) {
        help = format!("{help}, at most {max}");
    }
    Finding::new(key, format!("`{key}` is out of range: {shown}")).help(help)
}

fn with_article(kind: &Kind) -> String {
    let text = kind.to_string();
    match text.chars().next() {
        Some('o') => text,
        Some('a' | 'e' | 'i' | 'u') => format!("an {text}"),
        _ => format!("a {text}"),
    }
}

/// How a value of the wrong type becomes one of the right type.
fn type_help(value: &Value, kind: &Kind, key: &str) -> String {
    let name = key.rsplit('.').next().unwrap_or(key);
    let takes_number = |kind: &Kind| matches!(kind, Kind::Integer(_) | Kind::Number(_));
    match (value, kind) {
        (Value::String(text), Kind::Either(kinds))
            if kinds.iter().any(takes_number) && text.parse::<f64>().is_ok() =>
        {
            format!("write it without quotes: {name} = {text}")
        }
        (Value::String(text), Kind::Integer(_) | Kind::Number(_) | Kind::Boolean)
            if text.parse::<f64>().is_ok() || text == "true" || text == "false" =>
        {
            format!("write it without quotes: {name} = {text}")
        }
        (Value::Float(value), Kind::Integer(_)) if value.fract() == 0.0 => {
            format!("write it without a fraction: {name} = {value}")
        }
        (_, Kind::Table(section)) => {
            let keys: Vec<String> = section.names().map(|name| format!("`{name}`")).collect();
            if keys.is_empty() {
                "write it as a table".into()
            } else {
                format!("it is a section; its keys are {}", text::and_list(&keys))
            }
        }
        (Value::Table(_), _) => format!("it is a key, not a section: {name} = …"),
        _ => format!("`mlrm config explain {key}` says more"),
    }
}

/// The finding for a key or section (`what`) that nobody knows, and the key that was probably meant.
pub(crate) fn unknown(
    what: &str,
    name: &str,
    path: &str,
    section: &Section,
) -> (Finding, Option<String>) {
    let finding = Finding::new(path, format!("unknown {what} `{path}`"));
    if let Some(meant) = closest(name, section.names()) {
        let meant = join(&section.key, meant);
        return (
            finding.help(format!("did you mean `{meant}`?")),
            Some(meant),
        );
    }
    let elsewhere = keys_elsewhere(name, section);
    if !elsewhere.is_empty() {
        let listed: Vec<String> = elsewhere.iter().map(|key| format!("`{key}`")).collect();
        let help = format!("did you mean {}?", listed.join(" or "));
        return (finding.help(help), elsewhere.into_iter().next());
    }
    let keys: Vec<String> = section.names().map(|name| format!("`{name}`")).collect();
    let place = match section.key.as_str() {
        "" => "sections".to_owned(),
        key => format!("keys of [{key}]"),
    };
    let nearest = nearest(name, section.names()).map_or("", |(_, name)| name);
    let help = format!(
        "the nearest valid key is `{}`; {place}: {}",
        join(&section.key, nearest),
        keys.join(", ")
    );
    (finding.help(help), None)
}

/// Keys of other sections that have this name, else those most like it; three at most.
fn keys_elsewhere(name: &str, section: &Section) -> Vec<String> {
    let paths = catalog().paths();
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let mut scored: Vec<(f64, &String)> = paths
        .iter()
        // Items of a list of tables cannot be reached by a path.
        .filter(|path| !path.starts_with("eval.slices.") || section.key == "eval.slices")
        .map(|path| (likeness(name, &last(path)), path))
        .filter(|(score, _)| *score >= 0.9)
        .collect();
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let best = scored.first().map_or(0.0, |(score, _)| *score);
    scored
        .into_iter()
        .take_while(|(score, _)| *score == best)
        .take(3)
        .map(|(_, path)| path.clone())
        .collect()
}
