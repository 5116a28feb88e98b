//! All keys on one page.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Widget};

use crate::tui::app::Screen;
use crate::tui::theme::Role;
use crate::tui::widgets::{put, put_line};

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
pub(in crate::tui) fn help(screen: &Screen, area: Rect, buffer: &mut Buffer) {
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
