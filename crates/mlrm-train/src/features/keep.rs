//! Which features are kept, and where (`train.feature_cache`).

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlrm_config::{MatmulPrecision, RunConfig};
use mlrm_events::KeptFeatures;
use mlrm_model::embedder::Embedder;
use mlrm_model::ops;
use mlrm_model::vision::{FeatureCache, FeatureKey, FeatureShape};

use crate::corpus::{Encoding, Notes, own_pixels};
use crate::device;
use crate::error::TrainError;
use crate::folders::free_bytes;
use crate::plan::RunPlan;

/// Notes whose pictures are looked at for their size, where each has one of its own.
const SAMPLED_NOTES: usize = 256;

/// Free space that is left on the disk by `auto`.
const SPARED_BYTES: u64 = 1 << 30;

/// What somebody wants of features that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// A run that looks at so many pictures, each time that it looks at one counted.
    Run {
        /// How many.
        looks: u64,
    },
    /// A command that looks at each picture about once: what is there serves it, but unless a folder
    /// is named nothing is added.
    Command,
}

impl Keeping {
    /// Whether keeping more features without being asked to pays: the encoder is one that others have too, and pictures
    /// come more than once.
    fn adds(self, config: &RunConfig, pictures: u64) -> bool {
        match self {
            Self::Run { looks } => has_shared_encoder(config) && looks >= 2 * pictures,
            Self::Command => false,
        }
    }
}

/// What features of pictures may take on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSize {
    /// Where they are kept.
    pub folder: PathBuf,
    /// By number and size, whatever is there already.
    pub bytes: u64,
}

impl KeptSize {
    /// Of the features that the run of `plan` is to keep; `None` where it keeps none.
    pub fn of(plan: &RunPlan) -> Option<Self> {
        let config = &plan.config;
        let shape = shape(&plan.embedder, &plan.encoding, &plan.notes, config)?;
        let (named, folder) = folder(&config.train.feature_cache)?;
        let pictures = pictures(&plan.notes).len() as u64;
        let all = pictures * shape.picture_bytes();
        let most = config.train.feature_cache_max_bytes;
        let looks = plan.looks_at_pictures();
        let pays = || {
            let fits = free_bytes(&folder).is_none_or(|free| all + SPARED_BYTES <= free);
            Keeping::Run { looks }.adds(config, pictures) && all <= most && fits
        };
        let bytes = all.min(most);
        (named || pays()).then_some(Self { folder, bytes })
    }
}

/// Gives `embedder` the cache that `config` asks for, if any, and says what is kept in it.
///
/// # Errors
/// A folder that cannot be used.
pub fn keep_features(
    embedder: &mut Embedder,
    encoding: &Encoding,
    notes: &Notes,
    config: &RunConfig,
    keeping: Keeping,
) -> Result<Option<KeptFeatures>, TrainError> {
    let (named, folder) = match folder(&config.train.feature_cache) {
        Some((named, folder)) if embedder.vision.is_some() => (named, folder),
        _ => return Ok(None),
    };
    let pictures = pictures(notes);
    // Where it does not pay to keep more, what another run has kept is read all the same.
    let adds = named || keeping.adds(config, pictures.len() as u64);
    if !adds && !has_shared_encoder(config) && keeping != Keeping::Command {
        return Ok(None);
    }
    let Some((key, shape)) = key(embedder, encoding, notes, config)? else {
        return Ok(None);
    };
    if !adds && !FeatureCache::is_there(&folder, &key) {
        return Ok(None);
    }
    let most = config.train.feature_cache_max_bytes;
    let mut cache = FeatureCache::open(&folder, key, shape, most)?;
    let mut kept = survey(&cache, notes, &pictures)?;
    let fits = kept.will_be_kept == kept.missing
        && free_bytes(&folder)
            .is_none_or(|free| kept.missing * cache.picture_bytes() + SPARED_BYTES <= free);
    let keeps = named || (adds && fits);
    if !keeps {
        if cache.is_empty() {
            return Ok(None);
        }
        cache = cache.read_only();
        (kept.will_be_kept, kept.bytes) = (0, 0);
    }
    embedder.features = Some(Arc::new(cache));
    Ok(Some(kept))
}

/// What is kept, in words.
pub fn told(kept: &KeptFeatures) -> String {
    let KeptFeatures {
        folder,
        pictures,
        missing,
        will_be_kept,
        bytes,
    } = kept;
    let there = pictures - missing;
    let mut text =
        format!("features of pictures are kept in {folder}: {there} of {pictures} are there");
    if *will_be_kept > 0 {
        let mebibytes = *bytes as f64 / f64::from(1 << 20);
        text += &format!(", {will_be_kept} more will take {mebibytes:.1} MiB");
    }
    if missing > will_be_kept {
        text += &format!(", {} will be encoded each time", missing - will_be_kept);
    }
    text
}

/// Gives `new`, which takes the place of `old` in its run, the features that `old` keeps, and has it keep states as `old` does. Where its encoder is
/// another one, they are others.
///
/// # Errors
/// A folder that cannot be used.
pub fn keep_same_features(
    old: &Embedder,
    new: &mut Embedder,
    encoding: &Encoding,
    notes: &Notes,
    config: &RunConfig,
) -> Result<(), TrainError> {
    if old.core.states.is_some() {
        new.keep_states();
    }
    let Some(cache) = &old.features else {
        return Ok(());
    };
    if let Some((key, shape)) = key(new, encoding, notes, config)? {
        new.features = Some(match key == *cache.key() {
            true => Arc::clone(cache),
            false => Arc::new(cache.of_other(key, shape)?),
        });
    }
    Ok(())
}

/// Whether the encoder is one that other runs have too: one drawn at random is small, and no other's.
fn has_shared_encoder(config: &RunConfig) -> bool {
    let model = &config.model;
    let start = [&model.path, &model.checkpoint, &model.vision.path];
    start.iter().any(|path| path.is_some())
}

/// Whether a folder was named, and which one it is; `None` for none.
fn folder(setting: &str) -> Option<(bool, PathBuf)> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    match setting {
        "off" => None,
        "auto" => {
            let home = || set("HOME").map(|home| Path::new(&home).join(".cache"));
            let caches = set("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
            Some((false, caches.join("mlrm/features")))
        }
        folder => Some((true, PathBuf::from(folder))),
    }
}

/// The pictures that notes show, by key.
fn pictures(notes: &Notes) -> HashSet<&str> {
    let rows = notes.set.rows().iter().enumerate();
    let shown = rows.filter(|(row, _)| !notes.by_text.reads(*row as u32));
    shown
        .filter_map(|(_, note)| note.image.as_deref())
        .collect()
}

/// Sizes of what would be kept of a picture; `None` where the model sees none.
fn shape(
    embedder: &Embedder,
    encoding: &Encoding,
    notes: &Notes,
    config: &RunConfig,
) -> Option<FeatureShape> {
    let sizes = &embedder.config;
    let vision = sizes.vision.as_ref()?;
    let own_grids = sizes.has_own_grids();
    let computed = device::dtype(config.backend.dtype);
    let kept = config.train.feature_cache_dtype;
    Some(FeatureShape {
        positions: match own_grids {
            true => mean_pixels(encoding, notes)? / vision.patch_size.pow(2),
            false => vision.positions(sizes.features.positions),
        },
        own_grids,
        width: vision.feature_width(),
        summary: vision.hidden_size,
        kept: kept.map_or(computed, device::dtype),
        computed,
    })
}

/// Pixels of a picture that has a size of its own, in the mean of evenly spaced notes; `None` where none can be read.
fn mean_pixels(encoding: &Encoding, notes: &Notes) -> Option<usize> {
    let rows = notes.set.rows();
    let every = rows.len().div_ceil(SAMPLED_NOTES).max(1);
    let sampled = rows.iter().step_by(every);
    let pixels: Vec<usize> = sampled
        .filter_map(|note| own_pixels(encoding, notes, note))
        .collect();
    pixels.iter().sum::<usize>().checked_div(pixels.len())
}

/// What all that the features depend on is called, and what is kept of a picture.
fn key(
    embedder: &Embedder,
    encoding: &Encoding,
    notes: &Notes,
    config: &RunConfig,
) -> Result<Option<(FeatureKey, FeatureShape)>, TrainError> {
    let sizes = &embedder.config;
    let (Some(encoder), Some(shape), Some(preprocessor)) = (
        &embedder.vision,
        shape(embedder, encoding, notes, config),
        &encoding.preprocessor,
    ) else {
        return Ok(None);
    };
    let size = match preprocessor.image_size() {
        Some(side) => format!("{side} pixels"),
        None => "sizes of their own".to_owned(),
    };
    let FeatureShape { kept, computed, .. } = shape;
    let backends = config.backend.device.names().iter();
    let mut backends: Vec<&str> = backends.filter_map(|name| name.split(':').next()).collect();
    // Several devices of a backend are as one.
    backends.sort_unstable();
    backends.dedup();
    let short = config.backend.matmul_precision == MatmulPrecision::Bf16;
    let products = match short && ops::has_bf16_products() {
        true => "bf16",
        false => "its own",
    };
    let reading = format!(
        "pictures {:?} of {size}, EXIF orientation {:?}\ncomputed by {} in {computed:?}, products in {products} precision",
        preprocessor.config(),
        notes.decoding.orientation,
        backends.join(", ")
    );
    let key = FeatureKey::new(encoder, sizes.features, kept, &reading)?;
    Ok(Some((key, shape)))
}

/// What is there of `pictures`, and what the others will take.
fn survey(
    cache: &FeatureCache,
    notes: &Notes,
    pictures: &HashSet<&str>,
) -> Result<KeptFeatures, TrainError> {
    let hash = |key: &&str| notes.images.as_ref().and_then(|store| store.seen(key));
    let hashes: Vec<_> = pictures.iter().filter_map(hash).collect();
    let all = pictures.len() as u64;
    let there = match hashes.len() == pictures.len() {
        true => hashes.iter().filter(|hash| cache.lists(hash)).count() as u64,
        // Not all files were read yet: what is there may be of other pictures.
        false => all.min(cache.len() as u64),
    };
    let missing = all - there;
    let will_be_kept = missing.min(cache.room()?);
    Ok(KeptFeatures {
        folder: cache.folder().display().to_string(),
        pictures: all,
        missing,
        will_be_kept,
        bytes: will_be_kept * cache.picture_bytes(),
    })
}
