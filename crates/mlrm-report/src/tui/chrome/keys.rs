//! The keys at the foot of the screen.

use ratatui::style::Modifier;
use ratatui::text::{Line, Span};

use crate::tui::app::{App, SMOOTHING};
use crate::tui::pane::Pane;
use crate::tui::theme::{Role, Theme};

/// A key, what it does, and whether it does so now.
pub(in crate::tui) struct Hint {
    key: &'static str,
    does: String,
    available: bool,
}

/// A key that does something.
pub(in crate::tui) fn hint(key: &'static str, does: impl Into<String>) -> Hint {
    Hint {
        key,
        does: does.into(),
        available: true,
    }
}

impl App {
    /// The keys of views that are plots.
    pub(in crate::tui) fn plot_hints(&self) -> Vec<Hint> {
        let smoothing = hint("e", format!("smooth {}", SMOOTHING[self.smoothing]));
        vec![smoothing, self.axis_hint(), self.zoom_hint()]
    }

    pub(in crate::tui) fn axis_hint(&self) -> Hint {
        let other = if self.log_axis { "linear" } else { "log" };
        hint("l", format!("{other} axis"))
    }

    pub(in crate::tui) fn zoom_hint(&self) -> Hint {
        match self.zoom {
            0 => hint("+-", "zoom"),
            zoom => hint("+-", format!("zoom {}x", 1_u32 << zoom)),
        }
    }
}

/// Leaving, help and what a trainer can be asked for.
fn general_hints(pane: &Pane) -> Vec<Hint> {
    let live = pane.app.attached && pane.state.ended.is_none();
    let (save, stop) = match pane.area.width >= 80 {
        true => ("save now", "stop after step"),
        false => ("save", "stop"),
    };
    let pause = if pane.state.paused { "resume" } else { "pause" };
    let request = |key, does: &str| Hint {
        available: live,
        ..hint(key, does)
    };
    let mut hints = vec![hint("q", if live { "detach" } else { "quit" })];
    if pane.app.of_sweep {
        hints.push(hint("esc", "all runs"));
    }
    hints.extend([
        hint("?", "help"),
        hint("tab", "view"),
        request("space", pause),
        request("s", save),
        request("x", stop),
    ]);
    hints
}

pub(super) fn keys(mut pane: Pane) {
    let (app, theme, rows) = (pane.app, pane.theme, pane.area.height);
    if app.searching {
        let text = format!("find: {}{}  ", app.search, theme.either("▏", "_"));
        pane.put(0, &text, theme.role(Role::Accent));
        pane.put_right(0, Line::styled("enter keep  esc clear", theme.muted()));
        return;
    }
    let mut general = general_hints(&pane);
    let own = app.view.page().keys(app);
    if let Some(message) = &app.message {
        let style = theme.role(Role::Warning).add_modifier(Modifier::BOLD);
        pane.put(0, message, style);
        if rows < 2 {
            return;
        }
    } else if rows >= 2 {
        hint_line(&mut pane, 0, own, app.attached);
    } else {
        general.extend(own);
    }
    hint_line(&mut pane, rows - 1, general, app.attached);
}

/// As many hints as fit whole.
pub(in crate::tui) fn hint_line(pane: &mut Pane, row: u16, hints: Vec<Hint>, attached: bool) {
    let (theme, width) = (pane.theme, usize::from(pane.area.width));
    let mut line = Line::default();
    let mut hidden = false;
    for hint in hints {
        let available = hint.available;
        let spans = hint.spans(theme);
        let needed: usize = spans.iter().map(Span::width).sum();
        if line.width() + needed > width {
            hidden |= !available;
            continue;
        }
        line.spans.extend(spans);
        line.spans.push(Span::raw("  "));
    }
    let live = pane.state.ended.is_none();
    if !attached && !hidden && row + 1 == pane.area.height && live {
        let note = "(read-only)";
        if line.width() + note.len() <= width {
            line.spans.push(Span::styled(note, theme.muted()));
        }
    }
    pane.put_line(row, line);
}

impl Hint {
    fn spans(self, theme: &Theme) -> Vec<Span<'static>> {
        if !self.available {
            let off = theme.muted().add_modifier(Modifier::CROSSED_OUT);
            return vec![Span::styled(format!("{} {}", self.key, self.does), off)];
        }
        let key = theme.role(Role::Accent).add_modifier(Modifier::BOLD);
        let does = Span::styled(format!(" {}", self.does), theme.muted());
        vec![Span::styled(self.key, key), does]
    }
}
