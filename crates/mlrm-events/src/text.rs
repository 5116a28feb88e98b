//! Text of notes, files and errors where people read it: in a terminal, in Markdown.
//!
//! A title or a path may hold anything that UTF-8 holds. Escape sequences would move the cursor or
//! recolour the terminal, and bidirectional controls would show other letters than are there, so
//! both are written as `\u001b`: seen, harmless, and inside a JSON string still the same character.

use std::fmt::Write;

/// Whether a character changes how the text around it looks without being seen itself: control
/// characters, and the marks, embeddings, overrides and isolates of bidirectional text.
pub fn is_unseen_control(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` with every character of [`is_unseen_control`] written out; line breaks and tabs stay.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\t' => safe.push(letter),
            _ => push_seen(letter, &mut safe),
        }
    }
    safe
}

/// [`printable`] on one line: line breaks and tabs become spaces.
pub fn one_line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\r' | '\t' => safe.push(' '),
            _ => push_seen(letter, &mut safe),
        }
    }
    safe
}

/// [`one_line`] that Markdown shows as it is, also within the cell of a table.
pub fn markdown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let line = one_line(text);
    let mut letters = line.chars().peekable();
    let mut before = ' ';
    while let Some(letter) = letters.next() {
        let within_a_word =
            before.is_alphanumeric() && letters.peek().is_some_and(|after| after.is_alphanumeric());
        before = letter;
        match letter {
            // No emphasis, and names are full of them.
            '_' if within_a_word => safe.push('_'),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' | '~' => {
                safe.push('\\');
                safe.push(letter);
            }
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            letter => safe.push(letter),
        }
    }
    safe
}

fn push_seen(letter: char, safe: &mut String) {
    if is_unseen_control(letter) {
        // All of them are in the first plane: four digits, as JSON has it. A `String` takes it all.
        let _ = write!(safe, "\\u{:04x}", u32::from(letter));
    } else {
        safe.push(letter);
    }
}

/// Three significant digits and a binary unit: `1.53 GiB`.
pub fn bytes(value: u64) -> String {
    prefixed(
        value as f64,
        1024.0,
        &[" B", " KiB", " MiB", " GiB", " TiB"],
    )
}

/// Three significant digits of `value` in the largest of `units`, each `base` times the one before, of
/// which there is at least one.
pub fn prefixed(mut value: f64, base: f64, units: &[&str]) -> String {
    let mut index = 0;
    while value >= base && index + 1 < units.len() {
        value /= base;
        index += 1;
    }
    let digits = match value {
        _ if index == 0 => 0,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{}", units[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: &str = "a\u{1b}[31m|b\u{202e}c\r\nd\u{9b}e é 🎬 عربي";

    #[test]
    fn what_is_not_seen_is_written_out() {
        assert_eq!(
            printable(NASTY),
            "a\\u001b[31m|b\\u202ec\\u000d\nd\\u009be é 🎬 عربي"
        );
        assert_eq!(
            one_line(NASTY),
            "a\\u001b[31m|b\\u202ec  d\\u009be é 🎬 عربي"
        );
        assert_eq!(
            markdown("<b>|*\u{1b}`\n#1 & ~x~ _a_b_"),
            "&lt;b&gt;\\|\\*\\\\u001b\\` \\#1 &amp; \\~x\\~ \\_a_b\\_"
        );
    }

    #[test]
    fn a_json_string_stays_what_it_was() {
        let json = serde_json::to_string(NASTY).unwrap();
        let shown = printable(&json);
        assert!(!shown.chars().any(is_unseen_control), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), NASTY);
    }
}
