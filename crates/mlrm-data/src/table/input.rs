//! The bytes of a table: what kind of file they are, and unpacked.

use std::fs::File;
use std::io::{self, Chain, Cursor, ErrorKind, Read, Seek};
use std::path::Path;

use crate::error::{DataError, LFS_POINTER, Result};
use crate::store::local;

/// How much of the beginning is looked at to find the form of a table.
const HEAD_BYTES: u64 = 1 << 20;

/// How the text of a table is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// UTF-8, with or without a byte order mark.
    #[default]
    Utf8,
    /// ISO 8859-1: every byte is the code point of its value.
    Latin1,
}

/// UTF-8 if the whole text is; Latin-1, in which any bytes are a text, if not.
///
/// # Errors
/// A file that cannot be read or unpacked.
pub fn find_encoding(path: &Path) -> Result<Encoding> {
    let Input::Text(mut text) = open(path, Encoding::Utf8)? else {
        return Ok(Encoding::Utf8);
    };
    let mut buffer = vec![0; 1 << 18];
    let mut held = 0;
    loop {
        let read = match text.read(&mut buffer[held..]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.map_err(DataError::io("read", path))?,
        };
        let bytes = held + read;
        let valid = encoding_rs::Encoding::utf8_valid_up_to(&buffer[..bytes]);
        // A character may be cut at the end of the buffer, of at most four bytes.
        if bytes - valid >= 4 || (read == 0 && valid < bytes) {
            return Ok(Encoding::Latin1);
        }
        if read == 0 {
            return Ok(Encoding::Utf8);
        }
        buffer.copy_within(valid..bytes, 0);
        held = bytes - valid;
    }
}

/// What the first bytes of a file say.
pub(super) enum Input {
    Parquet(File),
    Text(Text),
}

/// Unpacked text from its beginning, which [`Text::head`] has in memory.
pub(super) struct Text {
    reader: Chain<Cursor<Vec<u8>>, Box<dyn Read>>,
}

impl Text {
    /// The first bytes, without a byte order mark.
    pub(super) fn head(&self) -> &[u8] {
        self.reader.get_ref().0.get_ref()
    }

    /// Leaves out the first `bytes` of the head. Nothing of it may have been read yet.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.reader.get_mut().0.get_mut().drain(..bytes);
    }
}

impl Read for Text {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// Files that are taken for tables by mistake, by their first bytes.
const FOREIGN: [(&[u8], &str, &str); 14] = [
    (
        LFS_POINTER,
        "a pointer of Git LFS",
        "run `git lfs pull` where it comes from",
    ),
    (b"<!DOCTYPE", "a web page", "fetch the file itself"),
    (b"<html", "a web page", "fetch the file itself"),
    (
        b"BZh",
        "packed with bzip2",
        "unpack it, or pack it with gzip or zstd",
    ),
    (
        b"\xfd7zXZ\0",
        "packed with xz",
        "unpack it, or pack it with gzip or zstd",
    ),
    (
        b"\x04\x22\x4d\x18",
        "packed with lz4",
        "unpack it, or pack it with gzip or zstd",
    ),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (
        b"PK\x03\x04",
        "a zip archive or a spreadsheet",
        "unpack it, or save the sheet as CSV",
    ),
    (
        b"\xd0\xcf\x11\xe0",
        "a spreadsheet or document of Microsoft Office",
        "save the sheet as CSV",
    ),
    (
        b"SQLite format 3",
        "an SQLite database",
        "write its table as CSV",
    ),
    (b"ARROW1", "an Arrow (Feather) file", "write it as Parquet"),
    (b"ORC", "an ORC file", "write it as Parquet"),
    (b"Obj\x01", "an Avro file", "write it as Parquet"),
    (b"\x89HDF", "an HDF5 file", "write its table as Parquet"),
];

pub(super) fn open(path: &Path, encoding: Encoding) -> Result<Input> {
    let read = |error| DataError::io("read", path)(error);
    if path.is_dir() {
        return Err(DataError::file(
            path,
            "this is a folder",
            "name a file; `mlrm data import` reads all files of a pattern, such as `log/*.parquet`",
        ));
    }
    let mut file = File::open(local(path)?).map_err(read)?;
    let mut magic = Vec::new();
    (&mut file).take(16).read_to_end(&mut magic).map_err(read)?;
    if magic.starts_with(b"PAR1") {
        file.rewind().map_err(read)?;
        return Ok(Input::Parquet(file));
    }
    // A pipe cannot be wound back.
    let whole = Cursor::new(magic.clone()).chain(file);
    let mut packing = None;
    let mut bytes: Box<dyn Read> = match magic.as_slice() {
        [0x1f, 0x8b, ..] => {
            packing = Some("gzip");
            Box::new(flate2::read::MultiGzDecoder::new(whole))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            packing = Some("zstd");
            Box::new(zstd::Decoder::new(whole).map_err(read)?)
        }
        _ => Box::new(whole),
    };
    if let Some(packing) = packing {
        bytes = Box::new(Packed { bytes, packing });
    }
    let mut head = Vec::new();
    (&mut bytes)
        .take(HEAD_BYTES)
        .read_to_end(&mut head)
        .map_err(read)?;
    refuse_foreign(path, &head, packing)?;
    let mut reader = bytes;
    match encoding {
        Encoding::Utf8 => {
            if head.starts_with("\u{feff}".as_bytes()) {
                head.drain(..3);
            }
        }
        Encoding::Latin1 => {
            head = head
                .iter()
                .copied()
                .map(char::from)
                .collect::<String>()
                .into_bytes();
            reader = Box::new(Latin1 { bytes: reader });
        }
    }
    Ok(Input::Text(Text {
        reader: Cursor::new(head).chain(reader),
    }))
}

fn refuse_foreign(path: &Path, head: &[u8], packing: Option<&str>) -> Result<()> {
    let found = FOREIGN.iter().find(|(magic, _, _)| head.starts_with(magic));
    if let Some((_, what, mend)) = found {
        return Err(DataError::file(
            path,
            format!("this is {what}, no table that can be read"),
            *mend,
        ));
    }
    if let Some(packing) = packing
        && head.starts_with(b"PAR1")
    {
        let message = format!("this is a Parquet file that is packed with {packing}");
        return Err(DataError::file(
            path,
            message,
            "unpack it: Parquet is packed inside",
        ));
    }
    // A byte order mark, or every other byte of the first characters is NUL.
    let wide = match head {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [a, b, c, d, ..] => {
            let nul = [a, b, c, d].map(|byte| *byte == 0);
            nul == [true, false, true, false] || nul == [false, true, false, true]
        }
        _ => false,
    };
    if wide {
        return Err(DataError::file(
            path,
            "the text is encoded as UTF-16 or UTF-32",
            "save the file as UTF-8",
        ));
    }
    Ok(())
}

/// Says of an error of unpacking that it is one.
struct Packed {
    bytes: Box<dyn Read>,
    packing: &'static str,
}

impl Read for Packed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(buffer).map_err(|error| {
            let packing = self.packing;
            match error.kind() {
                ErrorKind::Interrupted => error,
                ErrorKind::UnexpectedEof => io::Error::other(format!(
                    "the {packing} data end too early; the file is cut off: fetch or write it again"
                )),
                _ => io::Error::other(format!(
                    "the {packing} data are damaged ({error}); fetch or write the file again"
                )),
            }
        })
    }
}

/// Latin-1 as UTF-8.
struct Latin1 {
    bytes: Box<dyn Read>,
}

impl Read for Latin1 {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut narrow = [0; 1 << 13];
        // A byte becomes at most two.
        let most = narrow.len().min(buffer.len() / 2);
        if most == 0 {
            return match buffer.is_empty() {
                true => Ok(0),
                false => Err(io::Error::other("a buffer of one byte holds no character")),
            };
        }
        let count = self.bytes.read(&mut narrow[..most])?;
        Ok(encoding_rs::mem::convert_latin1_to_utf8(
            &narrow[..count],
            buffer,
        ))
    }
}
