//! How the pictures of a model are prepared: what the folder of its vision encoder says, and what a config asks for.

use std::path::Path;

use mlrm_config::{PictureGrid, VisionSettings};
use mlrm_data::image::{ImagePreprocessor, PixelRange, PreprocessorConfig, Resize};
use mlrm_model::vision::VisionConfig;

use crate::error::TrainError;

/// Fits `vision` to the pictures of a run, and says how they are prepared.
///
/// `folder`: that of the vision encoder; `merger`: the model has the merger that belongs to it, so that `model.checkpoint`
/// brings both.
pub(super) fn run_pictures(
    vision: &mut VisionConfig,
    folder: Option<&Path>,
    settings: &VisionSettings,
    merger: bool,
) -> Result<ImagePreprocessor, TrainError> {
    if let Some(own) = own_pictures(vision, folder, settings, merger)? {
        return Ok(own);
    }
    fit_pixels(vision, settings.max_pixels)?;
    let pictures = picture_settings(folder, vision)?;
    let side = match folder {
        Some(_) => input_side(vision, settings)?,
        // From scratch it was made for the size that the config says.
        None => None,
    };
    let pictures = pictures.resized(side, settings.resize_mode);
    if let Some((side, _)) = pictures.output_size() {
        vision.fit_pictures(side as usize);
    }
    Ok(ImagePreprocessor::new(pictures, vision.image_size)?)
}

/// What `model.vision.input_size` says.
///
/// # Errors
/// A size that the encoder cannot read.
fn input_side(vision: &VisionConfig, settings: &VisionSettings) -> Result<Option<u32>, TrainError> {
    let (name, own) = (vision.family().name, vision.image_size);
    let Some(side) = settings.input_size else {
        return Ok(None);
    };
    let mend = if vision.blocks.is_some() {
        format!(
            "a {name} reads any size; set model.vision.max_pixels = {}",
            side * side
        )
    } else if side != own && !vision.stretches() {
        format!("the positions of this {name} are for {own} by {own} pixels; leave the key out")
    } else if side < vision.patch_size {
        format!(
            "a patch is {0} by {0} pixels; set {0} or more",
            vision.patch_size
        )
    } else {
        return Ok(Some(side as u32));
    };
    Err(TrainError::Refused(format!(
        "model.vision.input_size = {side}: {mend}"
    )))
}

/// Reads pictures within `model.vision.max_pixels`.
fn fit_pixels(vision: &mut VisionConfig, most: Option<usize>) -> Result<(), TrainError> {
    match most {
        Some(most) if vision.blocks.is_some() => vision.fit_pixels(most),
        Some(most) => {
            return Err(TrainError::Refused(format!(
                "model.vision.max_pixels = {most}: the size of the pictures of a {} is told by its preprocessing; \
                 leave the key out",
                vision.family().name
            )));
        }
        None => {}
    }
    Ok(())
}

/// Pictures with grids of their own, where `model.vision.grid` asks for them or says nothing and the model is one that
/// was published so; `None` where all have one square.
///
/// `merger`: the model has the merger that belongs to the vision encoder, so that `model.checkpoint` brings both.
fn own_pictures(
    vision: &mut VisionConfig,
    folder: Option<&Path>,
    settings: &VisionSettings,
    merger: bool,
) -> Result<Option<ImagePreprocessor>, TrainError> {
    let able = vision.blocks.is_some() && merger;
    match settings.grid {
        Some(PictureGrid::Square) if vision.blocks.is_some() => return Ok(None),
        None if !able => return Ok(None),
        Some(PictureGrid::Own) | None if able => {}
        Some(PictureGrid::Own) if vision.blocks.is_some() => {
            return Err(TrainError::Refused(
                "model.vision.grid = \"own\": this connector reads as many positions of every picture; start from the \
                 whole model with model.checkpoint, or set model.vision.grid = \"square\""
                    .into(),
            ));
        }
        _ => {
            return Err(TrainError::Refused(format!(
                "model.vision.grid: all pictures of a {} have one grid; leave the key out",
                vision.family().name
            )));
        }
    }
    input_side(vision, settings)?;
    if settings.resize_mode.is_some() {
        return Err(TrainError::Refused(
            "model.vision.resize_mode: pictures with grids of their own keep their proportions; leave the key out, or set \
             model.vision.grid = \"square\""
                .into(),
        ));
    }
    let block = (vision.patch_size * vision.merge()) as u32;
    let defaults = vision.family().traits.pictures;
    let (pictures, range) = match said_of_pictures(folder, vision)? {
        None => (
            PreprocessorConfig::usual(defaults, block),
            PixelRange::usual(block),
        ),
        Some(pictures) => match pictures.resize {
            Some(Resize::Within(range)) => (pictures, range),
            // What the file asks for is one size.
            _ if settings.grid.is_none() => return Ok(None),
            _ => return Err(no_own_sizes(&pictures)),
        },
    };
    let range = match settings.max_pixels {
        Some(most) => range.at_most(u32::try_from(most).unwrap_or(u32::MAX)),
        None => range,
    };
    let preprocessor = own_sizes(pictures, range, vision)?;
    vision.fit_pixels(range.most as usize);
    vision.with_own_grids(range.most_squares());
    Ok(Some(preprocessor))
}

/// Pictures of sizes of their own, which whole blocks of patches must fill.
fn own_sizes(
    pictures: PreprocessorConfig,
    range: PixelRange,
    vision: &VisionConfig,
) -> Result<ImagePreprocessor, TrainError> {
    let block = vision.patch_size * vision.merge();
    if range.factor as usize == block {
        return Ok(ImagePreprocessor::of_own_sizes(pictures, range));
    }
    Err(TrainError::Refused(format!(
        "preprocessor_config.json: its sides are multiples of {} pixels, but a visual token of the vision encoder is {block} \
         pixels wide; correct `patch_size` and `merge_size`",
        range.factor
    )))
}

fn no_own_sizes(pictures: &PreprocessorConfig) -> TrainError {
    let size = match pictures.output_size() {
        Some((height, width)) => format!("pictures of {width} by {height} pixels"),
        None => "pictures of another kind".to_owned(),
    };
    TrainError::Refused(format!(
        "model.vision.grid = \"own\": the preprocessor_config.json gives {size}; set model.vision.grid = \"square\", or \
         use that of a Qwen2.5-VL or Qwen3-VL"
    ))
}

/// How the pictures of a model folder are prepared, whose vision encoder is in `folder`.
pub(super) fn preprocessor_of(
    folder: &Path,
    vision: &VisionConfig,
) -> Result<ImagePreprocessor, TrainError> {
    if vision.own_grids.is_none() {
        let pictures = picture_settings(Some(folder), vision)?;
        return Ok(ImagePreprocessor::new(pictures, vision.image_size)?);
    }
    match said_of_pictures(Some(folder), vision)? {
        Some(pictures) => match pictures.resize {
            Some(Resize::Within(range)) => own_sizes(pictures, range, vision),
            _ => Err(no_own_sizes(&pictures)),
        },
        None => Err(TrainError::Refused(format!(
            "{}: its pictures have grids of their own, but there is no preprocessor_config.json that says their \
             sizes",
            folder.display()
        ))),
    }
}

/// How the pictures of a vision encoder are prepared, all to one size: what its folder says, or as usual in its family.
///
/// # Errors
/// A file that cannot be read, or that asks for what is not implemented.
pub fn picture_settings(
    folder: Option<&Path>,
    vision: &VisionConfig,
) -> Result<PreprocessorConfig, TrainError> {
    let side = vision.image_size as u32;
    let pictures = said_of_pictures(folder, vision)?;
    let usual = || PreprocessorConfig::usual(vision.family().traits.pictures, side);
    Ok(pictures.unwrap_or_else(usual).squared(side))
}

/// What the folder of a vision encoder says of its pictures, if it does.
fn said_of_pictures(
    folder: Option<&Path>,
    vision: &VisionConfig,
) -> Result<Option<PreprocessorConfig>, TrainError> {
    let defaults = vision.family().traits.pictures;
    let said = folder.map(|folder| PreprocessorConfig::load(folder, defaults));
    Ok(said.transpose()?.flatten())
}
