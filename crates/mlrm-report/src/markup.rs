//! Text in HTML and SVG.

use mlrm_events::text::is_unseen_control;

/// `text` with what HTML and XML read as markup written as entities. Control characters, which
/// neither may hold, and those that turn the direction of the text around are left out.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter if is_unseen_control(letter) && !"\n\t".contains(letter) => {}
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn markup_becomes_text() {
        assert_eq!(
            escaped("<script>alert('x') && \"y\"</script>\u{0}\u{1b}[31m\u{202e}"),
            "&lt;script&gt;alert(&#39;x&#39;) &amp;&amp; &quot;y&quot;&lt;/script&gt;[31m"
        );
    }
}
