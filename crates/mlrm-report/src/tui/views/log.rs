//! The events as lines, the newest first.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use crate::format;
use crate::state::LogEntry;
use crate::tui::app::Screen;
use crate::tui::theme::Role;
use crate::tui::widgets::{fitted, panel, put, put_line};

/// The lines that filter and search leave.
pub(in crate::tui) fn lines<'a>(screen: &Screen<'a>) -> impl Iterator<Item = &'a LogEntry> {
    let (filter, search) = (screen.app.filter, screen.app.search.to_lowercase());
    screen.state.log().filter(move |entry| {
        filter.passes(&entry.name)
            && (search.is_empty()
                || entry.text().to_lowercase().contains(&search)
                || entry.name.contains(&search))
    })
}

pub(in crate::tui) fn draw(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let theme = screen.theme;
    let count = lines(screen).count();
    let mut remarks = vec![Span::styled(
        format!(
            "{} of {} events",
            format::count(count as u64),
            format::count(screen.state.events)
        ),
        theme.muted(),
    )];
    if !screen.app.search.is_empty() {
        let text = format!(" with \"{}\"", screen.app.search);
        remarks.push(Span::styled(text, theme.role(Role::Accent)));
    }
    let title = format!("Events ({})", screen.app.filter.title());
    let below = panel(buffer, area, theme, &title, remarks);
    if count == 0 {
        put(
            buffer,
            below,
            1,
            "  nothing to show; f shows other events",
            theme.muted(),
        );
        return;
    }
    let start = screen.state.first_time.unwrap_or(0.0);
    let shown = lines(screen)
        .skip(screen.app.log_scroll)
        .take(usize::from(below.height));
    for (row, entry) in shown.enumerate() {
        let step = entry.step.map(format::count).unwrap_or_default();
        let (mark, style) = mark(screen, entry);
        let head = format!(
            "{:>9} {step:>9} ",
            format::clock(entry.time_seconds - start)
        );
        let room = usize::from(below.width).saturating_sub(head.len() + 2);
        let line = Line::from(vec![
            Span::styled(head, theme.muted()),
            Span::styled(format!("{mark} "), style),
            Span::styled(
                fitted(&entry.text(), room, theme),
                style.remove_modifier(Modifier::BOLD),
            ),
        ]);
        put_line(buffer, below, row as u16, &line);
    }
}

fn mark(screen: &Screen, entry: &LogEntry) -> (&'static str, Style) {
    let theme = screen.theme;
    let glyph = |unicode, ascii| if theme.unicode { unicode } else { ascii };
    match entry.name.as_str() {
        "warning" => ("!", theme.role(Role::Warning)),
        "evaluation" => (glyph("◆", "*"), theme.role(Role::Full)),
        "checkpoint_saved" => (glyph("▪", "+"), theme.role(Role::Text)),
        "run_started" | "run_ended" => (glyph("●", "@"), theme.strong()),
        "control" => (glyph("▸", ">"), theme.role(Role::Visual)),
        "saliency" => (glyph("◇", "o"), theme.role(Role::Other)),
        _ => (" ", Style::new()),
    }
}
