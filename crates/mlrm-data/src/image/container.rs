//! Whether a file holds the whole of its picture, by its container alone.
//!
//! Decoders differ in what they do with a cut file: some fill the rest with grey and report success.

use std::borrow::Cow;

use image::ImageFormat;

/// Whether the container says that more bytes should follow.
pub(super) fn ends_early(format: ImageFormat, bytes: &[u8]) -> bool {
    match format {
        ImageFormat::Jpeg => !jpeg_has_end(bytes),
        ImageFormat::Png => !png_has_end(bytes),
        ImageFormat::Gif => gif_end(bytes).is_none(),
        ImageFormat::WebP => declared(bytes, 4).is_none_or(|size| size + 8 > bytes.len()),
        // The size of the file in its header is often wrong, and nobody reads it.
        ImageFormat::Bmp => bmp_end(bytes).is_some_and(|end| end > bytes.len()),
        _ => false,
    }
}

/// Whether the last bytes of a file, `tail`, are the end of its picture, for which `head` may be
/// enough to say how long it is. `false` where only the whole file tells.
pub(super) fn tail_is_an_end(format: ImageFormat, head: &[u8], tail: &[u8], bytes: u64) -> bool {
    let reaches = |end: usize| end as u64 <= bytes;
    match format {
        ImageFormat::Jpeg => tail.ends_with(&[0xff, 0xd9]),
        ImageFormat::Png => tail.windows(4).any(|window| window == b"IEND"),
        ImageFormat::Gif => tail.ends_with(&[0x3b]),
        ImageFormat::WebP => declared(head, 4).is_some_and(|size| reaches(size + 8)),
        ImageFormat::Bmp => bmp_end(head).is_none_or(reaches),
        _ => false,
    }
}

/// Where the pixels of an uncompressed BMP end; `None` where the header does not tell.
fn bmp_end(bytes: &[u8]) -> Option<usize> {
    const HEADER_BYTES: usize = 40;
    if declared(bytes, 14)? < HEADER_BYTES {
        return None;
    }
    let signed = |at: usize| declared(bytes, at).map(|value| value as u32 as i32);
    let (start, width, height) = (declared(bytes, 10)?, signed(18)?, signed(22)?);
    let bits = declared(bytes, 28)? & 0xffff;
    // 0: none; 3: none, with masks for the colours.
    if ![0, 3].contains(&declared(bytes, 30)?) {
        return None;
    }
    // Rows are filled up to four bytes.
    let row = u64::from(width.unsigned_abs()) * bits as u64;
    let pixels = row.div_ceil(32) * 4 * u64::from(height.unsigned_abs());
    usize::try_from(pixels).ok()?.checked_add(start)
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

/// Walks the chunks of a PNG to the one behind its pixels, or to where the file ends just there: the
/// empty last chunk is no part of the picture.
fn png_has_end(bytes: &[u8]) -> bool {
    let (mut at, mut pixels) = (8, false);
    loop {
        let Some(header) = bytes.get(at..at + 8) else {
            return pixels;
        };
        let size = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        match &header[4..] {
            b"IDAT" => pixels = true,
            _ if pixels => return true,
            _ => {}
        }
        // Header, content, checksum.
        at += 8 + size + 4;
        if at > bytes.len() {
            return false;
        }
    }
}

/// A PNG that its decoder takes as whole where only the empty last chunk is missing, of which Pillow
/// takes no notice.
pub(super) fn with_last_chunk(bytes: &[u8]) -> Cow<'_, [u8]> {
    const LAST: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";
    let (mut at, mut pixels) = (8, false);
    while let Some(header) = bytes.get(at..at + 8) {
        if &header[4..] == b"IEND" {
            return Cow::Borrowed(bytes);
        }
        let size = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let next = at + 8 + size + 4;
        if next > bytes.len() {
            break;
        }
        pixels |= &header[4..] == b"IDAT";
        at = next;
    }
    match pixels {
        true => Cow::Owned([&bytes[..at], LAST].concat()),
        false => Cow::Borrowed(bytes),
    }
}

/// Walks the blocks of a GIF to the end of its first picture: no other is read.
fn gif_end(bytes: &[u8]) -> Option<usize> {
    const TRAILER: u8 = 0x3b;
    const EXTENSION: u8 = 0x21;
    const FRAME: u8 = 0x2c;
    let table_bytes = |flags: u8| match flags & 0x80 {
        0 => 0,
        _ => 3 << ((flags & 7) + 1),
    };
    let mut at = 13 + table_bytes(*bytes.get(10)?);
    let mut ends = false;
    loop {
        match *bytes.get(at)? {
            TRAILER => return Some(at),
            EXTENSION => at += 2,
            FRAME => {
                at += 11 + table_bytes(*bytes.get(at + 9)?);
                ends = true;
            }
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
        if ends {
            return Some(at);
        }
    }
}
