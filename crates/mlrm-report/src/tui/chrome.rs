//! What surrounds every view: tabs, progress, keys, help.

use mlrm_events::EndReason;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Widget};

use super::app::{SMALLEST, SMOOTHING, Screen, View};
use super::theme::Role;
use super::widgets::{fitted, put, put_line, put_right};
use crate::describe;
use crate::format;
use crate::state::Status;

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
    keys(screen, footer, buffer);
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
    if state.ended.is_none()
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

/// A key, what it does, and whether it does so now.
struct Hint {
    key: &'static str,
    does: String,
    available: bool,
}

fn hint(key: &'static str, does: impl Into<String>) -> Hint {
    Hint {
        key,
        does: does.into(),
        available: true,
    }
}

fn view_hints(screen: &Screen) -> Vec<Hint> {
    let app = screen.app;
    let smoothing = hint("e", format!("smooth {}", SMOOTHING[app.smoothing]));
    let axis = hint(
        "l",
        if app.log_axis {
            "linear axis"
        } else {
            "log axis"
        },
    );
    let zoom = hint(
        "+-",
        match app.zoom {
            0 => "zoom".to_owned(),
            zoom => format!("zoom {}x", 1_u32 << zoom),
        },
    );
    match app.view {
        View::Overview => vec![smoothing, axis, zoom],
        View::Attention => vec![
            hint(
                "a",
                if app.mass {
                    "saliency"
                } else {
                    "attention mass"
                },
            ),
            hint("[ ]", "layer"),
            zoom,
        ],
        View::Retrieval => vec![hint("m", "metric"), hint("[ ]", "slice"), axis, zoom],
        View::Fusion => vec![smoothing, axis, zoom],
        View::Log => vec![
            hint("f", format!("show {}", app.filter.title())),
            hint("/", "find"),
            hint("j k", "scroll"),
        ],
        View::Config => vec![hint("/", "find"), hint("j k", "scroll")],
    }
}

fn request_hints(screen: &Screen, long: bool) -> Vec<Hint> {
    let pause = if screen.state.paused {
        "resume"
    } else {
        "pause"
    };
    let live = screen.app.attached && screen.state.ended.is_none();
    let (save, stop) = if long {
        ("save now", "stop after step")
    } else {
        ("save", "stop")
    };
    [("space", pause), ("s", save), ("x", stop)]
        .into_iter()
        .map(|(key, does)| Hint {
            key,
            does: does.into(),
            available: live,
        })
        .collect()
}

fn general_hints(screen: &Screen) -> Vec<Hint> {
    let quit = if screen.app.attached && screen.state.ended.is_none() {
        "detach"
    } else {
        "quit"
    };
    vec![hint("q", quit), hint("?", "help"), hint("tab", "view")]
}

fn keys(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let (app, theme) = (screen.app, screen.theme);
    if app.searching {
        let text = format!(
            "find: {}{}  ",
            app.search,
            if theme.unicode { "▏" } else { "_" }
        );
        put(buffer, area, 0, &text, theme.role(Role::Accent));
        put_right(
            buffer,
            area,
            0,
            &Line::styled("enter keep  esc clear", theme.muted()),
        );
        return;
    }
    if let Some(message) = &app.message {
        put(
            buffer,
            area,
            0,
            message,
            theme.role(Role::Warning).add_modifier(Modifier::BOLD),
        );
        if area.height < 2 {
            return;
        }
    } else if area.height >= 2 {
        hint_line(screen, area, 0, view_hints(screen), buffer);
    }
    let mut hints = general_hints(screen);
    hints.extend(request_hints(screen, area.width >= 80));
    if area.height < 2 {
        hints.extend(view_hints(screen));
    }
    hint_line(screen, area, area.height - 1, hints, buffer);
}

/// As many hints as fit whole.
fn hint_line(screen: &Screen, area: Rect, row: u16, hints: Vec<Hint>, buffer: &mut Buffer) {
    let theme = screen.theme;
    let mut line = Line::default();
    let mut hidden = false;
    for hint in hints {
        let mut spans = hint_spans(screen, &hint);
        let width: usize = spans.iter().map(Span::width).sum();
        if line.width() + width > usize::from(area.width) {
            hidden |= !hint.available;
            continue;
        }
        line.spans.append(&mut spans);
        line.spans.push(Span::raw("  "));
    }
    if !screen.app.attached && !hidden && row + 1 == area.height && screen.state.ended.is_none() {
        let note = "(read-only)";
        if line.width() + note.len() <= usize::from(area.width) {
            line.spans.push(Span::styled(note, theme.muted()));
        }
    }
    put_line(buffer, area, row, &line);
}

fn hint_spans(screen: &Screen, hint: &Hint) -> Vec<Span<'static>> {
    let theme = screen.theme;
    if hint.available {
        let key = theme.role(Role::Accent).add_modifier(Modifier::BOLD);
        vec![
            Span::styled(hint.key, key),
            Span::styled(format!(" {}", hint.does), theme.muted()),
        ]
    } else {
        let off = theme.muted().add_modifier(Modifier::CROSSED_OUT);
        vec![Span::styled(format!("{} {}", hint.key, hint.does), off)]
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

const HELP: [(&str, &str); 17] = [
    ("1-6, tab, arrows", "choose a view, next, previous"),
    ("+ - 0, wheel", "zoom to the newest steps, all"),
    ("e", "smoothing of the lines"),
    ("l", "logarithmic or linear axis"),
    ("a", "attention: saliency or mass"),
    ("[ ]", "attention: layer; retrieval: slice"),
    ("m M", "retrieval: next, previous metric"),
    ("f", "log: which events"),
    ("/", "log, config: find text"),
    ("j k, page keys, wheel", "log, config: scroll"),
    ("", ""),
    ("space", "pause or resume training"),
    ("s", "save after this step"),
    ("x x", "save and stop after this step"),
    ("ctrl-c", "save and stop (watching: quit)"),
    ("q", "leave; a training goes on"),
    ("?", "this page; any key closes it"),
];

/// All keys, over the view.
pub(super) fn help(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let theme = screen.theme;
    let keys_width = HELP.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let text_width = HELP.iter().map(|(_, does)| does.len()).max().unwrap_or(0);
    // On a low screen the two halves stand beside each other only where they fit; else what does
    // not fit is cut at the bottom, the requests first in sight.
    let rows: Vec<_> = if usize::from(area.height) < HELP.len() + 4 {
        HELP.iter().filter(|(key, _)| !key.is_empty()).collect()
    } else {
        HELP.iter().collect()
    };
    let width = ((keys_width + text_width + 7) as u16).min(area.width);
    let frame_rows = if usize::from(area.height) >= rows.len() + 4 {
        4
    } else {
        0
    };
    let height = (rows.len() as u16 + frame_rows).min(area.height);
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    Clear.render(place, buffer);
    let rule = theme.rule().repeat(usize::from(width));
    let mut row = 0;
    if frame_rows > 0 {
        put(buffer, place, 0, &rule, theme.muted());
        put(buffer, place, 0, " Keys ", theme.strong());
        put(buffer, place, height - 1, &rule, theme.muted());
        row = 2;
    }
    for (key, does) in rows {
        let requests = ["space", "s", "x x"].contains(key);
        let off = requests && !screen.app.attached;
        let style = if off {
            theme.muted().add_modifier(Modifier::CROSSED_OUT)
        } else {
            Style::new()
        };
        let line = Line::from(vec![
            Span::raw("  "),
            Span::styled(format!("{key:keys_width$}"), theme.role(Role::Accent)),
            Span::raw("  "),
            Span::styled(*does, style),
        ]);
        put_line(buffer, place, row, &line);
        row += 1;
    }
}
