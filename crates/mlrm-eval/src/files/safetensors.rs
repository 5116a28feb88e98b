//! safetensors: everything in one file.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use mlrm_files::PendingFile;
use safetensors::{Dtype, SafeTensors};

use crate::embeddings::{EmbeddingSet, Embeddings};
use crate::error::Error;
use crate::files::{EachBlock, Numbers, Shape, Writer, begin, decode, encode, open, place};

const EMBEDDINGS: &str = "embeddings";
const VISUAL: &str = "visual_embeddings";
const IDS: &str = "ids";
/// The tensors begin at a multiple of this.
const ALIGNMENT: usize = 8;

pub(super) fn blocks(path: &Path, most: usize, each: &mut EachBlock<'_>) -> Result<(), Error> {
    with_tensors(path, |tensors| {
        let ids = read_ids(tensors, path)?;
        let notes = ids.lines().count();
        let multimodal = Rows::of(tensors, EMBEDDINGS, notes, path)?;
        let visual = match tensors.tensor(VISUAL) {
            Ok(_) => Some(Rows::of(tensors, VISUAL, notes, path)?),
            Err(_) => None,
        };
        let mut ids = ids.lines();
        let mut first = 0;
        loop {
            let count = most.min(notes - first);
            let ids: Vec<String> = ids.by_ref().take(count).map(str::to_owned).collect();
            let embeddings = |rows: &Rows<'_>, ids: Vec<String>| {
                let of = rows.embeddings(first, ids);
                of.map_err(|error| error.in_file(path))
            };
            let visual = visual.as_ref().map(|rows| embeddings(rows, ids.clone()));
            let visual = visual.transpose()?;
            let set = EmbeddingSet::new(embeddings(&multimodal, ids)?, visual);
            each(set.map_err(|error| error.in_file(path))?)?;
            first += count;
            if first == notes {
                return Ok(());
            }
        }
    })
}

fn with_tensors<T>(
    path: &Path,
    read: impl FnOnce(&SafeTensors) -> Result<T, Error>,
) -> Result<T, Error> {
    let file = open(path)?;
    // SAFETY: a mapping is undefined behaviour only if the file is changed while it is mapped;
    // writers of this crate replace files and never change them, and the mapping ends with this
    // function.
    let bytes = unsafe { Mmap::map(&file) }.map_err(Error::io(path, "read"))?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|error| Error::file(path, format!("not a whole safetensors file: {error}")))?;
    read(&tensors)
}

/// The ids, one a line.
fn read_ids<'a>(tensors: &SafeTensors<'a>, path: &Path) -> Result<&'a str, Error> {
    let tensor = tensors.tensor(IDS).map_err(|_| lacks(tensors, IDS, path))?;
    if tensor.dtype() != Dtype::U8 {
        let problem = format!(
            "tensor \"ids\" is {:?}; it must be U8 (UTF-8 text)",
            tensor.dtype()
        );
        return Err(Error::file(path, problem));
    }
    std::str::from_utf8(tensor.data())
        .map_err(|error| Error::file(path, format!("tensor \"ids\" is not UTF-8: {error}")))
}

/// The rows of a tensor, as they are in the file.
struct Rows<'a> {
    dim: usize,
    /// Bytes of a number.
    width: usize,
    data: &'a [u8],
}

impl<'a> Rows<'a> {
    fn of(tensors: &SafeTensors<'a>, name: &str, ids: usize, path: &Path) -> Result<Self, Error> {
        let tensor = tensors
            .tensor(name)
            .map_err(|_| lacks(tensors, name, path))?;
        let &[notes, dim] = tensor.shape() else {
            let problem = format!(
                "tensor {name:?} has shape {:?}; it must be [notes, dim]",
                tensor.shape()
            );
            return Err(Error::file(path, problem));
        };
        if notes != ids {
            let problem = format!("tensor {name:?} has {notes} rows, but there are {ids} ids");
            return Err(Error::file(path, problem));
        }
        let width = match tensor.dtype() {
            Dtype::I8 => 1,
            Dtype::F16 => 2,
            Dtype::F32 => 4,
            Dtype::F64 => 8,
            other => {
                let problem = format!("tensor {name:?} is {other:?}; save it as F32");
                return Err(Error::file(path, problem));
            }
        };
        let data = tensor.data();
        Ok(Self { dim, width, data })
    }

    /// Those of these ids, of which the first is that of row `first`.
    fn embeddings(&self, first: usize, ids: Vec<String>) -> Result<Embeddings, Error> {
        let bytes = self.dim * self.width;
        let rows = &self.data[first * bytes..(first + ids.len()) * bytes];
        Embeddings::from_row(first, ids, self.dim, decode(rows, self.width))
    }
}

fn lacks(tensors: &SafeTensors, name: &str, path: &Path) -> Error {
    let mut names = tensors.names();
    names.sort_unstable();
    Error::file(path, format!("no tensor {name:?} in it; it has {names:?}"))
}

/// The ids of the file.
pub(super) fn ids(path: &Path, each: &mut dyn FnMut(&str)) -> Result<(), Error> {
    with_tensors(path, |tensors| {
        read_ids(tensors, path)?.lines().for_each(each);
        Ok(())
    })
}

/// A file that is being written: the embeddings, the visual ones, then the ids, each behind the other.
pub(super) struct Tensors {
    path: PathBuf,
    file: PendingFile,
    numbers: Numbers,
    /// Where the next embeddings go.
    next: u64,
    /// Where the next visual ones go.
    next_visual: u64,
}

impl Tensors {
    pub(super) fn begin(path: &Path, ids: &str, shape: Shape) -> Result<Self, Error> {
        let (kind, bytes) = match shape.numbers {
            Numbers::F32 => ("F32", size_of::<f32>()),
            Numbers::Int8 => ("I8", size_of::<i8>()),
        };
        // In the order of the file: by the size of their numbers, then by name.
        let mut entries = vec![(EMBEDDINGS, kind, vec![shape.notes, shape.dim], bytes)];
        if let Some(dim) = shape.visual {
            entries.push((VISUAL, kind, vec![shape.notes, dim], bytes));
        }
        entries.push((IDS, "U8", vec![ids.len()], 1));
        let (header, starts) = header(&entries);
        let at = |start: u64| header.len() as u64 + start;
        let mut file = begin(path)?;
        let mut write = || {
            file.write_all(&header)?;
            file.seek(SeekFrom::Start(at(starts[starts.len() - 1])))?;
            file.write_all(ids.as_bytes())
        };
        write().map_err(Error::io(path, "write"))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            numbers: shape.numbers,
            next: at(starts[0]),
            next_visual: at(starts[1]),
        })
    }
}

impl Writer for Tensors {
    fn append(&mut self, set: &EmbeddingSet) -> Result<(), Error> {
        let Self {
            path,
            file,
            numbers,
            next,
            next_visual,
        } = self;
        let mut append = |place: &mut u64, embeddings: &Embeddings| -> Result<(), Error> {
            let bytes = encode(embeddings, *numbers);
            let mut write = || {
                file.seek(SeekFrom::Start(*place))?;
                file.write_all(&bytes)
            };
            write().map_err(Error::io(path, "write"))?;
            *place += bytes.len() as u64;
            Ok(())
        };
        append(next, set.multimodal())?;
        set.visual()
            .map_or(Ok(()), |visual| append(next_visual, visual))
    }

    fn finish(self: Box<Self>) -> Result<(), Error> {
        place(self.file)
    }
}

/// The header of a file of these tensors (name, type, shape, bytes of a number), and where each begins behind it.
fn header(entries: &[(&str, &str, Vec<usize>, usize)]) -> (Vec<u8>, Vec<u64>) {
    let (mut start, mut starts) = (0_usize, Vec::new());
    let entry = |(name, kind, shape, bytes): &(&str, &str, Vec<usize>, usize)| {
        let end = start + shape.iter().product::<usize>() * bytes;
        let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
        let text = format!(
            "\"{name}\":{{\"dtype\":\"{kind}\",\"shape\":[{}],\"data_offsets\":[{start},{end}]}}",
            sizes.join(",")
        );
        starts.push(start as u64);
        start = end;
        text
    };
    let entries: Vec<String> = entries.iter().map(entry).collect();
    let mut text = format!("{{{}}}", entries.join(",")).into_bytes();
    text.resize(text.len().next_multiple_of(ALIGNMENT), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    (header, starts)
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    #[test]
    fn the_header_is_that_of_the_format() {
        for (notes, dim, visual) in [(3, 2, None), (0, 7, Some(7)), (1001, 33, Some(8))] {
            for (numbers, kind) in [(Numbers::F32, Dtype::F32), (Numbers::Int8, Dtype::I8)] {
                let home = tempfile::tempdir().unwrap();
                let path = home.path().join("x.safetensors");
                let ids: String = (0..notes).map(|id| format!("{id}\n")).collect();
                let shape = Shape {
                    notes,
                    dim,
                    visual,
                    numbers,
                };
                let begun = Tensors::begin(&path, &ids, shape).unwrap();
                let bytes = std::fs::read(begun.file.beside()).unwrap();
                let width = if numbers == Numbers::F32 { 4 } else { 1 };
                let zeros = vec![0; notes * 33 * 4];
                let view = |dim: usize| {
                    TensorView::new(kind, vec![notes, dim], &zeros[..notes * dim * width]).unwrap()
                };
                let ids = TensorView::new(Dtype::U8, vec![ids.len()], ids.as_bytes()).unwrap();
                let mut tensors = vec![(IDS, ids), (EMBEDDINGS, view(dim))];
                tensors.extend(visual.map(|dim| (VISUAL, view(dim))));
                let expected = safetensors::serialize(tensors, None).unwrap();
                // Nothing is written behind the ids; before them is what was not appended yet.
                assert!(bytes == expected || notes == 0 && expected.starts_with(&bytes));
            }
        }
    }
}
