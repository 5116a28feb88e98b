//! What the run was started with.

use ratatui::style::Style;
use ratatui::text::Span;
use serde_json::Value;

use super::Page;
use crate::format;
use crate::state::RunState;
use crate::tui::app::App;
use crate::tui::chrome::{Hint, hint};
use crate::tui::pane::{Pane, fitted};
use crate::tui::theme::Role;

pub(super) struct Config;

/// A line: a heading of a table, or a key with its value.
enum Entry {
    Heading(String),
    Item(String, String),
}

/// The lines that the search leaves.
fn lines(app: &App, state: &RunState) -> Vec<Entry> {
    let Some((time, started)) = &state.started else {
        return Vec::new();
    };
    let mut entries = vec![Entry::Heading("about this run".into())];
    let mut item = |key: &str, value: String| entries.push(Entry::Item(key.into(), value));
    item("started", format::date(*time));
    item("device", started.device.clone());
    for (key, value) in [
        ("total steps", Some(started.total_steps)),
        ("train pairs", Some(started.train_pairs)),
        ("notes", Some(started.notes)),
        ("parameters", Some(started.parameters_total)),
        ("parameters trained", Some(started.parameters_trained)),
        ("resumed from step", started.resumed_from_step),
    ] {
        if let Some(value) = value {
            item(key, format::count(value));
        }
    }
    for (name, version) in &started.versions {
        item(&format!("version of {name}"), version.clone());
    }
    let search = app.search.to_lowercase();
    // What is found stands without its heading.
    tables("", &started.config, !search.is_empty(), &mut entries);
    if !search.is_empty() {
        entries.retain(|entry| match entry {
            Entry::Heading(_) => false,
            Entry::Item(key, value) => {
                key.to_lowercase().contains(&search) || value.to_lowercase().contains(&search)
            }
        });
    }
    entries
}

/// Like TOML: a table's own keys first, then its tables, each under its full name.
/// With `full`, keys have their tables' names before them.
fn tables(path: &str, value: &Value, full: bool, entries: &mut Vec<Entry>) {
    let Value::Object(map) = value else { return };
    let full_name = |key: &str| match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    let (tables_of, keys): (Vec<_>, Vec<_>) = map.iter().partition(|(_, value)| value.is_object());
    if !keys.is_empty() && !path.is_empty() {
        entries.push(Entry::Heading(path.to_owned()));
    }
    for (key, value) in keys {
        let shown = match value {
            Value::Null => "not set".to_owned(),
            other => other.to_string(),
        };
        let name = if full { full_name(key) } else { key.clone() };
        entries.push(Entry::Item(name, shown));
    }
    for (key, value) in tables_of {
        tables(&full_name(key), value, full, entries);
    }
}

impl Page for Config {
    fn keys(&self, _app: &App) -> Vec<Hint> {
        vec![hint("/", "find"), hint("j k", "scroll")]
    }

    fn list_length(&self, app: &App, state: &RunState) -> Option<usize> {
        Some(lines(app, state).len())
    }

    fn draw(&self, pane: Pane) {
        let (app, state, theme) = (pane.app, pane.state, pane.theme);
        let accent = theme.role(Role::Accent);
        let entries = lines(app, state);
        let remark = (!app.search.is_empty())
            .then(|| Span::styled(format!("with \"{}\"", app.search), accent));
        let mut below = pane.panel("Config", remark);
        if entries.is_empty() {
            let text = match state.started.is_some() {
                true => "  nothing found",
                false => "  no run yet",
            };
            below.put(1, text, theme.muted());
            return;
        }
        let widths = entries.iter().map(|entry| match entry {
            Entry::Heading(_) => 0,
            Entry::Item(key, _) => key.len(),
        });
        let width = usize::from(below.area.width);
        let keys = widths.max().unwrap_or(0).min(width / 2);
        let room = width.saturating_sub(keys + 4);
        let shown = entries.iter().skip(app.scroll[app.view as usize]);
        for (entry, row) in shown.zip(0..below.area.height) {
            match entry {
                Entry::Heading(name) => below.put(row, &format!("[{name}]"), accent),
                Entry::Item(key, value) => {
                    let key = format!("  {:keys$}  ", fitted(key, keys, theme));
                    let value = fitted(value, room, theme);
                    let spans = vec![
                        Span::styled(key, theme.muted()),
                        Span::styled(value, Style::new()),
                    ];
                    below.put_line(row, spans)
                }
            };
        }
    }
}
