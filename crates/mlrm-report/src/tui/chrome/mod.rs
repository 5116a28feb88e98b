//! What surrounds every view: tabs, progress, keys, help.

mod help;
mod keys;

pub(super) use help::help;

use mlrm_events::EndReason;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use crate::describe;
use crate::format;
use crate::state::Status;
use crate::tui::app::{SMALLEST, Screen, View};
use crate::tui::theme::Role;
use crate::tui::widgets::{fitted, put, put_line, put_right};

/// Draws header and footer; returns what is left for the view.
pub(super) fn frame(screen: &Screen, area: Rect, buffer: &mut Buffer) -> Rect {
    tabs(screen, area, buffer);
    progress(
        screen,
        Rect {
            y: area.y + 1,
            ..area
        },
        buffer,
    );
    let footer_rows = if area.height >= 24 { 2 } else { 1 };
    let footer = Rect {
        y: area.y + area.height - footer_rows,
        height: footer_rows,
        ..area
    };
    keys::keys(screen, footer, buffer);
    // Air where there is room.
    let above = if area.height >= 20 { 3 } else { 2 };
    Rect {
        y: area.y + above,
        height: area.height - above - footer_rows,
        ..area
    }
}

/// Where a tab stands: first column and text.
fn tab_places() -> impl Iterator<Item = (View, u16, String)> {
    let mut column = 0;
    View::ALL.into_iter().enumerate().map(move |(index, view)| {
        let text = format!("{} {}", index + 1, view.title());
        let start = column;
        column += text.len() as u16 + 1;
        (view, start, text)
    })
}

/// The tab at a column of the first row.
pub(super) fn tab_at(column: u16) -> Option<View> {
    tab_places()
        .find(|(_, start, text)| (*start..start + text.len() as u16).contains(&column))
        .map(|(view, _, _)| view)
}

fn tabs(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let theme = screen.theme;
    for (view, start, text) in tab_places() {
        let place = Rect {
            x: area.x + start,
            width: area.width.saturating_sub(start),
            ..area
        };
        if view == screen.app.view {
            put(buffer, place, 0, &text, theme.selected());
        } else {
            put(buffer, place, 0, &text[..1], theme.role(Role::Accent));
            let title = Rect {
                x: place.x + 1,
                width: place.width.saturating_sub(1),
                ..place
            };
            put(buffer, title, 0, &text[1..], Style::new());
        }
    }
    let used = tab_places()
        .last()
        .map_or(0, |(_, start, text)| start + text.len() as u16);
    let room = usize::from(area.width.saturating_sub(used + 2));
    if room >= 12 {
        let name = fitted(&screen.app.run_name, room.saturating_sub(7), theme);
        let line = Line::from(vec![
            Span::styled(name, theme.strong()),
            Span::styled(format!(" {} ", theme.dot()), theme.muted()),
            Span::styled("mlrm", theme.muted()),
        ]);
        put_right(buffer, area, 0, &line);
    }
}

/// `running  1,234 / 5,000  ████░░  24.7 %  12 m 03 s left`.
fn progress(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let (state, theme) = (screen.state, screen.theme);
    let (glyph, text, style) = status(screen);
    let mut left = vec![
        Span::styled(
            format!("{glyph} {text}"),
            style.add_modifier(Modifier::BOLD),
        ),
        Span::raw("  "),
    ];
    let steps = match state.total_steps() {
        Some(total) => format!(
            "step {} of {}",
            format::count(state.step),
            format::count(total)
        ),
        None => format!("step {}", format::count(state.step)),
    };
    left.push(Span::raw(steps));
    if let Some(step) = state.last_step.as_ref().filter(|_| area.width >= 100) {
        left.push(Span::styled(
            format!("  epoch {:.2}", step.epoch),
            theme.muted(),
        ));
    }
    let right = Line::from(time_spans(screen, area.width >= 80));
    let left = Line::from(left);
    let used = left.width() + right.width() + 4;
    put_line(buffer, area, 0, &left);
    put_right(buffer, area, 0, &right);
    let Some(share) = state.progress() else {
        return;
    };
    let percent = format!(" {:>3.0} %", share * 100.0);
    let Some(room) = usize::from(area.width).checked_sub(used + percent.len()) else {
        return;
    };
    if room < 6 {
        return;
    }
    let bar = Rect {
        x: area.x + left.width() as u16 + 2,
        width: area.width,
        ..area
    };
    let bar = Rect {
        width: room as u16,
        ..bar
    };
    track(screen, bar, share, buffer);
    let after = Rect {
        x: bar.x + bar.width,
        width: percent.len() as u16,
        ..bar
    };
    put(buffer, after, 0, &percent, Style::new());
}

/// The bar of the run's progress, over a faint track.
fn track(screen: &Screen, area: Rect, share: f64, buffer: &mut Buffer) {
    let theme = screen.theme;
    let width = usize::from(area.width);
    if !theme.unicode {
        put(
            buffer,
            area,
            0,
            &theme.bar(share, width),
            theme.role(Role::Accent),
        );
        return;
    }
    put(
        buffer,
        area,
        0,
        &"━".repeat(width),
        theme.muted().add_modifier(Modifier::DIM),
    );
    let full = (share * width as f64).round() as usize;
    put(buffer, area, 0, &"━".repeat(full), theme.role(Role::Accent));
}

fn time_spans(screen: &Screen, long: bool) -> Vec<Span<'static>> {
    let (state, theme) = (screen.state, screen.theme);
    let mut spans = Vec::new();
    if let Some(seconds) = active_seconds(screen).filter(|_| long || state.ended.is_some()) {
        spans.push(Span::styled("took ".to_owned(), theme.muted()));
        spans.push(Span::raw(format::duration(seconds)));
        if state.ended.is_none() {
            spans[0] = Span::styled("for ".to_owned(), theme.muted());
            spans.push(Span::raw("  "));
        }
    }
    // Of a run that fell silent nobody knows.
    if silence(screen).is_none()
        && let Some(seconds) = state.seconds_left()
    {
        spans.push(Span::styled(format::duration(seconds), theme.strong()));
        spans.push(Span::styled(" left", theme.muted()));
    }
    spans
}

/// The process's active time up to now; of a run that fell silent, up to its newest event.
fn active_seconds(screen: &Screen) -> Option<f64> {
    let state = screen.state;
    match (state.status(), silence(screen)) {
        (Status::Running, None) => state.pace.active_seconds(screen.now),
        _ => state.active_seconds(),
    }
}

/// Seconds without an event, where a live run should have sent several.
fn silence(screen: &Screen) -> Option<f64> {
    let state = screen.state;
    let quiet = screen.now - state.last_time?;
    let patience = 60.0_f64.max(20.0 * state.pace.seconds_per_step().unwrap_or(0.0));
    (state.status() == Status::Running && quiet > patience).then_some(quiet)
}

fn status(screen: &Screen) -> (&'static str, String, Style) {
    let theme = screen.theme;
    let glyph = |unicode: &'static str, ascii: &'static str| {
        if theme.unicode { unicode } else { ascii }
    };
    match screen.state.status() {
        Status::Waiting => (glyph("◌", "?"), "waiting for events".into(), theme.muted()),
        Status::Paused => (glyph("⏸", "="), "paused".into(), theme.role(Role::Visual)),
        Status::Ended(reason) => {
            let (glyph, role) = match reason {
                EndReason::Completed => (glyph("✓", "+"), Role::Good),
                EndReason::Failed => (glyph("✗", "!"), Role::Warning),
                EndReason::Stopped | EndReason::Other => (glyph("■", "#"), Role::Visual),
            };
            (glyph, describe::end_reason(reason).into(), theme.role(role))
        }
        Status::Running => match silence(screen) {
            Some(quiet) => (
                glyph("◌", "?"),
                format!("silent for {}", format::duration(quiet)),
                theme.role(Role::Warning),
            ),
            None => (glyph("●", ">"), "running".into(), theme.role(Role::Good)),
        },
    }
}

/// A message instead of the views.
pub(super) fn too_small(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let lines = [
        format!("mlrm needs {}x{} cells,", SMALLEST.0, SMALLEST.1),
        format!("this terminal has {}x{}.", area.width, area.height),
        "Enlarge it, or q to leave.".to_owned(),
    ];
    let top = area.height.saturating_sub(lines.len() as u16) / 2;
    for (row, line) in lines.iter().enumerate() {
        let pad = usize::from(area.width).saturating_sub(line.len()) / 2;
        let style = if row == 0 {
            screen.theme.strong()
        } else {
            Style::new()
        };
        put(
            buffer,
            area,
            top + row as u16,
            &(" ".repeat(pad) + line),
            style,
        );
    }
}
