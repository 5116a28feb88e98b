//! Cleaning of note text before it goes into a prompt (method §1).

use unicode_segmentation::UnicodeSegmentation;

/// `text` on one line: every run of line breaks between two lines becomes `sentence_mark`, tabs
/// become blanks, all other control characters (NUL too) are dropped, and blanks at both ends of a
/// line that a mark ends or begins are too. A line that ends with the mark already gets no second
/// one.
///
/// Format characters such as the zero-width joiner stay: emoji and several scripts need them, and
/// the prompt never reads special tokens out of note text.
pub fn clean(text: &str, sentence_mark: &str) -> String {
    let mark_sign = sentence_mark.trim_end();
    let mut cleaned = String::with_capacity(text.len());
    for line in text.split(is_line_break) {
        let line_start = cleaned.len();
        cleaned.extend(line.chars().filter_map(|c| match c {
            '\t' => Some(' '),
            c if c.is_control() => None,
            c => Some(c),
        }));
        let line = cleaned[line_start..].trim().to_owned();
        cleaned.truncate(line_start);
        if line.is_empty() {
            continue;
        }
        if !cleaned.is_empty() {
            if !mark_sign.is_empty() && cleaned.ends_with(mark_sign) {
                cleaned.push_str(&sentence_mark[mark_sign.len()..]);
            } else {
                cleaned.push_str(sentence_mark);
            }
        }
        cleaned.push_str(&line);
    }
    cleaned
}

/// Everything that Unicode counts as a mandatory line break.
fn is_line_break(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Most bytes that a budget has for each of its graphemes. Unicode sets no end to a grapheme: a letter
/// may carry 200,000 marks, and a tokenizer takes all of them for one word. The longest that people
/// write, families of emoji with skin colours, have 41.
pub const GRAPHEME_BYTES: usize = 64;

/// The first `most` graphemes of `text`, without blanks at the end when something was cut off; of
/// graphemes longer than [`GRAPHEME_BYTES`] in the mean, only as much as there is room for.
pub fn cut_graphemes(text: &str, most: usize) -> &str {
    // A text of few bytes has few graphemes: no need to look for their boundaries.
    if text.len() <= most {
        return text;
    }
    let bounded = &text[..text.floor_char_boundary(most.saturating_mul(GRAPHEME_BYTES))];
    match bounded.grapheme_indices(true).nth(most) {
        Some((end, _)) => bounded[..end].trim_end(),
        None if bounded.len() < text.len() => bounded.trim_end(),
        None => text,
    }
}

/// The last `most` graphemes of `text`, without blanks at the start when something was cut off; bounded
/// as [`cut_graphemes`] is.
pub fn last_graphemes(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let room = most.saturating_mul(GRAPHEME_BYTES);
    let start = text.ceil_char_boundary(text.len().saturating_sub(room));
    let bounded = &text[start..];
    match bounded.grapheme_indices(true).rev().take(most).last() {
        Some((0, _)) if start == 0 => text,
        Some((start, _)) => bounded[start..].trim_start(),
        None => "",
    }
}

/// `text` without its last `count` graphemes: what stands before [`last_graphemes`].
pub(crate) fn without_last_graphemes(text: &str, count: usize) -> &str {
    let first_left_out = text.grapheme_indices(true).rev().take(count).last();
    &text[..first_left_out.map_or(text.len(), |(start, _)| start)]
}

/// The longest beginning of `text` that ends between two graphemes and has at most `bytes` bytes,
/// without blanks at its end.
pub(crate) fn cut_bytes(text: &str, bytes: usize) -> &str {
    if bytes >= text.len() {
        return text;
    }
    let end = text
        .grapheme_indices(true)
        .map(|(start, grapheme)| start + grapheme.len())
        .take_while(|&end| end <= bytes)
        .last();
    text[..end.unwrap_or(0)].trim_end()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn line_breaks_become_one_sentence_mark() {
        assert_eq!(clean("a\nb", ". "), "a. b");
        assert_eq!(clean("a\r\nb\u{2028}c\u{85}d", ". "), "a. b. c. d");
        assert_eq!(clean("\n a \n \n\n b\n", ". "), "a. b");
        assert_eq!(clean("a.\nb!\nc", ". "), "a. b!. c");
        assert_eq!(clean("一。\n二\n", "。"), "一。二");
        assert_eq!(clean("\n\r\n", ". "), "");
    }

    #[test]
    fn control_characters_are_dropped_and_joiners_stay() {
        assert_eq!(clean("a\0b\u{7}c\u{1b}[0m\u{9f}d", ". "), "abc[0md");
        assert_eq!(clean("a\tb", ". "), "a b");
        let family = "👩\u{200d}👩\u{200d}👧";
        assert_eq!(clean(family, ". "), family);
    }

    #[test]
    fn cuts_fall_between_graphemes() {
        let family = "👩\u{200d}👩\u{200d}👧";
        let text = format!("a{family}e\u{301}b");
        assert_eq!(cut_graphemes(&text, 2), format!("a{family}"));
        assert_eq!(cut_graphemes(&text, 3), format!("a{family}e\u{301}"));
        assert_eq!(cut_graphemes(&text, 99), text);
        assert_eq!(cut_graphemes("ab cd", 3), "ab");
        assert_eq!(cut_graphemes("ab", 0), "");
        assert_eq!(cut_bytes(&text, 3), "a");
        assert_eq!(cut_bytes(&text, 1 + family.len()), format!("a{family}"));
        assert_eq!(cut_bytes("ab cd", 3), "ab");
    }

    proptest! {
        /// Against the definition: the graphemes one by one.
        #[test]
        fn cutting_keeps_whole_graphemes(text in "\\PC{0,40}", most in 0usize..45) {
            let kept = text.graphemes(true).take(most).collect::<String>();
            let expected = if kept.len() < text.len() { kept.trim_end() } else { kept.as_str() };
            prop_assert_eq!(cut_graphemes(&text, most), expected);
        }

        #[test]
        fn a_text_is_what_stands_before_its_end_and_its_end(text in "\\PC{0,40}", count in 0usize..45) {
            let graphemes: Vec<&str> = text.graphemes(true).collect();
            let kept = graphemes.len().saturating_sub(count);
            prop_assert_eq!(without_last_graphemes(&text, count), graphemes[..kept].concat());
        }

        #[test]
        fn cleaned_text_is_one_clean_line(text in any::<String>()) {
            let cleaned = clean(&text, ". ");
            prop_assert!(!cleaned.chars().any(|c| c.is_control() || is_line_break(c)));
            prop_assert_eq!(clean(&cleaned, ". "), cleaned.trim());
        }
    }

    #[test]
    fn a_grapheme_without_end_is_cut() {
        let endless = format!("x{}", "\u{301}".repeat(200_000));
        assert_eq!(cut_graphemes(&endless, 2).len(), 127);
        assert_eq!(last_graphemes(&endless, 2).len(), 128);
        assert_eq!(cut_graphemes("x\u{301}\u{302}", 1), "x\u{301}\u{302}");
        assert_eq!(cut_graphemes(&endless, 0), "");
    }

    #[test]
    fn the_last_graphemes_are_kept_whole() {
        assert_eq!(last_graphemes("Toy Story (1995)", 6), "(1995)");
        assert_eq!(last_graphemes("Toy Story (1995)", 7), "(1995)");
        assert_eq!(last_graphemes("Toy Story (1995)", 9), "ry (1995)");
        assert_eq!(last_graphemes("ab", 2), "ab");
        assert_eq!(last_graphemes("ab", 0), "");
        assert_eq!(last_graphemes("xe\u{301}e\u{301}", 1), "e\u{301}");
    }
}
