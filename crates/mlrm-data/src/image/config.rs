//! How a picture becomes the vision encoder's input.

use mlrm_config::{ExifOrientation, PictureDefaults, ResizeMode};

/// Mean of the pixels that OpenAI's CLIP was trained on, red, green, blue.
const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
/// Standard deviation of the pixels that OpenAI's CLIP was trained on.
const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];
/// Mean of the pixels of ImageNet.
const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of the pixels of ImageNet.
const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];
/// How a picture becomes the vision encoder's input.
#[derive(Debug, Clone, PartialEq)]
pub struct PreprocessorConfig {
    /// The resize that comes first; `None` leaves the size.
    pub resize: Option<Resize>,
    /// The filter of the resize.
    pub resample: Resample,
    /// Height and width of the centre crop that comes next; `None` leaves the size.
    pub crop: Option<(u32, u32)>,
    /// What the bytes 0…255 are multiplied with.
    pub rescale_factor: f64,
    /// Subtracted from each channel.
    pub mean: [f64; 3],
    /// What each channel is divided by.
    pub std: [f64; 3],
    /// Whether pictures are turned before all that. Hugging Face's processors have no such option; here it
    /// goes with the model, so that it sees pictures as it did in training.
    pub orientation: ExifOrientation,
}

/// The size that a picture is resized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// The shorter edge gets this length, the other one what keeps the proportions.
    ShortestEdge(u32),
    /// Height and width, whatever the proportions.
    Exact(u32, u32),
    /// About the picture's own height and width.
    Within(PixelRange),
}

/// What heights and widths a picture may get: multiples of a number, within a range of their product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelRange {
    /// Fewest pixels.
    pub least: u32,
    /// Most pixels.
    pub most: u32,
    /// What divides height and width.
    pub factor: u32,
}

impl PixelRange {
    /// How many times as long as the other a side may be, as `smart_resize` has it.
    pub const MOST_RATIO: u32 = 200;

    /// That of `Qwen2VLImageProcessor` where a file says nothing.
    pub(super) const QWEN2_VL: Self = Self {
        least: 56 * 56,
        most: 28 * 28 * 1280,
        factor: 28,
    };

    /// Height and width of a picture that has these: the nearest multiples, or what keeps the proportions where
    /// these are outside the range.
    pub fn fit(&self, height: u32, width: u32) -> (u64, u64) {
        let factor = f64::from(self.factor);
        let (least, most) = (f64::from(self.least), f64::from(self.most));
        let sides = [f64::from(height), f64::from(width)];
        let pixels = sides[0] * sides[1];
        let [rows, columns] = sides.map(|side| (side / factor).round_ties_even() * factor);
        let [rows, columns] = if rows * columns > most {
            let smaller = (pixels / most).sqrt();
            sides.map(|side| ((side / smaller / factor).floor() * factor).max(factor))
        } else if rows * columns < least {
            let larger = (least / pixels).sqrt();
            sides.map(|side| (side * larger / factor).ceil() * factor)
        } else {
            [rows, columns]
        };
        (rows as u64, columns as u64)
    }

    /// That of `Qwen2VLImageProcessor` where a file says nothing, for visual tokens of `factor` by `factor` pixels.
    pub fn usual(factor: u32) -> Self {
        let square = factor.saturating_mul(factor);
        let [least, most] = [4, 1280].map(|count: u32| count.saturating_mul(square));
        Self {
            least,
            most,
            factor,
        }
    }

    /// The same with at most `most` pixels.
    pub fn at_most(self, most: u32) -> Self {
        Self {
            least: self.least.min(most),
            most,
            ..self
        }
    }

    /// How many squares of `factor` by `factor` pixels a picture has at most. One that is a single square high or wide may
    /// have a few more.
    pub fn most_squares(&self) -> usize {
        let square = u64::from(self.factor).pow(2).max(1);
        (u64::from(self.most) / square).max(1) as usize
    }

    /// The side of the largest square of at most `side` pixels along it.
    pub fn square(&self, side: u32) -> u32 {
        let whole = side.min(self.most.isqrt()) / self.factor;
        whole.max(1) * self.factor
    }
}

/// The filter of a resize, by Pillow's numbers. All are antialiased: the filter widens with the
/// factor of reduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resample {
    /// 1: windowed sinc of three lobes.
    Lanczos,
    /// 2: triangle.
    Bilinear,
    /// 3: cubic with a = -0.5 (CLIP).
    Bicubic,
    /// 4: plain mean.
    Box,
    /// 5: a Hamming-windowed filter.
    Hamming,
}

impl PreprocessorConfig {
    /// CLIP's, for pictures of `image_size` by `image_size`.
    pub fn clip(image_size: u32) -> Self {
        Self {
            resize: Some(Resize::ShortestEdge(image_size)),
            resample: Resample::Bicubic,
            crop: Some((image_size, image_size)),
            rescale_factor: 1.0 / 255.0,
            mean: CLIP_MEAN,
            std: CLIP_STD,
            orientation: ExifOrientation::Ignore,
        }
    }

    /// The whole picture squeezed into `image_size` by `image_size`, nothing cut off.
    fn squeezed(image_size: u32) -> Self {
        Self {
            resize: Some(Resize::Exact(image_size, image_size)),
            crop: None,
            ..Self::clip(image_size)
        }
    }

    /// What the pictures of a vision encoder become where no file says it.
    pub fn usual(defaults: PictureDefaults, image_size: u32) -> Self {
        match defaults {
            PictureDefaults::Clip => Self::clip(image_size),
            PictureDefaults::Siglip => Self {
                mean: [0.5; 3],
                std: [0.5; 3],
                ..Self::squeezed(image_size)
            },
            PictureDefaults::Blip => Self::squeezed(image_size),
            PictureDefaults::Dinov2 => Self {
                // DINOv2's own: 256 for pictures of 224.
                resize: Some(Resize::ShortestEdge((image_size * 8).div_ceil(7))),
                mean: IMAGENET_MEAN,
                std: IMAGENET_STD,
                ..Self::clip(image_size)
            },
            PictureDefaults::Dinov3 => Self {
                resample: Resample::Bilinear,
                mean: IMAGENET_MEAN,
                std: IMAGENET_STD,
                ..Self::squeezed(image_size)
            },
            PictureDefaults::Vit => Self {
                resample: Resample::Bilinear,
                mean: [0.5; 3],
                std: [0.5; 3],
                ..Self::squeezed(image_size)
            },
        }
    }

    /// The same with one size for all pictures, where each would have one of its own: the largest square of at most
    /// `side` pixels along it.
    pub fn squared(mut self, side: u32) -> Self {
        if let Some(Resize::Within(range)) = self.resize {
            let side = range.square(side);
            self.resize = Some(Resize::Exact(side, side));
        }
        self
    }

    /// The same for squares of `side` pixels, where that is given, which pictures become by `mode`, where that is given.
    /// The margin around the middle that is cut out grows with the side. Only where all pictures have one size.
    pub fn resized(mut self, side: Option<u32>, mode: Option<ResizeMode>) -> Self {
        let Some((height, width)) = self.output_size() else {
            return self;
        };
        if let Some(side) = side {
            let was = u64::from(height.min(width)).max(1);
            let scaled = |edge: u32| (u64::from(edge) * u64::from(side)).div_ceil(was) as u32;
            self.resize = self.resize.map(|resize| match resize {
                Resize::ShortestEdge(edge) => Resize::ShortestEdge(scaled(edge)),
                Resize::Exact(..) => Resize::Exact(side, side),
                Resize::Within(range) => Resize::Within(range),
            });
            self.crop = self.crop.map(|_| (side, side));
        }
        let (height, width) = side.map_or((height, width), |side| (side, side));
        match (mode, self.resize) {
            (None, _) | (Some(ResizeMode::Shortest), Some(Resize::ShortestEdge(_))) => {}
            (Some(ResizeMode::Shortest), _) => {
                self.resize = Some(Resize::ShortestEdge(height.max(width)));
                self.crop = Some((height, width));
            }
            (Some(ResizeMode::Squash), _) => {
                self.resize = Some(Resize::Exact(height, width));
                self.crop = None;
            }
        }
        self
    }

    /// Height and width of what comes out, where that does not depend on the picture.
    pub fn output_size(&self) -> Option<(u32, u32)> {
        match (self.crop, self.resize) {
            (Some(size), _) => Some(size),
            (None, Some(Resize::Exact(height, width))) => Some((height, width)),
            (None, _) => None,
        }
    }
}
