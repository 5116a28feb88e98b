//! Padded host batches: what a model is fed, in plain memory.

use std::ops::Range;

use crate::prompt::EncodedNote;

/// Notes of one step, ready to become tensors. The notes of pairs stand at [`places`](Self::places).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NoteBatch {
    /// Notes (N).
    pub notes: usize,
    /// Ids of the longest prompt (S).
    pub seq: usize,
    /// `[notes, seq]`, padded on the right with the tokenizer's pad id.
    pub input_ids: Vec<i32>,
    /// Ids of each prompt, padding not counted. `[notes]`
    pub lengths: Vec<usize>,
    /// Index of the image token in each prompt; `None` where prompts show no picture. `[notes]`
    pub image_index: Option<Vec<usize>>,
    /// Index of the mICL token in each prompt; `None` without mICL. `[notes]`
    pub image_emb_index: Option<Vec<usize>>,
    /// `[notes, 3, image_size, image_size]`; `None` for variants that see no picture.
    pub pixel_values: Option<Vec<f32>>,
    /// Side of the pictures in pixels; 0 without pictures.
    pub image_size: usize,
    /// Rows of the note set. `[notes]`
    pub rows: Vec<u32>,
    /// Which notes are read by their text alone, though the others show a picture: theirs is a text
    /// prompt, their indices and pixel values say nothing. `[notes]`, or empty where none is.
    pub by_text: Vec<bool>,
    /// Which note stands at each place of a batch of pairs, queries first, then their targets in the
    /// same order: places i and i + P/2 are a pair. A note may stand at several places. `[P]`, or
    /// empty where the notes stand in the order that they have.
    pub places: Vec<usize>,
}

impl NoteBatch {
    /// What `of_notes` tells of the note at each place.
    ///
    /// # Shapes
    /// `[notes]` → `[P]`
    pub fn at_places<T: Clone>(&self, of_notes: &[T]) -> Vec<T> {
        match self.places.is_empty() {
            true => of_notes.to_vec(),
            false => self
                .places
                .iter()
                .map(|&note| of_notes[note].clone())
                .collect(),
        }
    }

    /// A batch of prompts without pictures. The prompts are of one style, so that all of them have an
    /// image token or none has; but where others have one, those without are text prompts.
    pub fn from_prompts(prompts: &[EncodedNote], rows: &[u32], pad_id: u32) -> Self {
        let lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.ids.len()).collect();
        let seq = lengths.iter().copied().max().unwrap_or(0);
        let mut input_ids = vec![pad_id as i32; prompts.len() * seq];
        for (row, prompt) in prompts.iter().enumerate() {
            let ids = &mut input_ids[row * seq..][..prompt.ids.len()];
            for (padded, &id) in ids.iter_mut().zip(&prompt.ids) {
                *padded = id as i32;
            }
        }
        Self {
            notes: prompts.len(),
            seq,
            input_ids,
            lengths,
            image_index: indices(prompts.iter().map(|prompt| prompt.image_index)),
            image_emb_index: indices(prompts.iter().map(|prompt| prompt.image_emb_index)),
            pixel_values: None,
            image_size: 0,
            rows: rows.to_vec(),
            by_text: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Some neighbouring notes of the batch, padded to the longest of them only.
    ///
    /// # Panics
    /// Where the batch has no such notes.
    pub fn slice(&self, notes: Range<usize>) -> Self {
        let lengths = self.lengths[notes.clone()].to_vec();
        let seq = lengths.iter().copied().max().unwrap_or(0);
        let ids = &self.input_ids[notes.start * self.seq..notes.end * self.seq];
        let ids = ids.chunks_exact(self.seq.max(1));
        let index = |index: &Option<Vec<usize>>| index.as_ref().map(|i| i[notes.clone()].to_vec());
        let values = 3 * self.image_size * self.image_size;
        let pixels = self.pixel_values.as_ref();
        Self {
            notes: notes.len(),
            seq,
            input_ids: ids.flat_map(|ids| &ids[..seq]).copied().collect(),
            lengths,
            image_index: index(&self.image_index),
            image_emb_index: index(&self.image_emb_index),
            pixel_values: pixels
                .map(|pixels| pixels[notes.start * values..notes.end * values].to_vec()),
            image_size: self.image_size,
            rows: self.rows[notes.clone()].to_vec(),
            by_text: match self.by_text.is_empty() {
                true => Vec::new(),
                false => self.by_text[notes].to_vec(),
            },
            places: Vec::new(),
        }
    }
}

/// The index of each prompt, 0 for those that have none beside others; `None` where none has one.
fn indices(of: impl Iterator<Item = Option<usize>> + Clone) -> Option<Vec<usize>> {
    let any = of.clone().any(|index| index.is_some());
    any.then(|| of.map(Option::unwrap_or_default).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(ids: &[u32], image_index: Option<usize>) -> EncodedNote {
        EncodedNote {
            ids: ids.to_vec(),
            image_index,
            image_emb_index: None,
        }
    }

    #[test]
    fn prompts_are_padded_on_the_right_to_the_longest() {
        let prompts = [prompt(&[5, 6], Some(1)), prompt(&[7, 8, 9], Some(0))];
        let batch = NoteBatch::from_prompts(&prompts, &[40, 2], 3);
        assert_eq!((batch.notes, batch.seq), (2, 3));
        assert_eq!(batch.input_ids, [5, 6, 3, 7, 8, 9]);
        assert_eq!(batch.lengths, [2, 3]);
        assert_eq!(batch.image_index, Some(vec![1, 0]));
        assert_eq!(batch.image_emb_index, None);
        assert_eq!(batch.rows, [40, 2]);
    }

    #[test]
    fn a_slice_is_padded_to_its_own_longest_prompt() {
        let prompts = [
            prompt(&[5, 6], Some(1)),
            prompt(&[7], Some(0)),
            prompt(&[7, 8, 9], Some(2)),
        ];
        let mut batch = NoteBatch::from_prompts(&prompts, &[40, 2, 7], 3);
        batch.image_size = 1;
        batch.pixel_values = Some((0..9_u8).map(f32::from).collect());
        let mut expected = NoteBatch::from_prompts(&prompts[..2], &[40, 2], 3);
        expected.image_size = 1;
        expected.pixel_values = Some((0..6_u8).map(f32::from).collect());
        assert_eq!(batch.slice(0..2), expected);
        assert_eq!(batch.slice(0..3), batch);
        batch.by_text = vec![false, true, false];
        assert_eq!(batch.slice(1..3).by_text, [true, false]);
        assert_eq!(batch.slice(2..3).pixel_values, Some(vec![6.0, 7.0, 8.0]));
    }

    #[test]
    fn no_notes_are_an_empty_batch() {
        let batch = NoteBatch::from_prompts(&[], &[], 0);
        assert_eq!((batch.notes, batch.seq), (0, 0));
        assert!(batch.input_ids.is_empty());
    }
}
