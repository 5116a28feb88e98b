//! What can be wrong with embeddings, their files and an evaluation's inputs.

use std::path::{Path, PathBuf};

/// Why embeddings could not be read, written or measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The number of values is not notes × dimensions.
    #[error("{ids} ids × {dim} dimensions need {} values, but there are {values}", ids * dim)]
    Shape {
        /// Number of ids.
        ids: usize,
        /// Dimensions of an embedding.
        dim: usize,
        /// Number of values given.
        values: usize,
    },
    /// Embeddings without a dimension.
    #[error("embeddings need at least one dimension")]
    NoDimensions,
    /// More notes than a row number can count.
    #[error(
        "{notes} notes are too many: at most {} can be ranked at once",
        u32::MAX
    )]
    TooManyNotes {
        /// Number of notes.
        notes: usize,
    },
    /// An id that cannot be stored, one a line.
    #[error("row {row}: the id {id:?} is {problem}; ids are non-empty and hold no line break")]
    BadId {
        /// Row, counted from 0.
        row: usize,
        /// The id.
        id: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The same id twice.
    #[error("rows {first} and {second} have the same id {id:?}; every note may appear only once")]
    DuplicateId {
        /// The id.
        id: String,
        /// First row, counted from 0.
        first: usize,
        /// Second row, counted from 0.
        second: usize,
    },
    /// A value that is NaN or infinite.
    #[error(
        "row {row} (id {id:?}): dimension {dimension} is {value}; embeddings must be finite \
         (a model that diverged writes such values)"
    )]
    NotFinite {
        /// Row, counted from 0.
        row: usize,
        /// Its id.
        id: String,
        /// Dimension, counted from 0.
        dimension: usize,
        /// The value.
        value: f32,
    },
    /// A vector so long that dot products overflow 32 bits.
    #[error("row {row} (id {id:?}): the embedding's length {norm:e} overflows f32 dot products")]
    TooLong {
        /// Row, counted from 0.
        row: usize,
        /// Its id.
        id: String,
        /// Euclidean length.
        norm: f64,
    },
    /// A vector without direction cannot be normalised.
    #[error("row {row} (id {id:?}): the embedding is all zeros and has no direction to compare")]
    ZeroVector {
        /// Row, counted from 0.
        row: usize,
        /// Its id.
        id: String,
    },
    /// Two lists that should describe the same notes differ.
    #[error("{what}: {problem}")]
    Mismatch {
        /// The lists.
        what: &'static str,
        /// How they differ.
        problem: String,
    },
    /// A row number outside the notes.
    #[error("row {row} does not exist: there are {notes} notes")]
    NoSuchRow {
        /// The row, counted from 0.
        row: usize,
        /// Number of notes.
        notes: usize,
    },
    /// What an approximate index could not do.
    #[cfg(feature = "index")]
    #[error("the index: {0}")]
    Index(String),
    /// A cut-off of 0.
    #[error("k = 0 is not a cut-off: Recall@k and its like need k of at least 1")]
    ZeroCutoff,
    /// Two slices of the same name.
    #[error("two slices are called {name:?}; rename one")]
    DuplicateSlice {
        /// The name.
        name: String,
    },
    /// A file name whose ending names no format.
    #[error("{}: the ending names no embedding format; use .parquet, .npy or .safetensors", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file that is not what its ending says, or lacks a part.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and how to correct it.
        problem: String,
    },
    /// A file whose content is not a valid set of embeddings.
    #[error("{}: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<Error>,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }

    pub(crate) fn file(path: &Path, problem: impl std::fmt::Display) -> Self {
        Self::File {
            path: path.to_path_buf(),
            problem: problem.to_string(),
        }
    }

    /// The same error with the file it was found in.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        Self::Content {
            path: path.to_path_buf(),
            source: Box::new(self),
        }
    }
}
