//! Text out of markup.

use html_escape::decode_html_entities;

/// Elements whose content is no text.
const SILENT: [&str; 2] = ["script", "style"];
/// Elements that do not part words.
const INLINE: [&str; 13] = [
    "a", "abbr", "b", "bdi", "em", "font", "i", "s", "small", "span", "strong", "sub", "u",
];

/// The text without tags and comments, entities as their characters, blanks as one. A `<` that
/// begins no tag is text.
pub(super) fn strip(text: &str) -> String {
    let mut bare = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        bare.push_str(&rest[..at]);
        let tag = &rest[at..];
        if let Some(comment) = tag.strip_prefix("<!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let begins = tag[1..]
            .trim_start_matches('/')
            .starts_with(|c: char| c.is_ascii_alphabetic())
            || tag.starts_with("<!");
        let Some(end) = tag.find('>').filter(|_| begins) else {
            bare.push('<');
            rest = &tag[1..];
            continue;
        };
        let name: String = tag[1..end]
            .trim_start_matches('/')
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect::<String>()
            .to_ascii_lowercase();
        rest = &tag[end + 1..];
        if SILENT.contains(&name.as_str()) && !tag.starts_with("</") {
            let close = rest.to_ascii_lowercase().find(&format!("</{name}"));
            rest = close.map_or("", |close| &rest[close..]);
        }
        if !INLINE.contains(&name.as_str()) {
            bare.push(' ');
        }
    }
    bare.push_str(rest);
    let text = decode_html_entities(&bare);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_goes_and_text_stays() {
        for (markup, wanted) in [
            ("Tom &amp; Jerry&nbsp;&#39;95", "Tom & Jerry '95"),
            ("<p>One</p><p>two<br/>three</p>", "One two three"),
            ("s<b>o</b>ft <!-- no > --> x", "soft x"),
            ("<STYLE>p {}</style>a<script>1 < 2</script>b", "a b"),
            ("3 < 4 and 5 > 4, I <3 it", "3 < 4 and 5 > 4, I <3 it"),
            ("&lt;b&gt;", "<b>"),
            ("<a href='x'", "<a href='x'"),
            ("plain", "plain"),
        ] {
            assert_eq!(strip(markup), wanted, "{markup}");
        }
    }
}
