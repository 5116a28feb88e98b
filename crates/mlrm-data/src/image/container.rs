//! Whether a file holds the whole of its picture, by its container alone.
//!
//! Decoders differ in what they do with a cut file: some fill the rest with grey and report success.

use image::ImageFormat;

/// Whether the container says that more bytes should follow.
pub(super) fn ends_early(format: ImageFormat, bytes: &[u8]) -> bool {
    match format {
        ImageFormat::Jpeg => !jpeg_has_end(bytes),
        ImageFormat::Png => !png_has_end(bytes),
        ImageFormat::Gif => gif_end(bytes).is_none(),
        ImageFormat::WebP => declared(bytes, 4).is_none_or(|size| size + 8 > bytes.len()),
        ImageFormat::Bmp => declared(bytes, 2).is_none_or(|size| size > bytes.len()),
        _ => false,
    }
}

/// The little-endian size that stands at `at`.
fn declared(bytes: &[u8], at: usize) -> Option<usize> {
    let size = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(size) as usize)
}

/// Walks the segments of a JPEG to its end-of-image marker. A search for the marker's two bytes
/// would find that of an embedded thumbnail.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xd9;
    let mut at = 2;
    loop {
        // To the next marker: over entropy-coded data, where 0xff is followed by 0x00 or by a
        // restart marker, and over padding, which is 0xff.
        while bytes.get(at).is_some_and(|&byte| byte != 0xff) {
            at += 1;
        }
        let Some(&marker) = bytes.get(at + 1) else {
            return false;
        };
        match marker {
            END_OF_IMAGE => return true,
            0xff => at += 1,
            0x00 | 0x01 | 0xd0..=0xd8 => at += 2,
            _ => match bytes.get(at + 2..at + 4) {
                Some(size) => at += 2 + usize::from(u16::from_be_bytes([size[0], size[1]])).max(2),
                None => return false,
            },
        }
    }
}

/// Walks the chunks of a PNG to its last.
fn png_has_end(bytes: &[u8]) -> bool {
    let mut at = 8;
    loop {
        let Some(header) = bytes.get(at..at + 8) else {
            return false;
        };
        let size = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        // Header, content, checksum.
        at += 8 + size + 4;
        if &header[4..] == b"IEND" {
            return at <= bytes.len();
        }
    }
}

/// Walks the blocks of a GIF to where its trailer stands.
fn gif_end(bytes: &[u8]) -> Option<usize> {
    const TRAILER: u8 = 0x3b;
    const EXTENSION: u8 = 0x21;
    const FRAME: u8 = 0x2c;
    let table_bytes = |flags: u8| match flags & 0x80 {
        0 => 0,
        _ => 3 << ((flags & 7) + 1),
    };
    let mut at = 13 + table_bytes(*bytes.get(10)?);
    loop {
        match *bytes.get(at)? {
            TRAILER => return Some(at),
            EXTENSION => at += 2,
            FRAME => at += 11 + table_bytes(*bytes.get(at + 9)?),
            // Not a block: let the decoder say what it thinks of it.
            _ => return Some(at),
        }
        // Sub-blocks, each with its length before it, up to an empty one.
        loop {
            let length = usize::from(*bytes.get(at)?);
            at += 1 + length;
            if length == 0 {
                break;
            }
        }
    }
}
