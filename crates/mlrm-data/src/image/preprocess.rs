//! Resize, centre crop, rescale and normalise, as Hugging Face's image processors do with Pillow.

use image::RgbImage;
use mlrm_config::ExifOrientation;

use super::config::{PixelRange, PreprocessorConfig, Resize};
use super::resample::{Axis, resample};
use crate::error::{DataError, Problem, ProblemKind, Result};

const CHANNELS: usize = 3;

/// Makes inputs of one vision encoder: squares of one size, or pictures of sizes of their own.
#[derive(Debug, Clone)]
pub struct ImagePreprocessor {
    config: PreprocessorConfig,
    /// Side of the squares.
    image_size: Option<usize>,
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
            image_size: Some(image_size),
        })
    }

    /// A preprocessor for a vision encoder that reads each picture in a size of its own, within `range`; of `config` the
    /// filter and the values count.
    pub fn of_own_sizes(config: PreprocessorConfig, range: PixelRange) -> Self {
        let config = PreprocessorConfig {
            resize: Some(Resize::Within(range)),
            crop: None,
            ..config
        };
        Self {
            values: Box::new(value_table(&config)),
            config,
            image_size: None,
        }
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

    /// Side of the square outputs in pixels; `None` where each picture has a size of its own.
    pub fn image_size(&self) -> Option<usize> {
        self.image_size
    }

    /// Height and width of what becomes of a picture of this height and width.
    pub fn output_size(&self, height: u32, width: u32) -> [usize; 2] {
        match self.image_size {
            Some(side) => [side; 2],
            None => {
                let (height, width) = self.resized(height, width);
                [height as usize, width as usize]
            }
        }
    }

    /// Height and width of a picture that shows nothing: no larger than it must be.
    pub fn blank_size(&self) -> [usize; 2] {
        match (self.image_size, self.config.resize) {
            (Some(side), _) => [side; 2],
            (None, Some(Resize::Within(range))) => [range.factor as usize; 2],
            (None, _) => [1; 2],
        }
    }

    /// Refuses pictures that no size of their own fits.
    ///
    /// # Errors
    /// One side that is more than [`PixelRange::MOST_RATIO`] times the other.
    pub fn check(&self, picture: &RgbImage) -> Result<(), Problem> {
        let (width, height) = picture.dimensions();
        let (long, short) = (width.max(height), width.min(height));
        if self.image_size.is_some() || long <= PixelRange::MOST_RATIO.saturating_mul(short) {
            return Ok(());
        }
        Err(Problem::new(
            ProblemKind::UndecodableImage,
            format!(
                "{width} × {height} pixels, where no side may be more than {} times the other one",
                PixelRange::MOST_RATIO
            ),
            "cut the picture, remove `image` from the note, or set `model.vision.grid = \"square\"`",
        ))
    }

    /// The pixels that the encoder sees, `[height, width, 3]` bytes of [`Self::output_size`], row by row.
    pub fn resize_crop(&self, picture: &RgbImage) -> Vec<u8> {
        let (width, height) = picture.dimensions();
        let (new_height, new_width) = self.resized(height, width);
        let [high, wide] = self.output_size(height, width).map(|side| side as u32);
        let kept_rows = Kept::new(new_height, high);
        let kept_columns = Kept::new(new_width, wide);
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
        if (columns.count, rows.count) == (wide, high) {
            return kept;
        }
        on_black(&kept, &kept_rows, &kept_columns, [high, wide])
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

    /// Writes the values of `pixels` (from [`resize_crop`](Self::resize_crop)) to `values`, `[3, height, width]`.
    pub fn normalize_into(&self, pixels: &[u8], values: &mut [f32]) {
        let plane = (pixels.len() / CHANNELS).max(1);
        for (channel, values) in values.chunks_exact_mut(plane).enumerate() {
            let table = &self.values[channel];
            for (value, pixel) in values.iter_mut().zip(pixels.chunks_exact(CHANNELS)) {
                *value = table[usize::from(pixel[channel])];
            }
        }
    }
}

/// A picture smaller than the crop stands in its middle, black around it.
fn on_black(kept: &[u8], rows: &Kept, columns: &Kept, [high, wide]: [u32; 2]) -> Vec<u8> {
    let (high, wide) = (high as usize, wide as usize);
    let mut pixels = vec![0; high * wide * CHANNELS];
    let row_bytes = columns.count as usize * CHANNELS;
    for (row, source) in kept.chunks_exact(row_bytes).enumerate() {
        let start = ((rows.to as usize + row) * wide + columns.to as usize) * CHANNELS;
        pixels[start..start + row_bytes].copy_from_slice(source);
    }
    pixels
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
