//! Text and panels put straight into the buffer.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::tui::theme::Theme;

/// Writes `text` from the left edge of `area`'s row `row`, cut at its right edge; returns the
/// column after it.
pub(crate) fn put(buffer: &mut Buffer, area: Rect, row: u16, text: &str, style: Style) -> u16 {
    put_line(
        buffer,
        area,
        row,
        &Line::from(Span::styled(text.to_owned(), style)),
    )
}

/// [`put`] for styled spans.
pub(crate) fn put_line(buffer: &mut Buffer, area: Rect, row: u16, line: &Line) -> u16 {
    if row >= area.height {
        return area.x;
    }
    // Styles are laid over what is there; text is to look the same wherever it lands.
    let width = (line.width() as u16).min(area.width);
    buffer.set_style(
        Rect {
            y: area.y + row,
            width,
            height: 1,
            ..area
        },
        Style::reset(),
    );
    buffer.set_line(area.x, area.y + row, line, area.width).0
}

/// Writes `line` to the right edge of `area`'s row `row`, cut at its left edge.
pub(crate) fn put_right(buffer: &mut Buffer, area: Rect, row: u16, line: &Line) {
    let width = (line.width() as u16).min(area.width);
    let place = Rect {
        x: area.x + area.width - width,
        width,
        ..area
    };
    put_line(buffer, place, row, line);
}

/// `text` in at most `width` cells, the cut marked.
pub(crate) fn fitted(text: &str, width: usize, theme: &Theme) -> String {
    if Line::from(text).width() <= width {
        return text.to_owned();
    }
    let mark = if theme.unicode { "…" } else { "~" };
    let mut cut = String::new();
    for letter in text.chars() {
        cut.push(letter);
        if Line::from(cut.as_str()).width() + 1 > width {
            cut.pop();
            break;
        }
    }
    if width == 0 {
        String::new()
    } else {
        cut + mark
    }
}

/// A heading with a rule behind it; returns the area below.
pub(crate) fn panel(
    buffer: &mut Buffer,
    area: Rect,
    theme: &Theme,
    title: &str,
    remarks: Vec<Span<'static>>,
) -> Rect {
    if area.height == 0 || area.width == 0 {
        return area;
    }
    let end = if title.is_empty() {
        area.x
    } else {
        put(buffer, area, 0, &format!("{title} "), theme.strong())
    };
    let room = Rect {
        x: end,
        width: (area.x + area.width).saturating_sub(end),
        ..area
    };
    put(
        buffer,
        room,
        0,
        &theme.rule().repeat(usize::from(room.width)),
        theme.muted(),
    );
    let mut line = Line::from(remarks);
    if !line.spans.is_empty() && room.width > 2 {
        line.spans.insert(0, Span::raw(" "));
        // What does not fit whole is left out from the end, never cut within a word.
        while line.width() > usize::from(room.width) && line.spans.len() > 1 {
            line.spans.pop();
        }
        if line.spans.len() > 1 {
            put_right(buffer, room, 0, &line);
        }
    }
    Rect {
        y: area.y + 1,
        height: area.height - 1,
        ..area
    }
}

/// Rows or columns with one cell of air between columns.
pub(crate) fn sections<const N: usize>(
    area: Rect,
    columns: bool,
    sizes: [Constraint; N],
) -> [Rect; N] {
    if columns {
        Layout::horizontal(sizes).spacing(2).areas(area)
    } else {
        Layout::vertical(sizes).areas(area)
    }
}
