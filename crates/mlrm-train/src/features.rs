//! Features of pictures: what the frozen vision encoder makes of them, now or earlier.

mod keep;

pub use keep::{Keeping, KeptSize, keep_features, keep_same_features, told};

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::{Device, TensorData};
use mlrm_data::batch::{BatchPictures, NoteBatch, Picture, PictureHash};
use mlrm_data::loader::KnownPictures;
use mlrm_model::embedder::Embedder;
use mlrm_model::vision::{FeatureCache, PICTURES_AT_A_TIME, VisionFeatures};

use crate::error::TrainError;
use mlrm_model::transfer::upload;

/// What the frozen encoder of `embedder` makes of what each note of `batch` shows, which gives its
/// pictures up; `None` where either has none. Each picture is encoded once, and not at all where its
/// features are kept already.
///
/// # Errors
/// A batch that lacks the values of a picture, features that cannot be kept, or a device that failed.
pub fn vision_features(
    embedder: &Embedder,
    batch: &mut NoteBatch,
) -> Result<Option<VisionFeatures>, TrainError> {
    let (Some(pictures), Some(_)) = (batch.pictures.take(), &embedder.vision) else {
        return Ok(None);
    };
    let BatchPictures { distinct, of_note } = pictures;
    let (features, rows) = match &embedder.features {
        None => {
            let rows = (0..distinct.len()).collect();
            (encode(embedder, &distinct)?, rows)
        }
        Some(cache) => known_or_new(embedder, cache, distinct)?,
    };
    let rows: Vec<usize> = of_note.iter().map(|&picture| rows[picture]).collect();
    Ok(features.map(|features| {
        let own = rows.iter().copied().eq(0..features.summary.dims()[0]);
        match own {
            true => features,
            false => features.select(&rows),
        }
    }))
}

/// What the loader need not decode for `embedder`.
pub fn known_pictures(embedder: &Embedder) -> Option<Arc<dyn KnownPictures>> {
    let cache = embedder.features.as_ref()?;
    Some(Arc::new(Kept(Arc::clone(cache))))
}

/// The pictures of a cache, as the loader asks for them.
#[derive(Debug)]
struct Kept(Arc<FeatureCache>);

impl KnownPictures for Kept {
    fn knows(&self, picture: &PictureHash) -> bool {
        self.0.knows(picture)
    }

    fn keeps_more(&self) -> bool {
        self.0.keeps_more()
    }
}

/// Features of `pictures`, a few of which are on the device at a time.
fn encode(embedder: &Embedder, pictures: &[Picture]) -> Result<Option<VisionFeatures>, TrainError> {
    let device = device(embedder);
    let own = embedder.config.has_own_grids();
    let mut parts = Vec::new();
    for pictures in pictures.chunks(if own { 1 } else { PICTURES_AT_A_TIME }) {
        let [height, width] = pictures[0].size;
        let mut values = Vec::with_capacity(pictures.len() * 3 * height * width);
        for picture in pictures {
            let of_picture = picture.values.as_ref();
            values.extend_from_slice(of_picture.ok_or_else(|| lacks("values"))?);
        }
        let data = TensorData::new(values, [pictures.len(), 3, height, width]);
        let pixels = upload(data, &device);
        parts.extend(match own {
            true => embedder.encode_own(pixels),
            false => embedder.encode_vision(pixels),
        });
    }
    Ok(VisionFeatures::cat(parts))
}

/// Features from `cache`, below them those of pictures that are new, which are computed and kept; and
/// the row of each of `pictures`.
fn known_or_new(
    embedder: &Embedder,
    cache: &FeatureCache,
    pictures: Vec<Picture>,
) -> Result<(Option<VisionFeatures>, Vec<usize>), TrainError> {
    let (mut known, mut new, mut new_hashes) = (Vec::new(), Vec::new(), Vec::new());
    // Whether a picture is new, and which of those it is.
    let mut places: HashMap<PictureHash, (bool, usize)> = HashMap::new();
    let mut of_picture = Vec::with_capacity(pictures.len());
    for picture in pictures {
        let hash = picture.hash.ok_or_else(|| lacks("hash"))?;
        let place = *places
            .entry(hash)
            .or_insert_with(|| match cache.knows(&hash) {
                true => {
                    known.push(hash);
                    (false, known.len() - 1)
                }
                false => {
                    new.push(picture);
                    new_hashes.push(hash);
                    (true, new.len() - 1)
                }
            });
        of_picture.push(place);
    }
    let mut parts = Vec::new();
    if !known.is_empty() {
        let lost = || TrainError::Batch("features of a picture were lost while in use".into());
        let features = cache.get(&known, &device(embedder));
        parts.push(features.ok_or_else(lost)?);
    }
    if let Some(features) = encode(embedder, &new)? {
        parts.push(cache.keep(&new_hashes, features)?);
    }
    let row = |(new, place)| if new { known.len() + place } else { place };
    let rows = of_picture.into_iter().map(row).collect();
    Ok((VisionFeatures::cat(parts), rows))
}

/// Where the vision encoder computes.
fn device(embedder: &Embedder) -> Device {
    let device = embedder.core.head.temperature.val().device();
    device.without_autodiff()
}

fn lacks(what: &str) -> TrainError {
    TrainError::Batch(format!("a batch lacks the {what} of a picture"))
}
