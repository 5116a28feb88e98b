//! NumPy's `.npy` (version 1.0 written; 1.0, 2.0 and 3.0 read) with ids and visual embeddings beside.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use mlrm_files::PendingFile;

use crate::embeddings::{EmbeddingSet, Embeddings};
use crate::error::Error;
use crate::files::{
    EachBlock, Numbers, Shape, Writer, begin, begin_text, decode, encode, open, place, remove, sync,
};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The array's data starts at a multiple of this.
const ALIGNMENT: usize = 64;
/// Longest header read; NumPy itself refuses longer ones.
const MAX_HEADER: usize = 10_000;

pub(super) fn ids_path(path: &Path) -> PathBuf {
    path.with_extension("ids.txt")
}

pub(super) fn visual_path(path: &Path) -> PathBuf {
    path.with_extension("visual.npy")
}

pub(super) fn blocks(path: &Path, most: usize, each: &mut EachBlock<'_>) -> Result<(), Error> {
    // First, so that a wrong name is reported under that name and not as missing ids.
    let file = open(path)?;
    let mut notes = 0;
    ids(path, &mut |_| notes += 1)?;
    let mut multimodal = ArrayReader::open(file, path, notes)?;
    let visual = visual_path(path);
    let mut visual = match visual.try_exists() {
        Ok(true) => Some(ArrayReader::open(open(&visual)?, &visual, notes)?),
        Ok(false) => None,
        Err(error) => return Err(Error::io(&visual, "look for visual embeddings")(error)),
    };
    let mut lines = lines(path)?;
    let mut first = 0;
    loop {
        let count = most.min(notes - first);
        let ids: Result<Vec<String>, Error> = lines.by_ref().take(count).collect();
        let ids = ids?;
        let visual = visual.as_mut().map(|array| array.rows(first, ids.clone()));
        let visual = visual.transpose()?;
        let set = EmbeddingSet::new(multimodal.rows(first, ids)?, visual);
        each(set.map_err(|error| error.in_file(path))?)?;
        first += count;
        if first == notes {
            return Ok(());
        }
    }
}

/// The ids of the array `path`.
pub(super) fn ids(path: &Path, each: &mut dyn FnMut(&str)) -> Result<(), Error> {
    lines(path)?.try_for_each(|id| id.map(|id| each(&id)))
}

fn lines(path: &Path) -> Result<impl Iterator<Item = Result<String, Error>>, Error> {
    const READ: &str = "read the ids of the rows (one a line)";
    let path = ids_path(path);
    let file = File::open(&path).map_err(Error::io(&path, READ))?;
    let lines = BufReader::new(file).lines();
    Ok(lines.map(move |line| line.map_err(Error::io(&path, READ))))
}

/// Arrays that are being written, with their ids.
///
/// All files are written beside first. The array is renamed into place last and an older one of the
/// name goes away before, so that an array never stands beside the ids of another.
pub(super) struct Arrays {
    path: PathBuf,
    ids: PendingFile,
    array: PendingFile,
    visual: Option<PendingFile>,
    numbers: Numbers,
}

impl Arrays {
    pub(super) fn begin(path: &Path, ids: &str, shape: Shape) -> Result<Self, Error> {
        let begin_array = |path: &Path, dim: usize| {
            let mut file = begin(path)?;
            let header = header(shape.notes, dim, shape.numbers);
            file.write_all(&header).map_err(Error::io(path, "write"))?;
            Ok(file)
        };
        let visual_file = visual_path(path);
        Ok(Self {
            ids: begin_text(&ids_path(path), ids)?,
            visual: shape
                .visual
                .map(|dim| begin_array(&visual_file, dim))
                .transpose()?,
            array: begin_array(path, shape.dim)?,
            path: path.to_owned(),
            numbers: shape.numbers,
        })
    }
}

impl Writer for Arrays {
    fn append(&mut self, set: &EmbeddingSet) -> Result<(), Error> {
        let path = &self.path;
        let append = |file: &mut PendingFile, embeddings: &Embeddings| {
            file.write_all(&encode(embeddings, self.numbers))
                .map_err(Error::io(path, "write"))
        };
        append(&mut self.array, set.multimodal())?;
        match (&mut self.visual, set.visual()) {
            (Some(file), Some(visual)) => append(file, visual),
            _ => Ok(()),
        }
    }

    fn finish(self: Box<Self>) -> Result<(), Error> {
        for file in self.visual.iter().chain([&self.ids, &self.array]) {
            sync(file)?;
        }
        remove(&self.path)?;
        remove(&visual_path(&self.path))?;
        place(self.ids)?;
        self.visual.map_or(Ok(()), place)?;
        place(self.array)
    }
}

/// Magic, version 1.0, header length, and the header padded with spaces and a line feed.
fn header(notes: usize, dim: usize, numbers: Numbers) -> Vec<u8> {
    let kind = match numbers {
        Numbers::F32 => "<f4",
        Numbers::Int8 => "|i1",
    };
    let text =
        format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({notes}, {dim}), }}");
    let fixed = MAGIC.len() + 4;
    let padded = (fixed + text.len() + 1).next_multiple_of(ALIGNMENT) - fixed;
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    // At most 58 + 2 × 20 characters of text: one block or two.
    bytes.extend((padded as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.resize(fixed + padded - 1, b' ');
    bytes.push(b'\n');
    bytes
}

/// An array whose rows are read one after the other.
struct ArrayReader<'a> {
    input: BufReader<File>,
    header: Header,
    path: &'a Path,
}

impl<'a> ArrayReader<'a> {
    /// An array that is as large as its header says, and has a row for each id.
    fn open(file: File, path: &'a Path, ids: usize) -> Result<Self, Error> {
        let mut input = BufReader::new(file);
        let header = read_header(&mut input, path)?;
        if header.notes != ids {
            return Err(Error::file(
                path,
                format!(
                    "{} rows, but {} has {ids} ids; they must belong together",
                    header.notes,
                    ids_path(path).display(),
                ),
            ));
        }
        let read = Error::io(path, "read");
        let place = input.stream_position();
        let rest = place.and_then(|place| Ok(input.get_ref().metadata()?.len().checked_sub(place)));
        let numbers = header.notes.checked_mul(header.dim);
        let bytes = numbers.and_then(|numbers| numbers.checked_mul(header.width));
        match (rest.map_err(read)?, bytes) {
            (Some(rest), Some(bytes)) if rest == bytes as u64 => Ok(Self {
                input,
                header,
                path,
            }),
            _ => Err(Error::file(
                path,
                format!(
                    "the header promises {} × {} numbers, the file has another size; it is cut off",
                    header.notes, header.dim
                ),
            )),
        }
    }

    /// The next rows, of which the first has this number.
    fn rows(&mut self, first: usize, ids: Vec<String>) -> Result<Embeddings, Error> {
        let Header { dim, width, .. } = self.header;
        let mut bytes = vec![0; ids.len() * dim * width];
        let read = self.input.read_exact(&mut bytes);
        read.map_err(Error::io(self.path, "read"))?;
        Embeddings::from_row(first, ids, dim, decode(&bytes, width))
            .map_err(|error| error.in_file(self.path))
    }
}

struct Header {
    notes: usize,
    dim: usize,
    width: usize,
}

fn read_header(input: &mut BufReader<File>, path: &Path) -> Result<Header, Error> {
    let short = || {
        Error::file(
            path,
            "the file ends inside its header; it is cut off or not .npy",
        )
    };
    let mut take = |count: usize| {
        let mut bytes = vec![0; count];
        input.read_exact(&mut bytes).map_err(|_| short())?;
        Ok::<_, Error>(bytes)
    };
    let start = take(8)?;
    if start[..6] != *MAGIC {
        return Err(Error::file(
            path,
            "not a .npy file (it does not start as one)",
        ));
    }
    let length = match start[6] {
        1 => take(2)?
            .iter()
            .rev()
            .fold(0, |sum, &byte| sum << 8 | usize::from(byte)),
        2 | 3 => take(4)?
            .iter()
            .rev()
            .fold(0, |sum, &byte| sum << 8 | usize::from(byte)),
        version => {
            return Err(Error::file(
                path,
                format!(".npy version {version}.x is not known"),
            ));
        }
    };
    if length > MAX_HEADER {
        return Err(Error::file(
            path,
            format!("a header of {length} bytes is not plausible"),
        ));
    }
    let text = String::from_utf8(take(length)?)
        .map_err(|_| Error::file(path, "the header is not text"))?;
    parse_header(&text).map_err(|problem| Error::file(path, problem))
}

/// Reads the Python dictionary of the header, e.g.
/// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 64), }`.
fn parse_header(text: &str) -> Result<Header, String> {
    let value = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}':"))?;
        Some(rest.trim_start())
    };
    let missing = |key: &str| format!("the header lacks {key:?}: {}", text.trim());
    let descr = value("descr").ok_or_else(|| missing("descr"))?;
    let descr = descr.split(['\'', ',', '}']).nth(1).unwrap_or_default();
    let width = match descr {
        "|i1" => 1,
        "<f2" => 2,
        "<f4" => 4,
        "<f8" => 8,
        _ => {
            return Err(format!(
                "numbers of type {descr:?}; save the array as little-endian float32 \
                 (`array.astype('<f4')`)"
            ));
        }
    };
    if value("fortran_order")
        .ok_or_else(|| missing("fortran_order"))?
        .starts_with("True")
    {
        return Err("column-major order; save `numpy.ascontiguousarray(array)`".into());
    }
    let shape = value("shape").ok_or_else(|| missing("shape"))?;
    let shape = shape
        .strip_prefix('(')
        .and_then(|shape| shape.split_once(')'));
    let (shape, _) = shape.ok_or_else(|| missing("shape"))?;
    let sizes: Option<Vec<usize>> = shape
        .split(',')
        .map(str::trim)
        .filter(|size| !size.is_empty())
        .map(|size| size.parse().ok())
        .collect();
    match sizes.as_deref() {
        Some(&[notes, dim]) => Ok(Header { notes, dim, width }),
        _ => Err(format!(
            "an array of shape ({shape}); embeddings are [notes, dim]"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_aligned_and_reads_back() {
        for (notes, dim) in [
            (0, 1),
            (3, 64),
            (12_345_678_901, 4096),
            (u64::MAX as usize, 1),
        ] {
            let bytes = header(notes, dim, Numbers::F32);
            assert_eq!(bytes.len() % ALIGNMENT, 0);
            assert_eq!(
                usize::from(bytes[8]) + 256 * usize::from(bytes[9]) + 10,
                bytes.len()
            );
            let header = parse_header(std::str::from_utf8(&bytes[10..]).unwrap()).unwrap();
            assert_eq!((header.notes, header.dim, header.width), (notes, dim, 4));
        }
    }

    #[test]
    fn refuses_arrays_that_are_not_embeddings() {
        let problem = |descr: &str, order: &str, shape: &str| {
            let text =
                format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
            parse_header(&text).err().unwrap()
        };
        assert!(problem("<i8", "False", "(3, 4)").contains("float32"));
        assert!(problem(">f4", "False", "(3, 4)").contains("little-endian"));
        assert!(problem("<f4", "True", "(3, 4)").contains("column-major"));
        assert!(problem("<f4", "False", "(3,)").contains("[notes, dim]"));
        assert!(problem("<f4", "False", "(3, x)").contains("[notes, dim]"));
        assert!(parse_header("{}").err().unwrap().contains("descr"));
    }
}
