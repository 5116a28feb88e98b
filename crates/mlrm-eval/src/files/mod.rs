//! Embedding files. The ending of the name says the format:
//!
//! | ending | embeddings | ids | visual embeddings |
//! | --- | --- | --- | --- |
//! | `.parquet` | column `embedding`, fixed-size list of f32 | column `id`, string | column `visual_embedding` |
//! | `.npy` | the file, f32 `[notes, dim]` | `NAME.ids.txt`, one a line | `NAME.visual.npy` |
//! | `.safetensors` | tensor `embeddings`, f32 `[notes, dim]` | tensor `ids`, u8: UTF-8, one a line | tensor `visual_embeddings` |
//!
//! (`NAME` is the name without `.npy`.) Ids are a tensor and not metadata in safetensors because the
//! header, which holds the metadata, is bounded to 100 MB, which four million ids fill; in Python:
//! `tensors["ids"].tobytes().decode().strip("\n").split("\n")`.
//!
//! [`Numbers::Int8`] writes the same with numbers of eight bits. Files of other programs are read too where they
//! mean the same: f64 and f16 numbers, Parquet lists of variable type but equal length, integer ids.

mod join;
mod npy;
mod parquet;
mod safetensors;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use mlrm_files::{Marks, PendingFile, folder_of};

pub use self::join::{Joined, PartFile, join_embeddings};

use crate::embeddings::{EmbeddingSet, Embeddings, eight_bits};
use crate::error::Error;

/// How files are called while they are written.
const UNFINISHED: Marks = Marks {
    start: ".embeddings-",
    end: ".part",
};

/// A format of embedding files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// NumPy's array format, with the ids in a text file beside it.
    Npy,
    /// safetensors.
    Safetensors,
}

impl Format {
    /// The format that the ending of a file name stands for.
    ///
    /// # Errors
    ///
    /// If it stands for none.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let ending = path.extension().and_then(|ending| ending.to_str());
        match ending.map(str::to_ascii_lowercase).as_deref() {
            Some("parquet") => Ok(Self::Parquet),
            Some("npy") => Ok(Self::Npy),
            Some("safetensors") => Ok(Self::Safetensors),
            _ => Err(Error::UnknownFormat {
                path: path.to_path_buf(),
            }),
        }
    }
}

/// The numbers of an embedding file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Numbers {
    /// As they are.
    #[default]
    F32,
    /// Eight bits each, a note's largest as ±127: its direction, for comparison by cosine. A length that is not
    /// 1 tells readers so.
    Int8,
}

/// Reads an embedding file.
///
/// # Errors
///
/// If the ending stands for no format, the file cannot be read, is not what its ending says, or
/// does not hold valid embeddings.
pub fn read_embeddings(path: &Path) -> Result<EmbeddingSet, Error> {
    let mut whole = None;
    for_each_block(path, usize::MAX, &mut |set| {
        whole = Some(set);
        Ok(())
    })?;
    whole.ok_or_else(|| Error::file(path, "there is nothing in it"))
}

/// Hears the blocks of a file, one after the other.
type EachBlock<'a> = dyn FnMut(EmbeddingSet) -> Result<(), Error> + 'a;

/// Hands the rows of an embedding file to `each`, at most `most` (at least one) at a time, checked as those of
/// [`read_embeddings`] but for ids that are in two blocks. Of a file without rows that is one block without any.
fn for_each_block(path: &Path, most: usize, each: &mut EachBlock<'_>) -> Result<(), Error> {
    match Format::of(path)? {
        Format::Parquet => parquet::blocks(path, most, each),
        Format::Npy => npy::blocks(path, most, each),
        Format::Safetensors => safetensors::blocks(path, most, each),
    }
}

/// Hands every id of an embedding file to `each`, in the order of its rows.
fn for_each_id(path: &Path, each: &mut dyn FnMut(&str)) -> Result<(), Error> {
    match Format::of(path)? {
        Format::Parquet => parquet::ids(path, each),
        Format::Npy => npy::ids(path, each),
        Format::Safetensors => safetensors::ids(path, each),
    }
}

/// Writes an embedding file: beside, then renamed, so that a file of this name is always whole.
///
/// # Errors
///
/// If the ending stands for no format or the file cannot be written.
pub fn write_embeddings(path: &Path, set: &EmbeddingSet, numbers: Numbers) -> Result<(), Error> {
    let mut ids = set.multimodal().ids().join("\n");
    if !ids.is_empty() {
        ids.push('\n');
    }
    let shape = Shape {
        notes: set.multimodal().len(),
        dim: set.multimodal().dim(),
        visual: set.visual().map(Embeddings::dim),
        numbers,
    };
    let mut out = writer(path, &ids, shape)?;
    out.append(set)?;
    out.finish()
}

/// What an embedding file will hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    notes: usize,
    dim: usize,
    /// Dimensions of the visual embeddings, where there are any.
    visual: Option<usize>,
    numbers: Numbers,
}

/// An embedding file that is being written beside its place.
trait Writer {
    /// Adds the embeddings of the next notes.
    fn append(&mut self, set: &EmbeddingSet) -> Result<(), Error>;

    /// Puts the file, which is whole, in its place.
    fn finish(self: Box<Self>) -> Result<(), Error>;
}

/// Begins the file `path` of notes with these `ids`, one a line.
fn writer(path: &Path, ids: &str, shape: Shape) -> Result<Box<dyn Writer>, Error> {
    Ok(match Format::of(path)? {
        Format::Parquet => Box::new(parquet::Columns::begin(path, shape)?),
        Format::Npy => Box::new(npy::Arrays::begin(path, ids, shape)?),
        Format::Safetensors => Box::new(safetensors::Tensors::begin(path, ids, shape)?),
    })
}

/// The files that the embedding file `path` consists of, whether or not they are there: itself first, then
/// those of ids and of visual embeddings, which NumPy's format has beside it.
pub fn embedding_files(path: &Path) -> Vec<PathBuf> {
    match Format::of(path) {
        Ok(Format::Npy) => vec![path.to_owned(), npy::ids_path(path), npy::visual_path(path)],
        _ => vec![path.to_owned()],
    }
}

/// Writes a text that belongs to an embedding file (`NAME.shard.json`, …) as [`write_embeddings`] writes
/// the file itself: beside, then renamed.
///
/// # Errors
///
/// If the file cannot be written.
pub fn write_companion(path: &Path, text: &str) -> Result<(), Error> {
    place(begin_text(path, text)?)
}

/// A file that is being written in place of `path`. Folders are made where they lack.
pub(crate) fn begin(path: &Path) -> Result<PendingFile, Error> {
    let folder = folder_of(path);
    std::fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder"))?;
    PendingFile::begin(path, UNFINISHED).map_err(Error::io(path, "write"))
}

/// A [begun](begin) file that holds a text.
pub(crate) fn begin_text(path: &Path, text: &str) -> Result<PendingFile, Error> {
    let mut file = begin(path)?;
    let written = file.write_all(text.as_bytes());
    written.map_err(Error::io(path, "write"))?;
    Ok(file)
}

/// Waits until all that was written is on the disk.
pub(crate) fn sync(file: &PendingFile) -> Result<(), Error> {
    file.sync().map_err(Error::io(file.path(), "write"))
}

/// Puts a file, which is whole, in its place.
pub(crate) fn place(file: PendingFile) -> Result<(), Error> {
    let path = file.path().to_owned();
    file.place().map_err(Error::io(&path, "write"))
}

/// Removes what killed writes of the embedding file or index `path`, of parts of it (`NAME.part-…`) or of what
/// lies beside it have left in its folder. Nobody else may be writing it. What cannot be removed does no harm.
pub fn clear_unfinished(path: &Path) {
    let own = [path.to_owned(), npy::ids_path(path), npy::visual_path(path)].map(|of| name_of(&of));
    // Parts of an embedding file and what is told of it, and what lies beside an index.
    let below = [
        ".part-",
        ".shard.json",
        ".failed.jsonl",
        ".ids.txt",
        ".json",
    ];
    let below = below.map(|ending| name_of(path) + ending);
    UNFINISHED.clear(folder_of(path), |of| {
        own.iter().any(|own| own == of) || below.iter().any(|below| of.starts_with(below))
    });
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Removes a file, where it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(path, "remove the old file")(error))
        }
        _ => Ok(()),
    }
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(Error::io(path, "open"))
}

/// The values of `embeddings` as bytes, little-endian.
fn encode(embeddings: &Embeddings, numbers: Numbers) -> Vec<u8> {
    match numbers {
        Numbers::F32 => {
            let values = embeddings.values().iter();
            values.flat_map(|value| value.to_le_bytes()).collect()
        }
        Numbers::Int8 => {
            let rows = embeddings.values().chunks_exact(embeddings.dim());
            rows.flat_map(eight_bits).map(|value| value as u8).collect()
        }
    }
}

/// Little-endian floats of `width` bytes (2, 4 or 8), or integers of one, as f32.
fn decode(bytes: &[u8], width: usize) -> Vec<f32> {
    match width {
        1 => bytes.iter().map(|&byte| f32::from(byte as i8)).collect(),
        2 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|&b| half::f16::from_le_bytes(b).to_f32())
            .collect(),
        4 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|&b| f32::from_le_bytes(b))
            .collect(),
        _ => bytes
            .as_chunks()
            .0
            .iter()
            .map(|&b| f64::from_le_bytes(b) as f32)
            .collect(),
    }
}
