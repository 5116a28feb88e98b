//! Whether a file is a whole picture, by its first and last bytes alone.

use image::{ImageDecoder, ImageFormat};

use super::container::{ends_early, tail_is_an_end};
use super::decode::{DecodeOptions, format_of, guarded, open, truncated};
use crate::error::Problem;

/// First bytes of a file that nearly always hold a picture's whole header.
pub(crate) const HEAD_BYTES: usize = 1 << 16;
/// Last bytes of a file that tell whether its picture ends there.
pub(crate) const TAIL_BYTES: usize = 16;

/// Checks format, size and, where the last bytes tell it, the end of a picture of `bytes` bytes that
/// begins with `head` and ends with `tail`. `whole` reads all of it, where those do not suffice.
///
/// # Errors
/// What [`decode`](super::decode) would say of it without looking at its pixels.
pub(crate) fn check_ends(
    head: &[u8],
    tail: &[u8],
    bytes: u64,
    options: &DecodeOptions,
    whole: impl Fn() -> Result<Vec<u8>, Problem>,
) -> Result<(), Problem> {
    options.check_bytes(bytes)?;
    let format = format_of(head)?;
    if head.len() as u64 == bytes {
        return check_whole(format, head, options);
    }
    let header = guarded(|| open(format, head, options).map(drop));
    if header.is_err() || !tail_is_an_end(format, head, tail, bytes) {
        return check_whole(format, &whole()?, options);
    }
    Ok(())
}

/// Height and width of a picture that begins with `head`.
///
/// # Errors
/// What [`check_ends`] would say of its header.
pub(crate) fn dimensions(head: &[u8], options: &DecodeOptions) -> Result<[u32; 2], Problem> {
    let format = format_of(head)?;
    let (width, height) = guarded(|| open(format, head, options).map(|of| of.dimensions()))?;
    Ok([height, width])
}

fn check_whole(format: ImageFormat, bytes: &[u8], options: &DecodeOptions) -> Result<(), Problem> {
    guarded(|| open(format, bytes, options).map(drop))?;
    match ends_early(format, bytes) {
        true => Err(truncated()),
        false => Ok(()),
    }
}
