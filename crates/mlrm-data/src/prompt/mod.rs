//! From a note to the ids that the language model reads (method §1).

mod template;
#[cfg(test)]
mod tests;
mod text;

use std::path::Path;
use std::sync::Arc;

use mlrm_config::{ImageLayout, PromptSettings, TokenizerSettings};
use serde::Serialize;

pub use template::{Field, PromptStyle, Segment, Template};

use crate::error::{DataError, Result};
use crate::notes::Note;
use crate::tokenizer::{Encoded, NewToken, Piece, Tokenizer};
use text::NoteText;

/// The order in which text gives way when a prompt is over its token budget.
const CUT_ORDER: [Field; 3] = [Field::Content, Field::Topics, Field::Title];

/// A note's prompt as ids, before the visual tokens are put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedNote {
    /// The ids. Layout `replace`: one image token, in whose place the visual tokens will stand.
    /// Layout `after`: the image token and right behind it the token that closes the image; the
    /// visual tokens will stand between the two.
    pub ids: Vec<u32>,
    /// Index of the image token in `ids`; `None` where the prompt shows no picture.
    pub image_index: Option<usize>,
    /// Index of the mICL token in `ids`; `None` without mICL.
    pub image_emb_index: Option<usize>,
}

/// The special tokens that prompts of this style need, as the settings spell them.
pub fn special_tokens(settings: &PromptSettings, style: PromptStyle) -> Vec<&str> {
    let mut tokens = Vec::new();
    if style.has_image() {
        tokens.push(settings.image_token.as_str());
        if settings.layout == ImageLayout::After {
            tokens.push(settings.image_end_token.as_str());
        }
    }
    if style.has_image_emb() {
        tokens.push(settings.image_emb_token.as_str());
    }
    tokens
}

/// The tokenizer of a run: trained on the prompts of `notes` (the training notes) where
/// `train_vocab_size` says so, else read from `path`, else from the language model's folder. Returns
/// it with the tokens that had to be added to a tokenizer that was read.
///
/// # Errors
/// When no source is given, or the tokenizer cannot be read or trained.
pub fn open_tokenizer<'a>(
    tokenizer: &TokenizerSettings,
    prompt: &PromptSettings,
    style: PromptStyle,
    llm_folder: Option<&Path>,
    notes: impl Iterator<Item = &'a Note> + Send,
) -> Result<(Tokenizer, Vec<NewToken>)> {
    let special = special_tokens(prompt, style);
    if let Some(size) = tokenizer.train_vocab_size {
        let template = Template::load(prompt, style)?;
        let texts =
            notes.map(|note| plain_text(&NoteText::new(note, prompt, &template), &template));
        return Ok((Tokenizer::train(texts, size, &special)?, Vec::new()));
    }
    let path = tokenizer.path.as_deref().or(llm_folder).ok_or_else(|| {
        DataError::setting(
            "tokenizer",
            "there is no tokenizer",
            "set `tokenizer.train_vocab_size`, `tokenizer.path`, `model.llm.path` or `model.checkpoint`",
        )
    })?;
    let mut tokenizer = Tokenizer::load(path)?;
    let new = tokenizer.add_special_tokens(&special)?;
    Ok((tokenizer, new))
}

/// A prompt without its special tokens: what a tokenizer for such prompts is trained on.
fn plain_text(text: &NoteText, template: &Template) -> String {
    let segments = template.segments.iter();
    segments
        .map(|segment| match segment {
            Segment::Literal(literal) => literal,
            Segment::Field(field) => text.get(*field),
            Segment::Image | Segment::ImageEmb => "",
        })
        .collect()
}

/// A stretch of the prompt, special tokens as ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Text of the template.
    Literal(String),
    /// A special token that the template spells.
    Special(u32),
    /// A part of the note's text.
    Field(Field),
    /// The image token.
    Image(u32),
    /// The mICL token.
    ImageEmb(u32),
}

/// What another program needs to write the prompts of an encoder, beside tokenizer and settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PromptOutline<'a> {
    /// The prompt.
    pub parts: &'a [Part],
    /// Positions that visual tokens add to the ids.
    pub added_positions: usize,
    /// Most positions of a prompt, visual tokens included.
    pub max_tokens: usize,
}

/// Turns notes into ids, by one template, style and tokenizer.
#[derive(Debug, Clone)]
pub struct PromptEncoder {
    settings: PromptSettings,
    template: Template,
    tokenizer: Arc<Tokenizer>,
    parts: Vec<Part>,
    /// Positions that visual tokens add to the ids.
    added_positions: usize,
    max_tokens: usize,
}

impl PromptEncoder {
    /// An encoder for prompts with `visual_tokens` (V) a picture. `tokenizer` must have the style's
    /// [`special_tokens`].
    ///
    /// # Errors
    /// A template that is not one, special tokens that the tokenizer lacks or that are the same, or
    /// a token budget that not even an empty note fits into.
    pub fn new(
        settings: &PromptSettings,
        tokenizer: Arc<Tokenizer>,
        style: PromptStyle,
        visual_tokens: usize,
    ) -> Result<Self> {
        let template = Template::load(settings, style)?;
        let parts = resolve(settings, &template, &tokenizer)?;
        let (visual_tokens, added_positions) = match (style.has_image(), settings.layout) {
            (false, _) => (0, 0),
            (true, ImageLayout::Replace) => (visual_tokens, visual_tokens.saturating_sub(1)),
            (true, ImageLayout::After) => (visual_tokens, visual_tokens),
        };
        let encoder = Self {
            settings: settings.clone(),
            template,
            tokenizer,
            parts,
            added_positions,
            max_tokens: settings.token_budget(visual_tokens),
        };
        let (empty, _) = encoder.encode_text(&NoteText::default())?;
        let least = encoder.positions(&empty);
        if least > encoder.max_tokens {
            return Err(DataError::setting(
                "prompt.max_tokens",
                format!(
                    "{} tokens are too few: the prompt of an empty note has {least}",
                    encoder.max_tokens
                ),
                format!("set at least {least}, and some more for the text"),
            ));
        }
        Ok(encoder)
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The prompt in its parts, and its budget.
    pub fn outline(&self) -> PromptOutline<'_> {
        PromptOutline {
            parts: &self.parts,
            added_positions: self.added_positions,
            max_tokens: self.max_tokens,
        }
    }

    /// The template.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// The style of the prompts.
    pub fn style(&self) -> PromptStyle {
        self.template.style
    }

    /// Most positions that a prompt may take, visual tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The prompt of a note. Its text is cleaned and cut to the settings' budgets in graphemes;
    /// where the prompt still takes more than [`max_tokens`](Self::max_tokens) positions, content
    /// is cut first, then topics, then the title. The template's own text always stands.
    pub fn encode(&self, note: &Note) -> Result<EncodedNote> {
        let mut text = NoteText::new(note, &self.settings, &self.template);
        loop {
            let (encoded, fields) = self.encode_text(&text)?;
            let positions = self.positions(&encoded);
            if positions <= self.max_tokens {
                return Ok(self.finish(encoded));
            }
            // Where text was cut, its neighbours may merge into other tokens: so this is a loop.
            // Each turn leaves less text, and mostly one turn is enough.
            if !shorten(&mut text, &encoded, &fields, positions - self.max_tokens) {
                return Ok(self.finish(encoded));
            }
        }
    }

    /// How long the text of a note is within its budgets, in bytes, without making tokens of it: what
    /// notes are sorted by, so that those of like length are padded together.
    pub fn text_bytes(&self, note: &Note) -> usize {
        let within = |text: &str, chars: usize| -> usize {
            text.chars().take(chars).map(char::len_utf8).sum()
        };
        let settings = &self.settings;
        let topics = note.topics.iter().take(settings.topics);
        let topics: usize = topics
            .map(|topic| within(topic, settings.topic_chars))
            .sum();
        let title = within(&note.title, settings.title_chars);
        title + topics + within(&note.content, settings.content_chars)
    }

    /// Positions of a prompt, visual tokens included.
    fn positions(&self, encoded: &Encoded) -> usize {
        self.tokenizer.prefix_ids().len() + encoded.ids.len() + self.added_positions
    }

    /// The template with `text` in it as ids, and where each field begins in it, in bytes.
    fn encode_text(&self, text: &NoteText) -> Result<(Encoded, Vec<(Field, usize)>)> {
        let mut fields = Vec::new();
        let mut bytes = 0;
        let mut pieces = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let piece = match part {
                Part::Literal(literal) => Piece::Text(literal),
                Part::Field(field) => {
                    fields.push((*field, bytes));
                    Piece::Text(text.get(*field))
                }
                Part::Special(id) | Part::Image(id) | Part::ImageEmb(id) => Piece::Token(*id),
            };
            bytes += piece.bytes();
            pieces.push(piece);
        }
        Ok((self.tokenizer.encode(&pieces)?, fields))
    }

    /// Puts the prefix before the ids and finds the image tokens, which no text can spell.
    fn finish(&self, encoded: Encoded) -> EncodedNote {
        let mut ids = self.tokenizer.prefix_ids().to_vec();
        ids.extend(encoded.ids);
        let index_of = |wanted: Option<u32>| ids.iter().position(|&id| Some(id) == wanted);
        let mut parts = self.parts.iter();
        let image = parts.clone().find_map(|part| match part {
            Part::Image(id) => Some(*id),
            _ => None,
        });
        let image_emb = parts.find_map(|part| match part {
            Part::ImageEmb(id) => Some(*id),
            _ => None,
        });
        EncodedNote {
            image_index: index_of(image),
            image_emb_index: index_of(image_emb),
            ids,
        }
    }
}

/// Cuts text by `over` tokens or a little more. `false` when there is none left.
fn shorten(text: &mut NoteText, encoded: &Encoded, fields: &[(Field, usize)], over: usize) -> bool {
    let used = |field: Field| fields.iter().find(|(used, _)| *used == field);
    let candidates = CUT_ORDER.into_iter().filter_map(used);
    let Some(&(field, start)) = candidates
        .into_iter()
        .find(|(f, _)| !text.get(*f).is_empty())
    else {
        return false;
    };
    let length = text.get(field).len();
    let inside = encoded.bytes.iter().map(|bytes| bytes.start);
    let starts: Vec<usize> = inside
        .filter(|place| (start..start + length).contains(place))
        .map(|place| place - start)
        .collect();
    let keep = match starts.len().checked_sub(over) {
        Some(kept) if kept < starts.len() => starts[kept],
        _ => 0,
    };
    text.cut(field, keep.min(length - 1));
    true
}

/// The template's markers as ids, and special tokens that its own text spells too.
fn resolve(
    settings: &PromptSettings,
    template: &Template,
    tokenizer: &Tokenizer,
) -> Result<Vec<Part>> {
    let id = |content: &str, key: &'static str| {
        tokenizer.token_id(content).ok_or_else(|| {
            DataError::setting(
                key,
                format!("the tokenizer has no token `{content}`"),
                "add it to the tokenizer, or spell one that it has",
            )
        })
    };
    let mut own = Vec::new();
    let mut parts = Vec::new();
    let special = tokenizer.special_tokens();
    for segment in &template.segments {
        match segment {
            Segment::Field(field) => parts.push(Part::Field(*field)),
            Segment::Literal(text) => split_specials(text, &special, &mut parts),
            Segment::Image => {
                let image = id(&settings.image_token, "prompt.image_token")?;
                own.push(image);
                parts.push(Part::Image(image));
                if settings.layout == ImageLayout::After {
                    let end = id(&settings.image_end_token, "prompt.image_end_token")?;
                    own.push(end);
                    parts.push(Part::Special(end));
                }
            }
            Segment::ImageEmb => {
                let image_emb = id(&settings.image_emb_token, "prompt.image_emb_token")?;
                own.push(image_emb);
                parts.push(Part::ImageEmb(image_emb));
            }
        }
    }
    // The model finds the image by these ids: each must be in the prompt once.
    for &id in &own {
        let times = parts.iter().filter(|part| match part {
            Part::Special(other) | Part::Image(other) | Part::ImageEmb(other) => *other == id,
            Part::Literal(_) | Part::Field(_) => false,
        });
        if times.count() + tokenizer.prefix_ids().iter().filter(|&&p| p == id).count() != 1 {
            let content = special.iter().find(|(_, other)| *other == id);
            return Err(DataError::setting(
                "prompt.image_token",
                format!(
                    "`{}` stands more than once in the prompt of `{}`",
                    content.map_or("", |(content, _)| content),
                    template.source
                ),
                "give `image_token`, `image_end_token` and `image_emb_token` tokens of their own, \
                 and write them as <IMG> and <IMG_EMB> in the template",
            ));
        }
    }
    Ok(parts)
}

/// Text of the template with the special tokens that it spells, the longest at each place.
fn split_specials(text: &str, special: &[(&str, u32)], parts: &mut Vec<Part>) {
    let mut literal_start = 0;
    let mut place = 0;
    while let Some(c) = text[place..].chars().next() {
        let here = special.iter();
        let here = here.filter(|(content, _)| text[place..].starts_with(content));
        match here.max_by_key(|(content, _)| content.len()) {
            Some((content, id)) => {
                if literal_start < place {
                    parts.push(Part::Literal(text[literal_start..place].to_owned()));
                }
                parts.push(Part::Special(*id));
                place += content.len();
                literal_start = place;
            }
            None => place += c.len_utf8(),
        }
    }
    if literal_start < text.len() {
        parts.push(Part::Literal(text[literal_start..].to_owned()));
    }
}
