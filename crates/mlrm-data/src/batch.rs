//! Padded host batches: what a model is fed, in plain memory.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::prompt::EncodedNote;

/// BLAKE3 of a picture's file.
pub type PictureHash = [u8; 32];

/// A picture, as the vision encoder reads it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Picture {
    /// Which one it is, where features of pictures are kept.
    pub hash: Option<PictureHash>,
    /// Height and width in pixels.
    pub size: [usize; 2],
    /// `[3, height, width]`; `None` where its features are kept already.
    pub values: Option<Arc<[f32]>>,
}

/// The pictures of a batch, each once, and which notes show them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BatchPictures {
    /// The pictures, in the order in which notes first show them.
    pub distinct: Vec<Picture>,
    /// The place in `distinct` of what each note shows. `[notes]`
    pub of_note: Vec<usize>,
}

impl BatchPictures {
    /// Pictures of their values alone, `[notes, 3, image_size, image_size]`, one a note.
    pub fn from_values(values: &[f32], image_size: usize) -> Self {
        let pictures = values.chunks_exact((3 * image_size * image_size).max(1));
        let picture = |values: &[f32]| Picture {
            hash: None,
            size: [image_size; 2],
            values: Some(values.into()),
        };
        let distinct: Vec<Picture> = pictures.map(picture).collect();
        Self {
            of_note: (0..distinct.len()).collect(),
            distinct,
        }
    }

    /// Those that some of the notes show.
    fn slice(&self, notes: Range<usize>) -> Self {
        let mut places = HashMap::new();
        let mut distinct = Vec::new();
        let of_note = self.of_note[notes].iter().map(|&place| {
            *places.entry(place).or_insert_with(|| {
                distinct.push(self.distinct[place].clone());
                distinct.len() - 1
            })
        });
        Self {
            of_note: of_note.collect(),
            distinct,
        }
    }
}

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
    /// The pictures; `None` for variants that see none.
    pub pictures: Option<BatchPictures>,
    /// Rows of the note set. `[notes]`
    pub rows: Vec<u32>,
    /// Which notes are read by their text alone, though the others show a picture: theirs is a text
    /// prompt, their indices say nothing, and their picture is blank. `[notes]`, or empty where none is.
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
            pictures: None,
            rows: rows.to_vec(),
            by_text: Vec::new(),
            places: Vec::new(),
        }
    }

    /// The notes of `parts`, one below the other, padded with `pad_id` to the longest of all.
    pub fn join(parts: &[&Self], pad_id: u32) -> Self {
        let seq = parts.iter().map(|part| part.seq).max().unwrap_or(0);
        let mut input_ids = Vec::new();
        for part in parts {
            for ids in part.input_ids.chunks_exact(part.seq.max(1)) {
                input_ids.extend_from_slice(ids);
                input_ids.resize(input_ids.len() + seq - part.seq, pad_id as i32);
            }
        }
        let index = |of: fn(&Self) -> &Option<Vec<usize>>| {
            let any = parts.iter().any(|part| of(part).is_some());
            let of_part = |part: &&Self| of(part).clone().unwrap_or_else(|| vec![0; part.notes]);
            any.then(|| parts.iter().flat_map(of_part).collect())
        };
        let by_text = parts.iter().any(|part| !part.by_text.is_empty());
        let read_by_text = |part: &&Self| match part.by_text.is_empty() {
            true => vec![false; part.notes],
            false => part.by_text.clone(),
        };
        let mut pictures: Option<BatchPictures> = None;
        for part in parts.iter().filter_map(|part| part.pictures.as_ref()) {
            let all = pictures.get_or_insert_with(BatchPictures::default);
            let before = all.distinct.len();
            all.distinct.extend_from_slice(&part.distinct);
            all.of_note
                .extend(part.of_note.iter().map(|at| before + at));
        }
        Self {
            notes: parts.iter().map(|part| part.notes).sum(),
            seq,
            input_ids,
            lengths: parts.iter().flat_map(|part| part.lengths.clone()).collect(),
            image_index: index(|part| &part.image_index),
            image_emb_index: index(|part| &part.image_emb_index),
            pictures,
            rows: parts.iter().flat_map(|part| part.rows.clone()).collect(),
            by_text: match by_text {
                true => parts.iter().flat_map(read_by_text).collect(),
                false => Vec::new(),
            },
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
        let pictures = self.pictures.as_ref();
        Self {
            notes: notes.len(),
            seq,
            input_ids: ids.flat_map(|ids| &ids[..seq]).copied().collect(),
            lengths,
            image_index: index(&self.image_index),
            image_emb_index: index(&self.image_emb_index),
            pictures: pictures.map(|pictures| pictures.slice(notes.clone())),
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
        let values: Vec<f32> = (0..9_u8).map(f32::from).collect();
        batch.pictures = Some(BatchPictures::from_values(&values, 1));
        let mut expected = NoteBatch::from_prompts(&prompts[..2], &[40, 2], 3);
        expected.pictures = Some(BatchPictures::from_values(&values[..6], 1));
        assert_eq!(batch.slice(0..2), expected);
        assert_eq!(batch.slice(0..3), batch);
        batch.by_text = vec![false, true, false];
        assert_eq!(batch.slice(1..3).by_text, [true, false]);
        let last = Some(BatchPictures::from_values(&values[6..], 1));
        assert_eq!(batch.slice(2..3).pictures, last);
        // What several notes show is held once.
        batch.pictures.as_mut().unwrap().of_note = vec![1, 2, 1];
        let pictures = batch.slice(1..3).pictures.unwrap();
        assert_eq!((pictures.of_note, pictures.distinct.len()), (vec![0, 1], 2));
        let pictures = batch.slice(2..3).pictures.unwrap();
        assert_eq!(pictures.distinct[0].values.as_deref(), Some(&values[3..6]));
    }

    #[test]
    fn what_is_joined_is_what_was_sliced() {
        let prompts = [
            prompt(&[5, 6], Some(1)),
            prompt(&[7], Some(0)),
            prompt(&[7, 8, 9], Some(2)),
        ];
        let mut whole = NoteBatch::from_prompts(&prompts, &[40, 2, 7], 3);
        let values: Vec<f32> = (0..9_u8).map(f32::from).collect();
        whole.pictures = Some(BatchPictures::from_values(&values, 1));
        let joined = |batch: &NoteBatch| {
            let parts = [batch.slice(0..1), batch.slice(1..1), batch.slice(1..3)];
            NoteBatch::join(&parts.each_ref(), 3)
        };
        assert_eq!(joined(&whole), whole);
        whole.by_text = vec![false, true, false];
        assert_eq!(joined(&whole), whole);
        // A part of which none is read by text, beside one of which some are.
        let mut first = whole.slice(0..1);
        first.by_text = Vec::new();
        assert_eq!(NoteBatch::join(&[&first, &whole.slice(1..3)], 3), whole);
        assert_eq!(NoteBatch::join(&[], 3), NoteBatch::default());
    }

    #[test]
    fn no_notes_are_an_empty_batch() {
        let batch = NoteBatch::from_prompts(&[], &[], 0);
        assert_eq!((batch.notes, batch.seq), (0, 0));
        assert!(batch.input_ids.is_empty());
    }
}
