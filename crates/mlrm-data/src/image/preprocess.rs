//! Resize, centre crop, rescale and normalise, as Hugging Face's image processors do with Pillow.

use image::RgbImage;
use mlrm_config::ExifOrientation;

use super::config::{PreprocessorConfig, Resize};
use super::resample::{Axis, resample};
use crate::error::{DataError, Result};

const CHANNELS: usize = 3;

/// Makes square inputs of one vision encoder.
#[derive(Debug, Clone)]
pub struct ImagePreprocessor {
    config: PreprocessorConfig,
    image_size: usize,
    /// The value of each byte in each channel.
    values: Box<[[f32; 256]; CHANNELS]>,
}

impl ImagePreprocessor {
    /// A preprocessor for a vision encoder that reads `image_size` by `image_size` pixels.
    ///
    /// # Errors
    /// When `config` gives pictures of another size.
    pub fn new(config: PreprocessorConfig, image_size: usize) -> Result<Self> {
        let size = config.output_size();
        let wanted = u32::try_from(image_size).ok().map(|side| (side, side));
        if size.is_none() || size != wanted {
            let found = size.map_or("pictures of any size".to_owned(), |(height, width)| {
                format!("{width} by {height} pixels")
            });
            return Err(DataError::setting(
                "model.vision.image_size",
                format!(
                    "the vision encoder reads {image_size} by {image_size} pixels, but its \
                     preprocessing gives {found}"
                ),
                "correct `size` and `crop_size` of its preprocessor_config.json",
            ));
        }
        Ok(Self {
            values: Box::new(value_table(&config)),
            config,
            image_size,
        })
    }

    /// The same for pictures that are read with this orientation.
    pub fn with_orientation(mut self, orientation: ExifOrientation) -> Self {
        self.config.orientation = orientation;
        self
    }

    /// How pictures are processed.
    pub fn config(&self) -> &PreprocessorConfig {
        &self.config
    }

    /// Side of the square outputs in pixels.
    pub fn image_size(&self) -> usize {
        self.image_size
    }

    /// The pixels that the encoder sees, `[image_size, image_size, 3]` bytes, row by row.
    pub fn resize_crop(&self, picture: &RgbImage) -> Vec<u8> {
        let (width, height) = picture.dimensions();
        let (new_height, new_width) = self.resized(height, width);
        let side = self.image_size as u32;
        let kept_rows = Kept::new(new_height, side);
        let kept_columns = Kept::new(new_width, side);
        // Only what the crop keeps is computed, so that a very long picture does not become a huge
        // one first.
        let axis = |input, output, kept: &Kept| Axis {
            input,
            output,
            from: kept.from,
            count: kept.count,
        };
        let rows = axis(height, new_height, &kept_rows);
        let columns = axis(width, new_width, &kept_columns);
        let kept = resample(picture.as_raw(), &rows, &columns, self.config.resample);
        if (columns.count, rows.count) == (side, side) {
            return kept;
        }
        self.on_black(&kept, &kept_rows, &kept_columns)
    }

    /// Height and width after the resize.
    fn resized(&self, height: u32, width: u32) -> (u64, u64) {
        match self.config.resize {
            None => (height.into(), width.into()),
            Some(Resize::Exact(height, width)) => (height.into(), width.into()),
            Some(Resize::Within(range)) => range.fit(height, width),
            Some(Resize::ShortestEdge(edge)) => {
                let long =
                    |short: u32, long: u32| u64::from(edge) * u64::from(long) / u64::from(short);
                if width <= height {
                    (long(width, height), edge.into())
                } else {
                    (edge.into(), long(height, width))
                }
            }
        }
    }

    /// A picture smaller than the crop stands in its middle, black around it.
    fn on_black(&self, kept: &[u8], rows: &Kept, columns: &Kept) -> Vec<u8> {
        let side = self.image_size;
        let mut pixels = vec![0; side * side * CHANNELS];
        let row_bytes = columns.count as usize * CHANNELS;
        for (row, source) in kept.chunks_exact(row_bytes).enumerate() {
            let start = ((rows.to as usize + row) * side + columns.to as usize) * CHANNELS;
            pixels[start..start + row_bytes].copy_from_slice(source);
        }
        pixels
    }

    /// Writes the values of `pixels` (from [`resize_crop`](Self::resize_crop)) to `values`,
    /// `[3, image_size, image_size]`.
    pub fn normalize_into(&self, pixels: &[u8], values: &mut [f32]) {
        let plane = self.image_size * self.image_size;
        for (channel, values) in values.chunks_exact_mut(plane).enumerate() {
            let table = &self.values[channel];
            for (value, pixel) in values.iter_mut().zip(pixels.chunks_exact(CHANNELS)) {
                *value = table[usize::from(pixel[channel])];
            }
        }
    }
}

/// What a crop keeps of one axis, and where it puts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    /// First pixel kept.
    from: u64,
    /// Pixels kept.
    count: u32,
    /// Where the first one lands.
    to: u32,
}

impl Kept {
    /// The middle `crop` of `length` pixels; all of them where there are fewer.
    fn new(length: u64, crop: u32) -> Self {
        match u32::try_from(length) {
            Ok(length) if length < crop => Self {
                from: 0,
                count: length,
                to: (crop - length).div_ceil(2),
            },
            _ => Self {
                from: (length - u64::from(crop)) / 2,
                count: crop,
                to: 0,
            },
        }
    }
}

/// The value of each byte, rounded where `CLIPImageProcessor` rounds: the product is computed in
/// f64 and rounded to f32, subtraction and division are in f32.
fn value_table(config: &PreprocessorConfig) -> [[f32; 256]; CHANNELS] {
    let mut table = [[0.0; 256]; CHANNELS];
    for (channel, values) in table.iter_mut().enumerate() {
        let (mean, std) = (config.mean[channel] as f32, config.std[channel] as f32);
        for (byte, value) in values.iter_mut().enumerate() {
            let rescaled = (byte as f64 * config.rescale_factor) as f32;
            *value = (rescaled - mean) / std;
        }
    }
    table
}
