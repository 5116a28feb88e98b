//! Whether the bytes of a picture decode to the end.

use std::io::Cursor;
use std::panic::catch_unwind;

use image::{ImageError, ImageFormat, ImageReader};

use super::ImageLimits;
use crate::error::{Problem, ProblemKind, shorten};

/// Decodes a picture and throws the result away.
///
/// # Errors
/// Why it is no usable picture: no known format, too large, ends too early, or does not decode.
pub fn check_picture(bytes: &[u8], limits: ImageLimits) -> Result<(), Problem> {
    let format = image::guess_format(bytes)
        .ok()
        .filter(ImageFormat::reading_enabled)
        .ok_or_else(|| undecodable("it is no JPEG, PNG, WebP, GIF or BMP"))?;
    // JPEG decoders fill what is missing with grey and report success, so the end is looked for
    // here; and a cut file of any format should be called cut.
    if ends_early(format, bytes) {
        return Err(truncated());
    }
    // No decoder should panic, whatever the bytes; if one does, it is the picture that is at fault.
    catch_unwind(|| decode(format, bytes, limits))
        .unwrap_or_else(|_| Err(undecodable("its decoder gave up")))
}

fn decode(format: ImageFormat, bytes: &[u8], limits: ImageLimits) -> Result<(), Problem> {
    let reader = || ImageReader::with_format(Cursor::new(bytes), format);
    let (width, height) = reader().into_dimensions().map_err(problem_of)?;
    if u64::from(width) * u64::from(height) > limits.pixels {
        return Err(Problem::new(
            ProblemKind::OversizedImage,
            format!(
                "{width} × {height} pixels, where at most {} are allowed",
                limits.pixels
            ),
            "store a smaller picture, or raise the limit",
        ));
    }
    reader().decode().map(drop).map_err(problem_of)
}

fn problem_of(error: ImageError) -> Problem {
    match error {
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            truncated()
        }
        error => undecodable(&error.to_string()),
    }
}

fn undecodable(reason: &str) -> Problem {
    Problem::new(
        ProblemKind::UndecodableImage,
        shorten(reason),
        "save the picture again as JPEG or PNG",
    )
}

fn truncated() -> Problem {
    Problem::new(
        ProblemKind::TruncatedImage,
        "the file ends before the picture does",
        "fetch the picture again",
    )
}

/// Whether the container says that more bytes should follow.
fn ends_early(format: ImageFormat, bytes: &[u8]) -> bool {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORMATS: [ImageFormat; 5] = [
        ImageFormat::Jpeg,
        ImageFormat::Png,
        ImageFormat::WebP,
        ImageFormat::Gif,
        ImageFormat::Bmp,
    ];

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let picture = image::RgbImage::from_fn(37, 23, |x, y| {
            image::Rgb([(x * 7) as u8, (y * 11) as u8, (x * y) as u8])
        });
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn kind(bytes: &[u8], limits: ImageLimits) -> Option<ProblemKind> {
        check_picture(bytes, limits)
            .err()
            .map(|problem| problem.kind)
    }

    #[test]
    fn whole_pictures_pass_and_cut_ones_are_called_cut() {
        for format in FORMATS {
            let whole = encoded(format);
            assert_eq!(kind(&whole, ImageLimits::default()), None, "{format:?}");
            let trailing = [whole.as_slice(), b"trailing"].concat();
            assert_eq!(kind(&trailing, ImageLimits::default()), None, "{format:?}");
            for share in [0.5, 0.8, 0.97] {
                let cut = &whole[..(whole.len() as f64 * share) as usize];
                let found = kind(cut, ImageLimits::default());
                assert_eq!(
                    found,
                    Some(ProblemKind::TruncatedImage),
                    "{format:?} {share}"
                );
            }
        }
    }

    #[test]
    fn a_thumbnail_does_not_hide_a_cut() {
        let whole = encoded(ImageFormat::Jpeg);
        let size = (whole.len() + 2) as u16;
        let mut with_thumbnail = vec![0xff, 0xd8, 0xff, 0xe1];
        with_thumbnail.extend(size.to_be_bytes());
        with_thumbnail.extend(&whole);
        with_thumbnail.extend(&whole[2..]);
        assert_eq!(kind(&with_thumbnail, ImageLimits::default()), None);
        with_thumbnail.truncate(with_thumbnail.len() - 40);
        let found = kind(&with_thumbnail, ImageLimits::default());
        assert_eq!(found, Some(ProblemKind::TruncatedImage));
    }

    #[test]
    fn size_and_content_are_judged() {
        let few = ImageLimits {
            pixels: 37 * 23 - 1,
            ..ImageLimits::default()
        };
        for format in FORMATS {
            let whole = encoded(format);
            assert_eq!(
                kind(&whole, few),
                Some(ProblemKind::OversizedImage),
                "{format:?}"
            );
        }
        for bytes in [b"".as_slice(), b"no picture", b"<svg/>"] {
            assert_eq!(kind(bytes, few), Some(ProblemKind::UndecodableImage));
        }
        // A decompression bomb is judged by its header.
        let mut bomb = encoded(ImageFormat::Bmp);
        bomb[18..26].copy_from_slice(&[0xff, 0xff, 0xff, 0x0f, 0xff, 0xff, 0, 0]);
        assert!(kind(&bomb, ImageLimits::default()).is_some());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = FORMATS.map(encoded);
        proptest!(ProptestConfig::with_cases(500), |(
            format in 0..FORMATS.len(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut: prop::sample::Index, cuts: bool,
        )| {
            let mut bytes = whole[format].clone();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if cuts {
                bytes.truncate(cut.index(bytes.len()));
            }
            let _ = check_picture(&bytes, ImageLimits { pixels: 1 << 20, bytes: u64::MAX });
        });
    }
}
