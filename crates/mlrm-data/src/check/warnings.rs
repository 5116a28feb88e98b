//! What is no mistake, but may not be what was meant.

use mlrm_config::ExifOrientation;

use crate::error::{Problem, ProblemKind, shorten};
use crate::image::{DecodeOptions, PictureTraits};
use crate::notes::Note;

/// A picture this many times longer than wide loses most of itself to the centre crop, or is squeezed
/// beyond recognition.
const EXTREME_SHAPE: u32 = 8;

/// A note without a picture, where others have one.
pub(super) fn no_image() -> Problem {
    Problem::new(
        ProblemKind::NoImage,
        "the note has no picture",
        "add one, or set `data.on_missing_image` to \"text\" or \"drop\" for variants that look at \
         pictures",
    )
}

/// What of a picture is not shown to the model, or not as people see it.
pub(super) fn of_picture(
    traits: &PictureTraits,
    options: &DecodeOptions,
) -> impl Iterator<Item = Problem> + use<> {
    let PictureTraits { width, height, .. } = *traits;
    let long = width.max(height) / width.min(height).max(1);
    let turned = traits.turned && options.orientation == ExifOrientation::Ignore;
    let found = [
        turned.then(|| {
            Problem::new(
                ProblemKind::TurnedImage,
                "its EXIF orientation turns it, and pixels are taken as they are stored",
                "set `data.exif_orientation = \"apply\"`, or save it upright",
            )
        }),
        traits.sixteen_bit.then(|| {
            Problem::new(
                ProblemKind::SixteenBitImage,
                "its channels have 16 bits, of which the upper 8 are kept",
                "nothing is to be done unless the picture uses a small part of its range",
            )
        }),
        traits.transparent.then(|| {
            Problem::new(
                ProblemKind::TransparentImage,
                "transparent pixels are put on white",
                "save it on the background that it is shown on",
            )
        }),
        (long >= EXTREME_SHAPE).then(|| {
            Problem::new(
                ProblemKind::ExtremeShape,
                format!("{width} × {height} pixels: most of it is cut off or squeezed"),
                "crop it to what matters",
            )
        }),
    ];
    found.into_iter().flatten()
}

/// Files that look as if they had the same name.
pub(super) fn of_twins(twins: &[String]) -> Option<Problem> {
    let twin = twins.first()?;
    Some(Problem::new(
        ProblemKind::TwinImages,
        format!(
            "the name of another picture, `{}`, differs by its Unicode normal form only",
            twin.escape_unicode()
                .to_string()
                .chars()
                .take(240)
                .collect::<String>()
        ),
        format!("keep one of them under `{}`", shorten(twin)),
    ))
}

/// What of a note's text the prompt would show that nobody wrote, or nothing at all.
pub(super) fn of_text(note: &Note) -> impl Iterator<Item = Problem> + use<> {
    let texts = || [&note.title, &note.content].into_iter().chain(&note.topics);
    let markup = texts().find_map(|text| markup(text)).map(|found| {
        Problem::new(
            ProblemKind::Markup,
            format!("the text holds markup, as in `{}`", shorten(found)),
            "strip it: the prompt shows it to the model as it is",
        )
    });
    let mut characters = texts().flat_map(|text| text.chars());
    let any = texts().any(|text| !text.trim().is_empty());
    let invisible = (any && characters.all(is_invisible)).then(|| {
        Problem::new(
            ProblemKind::InvisibleText,
            "title, topics and content hold nothing to see",
            "give the note some text",
        )
    });
    markup.into_iter().chain(invisible)
}

/// The first tag or character reference of HTML in a text.
fn markup(text: &str) -> Option<&str> {
    let starts = text.match_indices(['<', '&']);
    starts
        .map(|(start, _)| &text[start..])
        .find_map(|rest| tag(rest).or_else(|| reference(rest)))
}

/// `<b>`, `</p>`, `<br/>`, `<img src=…>`: a name of letters right behind the bracket, closed before the
/// next one is opened.
fn tag(rest: &str) -> Option<&str> {
    let inside = rest.strip_prefix('<')?;
    let inside = inside.strip_prefix('/').unwrap_or(inside);
    let name = inside.len()
        - inside
            .trim_start_matches(|c: char| c.is_ascii_alphanumeric())
            .len();
    let known = [
        "a", "b", "br", "center", "div", "em", "font", "h1", "h2", "h3", "h4", "h5", "h6", "hr",
        "i", "img", "li", "ol", "p", "script", "span", "strong", "style", "sub", "sup", "table",
        "tbody", "td", "th", "tr", "u", "ul",
    ];
    let name = inside[..name].to_ascii_lowercase();
    let end = rest[1..].find(['<', '>'])? + 1;
    (known.contains(&name.as_str()) && rest[end..].starts_with('>')).then(|| &rest[..=end])
}

/// `&amp;`, `&#39;`, `&nbsp;`: what HTML unescapes to something else.
fn reference(rest: &str) -> Option<&str> {
    const LONGEST: usize = 32;
    let end = rest.bytes().take(LONGEST).position(|byte| byte == b';')?;
    let whole = &rest[..=end];
    (html_escape::decode_html_entities(whole) != whole).then_some(whole)
}

/// Characters that leave no mark, wherever they stand.
fn is_invisible(c: char) -> bool {
    let formats = matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}');
    formats || c.is_whitespace() || c.is_control()
}

/// How many events of users cannot be told before or after another of the same user. `events`: user
/// and time.
pub(super) fn of_times(mut events: Vec<(u32, i64)>) -> Option<Problem> {
    let all = events.len();
    events.sort_unstable();
    let tied: usize = events
        .chunk_by(|a, b| a == b)
        .map(<[_]>::len)
        .filter(|&count| count > 1)
        .sum();
    (tied > 0).then(|| {
        Problem::new(
            ProblemKind::TiedTimes,
            format!("{tied} of {all} events have the time of another event of the same user"),
            "log finer times where there are any: no pair is made of two views at the same time",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_tags_and_references_and_not_every_sign() {
        for text in [
            "<b>x</b>",
            "a<br/>b",
            "x &amp; y",
            "it&#39;s",
            "<A HREF='x'>y",
            "x</p>",
        ] {
            assert!(markup(text).is_some(), "{text}");
        }
        for text in [
            "a < b > c",
            "I <3 you",
            "AT&T; co",
            "x <y> z",
            "R&B",
            "<b",
            "a<b and c<d>",
            "&;",
        ] {
            assert_eq!(markup(text), None, "{text}");
        }
    }

    #[test]
    fn text_of_nothing_to_see_is_told_from_blank_and_from_text() {
        let kinds = |title: &str| {
            let note = Note {
                title: title.into(),
                ..Note::default()
            };
            of_text(&note)
                .map(|problem| problem.kind)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            kinds("\u{200b}\u{3164} \u{feff}"),
            [ProblemKind::InvisibleText]
        );
        assert_eq!(kinds("   "), []);
        assert_eq!(kinds("\u{200b}x"), []);
    }

    #[test]
    fn ties_are_counted_within_users() {
        assert_eq!(of_times(vec![(0, 5), (1, 5), (0, 6)]), None);
        let message = of_times(vec![(0, 5), (1, 5), (0, 5), (0, 5), (1, 7)])
            .unwrap()
            .message;
        assert_eq!(
            message,
            "3 of 5 events have the time of another event of the same user"
        );
    }
}
