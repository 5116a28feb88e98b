//! The keys at the foot of the screen.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};

use crate::tui::app::{SMOOTHING, Screen, View};
use crate::tui::theme::Role;
use crate::tui::widgets::{put, put_line, put_right};

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

pub(super) fn keys(screen: &Screen, area: Rect, buffer: &mut Buffer) {
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
