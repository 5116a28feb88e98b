//! Bytes of a file to an RGB picture, as Pillow and `CLIPImageProcessor` do it.

use std::borrow::Cow;
use std::io::Cursor;
use std::panic::catch_unwind;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};
use mlrm_config::{DataSettings, ExifOrientation};

use super::container::{ends_early, with_last_chunk};
use crate::error::{LFS_POINTER, Problem, ProblemKind, shorten};

/// How files become pictures, and what a picture may need at most: a small file can claim any number
/// of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Most bytes of the file.
    pub file_bytes: u64,
    /// Most pixels, width times height.
    pub pixels: u64,
    /// Whether pictures are turned as their EXIF data say.
    pub orientation: ExifOrientation,
}

impl DecodeOptions {
    /// The options of a run.
    pub fn new(settings: &DataSettings) -> Self {
        Self {
            file_bytes: settings.max_image_bytes,
            pixels: settings.max_image_pixels,
            orientation: settings.exif_orientation,
        }
    }

    /// Refuses files of more bytes than allowed.
    pub(crate) fn check_bytes(&self, bytes: u64) -> Result<(), Problem> {
        if bytes <= self.file_bytes {
            return Ok(());
        }
        Err(oversized(
            format!(
                "{bytes} bytes, where at most {} are allowed",
                self.file_bytes
            ),
            "data.max_image_bytes",
        ))
    }

    /// Refuses pictures of more pixels than allowed, and of none.
    fn check_pixels(&self, width: u32, height: u32) -> Result<(), Problem> {
        match u64::from(width) * u64::from(height) {
            0 => Err(undecodable("it has no pixels")),
            pixels if pixels > self.pixels => Err(oversized(
                format!(
                    "{width} × {height} pixels, where at most {} are allowed",
                    self.pixels
                ),
                "data.max_image_pixels",
            )),
            _ => Ok(()),
        }
    }
}

impl Default for DecodeOptions {
    /// Those of a config that says nothing of pictures.
    fn default() -> Self {
        Self::new(&DataSettings::default())
    }
}

/// Bytes that a decoder may take for each allowed pixel: 16-bit RGBA.
const BYTES_PER_PIXEL: u64 = 8;

/// Decodes JPEG, PNG, WebP, GIF (its first picture) and BMP to RGB.
///
/// Where the picture is no 8-bit RGB, the conversion is that of `CLIPImageProcessor`: transparent
/// pictures are put on white, CMYK is taken for Adobe's inverted one, colours of 16 bits keep their
/// high byte. So do greys of 16 bits, which Pillow would clip at 255, so that nearly all of the
/// picture became white: it is the grey that Pillow makes of `pixel / 256`. Orientation in EXIF data
/// is applied where the options say so; colour profiles are not.
///
/// # Errors
/// A format that is not among those, damaged or truncated data, or more than `options` allow.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, Problem> {
    decode_with_traits(bytes, options).map(|(picture, _)| picture)
}

/// What a picture had that its RGB does not show any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureTraits {
    /// Pixels from left to right, as stored.
    pub width: u32,
    /// Pixels from top to bottom, as stored.
    pub height: u32,
    /// Whether its EXIF data say that it is to be turned or mirrored.
    pub turned: bool,
    /// Whether its channels have 16 bits.
    pub sixteen_bit: bool,
    /// Whether a pixel is not opaque.
    pub transparent: bool,
}

/// As [`decode`], with what the conversion to RGB did away with.
///
/// # Errors
/// As [`decode`].
pub fn decode_with_traits(
    bytes: &[u8],
    options: &DecodeOptions,
) -> Result<(RgbImage, PictureTraits), Problem> {
    options.check_bytes(bytes.len() as u64)?;
    let format = format_of(bytes)?;
    guarded(|| decode_format(format, bytes, options))
}

/// The format of a file, by its first bytes.
pub(super) fn format_of(bytes: &[u8]) -> Result<ImageFormat, Problem> {
    let format = image::guess_format(bytes).ok();
    let format = format.filter(ImageFormat::reading_enabled);
    format.ok_or_else(|| {
        let what = kind_of(bytes).map_or(String::new(), |what| format!(", but {what}"));
        undecodable(&format!("it is no JPEG, PNG, WebP, GIF or BMP{what}"))
    })
}

/// What a file is that is none of the formats, where that can be told.
fn kind_of(bytes: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 14] = [
        (LFS_POINTER, "a Git LFS pointer (`git lfs pull`)"),
        (b"II*\0", "a TIFF"),
        (b"MM\0*", "a TIFF"),
        (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
        (b"\xff\x4f\xff\x51", "a JPEG 2000"),
        (b"\0\0\0\x0cJXL ", "a JPEG XL"),
        (b"\xff\x0a", "a JPEG XL"),
        (b"\0\0\x01\0", "an icon (ICO)"),
        (b"%PDF", "a PDF"),
        (b"8BPS", "a Photoshop file"),
        (b"<svg", "an SVG"),
        (b"<?xml", "XML, such as an SVG"),
        (b"<!doctype html", "a web page (HTML)"),
        (b"<html", "a web page (HTML)"),
    ];
    if bytes.is_empty() {
        return Some("empty");
    }
    match bytes.get(4..12) {
        Some(b"ftypavif" | b"ftypavis") => return Some("an AVIF"),
        Some(b"ftypheic" | b"ftypheix" | b"ftypmif1" | b"ftypmsf1") => return Some("a HEIC"),
        _ => {}
    }
    let text = bytes.trim_ascii_start();
    let begins = |magic: &[u8], bytes: &[u8]| {
        let head = bytes.get(..magic.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(magic))
    };
    let found = MAGIC
        .iter()
        .find(|(magic, _)| begins(magic, bytes) || begins(magic, text));
    found.map(|(_, what)| *what)
}

/// No decoder should panic, whatever the bytes; if one does, the picture is at fault, and a run
/// should say which one it is.
pub(super) fn guarded<T>(
    decode: impl FnOnce() -> Result<T, Problem> + std::panic::UnwindSafe,
) -> Result<T, Problem> {
    catch_unwind(decode).unwrap_or_else(|_| Err(undecodable("its decoder gave up")))
}

fn decode_format(
    format: ImageFormat,
    bytes: &[u8],
    options: &DecodeOptions,
) -> Result<(RgbImage, PictureTraits), Problem> {
    let whole = match format {
        ImageFormat::Png => with_last_chunk(bytes),
        _ => Cow::Borrowed(bytes),
    };
    let mut decoder = open(format, &whole, options)?;
    let (width, height) = decoder.dimensions();
    if ends_early(format, bytes) {
        return Err(truncated());
    }
    // What cannot be read there says nothing: the picture itself may be whole.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut allocation = Limits::no_limits();
    allocation.max_alloc = Some(options.pixels.saturating_mul(BYTES_PER_PIXEL));
    decoder.set_limits(allocation).map_err(problem_of)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(problem_of)?;
    let color = picture.color();
    let traits = PictureTraits {
        width,
        height,
        turned: orientation != Orientation::NoTransforms,
        sixteen_bit: color.bits_per_pixel() / u16::from(color.channel_count()) == 16,
        transparent: is_transparent(&picture),
    };
    if options.orientation == ExifOrientation::Apply {
        picture.apply_orientation(orientation);
    }
    Ok((to_rgb(picture), traits))
}

/// The decoder of a file, where its header asks for no more than `options` allow.
pub(super) fn open<'a>(
    format: ImageFormat,
    bytes: &'a [u8],
    options: &DecodeOptions,
) -> Result<impl ImageDecoder + use<'a>, Problem> {
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let decoder = reader.into_decoder();
    // Some decoders call a header that ends too early by other names.
    let decoder = decoder.map_err(|error| match ends_early(format, bytes) {
        true => truncated(),
        false => problem_of(error),
    })?;
    let (width, height) = decoder.dimensions();
    options.check_pixels(width, height)?;
    Ok(decoder)
}

/// Whether any pixel lets something through.
fn is_transparent(picture: &DynamicImage) -> bool {
    match picture {
        DynamicImage::ImageLumaA8(picture) => picture.pixels().any(|p| p.0[1] < u8::MAX),
        DynamicImage::ImageRgba8(picture) => picture.pixels().any(|p| p.0[3] < u8::MAX),
        DynamicImage::ImageLumaA16(picture) => picture.pixels().any(|p| p.0[1] < u16::MAX),
        DynamicImage::ImageRgba16(picture) => picture.pixels().any(|p| p.0[3] < u16::MAX),
        _ => false,
    }
}

fn to_rgb(picture: DynamicImage) -> RgbImage {
    let (width, height) = (picture.width(), picture.height());
    let high = |value: u16| (value >> 8) as u8;
    let rgb: Vec<u8> = match picture {
        DynamicImage::ImageRgb8(picture) => return picture,
        DynamicImage::ImageLuma16(picture) => {
            let greys = picture.pixels().map(|pixel| high(pixel.0[0]));
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
        ImageError::Limits(limit) => oversized(limit.to_string(), "data.max_image_pixels"),
        error => undecodable(&error.to_string()),
    }
}

/// More than the setting `limit` allows.
fn oversized(message: String, limit: &str) -> Problem {
    Problem::new(
        ProblemKind::OversizedImage,
        message,
        format!("store a smaller picture, or raise `{limit}`"),
    )
}

pub(super) fn truncated() -> Problem {
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
