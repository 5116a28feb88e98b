//! Template files: one a language, four prompt styles each (method §1).

use std::fs;
use std::path::Path;

use mlrm_config::{PromptSettings, Variant};
use serde::{Deserialize, Serialize};

use crate::error::{DataError, Result};

const SHIPPED: [(&str, &str); 2] = [
    ("en", include_str!("../../templates/en.toml")),
    ("zh", include_str!("../../templates/zh.toml")),
];

/// How a template file spells the place of the picture, whatever the tokenizer's token is.
const IMAGE_MARKER: &str = "<IMG>";
/// How a template file spells the mICL token.
const IMAGE_EMB_MARKER: &str = "<IMG_EMB>";

/// What a prompt shows of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PromptStyle {
    /// Title, topics and content.
    Text,
    /// The picture.
    Image,
    /// Picture and text together.
    Basic,
    /// First the picture, compressed into one word, then the text (multimodal in-context learning).
    Micl,
}

impl PromptStyle {
    /// The name in template files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Basic => "basic",
            Self::Micl => "micl",
        }
    }

    /// Whether the picture's visual tokens stand in the prompt.
    pub fn has_image(self) -> bool {
        self != Self::Text
    }

    /// Whether title, topics and content stand in the prompt.
    pub fn has_text(self) -> bool {
        self != Self::Image
    }

    /// Whether the mICL token stands in the prompt.
    pub fn has_image_emb(self) -> bool {
        self == Self::Micl
    }
}

impl From<Variant> for PromptStyle {
    fn from(variant: Variant) -> Self {
        match variant {
            Variant::Text | Variant::LateFusion => Self::Text,
            Variant::Image => Self::Image,
            Variant::Basic | Variant::LateEarly => Self::Basic,
            Variant::Micl | Variant::NoteLlm2 => Self::Micl,
        }
    }
}

/// A part of a note's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// The headline.
    Title,
    /// All topics, one after the other.
    Topics,
    /// The body text.
    Content,
}

impl Field {
    fn named(name: &str) -> Option<Self> {
        match name {
            "title" => Some(Self::Title),
            "topics" => Some(Self::Topics),
            "content" => Some(Self::Content),
            _ => None,
        }
    }
}

/// A stretch of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Text of the template itself.
    Literal(String),
    /// A part of the note's text.
    Field(Field),
    /// The picture.
    Image,
    /// The mICL token.
    ImageEmb,
}

/// One style of one template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Where it comes from, for messages.
    pub source: String,
    /// The style.
    pub style: PromptStyle,
    /// What line breaks in note text become.
    pub sentence_mark: String,
    /// What stands between topics.
    pub topic_separator: String,
    /// The prompt.
    pub segments: Vec<Segment>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TemplateFile {
    sentence_mark: String,
    topic_separator: String,
    styles: Styles,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Styles {
    text: String,
    image: String,
    basic: String,
    micl: String,
}

impl Template {
    /// The template that the settings name, in one style. All four styles of a file are checked.
    ///
    /// # Errors
    /// An unknown language; a file that cannot be read, has missing or unknown keys, or whose
    /// styles do not hold what a style must hold.
    pub fn load(settings: &PromptSettings, style: PromptStyle) -> Result<Self> {
        let Some(path) = &settings.template_file else {
            let shipped = SHIPPED.iter().find(|(name, _)| *name == settings.language);
            let (name, text) = shipped.ok_or_else(|| {
                let names = SHIPPED.map(|(name, _)| format!("`{name}`")).join(", ");
                DataError::setting(
                    "prompt.language",
                    format!("no template for `{}` ships with mlrm", settings.language),
                    format!("choose one of {names}, or set `prompt.template_file`"),
                )
            })?;
            return Self::parse(Path::new(&format!("{name}.toml")), text, style);
        };
        let text = fs::read_to_string(path).map_err(|error| {
            DataError::setting(
                "prompt.template_file",
                format!("{} cannot be read: {error}", path.display()),
                "name a template by its path from the current folder, or leave the key out for one that ships with mlrm",
            )
        })?;
        Self::parse(path, &text, style)
    }

    /// Reads the text of a template file; `path` is for messages.
    pub fn parse(path: &Path, text: &str, style: PromptStyle) -> Result<Self> {
        let broken = |message: String| {
            DataError::file(
                path,
                message,
                "correct the template; the guide, \"Prompts\", shows one with all keys",
            )
        };
        let file: TemplateFile = toml::from_str(text)
            .map_err(|error| broken(format!("no template: {}", error.to_string().trim_end())))?;
        let styles = [
            (PromptStyle::Text, &file.styles.text),
            (PromptStyle::Image, &file.styles.image),
            (PromptStyle::Basic, &file.styles.basic),
            (PromptStyle::Micl, &file.styles.micl),
        ];
        let mut chosen = Vec::new();
        for (candidate, text) in styles {
            let problem = |message| broken(format!("`styles.{}` {message}", candidate.name()));
            let segments = parse_segments(text).map_err(problem)?;
            check(candidate, &segments).map_err(problem)?;
            if candidate == style {
                chosen = segments;
            }
        }
        Ok(Self {
            source: path.display().to_string(),
            style,
            sentence_mark: file.sentence_mark,
            topic_separator: file.topic_separator,
            segments: chosen,
        })
    }
}

/// Splits a style's text at `{field}` and the two markers. Braces around anything but a lower-case
/// word are text, so that JSON can be written as it is.
fn parse_segments(text: &str) -> Result<Vec<Segment>, String> {
    let mut segments = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let found = if rest.starts_with(IMAGE_EMB_MARKER) {
            Some((Segment::ImageEmb, IMAGE_EMB_MARKER.len()))
        } else if rest.starts_with(IMAGE_MARKER) {
            Some((Segment::Image, IMAGE_MARKER.len()))
        } else if let Some(name) = placeholder(rest) {
            let field = Field::named(name).ok_or_else(|| {
                format!("has `{{{name}}}`; the fields are {{title}}, {{topics}} and {{content}}")
            })?;
            Some((Segment::Field(field), name.len() + 2))
        } else {
            None
        };
        match found {
            Some((segment, length)) => {
                if !literal.is_empty() {
                    segments.push(Segment::Literal(std::mem::take(&mut literal)));
                }
                segments.push(segment);
                rest = &rest[length..];
            }
            None => {
                literal.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    if !literal.is_empty() {
        segments.push(Segment::Literal(literal));
    }
    Ok(segments)
}

/// The word of a `{word}` that `text` begins with.
fn placeholder(text: &str) -> Option<&str> {
    let (word, _) = text.strip_prefix('{')?.split_once('}')?;
    let plain = |c: char| c.is_ascii_lowercase() || c == '_';
    (!word.is_empty() && word.chars().all(plain)).then_some(word)
}

/// Refuses what a style must not have, or must have and does not.
fn check(style: PromptStyle, segments: &[Segment]) -> Result<(), String> {
    let places = |wanted: &Segment| -> Vec<usize> {
        let matching = segments.iter().enumerate();
        matching
            .filter(|(_, segment)| *segment == wanted)
            .map(|(place, _)| place)
            .collect()
    };
    let markers = [
        (IMAGE_MARKER, &Segment::Image, style.has_image()),
        (IMAGE_EMB_MARKER, &Segment::ImageEmb, style.has_image_emb()),
    ];
    for (marker, segment, wanted) in markers {
        let found = places(segment).len();
        if found != usize::from(wanted) {
            let wanted = if wanted { "exactly once" } else { "not at all" };
            return Err(format!(
                "must hold {marker} {wanted}, but holds it {found} times"
            ));
        }
    }
    if let (Some(image), Some(image_emb)) = (
        places(&Segment::Image).first(),
        places(&Segment::ImageEmb).first(),
    ) && image >= image_emb
    {
        return Err(format!(
            "must hold {IMAGE_MARKER} before {IMAGE_EMB_MARKER}"
        ));
    }
    let fields = [Field::Title, Field::Topics, Field::Content]
        .map(|field| places(&Segment::Field(field)).len());
    if fields.iter().any(|&times| times > 1) {
        return Err("holds a field more than once".into());
    }
    let any_field = fields.iter().any(|&times| times > 0);
    if any_field != style.has_text() {
        let wanted = if style.has_text() {
            "at least one"
        } else {
            "no"
        };
        return Err(format!("must hold {wanted} field of the note's text"));
    }
    match segments.last() {
        Some(Segment::Literal(text)) if !text.trim().is_empty() => Ok(()),
        _ => Err("must end with text: the embedding is read at its last token".into()),
    }
}
