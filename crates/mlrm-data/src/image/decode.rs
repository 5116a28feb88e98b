//! Bytes of a file to an RGB picture, as Pillow and `CLIPImageProcessor` do it.

use std::io::Cursor;
use std::panic::catch_unwind;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use super::container::ends_early;
use crate::error::{Problem, ProblemKind, shorten};

/// What a picture may need at most; a small file can claim any number of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Width times height.
    pub pixels: u64,
}

impl Default for DecodeLimits {
    /// 64 MiB and 64 megapixels: beyond every camera's JPEG, and at most 0.5 GiB a thread.
    fn default() -> Self {
        Self {
            file_bytes: 64 << 20,
            pixels: 1 << 26,
        }
    }
}

/// Bytes that a decoder may take for each allowed pixel: 16-bit RGBA.
const BYTES_PER_PIXEL: u64 = 8;

/// Decodes JPEG, PNG, WebP, GIF (its first picture) and BMP to RGB.
///
/// Where the picture is no 8-bit RGB, the conversion is that of `CLIPImageProcessor`: transparent
/// pictures are put on white; 16-bit colours keep their high byte; 16-bit greys above 255 become
/// white, as Pillow has it; CMYK is taken for Adobe's inverted one. Orientation in EXIF data and
/// colour profiles are not applied.
///
/// # Errors
/// A format that is not among those, damaged or truncated data, or more than `limits` allow.
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, Problem> {
    if bytes.len() as u64 > limits.file_bytes {
        return Err(oversized(format!(
            "{} bytes, where at most {} are allowed",
            bytes.len(),
            limits.file_bytes
        )));
    }
    let format = image::guess_format(bytes).ok();
    let Some(format) = format.filter(ImageFormat::reading_enabled) else {
        return Err(undecodable("it is no JPEG, PNG, WebP, GIF or BMP"));
    };
    if ends_early(format, bytes) {
        return Err(truncated());
    }
    // No decoder should panic, whatever the bytes; if one does, the picture is at fault, and a run
    // should say which one it is.
    catch_unwind(|| decode_format(format, bytes, limits))
        .unwrap_or_else(|_| Err(undecodable("its decoder gave up")))
}

fn decode_format(
    format: ImageFormat,
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<RgbImage, Problem> {
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder = reader.into_decoder().map_err(problem_of)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.pixels {
        return Err(oversized(format!(
            "{width} × {height} pixels, where at most {} are allowed",
            limits.pixels
        )));
    }
    if pixels == 0 {
        return Err(undecodable("it has no pixels"));
    }
    let mut allocation = Limits::no_limits();
    allocation.max_alloc = Some(limits.pixels.saturating_mul(BYTES_PER_PIXEL));
    decoder.set_limits(allocation).map_err(problem_of)?;
    let picture = DynamicImage::from_decoder(decoder).map_err(problem_of)?;
    Ok(to_rgb(picture))
}

fn to_rgb(picture: DynamicImage) -> RgbImage {
    let (width, height) = (picture.width(), picture.height());
    let high = |value: u16| (value >> 8) as u8;
    let rgb: Vec<u8> = match picture {
        DynamicImage::ImageRgb8(picture) => return picture,
        DynamicImage::ImageLuma16(picture) => {
            let greys = picture.pixels().map(|pixel| pixel.0[0].min(255) as u8);
            greys.flat_map(|grey| [grey; 3]).collect()
        }
        DynamicImage::ImageLumaA8(picture) => {
            let pixels = picture.pixels().map(|pixel| pixel.0);
            pixels.flat_map(|[l, a]| on_white([l; 3], a)).collect()
        }
        DynamicImage::ImageLumaA16(picture) => {
            let pixels = picture.pixels().map(|pixel| pixel.0.map(high));
            pixels.flat_map(|[l, a]| on_white([l; 3], a)).collect()
        }
        DynamicImage::ImageRgba8(picture) => {
            let pixels = picture.pixels().map(|pixel| pixel.0);
            pixels
                .flat_map(|[r, g, b, a]| on_white([r, g, b], a))
                .collect()
        }
        DynamicImage::ImageRgba16(picture) => {
            let pixels = picture.pixels().map(|pixel| pixel.0.map(high));
            pixels
                .flat_map(|[r, g, b, a]| on_white([r, g, b], a))
                .collect()
        }
        DynamicImage::ImageRgb16(picture) => {
            let pixels = picture.pixels();
            pixels.flat_map(|pixel| pixel.0.map(high)).collect()
        }
        other => return other.into_rgb8(),
    };
    // Three bytes a pixel were made above: the length fits.
    RgbImage::from_raw(width, height, rgb).unwrap_or_default()
}

/// Pillow's `alpha_composite` of a colour over opaque white, in its integer arithmetic.
fn on_white(color: [u8; 3], alpha: u8) -> [u8; 3] {
    let alpha = u32::from(alpha);
    color.map(|value| {
        let sum = (u32::from(value) * alpha + 255 * (255 - alpha)) * 128 + (0x80 << 7);
        ((((sum >> 8) + sum) >> 8) >> 7) as u8
    })
}

fn problem_of(error: ImageError) -> Problem {
    match error {
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            truncated()
        }
        ImageError::Limits(limit) => oversized(limit.to_string()),
        error => undecodable(&error.to_string()),
    }
}

fn oversized(message: String) -> Problem {
    Problem::new(
        ProblemKind::OversizedImage,
        message,
        "store a smaller picture, or raise the limit",
    )
}

fn truncated() -> Problem {
    Problem::new(
        ProblemKind::TruncatedImage,
        "the file ends before the picture does",
        "fetch the picture again, or remove `image` from the note",
    )
}

fn undecodable(reason: &str) -> Problem {
    Problem::new(
        ProblemKind::UndecodableImage,
        shorten(reason),
        "save the picture again as JPEG or PNG, or remove `image` from the note",
    )
}
