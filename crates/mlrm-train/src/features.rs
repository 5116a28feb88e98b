//! Features of the frozen vision encoder, computed or kept from before.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use mlrm_config::RunConfig;
use mlrm_data::batch::{NoteBatch, PictureHash};
use mlrm_data::loader::KnownPictures;
use mlrm_data::notes::NoteSet;
use mlrm_model::embedder::Embedder;
use mlrm_model::vision::{FeatureCache, FeatureShape, VisionFeatures, features_key};

use crate::device;
use crate::error::TrainError;
use crate::plan::OpenModel;

/// What the frozen encoder of `embedder` makes of the pictures of `batch`, which gives its pixels up;
/// `None` where either has none.
///
/// # Errors
/// A device that failed.
pub fn vision_features(
    embedder: &Embedder,
    batch: &mut NoteBatch,
) -> Result<Option<VisionFeatures>, TrainError> {
    let (Some(pixels), Some(_)) = (batch.pixel_values.take(), &embedder.vision) else {
        return Ok(None);
    };
    let pictures = std::mem::take(&mut batch.pictures);
    let pixels = Pixels {
        values: pixels,
        side: batch.image_size,
        device: embedder
            .core
            .head
            .temperature
            .val()
            .device()
            .without_autodiff(),
    };
    match &embedder.features {
        Some(cache) if !pictures.is_empty() => known_or_new(embedder, cache, &pictures, pixels),
        _ => {
            let all = 0..batch.notes;
            let pixels = match all.len() * pixels.size() == pixels.values.len() {
                true => pixels.into_tensor(batch.notes),
                false => {
                    return Err(TrainError::Run(
                        "a batch lacks pixels of its pictures".into(),
                    ));
                }
            };
            Ok(embedder.encode_vision(pixels))
        }
    }
}

/// Values of pictures in host memory.
struct Pixels {
    values: Vec<f32>,
    side: usize,
    device: Device,
}

impl Pixels {
    fn size(&self) -> usize {
        3 * self.side * self.side
    }

    fn into_tensor(self, notes: usize) -> Tensor<4> {
        let data = TensorData::new(self.values, [notes, 3, self.side, self.side]);
        Tensor::from_data(data, &self.device)
    }

    /// Those of some notes alone.
    fn select(self, notes: &[usize]) -> Self {
        let size = self.size();
        let picture = |&note: &usize| &self.values[note * size..(note + 1) * size];
        Self {
            values: notes.iter().flat_map(picture).copied().collect(),
            ..self
        }
    }
}

/// Features from `cache`; those of other pictures are computed, each once, and kept.
fn known_or_new(
    embedder: &Embedder,
    cache: &FeatureCache,
    pictures: &[PictureHash],
    pixels: Pixels,
) -> Result<Option<VisionFeatures>, TrainError> {
    let device = pixels.device.clone();
    let (mut known, mut new, mut new_notes) = (Vec::new(), Vec::new(), Vec::new());
    let mut places = HashMap::new();
    for (note, picture) in pictures.iter().enumerate() {
        if places.contains_key(picture) {
            continue;
        }
        if cache.knows(picture) {
            places.insert(*picture, (true, known.len()));
            known.push(*picture);
        } else {
            places.insert(*picture, (false, new.len()));
            new.push(*picture);
            new_notes.push(note);
        }
    }
    let mut parts = Vec::new();
    if !known.is_empty() {
        let lost = || TrainError::Run("features of a picture were damaged while in use".into());
        parts.push(cache.get(&known, &device).ok_or_else(lost)?);
    }
    if !new.is_empty() {
        let pixels = pixels.select(&new_notes).into_tensor(new.len());
        if let Some(features) = embedder.encode_vision(pixels) {
            cache.put(&new, &features)?;
            parts.push(features);
        }
    }
    let row = |picture: &PictureHash| match places.get(picture) {
        Some((true, index)) => *index as i64,
        Some((false, index)) => (known.len() + index) as i64,
        None => 0,
    };
    let rows: Vec<i64> = pictures.iter().map(row).collect();
    Ok(Some(gather(parts, rows, &device)))
}

/// The rows of all parts, one below the other, at `rows`.
fn gather(parts: Vec<VisionFeatures>, rows: Vec<i64>, device: &Device) -> VisionFeatures {
    let count = rows.len();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), device);
    let (summaries, positions) = parts
        .into_iter()
        .map(|part| (part.summary, part.positions))
        .unzip();
    VisionFeatures {
        summary: Tensor::cat(summaries, 0).select(0, rows.clone()),
        positions: Tensor::cat(positions, 0).select(0, rows),
    }
}

/// The pictures of a cache, as the loader asks for them.
#[derive(Debug)]
struct Kept(Arc<FeatureCache>);

impl KnownPictures for Kept {
    fn knows(&self, picture: &PictureHash) -> bool {
        self.0.knows(picture)
    }
}

/// Gives model and encoder the cache that `config` asks for, if it asks for one.
///
/// # Errors
/// A folder that cannot be used.
pub(crate) fn keep_features(
    mut model: OpenModel,
    config: &RunConfig,
) -> Result<OpenModel, TrainError> {
    let embedder = &mut model.embedder;
    let sizes = &embedder.config;
    let (Some(vision), Some(encoder)) = (&sizes.vision, &embedder.vision) else {
        return Ok(model);
    };
    let Some(folder) = folder(&config.train.feature_cache)? else {
        return Ok(model);
    };
    let dtype = device::dtype(config.backend.dtype);
    let shape = FeatureShape {
        positions: vision.positions(sizes.features.positions),
        width: vision.hidden_size,
        dtype,
    };
    let reading = format!(
        "{} {vision:?} {:?} {dtype:?} {}",
        env!("CARGO_PKG_VERSION"),
        sizes.features,
        config.backend.device.names().join(" ")
    );
    let key = features_key(encoder, &reading)?;
    let most = config.train.feature_cache_max_bytes;
    let cache = Arc::new(FeatureCache::open(&folder, &key, shape, most)?);
    model.encoding.known = Some(Arc::new(Kept(Arc::clone(&cache))));
    embedder.features = Some(cache);
    Ok(model)
}

/// The folder that `train.feature_cache` means; `None` for none.
fn folder(setting: &str) -> Result<Option<PathBuf>, TrainError> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    match setting {
        "off" => Ok(None),
        "auto" => {
            let home = || set("HOME").map(|home| PathBuf::from(home).join(".cache"));
            let cache = set("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
            let missing = || {
                TrainError::Run(
                    "train.feature_cache = \"auto\": neither XDG_CACHE_HOME nor HOME is set; name a \
                     folder, or set \"off\""
                        .into(),
                )
            };
            Ok(Some(cache.ok_or_else(missing)?.join("mlrm/features")))
        }
        folder => Ok(Some(PathBuf::from(folder))),
    }
}

/// What the features of all pictures of `notes` will take, said before any is written; `None` where
/// all are there.
pub(crate) fn prediction(cache: &FeatureCache, notes: &NoteSet) -> Option<String> {
    let keys = notes.rows().iter().filter_map(|note| note.image.as_deref());
    let pictures = keys.collect::<std::collections::HashSet<_>>().len() as u64;
    let there = cache.len() as u64;
    let missing = pictures.saturating_sub(there);
    let bytes = |count: u64| count as f64 * cache.shape().record_bytes() as f64 / 1048576.0;
    let written = missing.min(cache.room());
    (missing > 0).then(|| {
        format!(
            "train.feature_cache: features of up to {written} of {pictures} pictures, {:.1} MiB, will be \
             written to {} ({there} are there)",
            bytes(written),
            cache.folder().display()
        )
    })
}
