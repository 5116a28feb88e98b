//! Text to ids with added-token matching off.
//!
//! `Tokenizer::encode` of the library looks for added tokens in the text before anything else, and
//! its switch `encode_special_tokens` turns that off for special tokens only. So the stages behind
//! it (normaliser, pre-tokenizer, model) are run directly, with special tokens set in where the
//! prompt has them. Everything between two of them is one text for the normaliser, the
//! pre-tokenizer and the merges: ids are those that the library gives for the whole prompt.
//!
//! That leaves vocabularies whose *model* knows added tokens too (Unigram's `</s>` has the best
//! score of all; so has a word of a word-level model): where the model emits such an id, the text
//! is broken inside its spelling and tokenised again.

use std::collections::BTreeSet;
use std::ops::Range;

use tokenizers::normalizer::Range as StringRange;
use tokenizers::{
    Encoding, Model, NormalizedString, Normalizer, OffsetType, PreTokenizedString, PreTokenizer,
    Token,
};

use super::{Tokenizer, vocabulary_error};
use crate::error::{DataError, Result};

/// A stretch of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text. Whatever it spells, it becomes ordinary tokens. Neighbouring texts are one text.
    Text(&'a str),
    /// A token by its id.
    Token(u32),
}

/// What stands for a token in the text that the stages see: they skip it, only its length counts.
const TOKEN_PLACE: &str = "\u{1}";

impl Piece<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Token(_) => TOKEN_PLACE,
        }
    }

    /// Bytes that the piece counts for in [`Encoded::bytes`].
    pub fn bytes(&self) -> usize {
        self.text().len()
    }
}

/// Pieces as ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoded {
    /// The ids.
    pub ids: Vec<u32>,
    /// For each id the bytes that it comes from, counted over the text pieces written one after
    /// the other, with one byte for each token piece.
    pub bytes: Vec<Range<usize>>,
}

impl Tokenizer {
    /// The ids of `pieces`, without [`prefix_ids`](Self::prefix_ids). No text piece yields the id
    /// of an added token, except that text that the model has no token for yields its unknown
    /// token.
    pub fn encode(&self, pieces: &[Piece<'_>]) -> Result<Encoded> {
        let encoding = self.run_model(pieces)?;
        let offsets = encoding.get_offsets().iter();
        let bytes = offsets.map(|&(start, end)| start..end).collect();
        let encoded = Encoded {
            ids: encoding.get_ids().to_vec(),
            bytes,
        };
        if self.intruders(&encoded, pieces).next().is_none() {
            return Ok(encoded);
        }
        self.encode_broken(encoded, pieces)
    }

    /// The ids of a text by itself, as [`encode`](Self::encode) gives them.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encode(&[Piece::Text(text)])?.ids)
    }

    /// Indices of the ids that text has no right to.
    fn intruders<'a>(
        &'a self,
        encoded: &'a Encoded,
        pieces: &[Piece<'_>],
    ) -> impl Iterator<Item = usize> + use<'a> {
        let placed = token_places(pieces);
        let ids = encoded.ids.iter().zip(&encoded.bytes).enumerate();
        ids.filter(move |(_, (id, bytes))| {
            self.protected.contains(id) && placed.binary_search(&bytes.start).is_err()
        })
        .map(|(index, _)| index)
    }

    /// Breaks the spelling of every intruder after its first character until none is left. An
    /// intruder of one character cannot be broken: where it is a special token, it gives way to the
    /// unknown token or to nothing; where not (a tokenizer may list plain characters as added
    /// tokens), it is text and stays.
    fn encode_broken(&self, mut encoded: Encoded, pieces: &[Piece<'_>]) -> Result<Encoded> {
        let text: String = pieces.iter().map(Piece::text).collect();
        let mut breaks = BTreeSet::new();
        loop {
            let known = breaks.len();
            breaks.extend(self.intruders(&encoded, pieces).filter_map(|index| {
                let Range { start, end } = encoded.bytes[index].clone();
                (start + 1..end).find(|&place| text.is_char_boundary(place))
            }));
            if breaks.len() == known {
                break;
            }
            let encoding = self.run_stages(&text, pieces, &breaks)?;
            let offsets = encoding.get_offsets().iter();
            encoded = Encoded {
                ids: encoding.get_ids().to_vec(),
                bytes: offsets.map(|&(start, end)| start..end).collect(),
            };
        }
        let added = self.inner.get_added_vocabulary();
        let left: Vec<usize> = self
            .intruders(&encoded, pieces)
            .filter(|&index| {
                let token = added.get_added_tokens_decoder().get(&encoded.ids[index]);
                token.is_some_and(|token| token.special)
            })
            .collect();
        for index in left.into_iter().rev() {
            match self.unknown {
                Some(unknown) => encoded.ids[index] = unknown,
                None => {
                    encoded.ids.remove(index);
                    encoded.bytes.remove(index);
                }
            }
        }
        Ok(encoded)
    }

    /// Normaliser, pre-tokenizer and model over `pieces`.
    pub(super) fn run_model(&self, pieces: &[Piece<'_>]) -> Result<Encoding> {
        let text: String = pieces.iter().map(Piece::text).collect();
        self.run_stages(&text, pieces, &BTreeSet::new())
    }

    /// As [`run_model`](Self::run_model), with `text` that is also broken at `breaks`.
    fn run_stages(
        &self,
        text: &str,
        pieces: &[Piece<'_>],
        breaks: &BTreeSet<usize>,
    ) -> Result<Encoding> {
        let stages = || -> tokenizers::Result<Encoding> {
            let mut string = PreTokenizedString::from(text);
            string.split(|_, whole| split(&whole, pieces, breaks))?;
            if let Some(normalizer) = self.inner.get_normalizer() {
                string.split(|_, mut part| {
                    normalizer.normalize(&mut part)?;
                    Ok([part])
                })?;
            }
            if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
                pre_tokenizer.pre_tokenize(&mut string)?;
            }
            self.inner
                .get_model()
                .tokenize_in_pretokenized(&mut string, None)?;
            string.into_encoding(None, 0, OffsetType::Byte)
        };
        stages().map_err(|error| cannot_encode(text, &error.to_string()))
    }
}

/// Where the token pieces stand, in bytes, ascending.
fn token_places(pieces: &[Piece<'_>]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut start = 0;
    for piece in pieces {
        if let Piece::Token(_) = piece {
            places.push(start);
        }
        start += piece.bytes();
    }
    places
}

/// The whole text as runs of text between the token pieces and the breaks, and the token pieces.
fn split(
    whole: &NormalizedString,
    pieces: &[Piece<'_>],
    breaks: &BTreeSet<usize>,
) -> tokenizers::Result<Vec<(NormalizedString, Option<Vec<Token>>)>> {
    let slice = |bytes: Range<usize>| {
        let part = whole.slice(StringRange::Original(bytes));
        part.ok_or("a piece that splits a character")
    };
    let mut parts = Vec::new();
    let text_run = |parts: &mut Vec<_>, run: Range<usize>| -> tokenizers::Result<()> {
        let mut start = run.start;
        for &end in breaks.range(run.start..run.end).chain([&run.end]) {
            if start < end {
                parts.push((slice(start..end)?, None));
            }
            start = end;
        }
        Ok(())
    };
    let (mut run_start, mut place) = (0, 0);
    for piece in pieces {
        let end = place + piece.bytes();
        if let Piece::Token(id) = *piece {
            text_run(&mut parts, run_start..place)?;
            let token = Token::new(id, TOKEN_PLACE.to_owned(), (0, TOKEN_PLACE.len()));
            parts.push((slice(place..end)?, Some(vec![token])));
            run_start = end;
        }
        place = end;
    }
    text_run(&mut parts, run_start..place)?;
    Ok(parts)
}

fn cannot_encode(text: &str, reason: &str) -> DataError {
    vocabulary_error(format!(
        "the tokenizer cannot encode `{}`: {reason}",
        crate::error::shorten(text)
    ))
}
