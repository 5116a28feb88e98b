//! All keys on one page.

use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;
use ratatui::widgets::{Clear, Widget};

use crate::tui::pane::Pane;
use crate::tui::theme::Role;

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
pub(in crate::tui) fn help(mut pane: Pane) {
    let (theme, area, attached) = (pane.theme, pane.area, pane.app.attached);
    let widest = |of: fn(&(&str, &str)) -> usize| HELP.iter().map(of).max().unwrap_or(0);
    let keys_width = widest(|(key, _)| key.len());
    let width = (keys_width + widest(|(_, does)| does.len()) + 7) as u16;
    // What does not fit on a low screen is cut at the bottom, the empty line first.
    let low = usize::from(area.height) < HELP.len() + 4;
    let rows: Vec<_> = HELP
        .iter()
        .filter(|(key, _)| !low || !key.is_empty())
        .collect();
    let framed = usize::from(area.height) >= rows.len() + 4;
    let height = rows.len() as u16 + if framed { 4 } else { 0 };
    let (width, height) = (width.min(area.width), height.min(area.height));
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    Clear.render(place, pane.buffer);
    let mut page = pane.within(place);
    if framed {
        let rule = theme.rule().repeat(usize::from(width));
        page.put(0, &rule, theme.muted());
        page.put(0, " Keys ", theme.strong());
        page.put(height - 1, &rule, theme.muted());
    }
    for ((key, does), row) in rows.into_iter().zip(if framed { 2 } else { 0 }..) {
        let request = ["space", "s", "x x"].contains(key);
        let style = match request && !attached {
            true => theme.muted().add_modifier(Modifier::CROSSED_OUT),
            false => Style::new(),
        };
        let key = Span::styled(format!("{key:keys_width$}"), theme.role(Role::Accent));
        let does = Span::styled(*does, style);
        page.put_line(row, vec![Span::raw("  "), key, Span::raw("  "), does]);
    }
}
