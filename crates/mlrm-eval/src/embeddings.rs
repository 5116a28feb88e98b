//! Embeddings of a corpus: ids and one row of numbers for each.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::error::Error;

/// Largest Euclidean length of a row. By Cauchy-Schwarz no dot product of two such rows, nor any
/// partial sum of one, leaves the range of f32, so that scores are never infinite or NaN.
const MAX_NORM: f64 = 1e18;

/// How far a normalised row's length may be from 1 (bf16 rows, normalised before rounding, are
/// within 2^-8).
const UNIT_TOLERANCE: f64 = 5e-3;

/// Embeddings of a corpus, checked: unique ids, finite values, `ids × dim` of them.
///
/// A note's *row* is its position in [`Embeddings::ids`]; everything in this crate speaks of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    ids: Vec<String>,
    dim: usize,
    /// `[notes, dim]`, row-major.
    values: Vec<f32>,
}

impl Embeddings {
    /// Takes `ids` and their `values`, `[notes, dim]` row-major.
    ///
    /// # Errors
    /// If the lengths do not agree, an id is empty, holds a line break or appears twice, or a value
    /// is not finite.
    pub fn new(ids: Vec<String>, dim: usize, values: Vec<f32>) -> Result<Self, Error> {
        Self::from_row(0, ids, dim, values)
    }

    /// As [`Embeddings::new`], of the rows of a larger corpus from `first` on, as messages number them.
    pub(crate) fn from_row(
        first: usize,
        ids: Vec<String>,
        dim: usize,
        values: Vec<f32>,
    ) -> Result<Self, Error> {
        if dim == 0 {
            return Err(Error::NoDimensions);
        }
        if ids.len().checked_mul(dim) != Some(values.len()) {
            return Err(Error::Shape {
                ids: ids.len(),
                dim,
                values: values.len(),
            });
        }
        check_ids(first, &ids)?;
        for (row, vector) in values.chunks_exact(dim).enumerate() {
            check_vector(first + row, &ids[row], vector)?;
        }
        Ok(Self { ids, dim, values })
    }

    /// Ids in row order.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Dimensions of an embedding.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of notes.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no note.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// All values, `[notes, dim]` row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// One note's embedding, `[dim]`. Panics if there is no such row, as indexing does.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..(row + 1) * self.dim]
    }

    /// The row of an id. Linear; build a map from [`Embeddings::ids`] to look up many.
    pub fn find(&self, id: &str) -> Option<usize> {
        self.ids.iter().position(|known| known == id)
    }

    /// Whether every row has length 1 to within rounding, so that dot products are cosines.
    pub fn is_normalised(&self) -> bool {
        self.values
            .chunks_exact(self.dim)
            .all(|vector| (norm(vector) - 1.0).abs() <= UNIT_TOLERANCE)
    }

    /// The same directions with length 1, so that dot products are cosines.
    ///
    /// # Errors
    /// If a row is all zeros: it has no direction.
    pub fn into_normalised(mut self) -> Result<Self, Error> {
        for (row, vector) in self.values.chunks_exact_mut(self.dim).enumerate() {
            let norm = norm(vector);
            if norm == 0.0 {
                return Err(Error::ZeroVector {
                    row,
                    id: self.ids[row].clone(),
                });
            }
            for value in vector {
                *value = (f64::from(*value) / norm) as f32;
            }
        }
        Ok(self)
    }

    /// The first `dim` dimensions of each row, with length 1: embeddings of their own where training saw to it
    /// (Matryoshka). All of them are the embeddings as they are.
    ///
    /// # Errors
    /// If there are fewer dimensions, or those of a row are all zeros.
    pub fn cut_to(&self, dim: usize) -> Result<Self, Error> {
        if dim == self.dim {
            return Ok(self.clone());
        }
        if dim == 0 || dim > self.dim {
            return Err(Error::Mismatch {
                what: "the dimensions asked for and those that there are",
                problem: format!("{dim} of {}; ask for 1 to {}", self.dim, self.dim),
            });
        }
        let rows = self.values.chunks_exact(self.dim);
        let cut = Self {
            ids: self.ids.clone(),
            dim,
            values: rows.flat_map(|row| &row[..dim]).copied().collect(),
        };
        cut.into_normalised()
    }

    /// The embeddings that [`Numbers::Int8`](crate::Numbers::Int8) keeps of these, with length 1.
    ///
    /// # Errors
    /// If a row is all zeros.
    pub fn in_eight_bits(&self) -> Result<Self, Error> {
        let rows = self.values.chunks_exact(self.dim);
        let rounded = Self {
            ids: self.ids.clone(),
            dim: self.dim,
            values: rows.flat_map(eight_bits).map(f32::from).collect(),
        };
        rounded.into_normalised()
    }

    /// Several parts of one corpus (the shards of `embed --shard i/n`) as one, in the order given.
    ///
    /// # Errors
    /// If there is no part, the parts' dimensions differ, or an id is in two parts.
    pub fn concat(parts: Vec<Self>) -> Result<Self, Error> {
        let dim = parts.first().map_or(0, |part| part.dim);
        if let Some(part) = parts.iter().find(|part| part.dim != dim) {
            return Err(Error::Mismatch {
                what: "shards of one corpus",
                problem: format!(
                    "one has {dim} dimensions, another {}; they come from different models",
                    part.dim
                ),
            });
        }
        let mut ids = Vec::with_capacity(parts.iter().map(Self::len).sum());
        let mut values = Vec::with_capacity(ids.capacity() * dim);
        for part in parts {
            ids.extend(part.ids);
            values.extend(part.values);
        }
        Self::new(ids, dim, values)
    }

    /// Refuses a list that does not describe the same notes in the same order.
    pub(crate) fn check_same_notes(&self, ids: &[String], what: &'static str) -> Result<(), Error> {
        if self.len() != ids.len() {
            return Err(Error::Mismatch {
                what,
                problem: format!("{} notes against {}", self.len(), ids.len()),
            });
        }
        match self.ids.iter().zip(ids).position(|(a, b)| a != b) {
            None => Ok(()),
            Some(row) => Err(Error::Mismatch {
                what,
                problem: format!(
                    "row {row} is {:?} in one and {:?} in the other; both must list the same notes \
                     in the same order",
                    self.ids[row], ids[row]
                ),
            }),
        }
    }
}

/// What an embedding file holds: the embeddings used for retrieval and, where they were exported,
/// the visual ones (method §2, step 7) of the same notes.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingSet {
    multimodal: Embeddings,
    visual: Option<Embeddings>,
}

impl EmbeddingSet {
    /// Takes both sets.
    ///
    /// # Errors
    /// If they do not list the same ids in the same order.
    pub fn new(multimodal: Embeddings, visual: Option<Embeddings>) -> Result<Self, Error> {
        if let Some(visual) = &visual {
            multimodal.check_same_notes(visual.ids(), "multimodal and visual embeddings")?;
        }
        Ok(Self { multimodal, visual })
    }

    /// The embeddings used for retrieval.
    pub fn multimodal(&self) -> &Embeddings {
        &self.multimodal
    }

    /// The visual embeddings, where they were exported.
    pub fn visual(&self) -> Option<&Embeddings> {
        self.visual.as_ref()
    }

    /// Both, [cut](Embeddings::cut_to) to their first `dim` dimensions.
    ///
    /// # Errors
    /// As [`Embeddings::cut_to`].
    pub fn cut_to(&self, dim: usize) -> Result<Self, Error> {
        let visual = self.visual.as_ref().map(|visual| visual.cut_to(dim));
        Ok(Self {
            multimodal: self.multimodal.cut_to(dim)?,
            visual: visual.transpose()?,
        })
    }

    /// Both parts.
    pub fn into_parts(self) -> (Embeddings, Option<Embeddings>) {
        (self.multimodal, self.visual)
    }
}

/// A row in eight bits: its largest value becomes ±127, so that its direction, which is all that a cosine
/// reads, loses least.
pub(crate) fn eight_bits(row: &[f32]) -> impl Iterator<Item = i8> {
    let largest = row
        .iter()
        .fold(0.0_f32, |most, value| most.max(value.abs()));
    let scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    row.iter().map(move |value| (value * scale).round() as i8)
}

/// Euclidean length, in f64 so that it neither overflows nor underflows.
fn norm(vector: &[f32]) -> f64 {
    let squares = vector.iter().map(|&value| f64::from(value).powi(2));
    squares.sum::<f64>().sqrt()
}

fn check_ids(first_row: usize, ids: &[String]) -> Result<(), Error> {
    if u32::try_from(ids.len()).is_err() {
        return Err(Error::TooManyNotes { notes: ids.len() });
    }
    let mut rows = HashMap::with_capacity(ids.len());
    for (row, id) in (first_row..).zip(ids) {
        let problem = if id.is_empty() {
            Some("empty")
        } else if id.contains(['\n', '\r']) {
            Some("broken over lines")
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(Error::BadId {
                row,
                id: id.clone(),
                problem,
            });
        }
        if let Some(first) = rows.insert(id.as_str(), row) {
            return Err(Error::DuplicateId {
                id: id.clone(),
                first,
                second: row,
            });
        }
    }
    Ok(())
}

fn check_vector(row: usize, id: &str, vector: &[f32]) -> Result<(), Error> {
    if let Some(dimension) = vector.iter().position(|value| !value.is_finite()) {
        return Err(Error::NotFinite {
            row,
            id: id.to_owned(),
            dimension,
            value: vector[dimension],
        });
    }
    let norm = norm(vector);
    if norm > MAX_NORM {
        return Err(Error::TooLong {
            row,
            id: id.to_owned(),
            norm,
        });
    }
    Ok(())
}
