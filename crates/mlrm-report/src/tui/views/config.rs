//! What the run was started with.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use serde_json::Value;

use crate::format;
use crate::tui::app::Screen;
use crate::tui::theme::Role;
use crate::tui::widgets::{fitted, panel, put, put_line};

/// A line: a heading of a table, or a key with its value.
pub(in crate::tui) enum Entry {
    Heading(String),
    Item(String, String),
}

/// The lines that the search leaves.
pub(in crate::tui) fn lines(screen: &Screen) -> Vec<Entry> {
    let Some((time, started)) = &screen.state.started else {
        return Vec::new();
    };
    let mut entries = vec![Entry::Heading("about this run".into())];
    let mut item = |key: &str, value: String| entries.push(Entry::Item(key.into(), value));
    item("started", format::date(*time));
    item("device", started.device.clone());
    item("total steps", format::count(started.total_steps));
    item("train pairs", format::count(started.train_pairs));
    item("notes", format::count(started.notes));
    item("parameters", format::count(started.parameters_total));
    item(
        "parameters trained",
        format::count(started.parameters_trained),
    );
    if let Some(step) = started.resumed_from_step {
        item("resumed from step", format::count(step));
    }
    for (name, version) in &started.versions {
        item(&format!("version of {name}"), version.clone());
    }
    let search = screen.app.search.to_lowercase();
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
    let mut headed = false;
    for (key, value) in map.iter().filter(|(_, value)| !value.is_object()) {
        if !headed && !path.is_empty() {
            entries.push(Entry::Heading(path.to_owned()));
            headed = true;
        }
        let shown = match value {
            Value::Null => "not set".to_owned(),
            other => other.to_string(),
        };
        entries.push(Entry::Item(
            if full && !path.is_empty() {
                format!("{path}.{key}")
            } else {
                key.clone()
            },
            shown,
        ));
    }
    for (key, value) in map.iter().filter(|(_, value)| value.is_object()) {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        tables(&path, value, full, entries);
    }
}

pub(in crate::tui) fn draw(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let theme = screen.theme;
    let entries = lines(screen);
    let remark = match screen.app.search.as_str() {
        "" => Vec::new(),
        search => vec![Span::styled(
            format!("with \"{search}\""),
            theme.role(Role::Accent),
        )],
    };
    let below = panel(buffer, area, theme, "Config", remark);
    if entries.is_empty() {
        let text = if screen.state.started.is_some() {
            "  nothing found"
        } else {
            "  no run yet"
        };
        put(buffer, below, 1, text, theme.muted());
        return;
    }
    let keys = entries
        .iter()
        .map(|entry| match entry {
            Entry::Heading(_) => 0,
            Entry::Item(key, _) => key.len(),
        })
        .max()
        .unwrap_or(0)
        .min(usize::from(below.width) / 2);
    let shown = entries
        .iter()
        .skip(screen.app.config_scroll)
        .take(usize::from(below.height));
    for (row, entry) in shown.enumerate() {
        let row = row as u16;
        match entry {
            Entry::Heading(name) => {
                put(
                    buffer,
                    below,
                    row,
                    &format!("[{name}]"),
                    theme.role(Role::Accent),
                );
            }
            Entry::Item(key, value) => {
                let room = usize::from(below.width).saturating_sub(keys + 4);
                let key = fitted(key, keys, theme);
                let line = Line::from(vec![
                    Span::styled(format!("  {key:keys$}  "), theme.muted()),
                    Span::styled(fitted(value, room, theme), Style::new()),
                ]);
                put_line(buffer, below, row, &line);
            }
        }
    }
}
