//! What a frozen encoder made of pictures, kept on disk.

mod files;
mod store;
#[cfg(test)]
mod tests;

use std::path::Path;

use burn::tensor::{DType, Device, TensorData};

use self::files::{GRID_BYTES, HEAD_BYTES, ValueBytes, grid_bytes, read_grid};
use self::store::Store;
use super::{FeatureSelection, Grid, VisionFeatures, VisionTower};
use crate::error::ModelError;
use crate::transfer::upload;

/// BLAKE3 of a picture's file.
pub type PictureHash = [u8; 32];

/// What features depend on besides their picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureKey {
    /// A hash of all of it.
    pub name: String,
    /// All of it but the weights, for people.
    pub about: String,
}

impl FeatureKey {
    /// The key of what `encoder` makes of pictures with `selection`, kept in `kept`. `reading` tells how
    /// files become its pixels, and where it computes.
    ///
    /// # Errors
    /// Weights that cannot be read from their device.
    pub fn new(
        encoder: &VisionTower,
        selection: FeatureSelection,
        kept: DType,
        reading: &str,
    ) -> Result<Self, ModelError> {
        let about = format!(
            "mlrm {}\nencoder {}\n{selection:?}\nkept in {kept:?}\n{reading}",
            env!("CARGO_PKG_VERSION"),
            encoder.config().to_json()
        );
        let mut hasher = blake3::Hasher::new();
        hasher.update(about.as_bytes());
        encoder.hash_weights(&mut hasher)?;
        Ok(Self {
            name: hasher.finalize().to_hex()[..32].to_owned(),
            about,
        })
    }
}

/// Sizes of what is kept of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureShape {
    /// Positions that the connector reads; where pictures have grids of their own, of a usual one.
    pub positions: usize,
    /// Whether each picture has a grid of its own, whose patches are the positions.
    pub own_grids: bool,
    /// Values of each of them.
    pub width: usize,
    /// Values of the picture as one vector (v).
    pub summary: usize,
    /// Number format on disk.
    pub kept: DType,
    /// Number format that the encoder computes in.
    pub computed: DType,
}

impl FeatureShape {
    fn summary_bytes(&self) -> usize {
        self.summary * self.kept.size()
    }

    fn position_bytes(&self) -> usize {
        self.width * self.kept.size()
    }

    fn value_bytes(&self) -> usize {
        let grid = if self.own_grids { GRID_BYTES } else { 0 };
        grid + self.summary_bytes() + self.positions * self.position_bytes()
    }

    fn sizes(&self) -> ValueBytes {
        match self.own_grids {
            false => ValueBytes::Same(self.value_bytes()),
            true => ValueBytes::ByGrid {
                fixed: GRID_BYTES + self.summary_bytes(),
                patch: self.position_bytes(),
            },
        }
    }

    /// Positions of each picture: the patches of its grid, where it has one of its own.
    fn positions_of(&self, pictures: usize, grids: Option<&[Grid]>) -> Vec<usize> {
        match grids {
            Some(grids) => grids.iter().map(|[rows, columns]| rows * columns).collect(),
            None => vec![self.positions; pictures],
        }
    }

    /// Bytes that a picture takes on disk, usually.
    pub fn picture_bytes(&self) -> u64 {
        (HEAD_BYTES + self.value_bytes()) as u64
    }
}

/// Features of pictures, by picture, of one encoder. Several processes may share a folder.
#[derive(Debug)]
pub struct FeatureCache {
    store: Store,
    key: FeatureKey,
    shape: FeatureShape,
}

impl FeatureCache {
    /// What `folder` holds for `key`. No more than `most_bytes` are kept in `folder`, of all encoders.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn open(
        folder: &Path,
        key: FeatureKey,
        shape: FeatureShape,
        most_bytes: u64,
    ) -> Result<Self, ModelError> {
        let (sizes, bytes) = (shape.sizes(), shape.value_bytes());
        Ok(Self {
            store: Store::open(folder, &key.name, &key.about, sizes, bytes, most_bytes)?,
            key,
            shape,
        })
    }

    /// As this one, in the same folder, for another key.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn of_other(&self, key: FeatureKey, shape: FeatureShape) -> Result<Self, ModelError> {
        let other = Self::open(self.store.root(), key, shape, self.store.most_bytes())?;
        Ok(match self.keeps_more() {
            true => other,
            false => other.read_only(),
        })
    }

    /// Whether `folder` holds anything for `key`.
    pub fn is_there(folder: &Path, key: &FeatureKey) -> bool {
        folder.join(&key.name).is_dir()
    }

    /// Reads what is there, and adds nothing.
    pub fn read_only(self) -> Self {
        self.store.close();
        self
    }

    /// What the features depend on.
    pub fn key(&self) -> &FeatureKey {
        &self.key
    }

    /// The folder of this encoder.
    pub fn folder(&self) -> &Path {
        self.store.folder()
    }

    /// Pictures whose features are there.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that a picture takes on disk, usually.
    pub fn picture_bytes(&self) -> u64 {
        self.store.record_bytes() as u64
    }

    /// How many more pictures fit.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn room(&self) -> Result<u64, ModelError> {
        self.store.room()
    }

    /// Whether the features of pictures that are not there yet will be kept.
    pub fn keeps_more(&self) -> bool {
        self.store.is_open()
    }

    /// Whether the features of `picture` are there, damaged or not.
    pub fn lists(&self, picture: &PictureHash) -> bool {
        self.store.lists(picture)
    }

    /// Whether the features of `picture` are there, undamaged.
    pub fn knows(&self, picture: &PictureHash) -> bool {
        self.store.knows(picture)
    }

    /// What a person should know and was not told yet: damaged entries, and why no more are kept.
    pub fn news(&self) -> Vec<String> {
        self.store.news()
    }

    /// The features of `pictures` on `device`, in the format that the encoder computes in; `None` unless
    /// all of them are there.
    pub fn get(&self, pictures: &[PictureHash], device: &Device) -> Option<VisionFeatures> {
        let FeatureShape {
            positions,
            width,
            summary: whole,
            kept,
            computed,
            own_grids,
        } = self.shape;
        let (mut summary, mut rest, mut grids) = (Vec::new(), Vec::new(), Vec::new());
        let all = self.store.read(pictures, &mut |values| {
            grids.extend(read_grid(values).filter(|_| own_grids));
            let values = &values[if own_grids { GRID_BYTES } else { 0 }..];
            let (first, others) = values.split_at(self.shape.summary_bytes());
            summary.extend_from_slice(first);
            rest.extend_from_slice(others);
        });
        if !all {
            return None;
        }
        let notes = pictures.len();
        let grids = own_grids.then_some(grids);
        let shape = match &grids {
            Some(grids) => {
                let all = self.shape.positions_of(notes, Some(grids)).iter().sum();
                [1, all, width]
            }
            None => [notes, positions, width],
        };
        let summary = TensorData::from_bytes_vec(summary, [notes, whole], kept);
        let rest = TensorData::from_bytes_vec(rest, shape, kept);
        Some(VisionFeatures {
            summary: upload(summary, (device, computed)),
            positions: upload(rest, (device, computed)),
            grids,
        })
    }

    /// Keeps the features of `pictures` as far as there is room, and gives them back as they are read
    /// again: rounded to the format on disk.
    ///
    /// # Errors
    /// Features of other sizes, that do not fit the format on disk, or cannot be read from their device.
    pub fn keep(
        &self,
        pictures: &[PictureHash],
        features: VisionFeatures,
    ) -> Result<VisionFeatures, ModelError> {
        let FeatureShape {
            positions,
            width,
            summary: whole,
            kept,
            computed,
            own_grids,
        } = self.shape;
        let found = (features.summary.dims(), features.positions.dims());
        let count = pictures.len();
        let grids = features.grids.as_deref();
        let all = self.shape.positions_of(count, grids);
        let expected = match own_grids {
            true => [1, all.iter().sum(), width],
            false => [count, positions, width],
        };
        if found != ([count, whole], expected)
            || grids.is_some() != own_grids
            || all.len() != count
            || features.summary.dtype() != computed
        {
            return Err(ModelError::Shape {
                what: "features".into(),
                expected: format!("{:?}", self.shape),
                found: format!("{found:?}"),
            });
        }
        let rounded = VisionFeatures {
            summary: features.summary.cast(kept),
            positions: features.positions.cast(kept),
            grids: features.grids,
        };
        if self.keeps_more() || kept != computed {
            self.add(pictures, &rounded)?;
        }
        Ok(VisionFeatures {
            summary: rounded.summary.cast(computed),
            positions: rounded.positions.cast(computed),
            grids: rounded.grids,
        })
    }

    /// Adds features in the format on disk.
    fn add(&self, pictures: &[PictureHash], features: &VisionFeatures) -> Result<(), ModelError> {
        let failed = |e| ModelError::unreadable("features", e);
        let summary = features.summary.clone().try_into_data().map_err(failed)?;
        let rest = features.positions.clone().try_into_data().map_err(failed)?;
        if self.shape.kept == DType::F16 && self.shape.computed != DType::F16 {
            for data in [&summary, &rest] {
                let infinite = data.iter::<f32>().any(f32::is_infinite);
                if infinite {
                    return Err(ModelError::config(
                        &["train.feature_cache_dtype"],
                        "train.feature_cache_dtype = \"f16\": the encoder gives values past 65504, \
                         the largest of f16; set it to \"bf16\"",
                    ));
                }
            }
        }
        let summary = summary
            .as_bytes()
            .chunks_exact(self.shape.summary_bytes().max(1));
        let grids = features.grids.as_deref();
        let mut rest = rest.as_bytes();
        let counts = self.shape.positions_of(pictures.len(), grids).into_iter();
        let values = summary.zip(counts).enumerate();
        let values = values.map(|(at, (first, count))| {
            let others;
            (others, rest) = rest.split_at(count * self.shape.position_bytes());
            let grid = grids.map_or_else(Vec::new, |grids| grid_bytes(grids[at]));
            [grid.as_slice(), first, others].concat()
        });
        self.store.add(&mut pictures.iter().copied().zip(values));
        Ok(())
    }
}
