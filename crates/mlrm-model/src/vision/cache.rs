//! What a frozen encoder made of pictures, kept on disk.
//!
//! A folder holds a sub-folder for each encoder (its weights, what is read of it, the number format
//! and device it computes in). There every process appends records to a file of its own: the picture's
//! hash, a checksum, the values. Files are read through memory maps. A record that is cut off or whose
//! checksum does not fit counts as absent, and is computed again.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use memmap2::Mmap;

use super::VisionFeatures;
use crate::error::ModelError;

/// BLAKE3 of the values that an encoder reads of a picture.
pub type PictureHash = [u8; 32];

const HASH_BYTES: usize = 32;
/// Before a record's values: the picture's hash and a checksum.
const HEAD_BYTES: usize = 2 * HASH_BYTES;
const ENDING: &str = "features";

/// Sizes of what is kept of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureShape {
    /// Positions that the connector reads.
    pub positions: usize,
    /// Width of the encoder (v).
    pub width: usize,
    /// Number format.
    pub dtype: DType,
}

impl FeatureShape {
    fn summary_bytes(&self) -> usize {
        self.width * self.dtype.size()
    }

    fn value_bytes(&self) -> usize {
        (1 + self.positions) * self.summary_bytes()
    }

    /// Bytes that a picture takes on disk.
    pub fn record_bytes(&self) -> usize {
        HEAD_BYTES + self.value_bytes()
    }
}

/// Where a record is.
#[derive(Debug, Clone, Copy)]
struct Place {
    map: usize,
    record: usize,
    /// Its checksum was seen to fit.
    checked: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Records of each picture, which two processes may both have written; the last is read.
    places: HashMap<PictureHash, Vec<Place>>,
    maps: Vec<Mmap>,
    /// The file of this process, once it has written, and its records there.
    own: Option<(File, PathBuf)>,
    own_records: usize,
    /// Index into `maps` of the newest map of the own file, and the records that it shows.
    own_map: Option<(usize, usize)>,
    bytes: u64,
    damaged: usize,
    /// Why nothing is added any more.
    closed: Option<String>,
}

/// Features of pictures that one encoder has seen.
#[derive(Debug)]
pub struct FeatureCache {
    folder: PathBuf,
    shape: FeatureShape,
    most_bytes: u64,
    state: Mutex<State>,
}

impl FeatureCache {
    /// Opens what `folder` holds for the encoder of this `key`; at most `most_bytes` are kept in
    /// `folder`, of all encoders.
    ///
    /// # Errors
    /// A folder that cannot be made or read.
    pub fn open(
        folder: &Path,
        key: &str,
        shape: FeatureShape,
        most_bytes: u64,
    ) -> Result<Self, ModelError> {
        let own = folder.join(key);
        fs::create_dir_all(&own).map_err(|e| ModelError::io("create", &own, e))?;
        let mut state = State {
            bytes: bytes_below(folder)?,
            ..State::default()
        };
        for path in record_files(&own)? {
            state.index(&path, shape)?;
        }
        Ok(Self {
            folder: own,
            shape,
            most_bytes,
            state: Mutex::new(state),
        })
    }

    /// The encoder's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Sizes of what is kept of a picture.
    pub fn shape(&self) -> FeatureShape {
        self.shape
    }

    /// Pictures whose features are there.
    pub fn len(&self) -> usize {
        self.state().places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many more pictures fit.
    pub fn room(&self) -> u64 {
        let free = self.most_bytes.saturating_sub(self.state().bytes);
        free / self.shape.record_bytes() as u64
    }

    /// Records that were found damaged so far.
    pub fn damaged(&self) -> usize {
        self.state().damaged
    }

    /// Why nothing is added any more, told once.
    pub fn closed_reason(&self) -> Option<String> {
        let mut state = self.state();
        let reason = state.closed.as_mut()?;
        (!reason.is_empty()).then(|| std::mem::take(reason))
    }

    /// Whether the features of `picture` are there, undamaged.
    pub fn knows(&self, picture: &PictureHash) -> bool {
        self.state().check(picture, self.shape)
    }

    /// The features of `pictures` on `device`; `None` unless all of them are there.
    pub fn get(&self, pictures: &[PictureHash], device: &Device) -> Option<VisionFeatures> {
        let FeatureShape {
            positions,
            width,
            dtype,
        } = self.shape;
        let (mut summary, mut rest) = (Vec::new(), Vec::new());
        let mut state = self.state();
        for picture in pictures {
            if !state.check(picture, self.shape) {
                return None;
            }
            let values = state.values(picture, self.shape)?;
            let (first, others) = values.split_at_checked(self.shape.summary_bytes())?;
            summary.extend_from_slice(first);
            rest.extend_from_slice(others);
        }
        drop(state);
        let notes = pictures.len();
        let summary = TensorData::from_bytes_vec(summary, [notes, width], dtype);
        let rest = TensorData::from_bytes_vec(rest, [notes, positions, width], dtype);
        Some(VisionFeatures {
            summary: Tensor::from_data(summary, (device, dtype)),
            positions: Tensor::from_data(rest, (device, dtype)),
        })
    }

    /// Keeps the features of `pictures` as far as there is room. What cannot be written is not kept:
    /// see [`Self::closed_reason`].
    ///
    /// # Errors
    /// Features that cannot be read from their device.
    pub fn put(
        &self,
        pictures: &[PictureHash],
        features: &VisionFeatures,
    ) -> Result<(), ModelError> {
        let FeatureShape {
            positions,
            width,
            dtype,
        } = self.shape;
        let found = (features.summary.dims(), features.positions.dims());
        let count = pictures.len();
        let fits = found == ([count, width], [count, positions, width])
            && [features.summary.dtype(), features.positions.dtype()] == [dtype; 2];
        if !fits {
            let message = format!("features of {found:?} where {:?} are kept", self.shape);
            return Err(ModelError::Input(message));
        }
        let failed = |e| ModelError::Input(format!("features cannot be read back: {e:?}"));
        let summary = features.summary.clone().try_into_data().map_err(failed)?;
        let rest = features.positions.clone().try_into_data().map_err(failed)?;
        let summary = summary.as_bytes().chunks_exact(self.shape.summary_bytes());
        let rest_bytes = self.shape.value_bytes() - self.shape.summary_bytes();
        let rest = rest.as_bytes().chunks_exact(rest_bytes.max(1));
        let mut state = self.state();
        for ((picture, first), others) in pictures.iter().zip(summary).zip(rest) {
            if state.places.contains_key(picture) || state.closed.is_some() {
                continue;
            }
            let size = self.shape.record_bytes() as u64;
            if state.bytes + size > self.most_bytes {
                state.closed = Some(format!(
                    "it holds train.feature_cache_max_bytes = {}",
                    self.most_bytes
                ));
                continue;
            }
            let values = [first, others].concat();
            if let Err(error) = state.append(&self.folder, picture, &values) {
                state.closed = Some(error.to_string());
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lists the records of a file of another process.
    fn index(&mut self, path: &Path, shape: FeatureShape) -> Result<(), ModelError> {
        let file = File::open(path).map_err(|e| ModelError::io("open", path, e))?;
        let Some(map) = map(&file, path)? else {
            return Ok(());
        };
        for (record, bytes) in map.chunks_exact(shape.record_bytes()).enumerate() {
            if let Some(picture) = bytes.first_chunk::<HASH_BYTES>() {
                let place = Place {
                    map: self.maps.len(),
                    record,
                    checked: false,
                };
                self.places.entry(*picture).or_default().push(place);
            }
        }
        self.maps.push(map);
        Ok(())
    }

    fn append(
        &mut self,
        folder: &Path,
        picture: &PictureHash,
        values: &[u8],
    ) -> Result<(), ModelError> {
        if self.own.is_none() {
            let (file, path) = own_file(folder)?;
            self.own = Some((file, path));
        }
        let Some((file, path)) = &mut self.own else {
            return Ok(());
        };
        let record = [picture, checksum(picture, values).as_slice(), values].concat();
        file.write_all(&record)
            .map_err(|e| ModelError::io("write", path, e))?;
        self.bytes += record.len() as u64;
        let place = Place {
            map: usize::MAX,
            record: self.own_records,
            checked: true,
        };
        self.own_records += 1;
        self.places.insert(*picture, vec![place]);
        Ok(())
    }

    fn check(&mut self, picture: &PictureHash, shape: FeatureShape) -> bool {
        loop {
            match self.places.get(picture).and_then(|places| places.last()) {
                None => break,
                Some(place) if place.checked => return true,
                Some(_) => {}
            }
            let whole = self.record(picture, shape).is_some_and(|record| {
                let (head, values) = record.split_at(HEAD_BYTES);
                head[HASH_BYTES..] == checksum(picture, values)
            });
            let Some(places) = self.places.get_mut(picture) else {
                break;
            };
            match places.last_mut() {
                Some(place) if whole => place.checked = true,
                _ => {
                    places.pop();
                    self.damaged += 1;
                }
            }
        }
        self.places.remove(picture);
        false
    }

    fn values(&mut self, picture: &PictureHash, shape: FeatureShape) -> Option<&[u8]> {
        self.record(picture, shape)
            .map(|record| &record[HEAD_BYTES..])
    }

    fn record(&mut self, picture: &PictureHash, shape: FeatureShape) -> Option<&[u8]> {
        let mut place = *self.places.get(picture)?.last()?;
        if place.map == usize::MAX {
            place.map = self.own_map(place.record)?;
        }
        let size = shape.record_bytes();
        let start = place.record * size;
        self.maps.get(place.map)?.get(start..start + size)
    }

    /// The map of the own file that shows `record`; it is mapped anew where it has grown.
    fn own_map(&mut self, record: usize) -> Option<usize> {
        if let Some((index, records)) = self.own_map
            && record < records
        {
            return Some(index);
        }
        let (_, path) = self.own.as_ref()?;
        let file = File::open(path).ok()?;
        let new = map(&file, path).ok()??;
        let index = match self.own_map {
            Some((index, _)) => {
                self.maps[index] = new;
                index
            }
            None => {
                self.maps.push(new);
                self.maps.len() - 1
            }
        };
        self.own_map = Some((index, self.own_records));
        Some(index)
    }
}

/// A file that only this process writes.
fn own_file(folder: &Path) -> Result<(File, PathBuf), ModelError> {
    let process = std::process::id();
    for number in 0.. {
        let path = folder.join(format!("{process}-{number}.{ENDING}"));
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(ModelError::io("create", &path, error)),
        }
    }
    Err(ModelError::Input("no name is free".into()))
}

fn map(file: &File, path: &Path) -> Result<Option<Mmap>, ModelError> {
    let bytes = file
        .metadata()
        .map_err(|e| ModelError::io("read", path, e))?
        .len();
    if bytes == 0 {
        return Ok(None);
    }
    // SAFETY: the mapping is read-only, and these files only grow. Another process that cuts one
    // short while it is mapped would fault, as with every file of weights.
    let map = unsafe { Mmap::map(file) }.map_err(|e| ModelError::io("map", path, e))?;
    Ok(Some(map))
}

fn checksum(picture: &PictureHash, values: &[u8]) -> PictureHash {
    *blake3::Hasher::new()
        .update(picture)
        .update(values)
        .finalize()
        .as_bytes()
}

fn record_files(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let list = fs::read_dir(folder).map_err(|e| ModelError::io("list", folder, e))?;
    let mut files = Vec::new();
    for entry in list {
        let path = entry.map_err(|e| ModelError::io("list", folder, e))?.path();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Bytes of the records of all encoders.
fn bytes_below(folder: &Path) -> Result<u64, ModelError> {
    let list = fs::read_dir(folder).map_err(|e| ModelError::io("list", folder, e))?;
    let mut sum = 0;
    for entry in list {
        let path = entry.map_err(|e| ModelError::io("list", folder, e))?.path();
        if path.is_dir() {
            let sizes = record_files(&path)?
                .into_iter()
                .map(|file| fs::metadata(file));
            sum += sizes.flatten().map(|metadata| metadata.len()).sum::<u64>();
        }
    }
    Ok(sum)
}

/// The name of an encoder's features: a hash of its weights and of `reading`, which says all else that
/// they depend on.
///
/// # Errors
/// Weights that cannot be read from their device.
pub fn features_key<M: Module>(encoder: &M, reading: &str) -> Result<String, ModelError> {
    let mut hasher = Hasher {
        hasher: blake3::Hasher::new(),
        failed: None,
    };
    hasher.hasher.update(reading.as_bytes());
    encoder.visit(&mut hasher);
    match hasher.failed {
        Some(message) => Err(ModelError::Input(message)),
        None => Ok(hasher.hasher.finalize().to_hex()[..32].to_owned()),
    }
}

struct Hasher {
    hasher: blake3::Hasher,
    failed: Option<String>,
}

impl ModuleVisitor for Hasher {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.hasher.update(name.as_bytes()).update(b".");
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        match param.val().inner().try_into_data() {
            Ok(data) => {
                self.hasher.update(format!("{:?}", data.shape()).as_bytes());
                self.hasher.update(data.as_bytes());
            }
            Err(error) => {
                self.failed = Some(format!("weights cannot be read back: {error:?}"));
            }
        }
    }
}
