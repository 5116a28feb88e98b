//! The events as lines, the newest first.

use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use super::Page;
use crate::format;
use crate::state::{LogEntry, RunState};
use crate::tui::app::App;
use crate::tui::chrome::{Hint, hint};
use crate::tui::pane::{Pane, fitted};
use crate::tui::theme::{Role, Theme};

pub(super) struct Log;

/// The lines that filter and search leave.
fn lines<'a>(app: &App, state: &'a RunState) -> impl Iterator<Item = &'a LogEntry> {
    let (filter, search) = (app.filter, app.search.to_lowercase());
    state.log().filter(move |entry| {
        filter.passes(&entry.name)
            && (search.is_empty()
                || entry.text().to_lowercase().contains(&search)
                || entry.name.contains(&search))
    })
}

impl Page for Log {
    fn keys(&self, app: &App) -> Vec<Hint> {
        let filter = hint("f", format!("show {}", app.filter.title()));
        vec![filter, hint("/", "find"), hint("j k", "scroll")]
    }

    fn list_length(&self, app: &App, state: &RunState) -> Option<usize> {
        Some(lines(app, state).count())
    }

    fn draw(&self, pane: Pane) {
        let (app, state, theme) = (pane.app, pane.state, pane.theme);
        let count = lines(app, state).count();
        let [shown, all] = [count as u64, state.events].map(format::count);
        let mut remarks = vec![Span::styled(
            format!("{shown} of {all} events"),
            theme.muted(),
        )];
        if !app.search.is_empty() {
            let text = format!(" with \"{}\"", app.search);
            remarks.push(Span::styled(text, theme.role(Role::Accent)));
        }
        let mut below = pane.panel(&format!("Events ({})", app.filter.title()), remarks);
        if count == 0 {
            below.put(1, "  nothing to show; f shows other events", theme.muted());
            return;
        }
        let start = state.first_time.unwrap_or(0.0);
        let shown = lines(app, state).skip(app.scroll[app.view as usize]);
        for (entry, row) in shown.zip(0..below.area.height) {
            let step = entry.step.map(format::count).unwrap_or_default();
            let (mark, style) = mark(theme, entry);
            let time = format::clock(entry.time_seconds - start);
            let head = format!("{time:>9} {step:>9} ");
            let room = usize::from(below.area.width).saturating_sub(head.len() + 2);
            let text = fitted(&entry.text(), room, theme);
            let spans = vec![
                Span::styled(head, theme.muted()),
                Span::styled(format!("{mark} "), style),
                Span::styled(text, style.remove_modifier(Modifier::BOLD)),
            ];
            below.put_line(row, spans);
        }
    }
}

fn mark(theme: &Theme, entry: &LogEntry) -> (&'static str, Style) {
    match entry.name.as_str() {
        "warning" => ("!", theme.role(Role::Warning)),
        "evaluation" => (theme.either("◆", "*"), theme.role(Role::Full)),
        "checkpoint_saved" => (theme.either("▪", "+"), theme.role(Role::Text)),
        "run_started" | "run_ended" => (theme.either("●", "@"), theme.strong()),
        "control" => (theme.either("▸", ">"), theme.role(Role::Visual)),
        "saliency" => (theme.either("◇", "o"), theme.role(Role::Other)),
        _ => (" ", Style::new()),
    }
}
