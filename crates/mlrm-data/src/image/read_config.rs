//! `preprocessor_config.json` of a Hugging Face vision model: CLIP's in all forms that it has had,
//! SigLIP's, BLIP's, DINOv2's, ViT's and Qwen2-VL's.

use std::fs;
use std::path::Path;

use mlrm_config::PictureDefaults;
use serde_json::{Map, Value};

use super::config::{PixelRange, PreprocessorConfig, Resample, Resize};
use crate::error::{DataError, Result};

/// The key of [`PreprocessorConfig::orientation`].
pub(super) const ORIENTATION: &str = "exif_orientation";
/// Side of CLIP's pictures where a config file does not state it.
const CLIP_SIZE: u32 = 224;
/// Side of BLIP's pictures where a config file does not state it.
const BLIP_SIZE: u32 = 384;

/// Image processors that do what this module does; they differ in their defaults only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Processor {
    /// `CLIPImageProcessor`, and `BitImageProcessor`, which has the same defaults.
    Clip,
    /// `SiglipImageProcessor`: no crop.
    Siglip,
    /// `BlipImageProcessor`: no crop, and a size that is one number is both sides.
    Blip,
    /// `ViTImageProcessor`: the same, with a filter, mean and deviation of its own.
    Vit,
    /// `DINOv3ViTImageProcessor`: the same with ImageNet's mean and deviation.
    Dinov3,
    /// `Qwen2VLImageProcessor`: sizes of each picture's own, within a number of pixels.
    Qwen2Vl,
}

impl Processor {
    /// Whether it cuts out the middle.
    fn crops(self) -> bool {
        self == Self::Clip
    }

    /// Whether a size that is one number is both sides, not the shorter one.
    fn plain_size_is_square(self) -> bool {
        matches!(self, Self::Blip | Self::Vit | Self::Dinov3)
    }

    fn defaults(self) -> PreprocessorConfig {
        let usual = PreprocessorConfig::usual;
        match self {
            Self::Clip => usual(PictureDefaults::Clip, CLIP_SIZE),
            Self::Siglip => usual(PictureDefaults::Siglip, CLIP_SIZE),
            Self::Blip => usual(PictureDefaults::Blip, BLIP_SIZE),
            Self::Vit => usual(PictureDefaults::Vit, CLIP_SIZE),
            Self::Dinov3 => usual(PictureDefaults::Dinov3, CLIP_SIZE),
            Self::Qwen2Vl => PreprocessorConfig {
                resize: Some(Resize::Within(PixelRange::QWEN2_VL)),
                ..usual(PictureDefaults::Blip, CLIP_SIZE)
            },
        }
    }

    /// That of a file which names none: its model's.
    fn of_pictures(pictures: PictureDefaults) -> Self {
        match pictures {
            PictureDefaults::Clip | PictureDefaults::Dinov2 => Self::Clip,
            PictureDefaults::Siglip => Self::Siglip,
            PictureDefaults::Blip => Self::Blip,
            PictureDefaults::Vit => Self::Vit,
            PictureDefaults::Dinov3 => Self::Dinov3,
        }
    }
}

impl PreprocessorConfig {
    /// Reads the `preprocessor_config.json` of a folder, or `image_processor` of the
    /// `processor_config.json` that newer versions write for whole models; `None` where there is
    /// neither. A file that names no processor means that of `defaults`.
    ///
    /// # Errors
    /// A file that cannot be read, and every option that is not implemented.
    pub fn load(folder: &Path, defaults: PictureDefaults) -> Result<Option<Self>> {
        let unnamed = Processor::of_pictures(defaults);
        let path = folder.join("preprocessor_config.json");
        if let Some(config) = Self::load_file(&path, None, unnamed)? {
            return Ok(Some(config));
        }
        let section = Some("image_processor");
        Self::load_file(&folder.join("processor_config.json"), section, unnamed)
    }

    fn load_file(path: &Path, section: Option<&str>, unnamed: Processor) -> Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DataError::io("read", path)(error)),
        };
        let mend = "use a `preprocessor_config.json` of a CLIP, SigLIP, BLIP, DINOv2, DINOv3, ViT, Qwen2.5-VL or Qwen3-VL model";
        let fail = |message: String| DataError::file(path, message, mend);
        let mut keys: Map<String, Value> = serde_json::from_str(&text)
            .map_err(|error| fail(format!("no JSON object: {error}")))?;
        if let Some(section) = section {
            match keys.remove(section) {
                Some(Value::Object(inner)) => keys = inner,
                _ => return Ok(None),
            }
        }
        Ok(Some(Self::parse(&keys, unnamed).map_err(fail)?))
    }

    /// What the keys of a `preprocessor_config.json` ask for. Missing keys have the defaults of the
    /// processor that it names, of `unnamed` where it names none; every option that is set and that we
    /// do not do is refused by name.
    fn parse(keys: &Map<String, Value>, unnamed: Processor) -> Result<Self, String> {
        let processor = processor(keys)?.unwrap_or(unnamed);
        let mut config = processor.defaults();
        if processor == Processor::Qwen2Vl {
            config.resize = Some(Resize::Within(pixel_range(keys)?));
        }
        let (mut resize, mut crop, mut rescale, mut normalize) = (true, true, true, true);
        for (key, value) in keys {
            if value.is_null() {
                continue;
            }
            match key.as_str() {
                // `pixel_range` has read them.
                "size" | "min_pixels" | "max_pixels" | "patch_size" | "merge_size"
                    if processor == Processor::Qwen2Vl => {}
                // A still picture stands for all pictures of a film.
                "temporal_patch_size" if processor == Processor::Qwen2Vl => {}
                "do_resize" => resize = truth(key, value)?,
                "do_center_crop" if processor.crops() => crop = truth(key, value)?,
                "do_rescale" => rescale = truth(key, value)?,
                "do_normalize" => normalize = truth(key, value)?,
                "do_convert_rgb" => match truth(key, value)? {
                    true => {}
                    false => return Err(format!("`{key}` = false is not supported")),
                },
                "size" if processor.plain_size_is_square() && value.is_u64() => {
                    let side = pixels(key, value)?;
                    config.resize = Some(Resize::Exact(side, side));
                }
                "size" => config.resize = Some(resize_size(value)?),
                // The others cut nothing off.
                "crop_size" if !processor.crops() => {}
                "crop_size" => config.crop = Some(crop_size(value)?),
                "resample" => config.resample = resample(value)?,
                "rescale_factor" => config.rescale_factor = number(key, value)?,
                "image_mean" => config.mean = channels(key, value)?,
                "image_std" => config.std = channels(key, value)?,
                ORIENTATION => {
                    let known = serde_json::from_value(value.clone());
                    config.orientation = known.map_err(|error| format!("`{key}`: {error}"))?;
                }
                // `processor` has read them; the class of the whole processor says nothing of pictures.
                "image_processor_type" | "feature_extractor_type" | "processor_class" => {}
                "data_format" if value == "channels_first" => {}
                // What a size of one number means: here there is none.
                "default_to_square" if !keys.get("size").is_some_and(Value::is_number) => {}
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
}

/// What `Qwen2VLImageProcessor`'s keys say of sizes: `size` counts pixels there, and `min_pixels` and `max_pixels`, which
/// older files have, count more.
fn pixel_range(keys: &Map<String, Value>) -> Result<PixelRange, String> {
    let size = keys.get("size").filter(|size| !size.is_null());
    let whole = |names: [(Option<&Value>, &str); 2], default: u32| -> Result<u32, String> {
        let found = names
            .into_iter()
            .find_map(|(map, name)| Some((name, map?.get(name).filter(|v| !v.is_null())?)));
        let Some((name, value)) = found else {
            return Ok(default);
        };
        let number = value.as_u64().and_then(|value| u32::try_from(value).ok());
        number
            .filter(|&value| value > 0)
            .ok_or_else(|| format!("`{name}` must be a positive number, found {value}"))
    };
    let top = Value::Object(keys.clone());
    let usual = PixelRange::QWEN2_VL;
    let patch = whole([(Some(&top), "patch_size"), (None, "")], 14)?;
    let merge = whole([(Some(&top), "merge_size"), (None, "")], 2)?;
    let range = PixelRange {
        least: whole(
            [(Some(&top), "min_pixels"), (size, "shortest_edge")],
            usual.least,
        )?,
        most: whole(
            [(Some(&top), "max_pixels"), (size, "longest_edge")],
            usual.most,
        )?,
        factor: patch
            .checked_mul(merge)
            .filter(|&factor| factor <= 16_384)
            .ok_or("`patch_size` times `merge_size` must be at most 16384")?,
    };
    match range.least <= range.most {
        true => Ok(range),
        false => Err(format!(
            "pictures of at least {} and at most {} pixels are asked for",
            range.least, range.most
        )),
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

/// The processor that a file names, if it does. The suffixes tell implementations of the same.
fn processor(keys: &Map<String, Value>) -> Result<Option<Processor>, String> {
    for key in ["image_processor_type", "feature_extractor_type"] {
        let Some(value) = keys.get(key).filter(|value| !value.is_null()) else {
            continue;
        };
        let name = value.as_str().unwrap_or_default();
        let suffixes = ["Fast", "Pil"];
        let plain = suffixes.iter().find_map(|end| name.strip_suffix(end));
        let name = plain.unwrap_or(name);
        let kind = ["ImageProcessor", "FeatureExtractor"];
        let kind = kind.iter().find_map(|end| name.strip_suffix(end));
        return match kind {
            Some("CLIP" | "Bit") => Ok(Some(Processor::Clip)),
            Some("Siglip") => Ok(Some(Processor::Siglip)),
            Some("Blip") => Ok(Some(Processor::Blip)),
            Some("ViT") => Ok(Some(Processor::Vit)),
            Some("DINOv3ViT") => Ok(Some(Processor::Dinov3)),
            Some("Qwen2VL") => Ok(Some(Processor::Qwen2Vl)),
            _ => Err(format!(
                "`{key}` = {value} is not supported; CLIPImageProcessor, BitImageProcessor, \
                 SiglipImageProcessor, BlipImageProcessor, ViTImageProcessor, DINOv3ViTImageProcessor and \
                 Qwen2VLImageProcessor are"
            )),
        };
    }
    Ok(None)
}
