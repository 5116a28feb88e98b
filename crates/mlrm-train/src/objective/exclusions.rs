//! Which notes of a batch are not each other's negatives.

use std::collections::HashMap;

use mlrm_model::transfer::upload;
use std::ops::Range;

use burn::tensor::{Bool, Device, Tensor, TensorData};
use mlrm_config::ObjectiveKind;

/// Which notes are not negatives of which, and how often each of the others is drawn, where that is
/// corrected. Only what does not count is listed, so that a large batch holds no `[notes, notes]`.
#[derive(Debug, Clone)]
pub struct Exclusions {
    /// The notes that do not count for each note, each once. `[notes]`
    excluded: Vec<Vec<u32>>,
    log_shares: Option<Vec<f32>>,
    /// Which notes have no picture; empty where none is without.
    by_text: Vec<bool>,
}

impl Exclusions {
    /// Only each note itself is excluded (the released code).
    pub fn diagonal(notes: usize) -> Self {
        Self::new((0..notes as u32).map(|note| vec![note]).collect())
    }

    /// Each note itself, its duplicates, its known partners and their duplicates are excluded; the
    /// row's own partner always counts.
    ///
    /// `notes`: identity of each row, queries first, then their targets in the same order;
    /// `partners`: the known partners of a note.
    pub fn false_negatives<'a>(notes: &[u32], partners: impl Fn(u32) -> &'a [u32]) -> Self {
        let mut places: HashMap<u32, Vec<u32>> = HashMap::new();
        for (place, &note) in (0..).zip(notes) {
            places.entry(note).or_default().push(place);
        }
        let count = notes.len();
        let of_row = |row: usize| {
            let partner = (row + count / 2) % count;
            let known = partners(notes[row]).iter();
            let excluded = [notes[row], notes[partner]]
                .into_iter()
                .chain(known.copied());
            let excluded = excluded.filter_map(|note| places.get(&note)).flatten();
            let excluded = excluded.copied().filter(|&place| place as usize != partner);
            let mut excluded: Vec<u32> = excluded.collect();
            excluded.sort_unstable();
            excluded.dedup();
            excluded
        };
        Self::new((0..count).map(of_row).collect())
    }

    fn new(excluded: Vec<Vec<u32>>) -> Self {
        Self {
            excluded,
            log_shares: None,
            by_text: Vec::new(),
        }
    }

    /// With the logarithm of how often each note is drawn, `[notes]`, which is taken off its logits
    /// as a candidate.
    pub fn corrected(self, log_shares: Vec<f32>) -> Self {
        Self {
            log_shares: Some(log_shares),
            ..self
        }
    }

    /// With notes that have no picture, `[notes]`, or none of them: their visual embeddings are neither
    /// rows nor candidates of L(E_v).
    pub fn without_pictures(self, by_text: Vec<bool>) -> Self {
        Self { by_text, ..self }
    }

    /// The loss of embeddings that all have the same cosine: for each note the logarithm of the
    /// candidates that count, N of them without correction, mean over the notes.
    pub fn chance_loss(&self, kind: ObjectiveKind) -> f64 {
        let (notes, half) = (self.excluded.len(), self.excluded.len() / 2);
        let weight = |column: usize| match &self.log_shares {
            Some(log_shares) => (-f64::from(log_shares[column])).exp(),
            None => 1.0,
        };
        let weights: Vec<f64> = (0..notes).map(weight).collect();
        let [queries, targets] =
            [&weights[..half], &weights[half..]].map(|w| w.iter().sum::<f64>());
        let loss = |row: usize| {
            let (columns, all) = match kind {
                ObjectiveKind::OneTower => (0..notes, queries + targets),
                ObjectiveKind::Dual if row < half => (half..notes, targets),
                ObjectiveKind::Dual => (0..half, queries),
            };
            let excluded = self.excluded[row].iter().map(|&column| column as usize);
            let excluded = excluded.filter(|column| columns.contains(column));
            let sum = all - excluded.map(|column| weights[column]).sum::<f64>();
            sum.ln() - weights[(row + half) % notes].ln()
        };
        (0..notes).map(loss).sum::<f64>() / notes as f64
    }

    /// True where a candidate of `columns` does not count for a note of `rows`, `[rows, columns]`; for
    /// the `visual` loss notes without a picture do not either.
    pub(super) fn mask(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        visual: bool,
        device: &Device,
    ) -> Tensor<2, Bool> {
        let shape = [rows.len(), columns.len()];
        let by_text = match visual && !self.by_text.is_empty() {
            true => self.by_text[columns.clone()].to_vec(),
            false => vec![false; columns.len()],
        };
        let mut mask = by_text.repeat(rows.len());
        for (row, mask) in rows.zip(mask.chunks_exact_mut(columns.len().max(1))) {
            for &note in &self.excluded[row] {
                if columns.contains(&(note as usize)) {
                    mask[note as usize - columns.start] = true;
                }
            }
        }
        upload(TensorData::new(mask, shape), device)
    }

    /// How much the loss of each note counts, before it is made a mean: not where the note or its
    /// partner has no picture, of the `visual` loss. `[notes]`
    pub(super) fn weights(&self, visual: bool) -> Vec<f32> {
        let notes = self.excluded.len();
        if !visual || self.by_text.is_empty() {
            return vec![1.0; notes];
        }
        let shown = |row: usize| !self.by_text[row] && !self.by_text[(row + notes / 2) % notes];
        (0..notes)
            .map(|row| f32::from(u8::from(shown(row))))
            .collect()
    }

    /// What is taken off the logits of `columns`, `[1, columns]`.
    pub(super) fn offsets(&self, columns: Range<usize>, device: &Device) -> Option<Tensor<2>> {
        let log_shares = self.log_shares.as_ref()?[columns].to_vec();
        let shape = [1, log_shares.len()];
        Some(upload(TensorData::new(log_shares, shape), device))
    }

    /// Whether `column` does not count for `row` of the multimodal loss.
    #[cfg(test)]
    pub(super) fn excludes(&self, row: usize, column: usize) -> bool {
        self.excluded[row].contains(&(column as u32))
    }
}
