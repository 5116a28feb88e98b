//! Whether the bytes of a picture decode to the end.

use super::ImageLimits;
use crate::error::Problem;
use crate::image::{DecodeLimits, decode};

/// Decodes a picture, as training will, and throws the result away.
///
/// # Errors
/// Why it is no usable picture: no known format, too large, ends too early, or does not decode.
pub fn check_picture(bytes: &[u8], limits: ImageLimits) -> Result<(), Problem> {
    let limits = DecodeLimits {
        file_bytes: limits.bytes,
        pixels: limits.pixels,
    };
    decode(bytes, &limits).map(drop)
}
