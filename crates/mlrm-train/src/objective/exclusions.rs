//! Which notes of a batch are not each other's negatives.

use std::collections::HashMap;
use std::ops::Range;

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use mlrm_config::ObjectiveKind;
use mlrm_model::transfer::upload;

/// Which notes are not negatives of which, and how often each of the others is drawn, where that is
/// corrected. Held, and uploaded, are vectors of all notes; the device makes `[notes, notes]` of them, a block of rows at
/// a time.
#[derive(Debug, Clone)]
pub struct Exclusions {
    /// The first place of the note at each place, which stands for the note. `[notes]`
    first: Vec<u32>,
    /// The known partners in the batch of the note that is first at each place.
    known: Vec<Vec<u32>>,
    /// `known` in two, so that no list is long where some notes have very many partners: by the note that knows, and by
    /// the one that is known.
    sides: [Vec<Vec<u32>>; 2],
    log_shares: Option<Vec<f32>>,
    /// Which notes have no picture; empty where none is without.
    by_text: Vec<bool>,
}

impl Exclusions {
    /// Only each note itself is excluded (the released code).
    pub fn diagonal(notes: usize) -> Self {
        Self::new((0..notes as u32).collect(), vec![Vec::new(); notes])
    }

    /// Each note itself, its duplicates, its known partners and their duplicates are excluded; the
    /// row's own partner always counts.
    ///
    /// `notes`: identity of each row, queries first, then their targets in the same order;
    /// `partners`: the known partners of a note.
    pub fn false_negatives<'a>(notes: &[u32], partners: impl Fn(u32) -> &'a [u32]) -> Self {
        let mut places: HashMap<u32, u32> = HashMap::new();
        let all = (0..).zip(notes);
        let first = all.map(|(place, &note)| *places.entry(note).or_insert(place));
        let first: Vec<u32> = first.collect();
        let mut known = vec![Vec::new(); notes.len()];
        for (&note, &place) in &places {
            let partners = partners(note).iter();
            known[place as usize] = partners.filter_map(|n| places.get(n)).copied().collect();
        }
        Self::new(first, known)
    }

    fn new(first: Vec<u32>, known: Vec<Vec<u32>>) -> Self {
        let mut knowing = vec![0; first.len()];
        for &other in known.iter().flatten() {
            knowing[other as usize] += 1;
        }
        let mut sides = [(); 2].map(|()| vec![Vec::new(); first.len()]);
        for (note, partners) in (0..).zip(&known) {
            for &other in partners {
                match partners.len() <= knowing[other as usize] {
                    true => sides[0][note as usize].push(other),
                    false => sides[1][other as usize].push(note),
                }
            }
        }
        Self {
            first,
            known,
            sides,
            log_shares: None,
            by_text: Vec::new(),
        }
    }

    /// The places that do not count for each place, in order.
    fn excluded(&self) -> impl Iterator<Item = Vec<u32>> + '_ {
        let notes = self.first.len();
        let mut places: Vec<Vec<u32>> = vec![Vec::new(); notes];
        for (place, &first) in (0..).zip(&self.first) {
            places[first as usize].push(place);
        }
        (0..notes).map(move |row| {
            let partner = partner(row, notes);
            let [own, other] = [row, partner].map(|place| self.first[place]);
            let all = [own, other].into_iter();
            let all = all.chain(self.known[own as usize].iter().copied());
            let all = all.flat_map(|first| places[first as usize].iter().copied());
            let mut all: Vec<u32> = all.filter(|&place| place as usize != partner).collect();
            all.sort_unstable();
            all.dedup();
            all
        })
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
        let (notes, half) = (self.first.len(), self.first.len() / 2);
        let weight = |column: usize| match &self.log_shares {
            Some(log_shares) => (-f64::from(log_shares[column])).exp(),
            None => 1.0,
        };
        let weights: Vec<f64> = (0..notes).map(weight).collect();
        let [queries, targets] =
            [&weights[..half], &weights[half..]].map(|w| w.iter().sum::<f64>());
        let loss = |(row, excluded): (usize, Vec<u32>)| {
            let (columns, all) = match kind {
                ObjectiveKind::OneTower => (0..notes, queries + targets),
                ObjectiveKind::Dual if row < half => (half..notes, targets),
                ObjectiveKind::Dual => (0..half, queries),
            };
            let excluded = excluded.into_iter().map(|column| column as usize);
            let excluded = excluded.filter(|column| columns.contains(column));
            let sum = all - excluded.map(|column| weights[column]).sum::<f64>();
            sum.ln() - weights[partner(row, notes)].ln()
        };
        self.excluded().enumerate().map(loss).sum::<f64>() / notes as f64
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
        let (down, across) = self.vectors(&rows, &columns);
        let lengths = across.iter().chain(&down).map(Vec::len).collect();
        let numbers: Vec<i32> = across.iter().chain(&down).flatten().copied().collect();
        let numbers = TensorData::new(numbers, [across.len() * shape[1] + down.len() * shape[0]]);
        let numbers: Tensor<1, Int> = upload(numbers, device);
        let mut parts = numbers.split_with_sizes(lengths, 0).into_iter();
        let wide = |part: Tensor<1, Int>| part.reshape([1, shape[1]]).expand(shape);
        let across: Vec<Tensor<2, Int>> = parts.by_ref().take(across.len()).map(wide).collect();
        let high = |part: Tensor<1, Int>| part.reshape([shape[0], 1]).expand(shape);
        let down: Vec<Tensor<2, Int>> = parts.map(high).collect();
        let (place, note, own) = (&across[0], &across[1], &down[1]);
        let others = down[2..].iter().map(|other| (other, note));
        let others = others.chain(across[2..].iter().map(|other| (other, own)));
        let excluded = std::iter::once((own, note)).chain(others);
        let excluded = excluded.map(|(a, b)| a.clone().equal(b.clone()));
        let excluded = excluded.reduce(Tensor::bool_or).expect("a note itself");
        let excluded = excluded.bool_and(place.clone().not_equal(down[0].clone()));
        if !visual || self.by_text.is_empty() {
            return excluded;
        }
        let by_text = TensorData::new(self.by_text[columns].to_vec(), [1, shape[1]]);
        excluded.bool_or(upload::<2, Bool>(by_text, device).expand(shape))
    }

    /// What a mask is made of, as vectors of its rows (place of the partner, note, partner, and what the note knows) and of
    /// its columns (place, note, and what knows the note).
    fn vectors(
        &self,
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) -> (Vec<Vec<i32>>, Vec<Vec<i32>>) {
        let notes = self.first.len();
        let note = |place: usize| self.first[place] as i32;
        let lists = |side: &[Vec<u32>], places: &Range<usize>| -> Vec<Vec<i32>> {
            let list = |place: usize| &side[self.first[place] as usize];
            let most = places.clone().map(|place| list(place).len()).max();
            let nth = |n: usize| {
                let places = places.clone().map(|place| list(place).get(n));
                // No note is −1.
                places
                    .map(|note| note.map_or(-1, |&note| note as i32))
                    .collect()
            };
            (0..most.unwrap_or(0)).map(nth).collect()
        };
        let mut down: Vec<Vec<i32>> = vec![
            rows.clone().map(|row| partner(row, notes) as i32).collect(),
            rows.clone().map(note).collect(),
            rows.clone().map(|row| note(partner(row, notes))).collect(),
        ];
        down.extend(lists(&self.sides[0], rows));
        let mut across: Vec<Vec<i32>> = vec![
            columns.clone().map(|column| column as i32).collect(),
            columns.clone().map(note).collect(),
        ];
        across.extend(lists(&self.sides[1], columns));
        (down, across)
    }

    /// How much the loss of each note counts, before it is made a mean: not where the note or its
    /// partner has no picture, of the `visual` loss. `[notes]`
    pub(super) fn weights(&self, visual: bool) -> Vec<f32> {
        let notes = self.first.len();
        if !visual || self.by_text.is_empty() {
            return vec![1.0; notes];
        }
        let shown = |row: usize| !self.by_text[row] && !self.by_text[partner(row, notes)];
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
        let excluded = self.excluded().nth(row);
        excluded.is_some_and(|excluded| excluded.contains(&(column as u32)))
    }
}

/// The place of the partner of `row` in a batch of `notes` places.
fn partner(row: usize, notes: usize) -> usize {
    (row + notes / 2) % notes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Masks of all places and of some, pair by pair beside the definition.
    #[test]
    fn masks_are_what_is_excluded() {
        let notes = 60;
        let ids: Vec<u32> = (0..notes as u32).map(|n| n * n % 23).collect();
        // Some know many, some are known by many, and some know without being known.
        let knows = |note: u32, other: u32| note == 2 || other == 3 || note * other % 7 == 1;
        let partners: Vec<Vec<u32>> = (0..23)
            .map(|note| (0..23).filter(|&other| knows(note, other)).collect())
            .collect();
        let by_text: Vec<bool> = (0..notes).map(|n| n % 7 == 3).collect();
        let exclusions = Exclusions::false_negatives(&ids, |note| &partners[note as usize]);
        let exclusions = exclusions.without_pictures(by_text.clone());
        let expected = |row: usize, column: usize, visual: bool| {
            let partner = (row + notes / 2) % notes;
            let (note, other) = (ids[row], ids[column]);
            let same = note == other || ids[partner] == other || knows(note, other);
            same && column != partner || visual && by_text[column]
        };
        for (rows, columns) in [
            (0..60, 0..60),
            (0..30, 30..60),
            (17..24, 0..60),
            (59..60, 0..30),
        ] {
            for visual in [false, true] {
                let device = Device::flex();
                let mask = exclusions.mask(rows.clone(), columns.clone(), visual, &device);
                let found = mask.try_into_vec_as::<bool>().unwrap();
                let all = rows
                    .clone()
                    .flat_map(|row| columns.clone().map(move |c| (row, c)));
                let expected: Vec<bool> = all.map(|(r, c)| expected(r, c, visual)).collect();
                assert!(found == expected, "{rows:?}, {columns:?}, {visual}");
            }
        }
        for row in 0..notes {
            let all = (0..notes).map(|column| exclusions.excludes(row, column));
            let expected: Vec<bool> = (0..notes)
                .map(|column| expected(row, column, false))
                .collect();
            assert!(all.eq(expected), "{row}");
        }
    }

    /// A note that is the partner of all others lengthens no list.
    #[test]
    fn what_is_uploaded_grows_with_the_notes() {
        let notes: Vec<u32> = (0..400).collect();
        let exclusions = Exclusions::false_negatives(&notes, |note| match note {
            0 => &notes[1..],
            _ => &notes[..1],
        });
        let (down, across) = exclusions.vectors(&(0..400), &(0..400));
        assert_eq!((down.len(), across.len()), (4, 3));
        assert!(down.iter().chain(&across).all(|vector| vector.len() == 400));
    }
}
