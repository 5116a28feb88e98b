//! An approximate index (HNSW, by the crate `usearch`) over embeddings.
//!
//! | file | what |
//! | --- | --- |
//! | `NAME` | the index as usearch writes it; keys are rows |
//! | `NAME.ids.txt` | the id of each row, one a line |
//! | `NAME.json` | an [`IndexReport`]: how it was built, and its recall against the exact answer |

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use usearch::ffi::{MetricKind, ScalarKind};

use crate::embeddings::Embeddings;
use crate::error::Error;
use crate::files::{begin, begin_text, place, remove, sync};
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

fn ids_path(path: &Path) -> PathBuf {
    beside(path, ".ids.txt")
}

fn report_path(path: &Path) -> PathBuf {
    beside(path, ".json")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn utf8(path: &Path) -> Result<&str, Error> {
    path.to_str()
        .ok_or_else(|| Error::file(path, "the name of an index must be UTF-8"))
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
        let inner = usearch::Index::new(&usearch::ffi::IndexOptions {
            dimensions: embeddings.dim(),
            metric: MetricKind::Cos,
            quantization: match options.numbers {
                IndexNumbers::F32 => ScalarKind::F32,
                IndexNumbers::F16 => ScalarKind::F16,
                IndexNumbers::Int8 => ScalarKind::I8,
            },
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
            inner.add(row as u64, embeddings.row(row)).map_err(failed)?;
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
        let mut query = vec![0.0_f32; self.inner.dimensions()];
        self.inner.get(row as u64, &mut query).map_err(failed)?;
        let found = self.inner.search(&query, k.saturating_add(1).min(notes));
        let found = found.map_err(failed)?;
        let pairs = found.keys.into_iter().zip(found.distances);
        let others = pairs.filter(|(key, _)| *key != row as u64);
        let neighbours = others.map(|(key, distance)| Neighbour {
            row: key as u32,
            score: 1.0 - distance,
        });
        Ok(neighbours.take(k).collect())
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

    /// Writes the index with its ids and what was measured: all beside, then renamed, the index last, so that a
    /// file of this name is always whole and its own.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, path: &Path, recall: IndexRecall) -> Result<IndexReport, Error> {
        let index = begin(path)?;
        self.inner
            .save(utf8(index.beside())?)
            .map_err(|error| Error::file(path, format!("cannot be written: {error}")))?;
        let written = std::fs::metadata(index.beside()).map_err(Error::io(path, "write"))?;
        let report = IndexReport {
            notes: self.len(),
            dim: self.inner.dimensions(),
            options: self.options,
            build_seconds: self.build_seconds,
            threads: rayon::current_num_threads(),
            bytes: written.len(),
            recall,
        };
        let report_file = report_path(path);
        let json = serde_json::to_string_pretty(&report)
            .map_err(|error| Error::file(&report_file, error.to_string()))?;
        let ids = begin_text(&ids_path(path), &(self.ids.join("\n") + "\n"))?;
        let json = begin_text(&report_file, &(json + "\n"))?;
        [&ids, &json, &index].into_iter().try_for_each(sync)?;
        remove(path)?;
        [ids, json, index].into_iter().try_for_each(place)?;
        Ok(report)
    }

    /// Opens an index where it lies: only what a search looks at is read.
    ///
    /// # Errors
    /// A file that is no index, is cut off, or is not that of the ids and the report beside it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let size = std::fs::metadata(path)
            .map_err(Error::io(path, "open"))?
            .len();
        let broken = |problem: String| Error::file(path, problem);
        let no_index = |error: String| broken(format!("no index of usearch: {error}"));
        let header = || {
            let header = usearch::Index::metadata(utf8(path)?);
            header.map_err(|error| no_index(error.to_string()))
        };
        let report_file = report_path(path);
        let text = match std::fs::read_to_string(&report_file) {
            Ok(text) => text,
            // A file of another kind is told as such.
            Err(error) => {
                header()?;
                return Err(Error::io(&report_file, "read what belongs to the index")(
                    error,
                ));
            }
        };
        let report: IndexReport = serde_json::from_str(&text).map_err(|error| {
            Error::file(&report_file, format!("no report of an index: {error}"))
        })?;
        if size != report.bytes {
            return Err(broken(format!(
                "{size} bytes, but {} says {}; it is cut off or of another build",
                report_file.display(),
                report.bytes
            )));
        }
        let header = header()?;
        let ids_file = ids_path(path);
        let ids = std::fs::read_to_string(&ids_file).map_err(Error::io(
            &ids_file,
            "read the ids of the index (one a line)",
        ))?;
        let ids: Vec<String> = ids.lines().map(str::to_owned).collect();
        if ids.len() as u64 != header.count_present {
            return Err(broken(format!(
                "{} notes, but {} has {} ids; they must belong together",
                header.count_present,
                ids_file.display(),
                ids.len()
            )));
        }
        let inner = usearch::Index::restore_view(utf8(path)?);
        let inner = inner.map_err(|error| no_index(error.to_string()))?;
        inner.change_expansion_search(report.options.expansion_search);
        Ok(Self {
            inner,
            ids,
            options: report.options,
            build_seconds: report.build_seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `notes` directions that are the same on every machine.
    fn embeddings(notes: usize, dim: usize) -> Embeddings {
        let value =
            |n: usize| (n as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5;
        let values = (0..notes * dim).map(|n| value(n * n + 7 * n)).collect();
        let ids = (0..notes).map(|note| format!("note {note}")).collect();
        let all = Embeddings::new(ids, dim, values).unwrap();
        all.into_normalised().unwrap()
    }

    fn options(numbers: IndexNumbers) -> IndexOptions {
        IndexOptions {
            numbers,
            connectivity: 16,
            expansion_add: 128,
            expansion_search: 200,
        }
    }

    #[test]
    fn what_is_found_is_what_is_near_in_any_numbers() {
        let all = embeddings(3000, 24);
        let home = tempfile::tempdir().unwrap();
        for (numbers, least) in [
            (IndexNumbers::F32, 0.97),
            (IndexNumbers::F16, 0.97),
            (IndexNumbers::Int8, 0.9),
        ] {
            let heard = AtomicUsize::new(0);
            let most = |done| {
                heard.fetch_max(done, Ordering::Relaxed);
            };
            let index = Index::build(&all, options(numbers), &most).unwrap();
            assert_eq!(heard.into_inner(), 3000);
            let recall = index.recall(&all, 200, 10).unwrap();
            assert!(recall.recall >= least, "{numbers:?}: {recall:?}");
            assert_eq!((recall.queries, recall.k), (200, 10));

            let path = home.path().join(format!("{numbers:?}.usearch"));
            let report = index.write(&path, recall).unwrap();
            assert_eq!(report.bytes, path.metadata().unwrap().len());
            let again = Index::open(&path).unwrap();
            assert_eq!(again.ids(), all.ids());
            for row in [0, 17, 2999] {
                let near = again.nearest(row, 10).unwrap();
                assert_eq!(near, index.nearest(row, 10).unwrap());
                assert!(near.len() == 10 && near.iter().all(|found| found.row as usize != row));
                assert!(
                    near.windows(2).all(|two| two[0].score >= two[1].score),
                    "{near:?}"
                );
                let exact = top_k(&all, &[row as u32], 1).unwrap();
                assert!(
                    (near[0].score - exact[0][0].score).abs() < 0.02,
                    "{numbers:?}"
                );
            }
        }
        let names = std::fs::read_dir(home.path()).unwrap();
        assert_eq!(names.count(), 9, "nothing else is left");
    }

    #[test]
    fn few_notes_are_all_found() {
        let all = embeddings(3, 4);
        let index = Index::build(&all, options(IndexNumbers::F32), &|_| ()).unwrap();
        assert_eq!(index.nearest(1, 10).unwrap().len(), 2);
        assert_eq!(index.recall(&all, 1000, 10).unwrap().recall, 1.0);
        assert!(matches!(index.nearest(3, 1), Err(Error::NoSuchRow { .. })));
        let others = embeddings(4, 4);
        assert!(index.recall(&others, 2, 1).is_err());
    }

    #[test]
    fn a_file_that_is_no_index_or_not_whole_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let all = embeddings(50, 8);
        let index = Index::build(&all, options(IndexNumbers::F16), &|_| ()).unwrap();
        let recall = index.recall(&all, 10, 5).unwrap();
        let path = home.path().join("notes.usearch");
        index.write(&path, recall).unwrap();
        let problem = |path: &Path| Index::open(path).err().map(|error| error.to_string());
        assert_eq!(problem(&path), None);
        let refused = |path: &Path, word: &str| {
            let found = problem(path).unwrap_or_default();
            assert!(found.contains(word), "no `{word}` in {found}");
        };
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
        refused(&path, "cut off");
        let other = home.path().join("other.usearch");
        std::fs::write(
            &other,
            b"\x93NUMPY that is no index at all, however long it may be",
        )
        .unwrap();
        refused(&other, "no index of usearch");
        std::fs::write(&path, bytes).unwrap();
        std::fs::write(ids_path(&path), "a\nb\n").unwrap();
        refused(&path, "has 2 ids");
        std::fs::remove_file(report_path(&path)).unwrap();
        refused(&path, "notes.usearch.json");
        refused(&home.path().join("none"), "none");
    }
}
