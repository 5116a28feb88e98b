//! `preprocessor_config.json` of a Hugging Face vision model, in all forms that CLIP's has had.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{DataError, Result};

/// Mean of the pixels that OpenAI's CLIP was trained on, red, green, blue.
const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
/// Standard deviation of the pixels that OpenAI's CLIP was trained on.
const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];
/// Side of CLIP's pictures where a config file does not state it.
const CLIP_SIZE: u32 = 224;

/// Image processors that do what this module does; the name says nothing else.
const PROCESSORS: [&str; 4] = [
    "CLIPImageProcessor",
    "CLIPImageProcessorFast",
    "CLIPImageProcessorPil",
    "CLIPFeatureExtractor",
];

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
}

/// The size that a picture is resized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// The shorter edge gets this length, the other one what keeps the proportions.
    ShortestEdge(u32),
    /// Height and width, whatever the proportions.
    Exact(u32, u32),
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
        }
    }

    /// Reads the `preprocessor_config.json` of a folder; `None` where there is none.
    pub fn load(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("preprocessor_config.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DataError::io("read", &path)(error)),
        };
        let mend = "use a `preprocessor_config.json` of a CLIP vision model";
        let keys: Map<String, Value> = serde_json::from_str(&text)
            .map_err(|error| DataError::file(&path, format!("no JSON object: {error}"), mend))?;
        let config = Self::parse(&keys).map_err(|message| DataError::file(&path, message, mend))?;
        Ok(Some(config))
    }

    /// What the keys of a `preprocessor_config.json` ask for. Missing keys have the defaults of
    /// `CLIPImageProcessor`; every option that is set and that we do not do is refused by name.
    fn parse(keys: &Map<String, Value>) -> Result<Self, String> {
        let mut config = Self::clip(CLIP_SIZE);
        let (mut resize, mut crop, mut rescale, mut normalize) = (true, true, true, true);
        for (key, value) in keys {
            if value.is_null() {
                continue;
            }
            match key.as_str() {
                "do_resize" => resize = truth(key, value)?,
                "do_center_crop" => crop = truth(key, value)?,
                "do_rescale" => rescale = truth(key, value)?,
                "do_normalize" => normalize = truth(key, value)?,
                "do_convert_rgb" => match truth(key, value)? {
                    true => {}
                    false => return Err(format!("`{key}` = false is not supported")),
                },
                "size" => config.resize = Some(resize_size(value)?),
                "crop_size" => config.crop = Some(crop_size(value)?),
                "resample" => config.resample = resample(value)?,
                "rescale_factor" => config.rescale_factor = number(key, value)?,
                "image_mean" => config.mean = channels(key, value)?,
                "image_std" => config.std = channels(key, value)?,
                "image_processor_type" | "feature_extractor_type" | "processor_class" => {
                    processor(key, value)?;
                }
                "data_format" if value == "channels_first" => {}
                // Names of options, not an option.
                "_valid_processor_keys" => {}
                _ if value == &Value::Bool(false) => {}
                _ => return Err(format!("the option `{key}` = {value} is not supported")),
            }
        }
        if config.std.contains(&0.0) {
            return Err("`image_std` holds a 0".into());
        }
        config.resize = config.resize.filter(|_| resize);
        config.crop = config.crop.filter(|_| crop);
        if !rescale {
            config.rescale_factor = 1.0;
        }
        if !normalize {
            (config.mean, config.std) = ([0.0; 3], [1.0; 3]);
        }
        Ok(config)
    }

    /// Height and width of what comes out, where that does not depend on the picture.
    pub(super) fn output_size(&self) -> Option<(u32, u32)> {
        match (self.crop, self.resize) {
            (Some(size), _) => Some(size),
            (None, Some(Resize::Exact(height, width))) => Some((height, width)),
            (None, _) => None,
        }
    }
}

fn truth(key: &str, value: &Value) -> Result<bool, String> {
    let truth = value.as_bool();
    truth.ok_or_else(|| format!("`{key}` must be true or false, found {value}"))
}

fn number(key: &str, value: &Value) -> Result<f64, String> {
    let number = value.as_f64().filter(|number| number.is_finite());
    number.ok_or_else(|| format!("`{key}` must be a number, found {value}"))
}

/// One number a channel, or one for all.
fn channels(key: &str, value: &Value) -> Result<[f64; 3], String> {
    match value {
        Value::Array(values) => match values.as_slice() {
            [red, green, blue] => Ok([number(key, red)?, number(key, green)?, number(key, blue)?]),
            _ => Err(format!("`{key}` must hold three numbers, found {value}")),
        },
        _ => Ok([number(key, value)?; 3]),
    }
}

fn pixels(key: &str, value: &Value) -> Result<u32, String> {
    let pixels = value
        .as_u64()
        .filter(|pixels| (1..=16_384).contains(pixels));
    let pixels =
        pixels.ok_or_else(|| format!("`{key}` must be 1 to 16384 pixels, found {value}"))?;
    Ok(pixels as u32)
}

/// An integer (old files) or an object (new ones).
fn resize_size(value: &Value) -> Result<Resize, String> {
    let Value::Object(size) = value else {
        return Ok(Resize::ShortestEdge(pixels("size", value)?));
    };
    if let (1, Some(edge)) = (size.len(), size.get("shortest_edge")) {
        return Ok(Resize::ShortestEdge(pixels("size.shortest_edge", edge)?));
    }
    let (height, width) = height_width("size", size)
        .map_err(|found| format!("`size` must be a shortest_edge or height and width, {found}"))?;
    Ok(Resize::Exact(height, width))
}

fn crop_size(value: &Value) -> Result<(u32, u32), String> {
    let Value::Object(size) = value else {
        let side = pixels("crop_size", value)?;
        return Ok((side, side));
    };
    height_width("crop_size", size)
        .map_err(|found| format!("`crop_size` must be height and width, {found}"))
}

fn height_width(key: &str, size: &Map<String, Value>) -> Result<(u32, u32), String> {
    match (size.len(), size.get("height"), size.get("width")) {
        (2, Some(height), Some(width)) => Ok((pixels(key, height)?, pixels(key, width)?)),
        _ => Err(format!("found {}", Value::Object(size.clone()))),
    }
}

fn resample(value: &Value) -> Result<Resample, String> {
    match value.as_u64() {
        Some(1) => Ok(Resample::Lanczos),
        Some(2) => Ok(Resample::Bilinear),
        Some(3) => Ok(Resample::Bicubic),
        Some(4) => Ok(Resample::Box),
        Some(5) => Ok(Resample::Hamming),
        _ => Err(format!(
            "`resample` = {value} is not supported; 1 (Lanczos) to 5 (Hamming) are, CLIP has 3"
        )),
    }
}

fn processor(key: &str, value: &Value) -> Result<(), String> {
    if value
        .as_str()
        .is_some_and(|name| PROCESSORS.contains(&name))
        || key == "processor_class"
    {
        return Ok(());
    }
    Err(format!(
        "`{key}` = {value} is not supported, only `{}` is",
        PROCESSORS[0]
    ))
}
