//! A model that was trained before: where its folder is, and which settings belong to it.

use std::path::{Path, PathBuf};

use mlrm_config::{ExifOrientation, RunConfig};
use mlrm_data::image::PreprocessorConfig;
use mlrm_model::embedder::ModelFolder;

use crate::error::TrainError;

/// The model folder that `path` means: itself, or `model/` in a run folder.
///
/// # Errors
/// Neither of the two is there.
pub fn model_folder(path: &Path) -> Result<PathBuf, TrainError> {
    [path.to_owned(), path.join("model")]
        .into_iter()
        .find(|folder| folder.join("mlrm.toml").is_file())
        .ok_or_else(|| {
            TrainError::Refused(format!(
                "{} is neither a model folder (no mlrm.toml) nor a run folder with a `model/`",
                path.display()
            ))
        })
}

/// Whether `path` is a run folder, whose config tells how the model came about.
pub fn is_run(path: &Path) -> bool {
    path.join("config.toml").is_file()
}

/// The settings of the run in `path`; for a model folder alone, those by which it reads notes as it did in
/// training. `overrides` (`section.key=value`) go before either.
///
/// # Errors
/// No model, a folder that cannot be read, or overrides that cannot be.
pub fn settings(path: &Path, overrides: &[String]) -> Result<RunConfig, TrainError> {
    if is_run(path) {
        return Ok(RunConfig::load(path.join("config.toml"), overrides)?);
    }
    let folder = model_folder(path)?;
    let mut overrides = overrides.to_vec();
    let vision = ModelFolder::open(&folder)?.config.vision;
    let pictures = vision.map(|vision| {
        let defaults = vision.family().traits.pictures;
        PreprocessorConfig::load(&folder.join("vision"), defaults)
    });
    let pictures = pictures.transpose()?.flatten();
    if let Some(ExifOrientation::Apply) = pictures.map(|pictures| pictures.orientation) {
        overrides.insert(0, "data.exif_orientation=apply".into());
    }
    overrides.push(format!("model.path={}", path.display()));
    Ok(RunConfig::from_overrides(&overrides)?)
}
