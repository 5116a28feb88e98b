//! Pictures: from the bytes of a file to the values that a vision encoder reads, as Hugging Face's
//! `CLIPImageProcessor` computes them.
//!
//! Three steps, so that the middle one can be kept between epochs: [`decode`] gives an RGB picture,
//! [`ImagePreprocessor::resize_crop`] the pixels that the encoder sees, as bytes, and
//! [`ImagePreprocessor::normalize_into`] their values.

mod config;
mod container;
mod decode;
mod export;
mod header;
mod preprocess;
mod read_config;
mod resample;
#[cfg(test)]
mod tests;

pub use config::{PixelRange, PreprocessorConfig, Resample, Resize};
pub use decode::{DecodeOptions, PictureTraits, decode, decode_with_traits};
pub(crate) use header::{HEAD_BYTES, TAIL_BYTES, check_ends, dimensions};
pub use preprocess::ImagePreprocessor;
