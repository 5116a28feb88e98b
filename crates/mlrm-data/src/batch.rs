//! Padded host batches: what a model is fed, in plain memory.

use std::ops::Range;

use crate::prompt::EncodedNote;

/// BLAKE3 of the values of a preprocessed picture.
pub type PictureHash = [u8; 32];

/// Notes of one step, ready to become tensors. For pairs the queries come first, then their targets
/// in the same order: note i and note i + N/2 are a pair.
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
    /// What tells the pictures apart where features are kept of them: pictures that are known there
    /// have no values in `pixel_values`. Else empty. `[notes]`
    pub pictures: Vec<PictureHash>,
    /// Side of the pictures in pixels; 0 without pictures.
    pub image_size: usize,
    /// Rows of the note set. `[notes]`
    pub rows: Vec<u32>,
}

impl NoteBatch {
    /// A batch of prompts without pictures. The prompts are of one style: all of them have an image
    /// token, or none has.
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
            image_index: prompts.iter().map(|prompt| prompt.image_index).collect(),
            image_emb_index: prompts
                .iter()
                .map(|prompt| prompt.image_emb_index)
                .collect(),
            pixel_values: None,
            pictures: Vec::new(),
            image_size: 0,
            rows: rows.to_vec(),
        }
    }

    /// The notes at these places of the batch, padded to the longest of them only.
    ///
    /// # Panics
    /// Where the batch has no such places.
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
            pictures: match self.pictures.is_empty() {
                true => Vec::new(),
                false => self.pictures[notes.clone()].to_vec(),
            },
            image_size: self.image_size,
            rows: self.rows[notes].to_vec(),
        }
    }
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
        assert_eq!(batch.slice(2..3).pixel_values, Some(vec![6.0, 7.0, 8.0]));
    }

    #[test]
    fn no_notes_are_an_empty_batch() {
        let batch = NoteBatch::from_prompts(&[], &[], 0);
        assert_eq!((batch.notes, batch.seq), (0, 0));
        assert!(batch.input_ids.is_empty());
    }
}
