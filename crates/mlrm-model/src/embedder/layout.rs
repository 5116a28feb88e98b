//! Where everything stands in a sequence once the visual tokens are in it (method §2.3, §2.4, §4).

use mlrm_config::ImageLayout;

use crate::error::ModelError;
use crate::nn::Place;
use crate::vision::Grid;

/// A batch of prompts as token ids, before the visual tokens are put in.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenBatch {
    /// Padded row length (S).
    pub seq: usize,
    /// Right-padded ids, row-major `[notes, S]`.
    pub input_ids: Vec<i32>,
    /// Real ids of each row.
    pub lengths: Vec<usize>,
    /// Index of the image token in each row; absent where the prompt has none. Not read of rows that
    /// are `by_text`.
    pub image_index: Option<Vec<usize>>,
    /// Index of `<IMG_EMB>` in each row; absent without mICL. Not read of rows that are `by_text`.
    pub image_emb_index: Option<Vec<usize>>,
    /// Which rows are text prompts of notes without a picture: no visual tokens, no late fusion, and
    /// no visual state of their own. Empty where none is.
    pub by_text: Vec<bool>,
}

/// The visual tokens of a batch's pictures.
#[derive(Debug, Clone, PartialEq)]
pub enum VisualTokens {
    /// As many of each picture.
    Same {
        /// How many (V).
        count: usize,
        /// Rows and columns in which they stand, where these mean places of the picture.
        grid: Option<Grid>,
    },
    /// Rows and columns of each row's picture; not read of rows that are by text. `[notes]`
    Own(Vec<Grid>),
}

impl VisualTokens {
    /// Rows and columns of a row's visual tokens.
    fn grid(&self, row: usize) -> Option<Grid> {
        match self {
            Self::Same { grid, .. } => *grid,
            Self::Own(grids) => grids.get(row).copied(),
        }
    }

    /// How many a row has that shows a picture.
    fn count(&self, row: usize) -> usize {
        match self {
            Self::Same { count, .. } => *count,
            Self::Own(grids) => grids.get(row).map_or(0, |[rows, columns]| rows * columns),
        }
    }
}

/// Positions in the expanded sequences of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceLayout {
    /// Expanded length (T).
    pub seq: usize,
    /// Real positions of each row.
    pub lengths: Vec<usize>,
    /// Position of the last real token: the multimodal state is pooled there.
    pub final_position: Vec<usize>,
    /// Position just before `<IMG_EMB>`: the visual state is pooled there. The final position of rows
    /// without a picture.
    pub visual_position: Option<Vec<usize>>,
    /// Position of the first visual token.
    image_start: Option<Vec<usize>>,
    image_index: Option<Vec<usize>>,
    by_text: Vec<bool>,
    visual_tokens: VisualTokens,
    layout: ImageLayout,
}

/// The inclusive span of the picture and the final position, for saliency (method §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSpan {
    /// First position.
    pub start: usize,
    /// Last position, inclusive.
    pub end: usize,
    /// The reading position.
    pub final_position: usize,
}

/// Tokens after `<IMG_EMB>` that still count as the picture: the template's quote and full stop.
const SPAN_TAIL: usize = 2;

impl SequenceLayout {
    /// The layout of `tokens` with the visual tokens of their pictures, which stand where `layout` says.
    ///
    /// # Errors
    /// Indices that do not fit the ids.
    pub fn new(
        tokens: &TokenBatch,
        visual_tokens: VisualTokens,
        layout: ImageLayout,
    ) -> Result<Self, ModelError> {
        tokens.check()?;
        let image_index = tokens.image_index.clone();
        let added_to = |row: usize| match (&image_index, layout) {
            (None, _) => 0,
            _ if tokens.is_by_text(row) => 0,
            (Some(_), ImageLayout::Replace) => visual_tokens.count(row).saturating_sub(1),
            (Some(_), ImageLayout::After) => visual_tokens.count(row),
        };
        let rows = || tokens.lengths.iter().enumerate();
        let lengths: Vec<usize> = rows().map(|(row, n)| n + added_to(row)).collect();
        let final_position: Vec<usize> = lengths.iter().map(|n| n - 1).collect();
        let visual = |index: &Vec<usize>| {
            let visual = |row: usize| match tokens.is_by_text(row) {
                true => final_position[row],
                false => index[row] - 1 + added_to(row),
            };
            (0..index.len()).map(visual).collect()
        };
        let keep = usize::from(layout == ImageLayout::After);
        let longest = |lengths: &[usize]| lengths.iter().max().copied().unwrap_or(0);
        let seq = match &visual_tokens {
            VisualTokens::Same { .. } => {
                tokens.seq + (0..tokens.notes()).map(added_to).max().unwrap_or(0)
            }
            // The longest prompt need not be that of the largest picture.
            VisualTokens::Own(_) => tokens.seq - longest(&tokens.lengths) + longest(&lengths),
        };
        Ok(Self {
            seq,
            visual_position: tokens.image_emb_index.as_ref().map(visual),
            lengths,
            final_position,
            image_start: image_index
                .as_ref()
                .map(|index| index.iter().map(|i| i + keep).collect()),
            image_index,
            by_text: tokens.by_text.clone(),
            visual_tokens,
            layout,
        })
    }

    /// For each position of each row, the row of the table [all token embeddings; the visual tokens
    /// of all rows that have a picture] that stands there, row-major `[notes, T]`. `input_seq` is S.
    pub fn source_rows(&self, input_seq: usize) -> Vec<i64> {
        let notes = self.lengths.len();
        let replaced = usize::from(self.layout == ImageLayout::Replace);
        let mut rows = Vec::with_capacity(notes * self.seq);
        // Visual tokens of the rows before.
        let mut before = 0;
        for note in 0..notes {
            let start = self.image_start_of(note);
            let count = self.visual_tokens.count(note);
            for position in 0..self.seq {
                // Behind a prompt anything may stand: no position looks ahead.
                let text = |position: usize| note * input_seq + position.min(input_seq - 1);
                let row = match start {
                    Some(start) if position < start => text(position),
                    Some(start) if position < start + count => {
                        notes * input_seq + before + position - start
                    }
                    Some(_) => text(position - count + replaced),
                    None => text(position),
                };
                rows.push(row as i64);
            }
            before += start.map_or(0, |_| count);
        }
        rows
    }

    /// Position of the first visual token of a row; `None` where it shows no picture.
    fn image_start_of(&self, row: usize) -> Option<usize> {
        let start = self.image_start.as_ref().map(|starts| starts[row]);
        start.filter(|_| self.by_text.get(row) != Some(&true))
    }

    /// Where each position of each row stands for the rotary angles, row-major `[notes, T]`: visual tokens by the row and
    /// the column of their picture, text behind it on from its largest place. `None` where visual tokens stand in no
    /// rows and columns.
    pub fn places(&self) -> Option<Vec<Place>> {
        let mut places = Vec::with_capacity(self.lengths.len() * self.seq);
        for note in 0..self.lengths.len() {
            let [rows, columns] = self.visual_tokens.grid(note)?;
            let start = self.image_start_of(note).unwrap_or(self.seq);
            let end = start + rows * columns;
            places.extend((0..self.seq).map(|position| match position {
                _ if position < start => [position; 3],
                _ if position < end => {
                    let at = position - start;
                    [start, start + at / columns, start + at % columns]
                }
                _ => [position - end + start + rows.max(columns); 3],
            }));
        }
        Some(places)
    }

    /// The positions to pool, row-major `[notes, 1 or 2]`: final, then visual with mICL.
    pub fn pooled_positions(&self) -> Vec<usize> {
        match &self.visual_position {
            None => self.final_position.clone(),
            Some(visual) => {
                let both = self.final_position.iter().zip(visual);
                both.flat_map(|(f, v)| [*f, *v]).collect()
            }
        }
    }

    /// The span of the picture in each row; an error where the prompt has none or where it reaches
    /// the final position.
    ///
    /// # Errors
    /// A row without a picture, or whose picture reaches the final position.
    pub fn image_spans(&self) -> Result<Vec<ImageSpan>, ModelError> {
        let Some(starts) = &self.image_index else {
            let message = "saliency needs visual tokens in the prompt; this variant has none";
            return Err(ModelError::config(&["variant"], message));
        };
        let end = |row: usize| match (&self.visual_position, self.layout) {
            (Some(visual), _) => visual[row] + 1 + SPAN_TAIL,
            (None, ImageLayout::Replace) => starts[row] + self.visual_tokens.count(row) - 1,
            (None, ImageLayout::After) => starts[row] + self.visual_tokens.count(row) + 1,
        };
        let span = |(row, (&start, &final_position)): (usize, (&usize, &usize))| {
            if self.by_text.get(row) == Some(&true) {
                return Err(ModelError::row(row, format!("row {row} has no picture")));
            }
            let end = end(row);
            if end < final_position {
                return Ok(ImageSpan {
                    start,
                    end,
                    final_position,
                });
            }
            let message = format!(
                "row {row}: the picture ends at position {end}, at or after the final position \
                 {final_position}; the prompt needs text after the picture"
            );
            Err(ModelError::row(row, message))
        };
        let rows = starts.iter().zip(&self.final_position);
        rows.enumerate().map(span).collect()
    }
}

impl TokenBatch {
    /// Notes in the batch (N).
    pub fn notes(&self) -> usize {
        self.lengths.len()
    }

    /// Whether a row is the text prompt of a note without a picture.
    pub fn is_by_text(&self, row: usize) -> bool {
        self.by_text.get(row) == Some(&true)
    }

    /// The rows that have a picture; `None` where all have one, or none is looked at.
    pub fn picture_rows(&self) -> Option<Vec<usize>> {
        let rows = || (0..self.notes()).filter(|&row| !self.is_by_text(row));
        (rows().count() < self.notes()).then(|| rows().collect())
    }

    fn check(&self) -> Result<(), ModelError> {
        let fail = |message: String| Err(ModelError::batch(message));
        let notes = self.notes();
        if notes == 0 || self.input_ids.len() != notes * self.seq {
            return fail(format!(
                "{} ids do not fill {notes} rows of {} positions",
                self.input_ids.len(),
                self.seq
            ));
        }
        if !self.by_text.is_empty() && self.by_text.len() != notes {
            return fail(format!(
                "{} rows are said to have a picture or not, of {notes}",
                self.by_text.len()
            ));
        }
        for (row, &length) in self.lengths.iter().enumerate() {
            let fail = |message: String| Err(ModelError::row(row, format!("row {row}: {message}")));
            if length == 0 || length > self.seq {
                return fail(format!("length {length} is not in 1..={}", self.seq));
            }
            if self.is_by_text(row) {
                continue;
            }
            let image = self.image_index.as_ref().map(|index| index[row]);
            let emb = self.image_emb_index.as_ref().map(|index| index[row]);
            if image.is_some_and(|i| i >= length) || emb.is_some_and(|e| e == 0 || e >= length) {
                return fail("a special token stands outside the row".into());
            }
            if let (Some(emb), image) = (emb, image)
                && image.is_none_or(|image| image >= emb)
            {
                return fail("<IMG_EMB> must come after the image token".into());
            }
        }
        Ok(())
    }

    /// A batch from padded ids alone: lengths and special positions are found by token id.
    ///
    /// # Errors
    /// A row that lacks a special token which is named, or has it more than once.
    pub fn from_padded(
        input_ids: Vec<i32>,
        seq: usize,
        pad: i32,
        image: Option<i32>,
        image_emb: Option<i32>,
    ) -> Result<Self, ModelError> {
        let rows: Vec<&[i32]> = input_ids.chunks(seq.max(1)).collect();
        let find = |id: i32, what: &str| -> Result<Vec<usize>, ModelError> {
            let only = |(n, row): (usize, &&[i32])| {
                let mut hits = row.iter().enumerate().filter(|(_, x)| **x == id);
                match (hits.next(), hits.next()) {
                    (Some((index, _)), None) => Ok(index),
                    _ => {
                        let message = format!("row {n} needs exactly one {what} (id {id})");
                        Err(ModelError::row(n, message))
                    }
                }
            };
            rows.iter().enumerate().map(only).collect()
        };
        let image_index = image.map(|id| find(id, "image token")).transpose()?;
        let image_emb_index = image_emb.map(|id| find(id, "<IMG_EMB>")).transpose()?;
        let real = |row: &&[i32]| row.iter().take_while(|id| **id != pad).count();
        let lengths: Vec<usize> = rows.iter().map(real).collect();
        if rows
            .iter()
            .zip(&lengths)
            .any(|(row, &n)| row[n..].iter().any(|id| *id != pad))
        {
            let message = format!(
                "only right padding is supported, and the pad id {pad} must not occur inside a note"
            );
            return Err(ModelError::batch(message));
        }
        let batch = Self {
            seq,
            lengths,
            image_index,
            image_emb_index,
            by_text: Vec::new(),
            input_ids,
        };
        batch.check()?;
        Ok(batch)
    }
}
