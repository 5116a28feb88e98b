//! An approximate index (HNSW, by the crate `usearch`) over embeddings.
//!
//! | file | what |
//! | --- | --- |
//! | `NAME` | the index as usearch writes it; keys are rows |
//! | `NAME.ids.txt` | the id of each row, one a line |
//! | `NAME.json` | an [`IndexReport`]: how it was built, and its recall against the exact answer |

mod files;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use usearch::VectorType;
use usearch::ffi::{Matches, MetricKind, ScalarKind};

use crate::embeddings::{Embeddings, eight_bits};
use crate::error::Error;
use crate::topk::{Neighbour, top_k};

/// The numbers that an index holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexNumbers {
    /// Four bytes each.
    F32,
    /// Two bytes each.
    F16,
    /// One byte each.
    Int8,
}

/// How an index is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexOptions {
    /// Numbers of the vectors.
    pub numbers: IndexNumbers,
    /// Neighbours of a note in the graph (M).
    pub connectivity: usize,
    /// Candidates that are looked at for the neighbours of a new note (efConstruction).
    pub expansion_add: usize,
    /// Candidates that a search looks at (ef).
    pub expansion_search: usize,
}

/// How well an index answers, beside the exact answer for the same queries.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct IndexRecall {
    /// Notes that were asked for.
    pub queries: usize,
    /// Nearest notes of each.
    pub k: usize,
    /// The share of the exact `k` nearest notes that the index finds.
    pub recall: f64,
    /// Searches a second, on all threads.
    pub queries_per_second: f64,
}

/// What is written beside an index.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct IndexReport {
    /// Notes.
    pub notes: usize,
    /// Dimensions.
    pub dim: usize,
    /// How it was built.
    #[serde(flatten)]
    pub options: IndexOptions,
    /// Seconds that building took.
    pub build_seconds: f64,
    /// Threads that built it.
    pub threads: usize,
    /// Size of the index.
    pub bytes: u64,
    /// Its recall.
    pub recall: IndexRecall,
}

/// An index over embeddings of length 1.
pub struct Index {
    inner: usearch::Index,
    ids: Vec<String>,
    options: IndexOptions,
    build_seconds: f64,
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Index(error.to_string())
}

impl Index {
    /// Builds an index of `embeddings`, which have length 1, on all threads of the current rayon pool; `progress`
    /// hears how many notes are in it. The order in which threads come decides the graph: two builds differ in it.
    ///
    /// # Errors
    /// What usearch refuses: sizes that do not fit into memory.
    pub fn build(
        embeddings: &Embeddings,
        options: IndexOptions,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Self, Error> {
        let begin = Instant::now();
        // Of vectors of length 1 the inner product is the cosine, without their lengths being computed for each pair.
        // In eight bits each vector has a scale of its own, so that its length is another.
        let (metric, quantization) = match options.numbers {
            IndexNumbers::F32 => (MetricKind::IP, ScalarKind::F32),
            IndexNumbers::F16 => (MetricKind::IP, ScalarKind::F16),
            IndexNumbers::Int8 => (MetricKind::Cos, ScalarKind::I8),
        };
        let inner = usearch::Index::new(&usearch::ffi::IndexOptions {
            dimensions: embeddings.dim(),
            metric,
            quantization,
            connectivity: options.connectivity,
            expansion_add: options.expansion_add,
            expansion_search: options.expansion_search,
            multi: false,
        })
        .map_err(failed)?;
        let threads = rayon::current_num_threads();
        inner
            .reserve_capacity_and_threads(embeddings.len(), threads)
            .map_err(failed)?;
        let done = AtomicUsize::new(0);
        (0..embeddings.len()).into_par_iter().try_for_each(|row| {
            let (key, values) = (row as u64, embeddings.row(row));
            let added = match options.numbers {
                IndexNumbers::F32 | IndexNumbers::F16 => inner.add(key, values),
                // usearch would scale the whole vector to length 127, of which a number uses a few bits, and cut off what is
                // behind the point.
                IndexNumbers::Int8 => inner.add(key, &eight_bits(values).collect::<Vec<_>>()),
            };
            added.map_err(failed)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            Ok::<(), Error>(())
        })?;
        Ok(Self {
            inner,
            ids: embeddings.ids().to_vec(),
            options,
            build_seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// Notes.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no note.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Ids in row order.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// About the `k` nearest notes of the note in `row`, best first, itself left out.
    ///
    /// # Errors
    /// A row that is not there, or a search that fails.
    pub fn nearest(&self, row: usize, k: usize) -> Result<Vec<Neighbour>, Error> {
        let notes = self.len();
        if row >= notes {
            return Err(Error::NoSuchRow { row, notes });
        }
        let k_and_itself = k.saturating_add(1).min(notes);
        let found = match self.options.numbers {
            IndexNumbers::F32 | IndexNumbers::F16 => self.around::<f32>(row, k_and_itself)?,
            IndexNumbers::Int8 => self.around::<i8>(row, k_and_itself)?,
        };
        let pairs = found.keys.into_iter().zip(found.distances);
        let others = pairs.filter(|(key, _)| *key != row as u64);
        let neighbours = others.map(|(key, distance)| Neighbour {
            row: key as u32,
            score: 1.0 - distance,
        });
        Ok(neighbours.take(k).collect())
    }

    /// The `count` nearest notes of a note, whose vector the index gives as numbers of a type.
    fn around<T: VectorType + Clone + Default>(
        &self,
        row: usize,
        count: usize,
    ) -> Result<Matches, Error> {
        let mut query = vec![T::default(); self.inner.dimensions()];
        self.inner.get(row as u64, &mut query).map_err(failed)?;
        self.inner.search(&query, count).map_err(failed)
    }

    /// How many of the exact `k` nearest notes the index finds, for `queries` notes spread evenly over all.
    ///
    /// # Errors
    /// As [`Self::nearest`]; `embeddings` that are not those of the index.
    pub fn recall(
        &self,
        embeddings: &Embeddings,
        queries: usize,
        k: usize,
    ) -> Result<IndexRecall, Error> {
        embeddings.check_same_notes(&self.ids, "index and embeddings")?;
        let queries = queries.min(self.len());
        let rows: Vec<u32> = (0..queries)
            .map(|query| (query * self.len() / queries) as u32)
            .collect();
        let exact = top_k(embeddings, &rows, k)?;
        let begin = Instant::now();
        let found = rows.par_iter().map(|&row| self.nearest(row as usize, k));
        let found = found.collect::<Result<Vec<_>, Error>>()?;
        let seconds = begin.elapsed().as_secs_f64();
        let (mut hits, mut all) = (0, 0);
        for (found, exact) in found.iter().zip(&exact) {
            let is_found = |near: &&Neighbour| found.iter().any(|found| found.row == near.row);
            hits += exact.iter().filter(is_found).count();
            all += exact.len();
        }
        Ok(IndexRecall {
            queries,
            k,
            recall: if all == 0 {
                1.0
            } else {
                hits as f64 / all as f64
            },
            queries_per_second: queries as f64 / seconds.max(1e-9),
        })
    }
}

#[cfg(test)]
mod tests;
