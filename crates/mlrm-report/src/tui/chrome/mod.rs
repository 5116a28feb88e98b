//! What surrounds every view: tabs, progress, keys, help.

mod help;
mod keys;

pub(super) use help::help;
pub(super) use keys::{Hint, hint, hint_line};

use mlrm_events::EndReason;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::app::SMALLEST;
use super::pane::{Pane, fitted, rows};
use super::theme::{Role, Theme};
use super::views::View;
use crate::describe;
use crate::format;
use crate::state::{RunState, Status};

/// Draws header and footer; returns what is left for the view.
pub(super) fn frame(pane: &mut Pane) -> Rect {
    let height = pane.area.height;
    // Air where there is room.
    let sizes = [
        Constraint::Length(1),
        Constraint::Length(if height >= 20 { 2 } else { 1 }),
        Constraint::Min(0),
        Constraint::Length(if height >= 24 { 2 } else { 1 }),
    ];
    let [head, line, body, foot] = rows(pane.area, sizes);
    tabs(pane.within(head));
    progress(pane.within(line));
    keys::keys(pane.within(foot));
    body
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

fn tabs(mut pane: Pane) {
    let (theme, width) = (pane.theme, pane.area.width);
    let mut used = 0;
    for (view, start, text) in tab_places() {
        let mut place = pane.cut(start, width.saturating_sub(start));
        used = start + text.len() as u16;
        if view == place.app.view {
            place.put(0, &text, theme.selected());
        } else {
            let (digit, title) = text.split_at(1);
            let digit = Span::styled(digit, theme.role(Role::Accent));
            place.put_line(0, vec![digit, Span::raw(title)]);
        }
    }
    let room = usize::from(width.saturating_sub(used + 2));
    if room >= 12 {
        let name = fitted(&pane.app.run_name, room.saturating_sub(7), theme);
        let spans = vec![
            Span::styled(name, theme.strong()),
            Span::styled(format!(" {} ", theme.dot()), theme.muted()),
            Span::styled("mlrm", theme.muted()),
        ];
        pane.put_right(0, spans);
    }
}

/// `running  1,234 / 5,000  ████░░  24.7 %  12 m 03 s left`.
fn progress(mut pane: Pane) {
    let (state, theme, width) = (pane.state, pane.theme, pane.area.width);
    let (glyph, text, style) = status(state, theme, pane.now);
    let status = Span::styled(
        format!("{glyph} {text}"),
        style.add_modifier(Modifier::BOLD),
    );
    let steps = Span::raw(format!("  step {}", state.steps()));
    let mut left = Line::from(vec![status, steps]);
    if let Some(step) = state.last_step.as_ref().filter(|_| width >= 100) {
        let epoch = format!("  epoch {:.2}", step.epoch);
        left.push_span(Span::styled(epoch, theme.muted()));
    }
    let right = Line::from(time_spans(&pane, width >= 80));
    let start = left.width() as u16 + 2;
    let used = left.width() + right.width() + 4;
    pane.put_line(0, left);
    pane.put_right(0, right);
    let Some(share) = state.progress() else {
        return;
    };
    let percent = format!(" {:>3.0} %", share * 100.0);
    let room = usize::from(width).checked_sub(used + percent.len());
    let Some(room) = room.filter(|room| *room >= 6) else {
        return;
    };
    track(pane.cut(start, room as u16), share);
    let after = start + room as u16;
    pane.cut(after, percent.len() as u16)
        .put(0, &percent, Style::new());
}

/// The bar of the run's progress, over a faint track.
pub(super) fn track(mut pane: Pane, share: f64) {
    let (theme, width) = (pane.theme, usize::from(pane.area.width));
    let accent = theme.role(Role::Accent);
    if !theme.unicode {
        pane.put(0, &theme.bar(share, width), accent);
        return;
    }
    let faint = theme.muted().add_modifier(Modifier::DIM);
    pane.put(0, &"━".repeat(width), faint);
    let full = (share * width as f64).round() as usize;
    pane.put(0, &"━".repeat(full), accent);
}

fn time_spans(pane: &Pane, long: bool) -> Vec<Span<'static>> {
    let (state, theme) = (pane.state, pane.theme);
    let mut spans = Vec::new();
    let live = state.ended.is_none();
    if let Some(seconds) = active_seconds(pane).filter(|_| long || !live) {
        let word = if live { "for " } else { "took " };
        spans.push(Span::styled(word, theme.muted()));
        spans.push(Span::raw(format::duration(seconds)));
        if live {
            spans.push(Span::raw("  "));
        }
    }
    // Of a run that fell silent nobody knows.
    if silence(state, pane.now).is_none()
        && let Some(seconds) = state.seconds_left()
    {
        spans.push(Span::styled(format::duration(seconds), theme.strong()));
        spans.push(Span::styled(" left", theme.muted()));
    }
    spans
}

/// The process's active time up to now; of a run that fell silent, up to its newest event.
fn active_seconds(pane: &Pane) -> Option<f64> {
    match (pane.state.status(), silence(pane.state, pane.now)) {
        (Status::Running, None) => pane.state.pace.active_seconds(pane.now),
        _ => pane.state.active_seconds(),
    }
}

/// Seconds without an event, where a live run should have sent several.
fn silence(state: &RunState, now: f64) -> Option<f64> {
    let quiet = now - state.last_time?;
    let patience = 60.0_f64.max(20.0 * state.pace.seconds_per_step().unwrap_or(0.0));
    (state.status() == Status::Running && quiet > patience).then_some(quiet)
}

/// Glyph, words and style of where a run stands.
pub(super) fn status(state: &RunState, theme: &Theme, now: f64) -> (&'static str, String, Style) {
    let (glyph, text, role) = match state.status() {
        Status::Waiting => {
            let text = "waiting for events".into();
            return (theme.either("◌", "?"), text, theme.muted());
        }
        Status::Paused => (theme.either("⏸", "="), "paused".into(), Role::Visual),
        Status::Ended(reason) => {
            let (glyph, role) = match reason {
                EndReason::Completed => (theme.either("✓", "+"), Role::Good),
                EndReason::Failed => (theme.either("✗", "!"), Role::Warning),
                EndReason::Stopped | EndReason::Other => (theme.either("■", "#"), Role::Visual),
            };
            (glyph, describe::end_reason(reason).into(), role)
        }
        Status::Running => match silence(state, now) {
            Some(quiet) => {
                let text = format!("silent for {}", format::duration(quiet));
                (theme.either("◌", "?"), text, Role::Warning)
            }
            None => (theme.either("●", ">"), "running".into(), Role::Good),
        },
    };
    (glyph, text, theme.role(role))
}

/// A message instead of the views.
pub(super) fn too_small(mut pane: Pane) {
    let area = pane.area;
    let lines = [
        format!("mlrm needs {}x{} cells,", SMALLEST.0, SMALLEST.1),
        format!("this terminal has {}x{}.", area.width, area.height),
        "Enlarge it, or q to leave.".to_owned(),
    ];
    let top = area.height.saturating_sub(lines.len() as u16) / 2;
    for (line, row) in lines.iter().zip(0..) {
        let pad = usize::from(area.width).saturating_sub(line.len()) / 2;
        let style = match row {
            0 => pane.theme.strong(),
            _ => Style::new(),
        };
        pane.put(top + row, &(" ".repeat(pad) + line), style);
    }
}
