use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;

use super::*;

const SHAPE: FeatureShape = FeatureShape {
    positions: 2,
    own_grids: false,
    width: 3,
    summary: 3,
    kept: DType::F32,
    computed: DType::F32,
};

/// Hash, checksum, and three positions of three numbers.
const RECORD: u64 = 64 + 9 * 4;

fn features(notes: usize, start: f32) -> VisionFeatures {
    let values = |count: usize| (0..count).map(|n| start + n as f32).collect::<Vec<f32>>();
    let device = Device::flex();
    let summary = TensorData::new(values(notes * 3), [notes, 3]);
    let positions = TensorData::new(values(notes * 6), [notes, 2, 3]);
    VisionFeatures {
        summary: Tensor::from_data(summary, &device),
        positions: Tensor::from_data(positions, &device),
        grids: None,
    }
}

fn key() -> FeatureKey {
    FeatureKey {
        name: "encoder".into(),
        about: "an encoder".into(),
    }
}

fn open_for(folder: &Path, shape: FeatureShape, most_bytes: u64) -> FeatureCache {
    FeatureCache::open(folder, key(), shape, most_bytes).unwrap()
}

fn open(folder: &Path) -> FeatureCache {
    open_for(folder, SHAPE, 1 << 20)
}

fn keep(cache: &FeatureCache, pictures: &[u8], start: f32) {
    let hashes: Vec<PictureHash> = pictures.iter().map(|&picture| [picture; 32]).collect();
    let notes = pictures.len();
    cache.keep(&hashes, features(notes, start)).unwrap();
}

/// The first number of the picture's positions.
fn first(cache: &FeatureCache, picture: u8) -> Option<f32> {
    let found = cache.get(&[[picture; 32]], &Device::flex())?;
    Some(found.positions.try_into_vec_as::<f32>().unwrap()[0])
}

fn files(cache: &FeatureCache) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache.folder()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "features"))
        .collect();
    files.sort();
    files
}

#[test]
fn features_come_back_here_and_in_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    keep(&cache, &[1, 2], 10.0);
    assert_eq!(
        (first(&cache, 1), first(&cache, 2)),
        (Some(10.0), Some(16.0))
    );
    // The own file has grown since it was mapped.
    keep(&cache, &[3], 50.0);
    assert_eq!((first(&cache, 3), first(&cache, 4)), (Some(50.0), None));

    let other = open(folder.path());
    keep(&cache, &[5], 90.0);
    // What was added since is found before anything is written, and written once.
    keep(&other, &[3, 5, 4], 70.0);
    assert_eq!(
        (first(&other, 3), first(&other, 5)),
        (Some(50.0), Some(90.0))
    );
    assert_eq!(first(&other, 4), Some(82.0));
    let sizes = files(&cache)
        .into_iter()
        .map(|file| fs::metadata(file).unwrap().len());
    let mut sizes: Vec<u64> = sizes.collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [RECORD, 4 * RECORD]);
    assert_eq!(open(folder.path()).len(), 5);
    assert!(other.news().is_empty());
}

#[test]
fn damaged_and_cut_records_are_absent_named_once_and_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    keep(&cache, &[1, 2, 3], 10.0);
    let path = files(&cache).remove(0);
    drop(cache);
    let mut bytes = fs::read(&path).unwrap();
    bytes[64 + 5] ^= 1;
    // As a process leaves it that is killed while it writes.
    bytes.truncate(bytes.len() - 1);
    fs::write(&path, bytes).unwrap();
    let cache = open(folder.path());
    assert!(!cache.knows(&[1; 32]) && cache.knows(&[2; 32]) && !cache.knows(&[3; 32]));
    assert_eq!(first(&cache, 1), None);
    let news = cache.news();
    assert!(
        news.len() == 1 && news[0].contains("1 damaged entry"),
        "{news:?}"
    );
    assert!(news[0].contains(path.to_str().unwrap()), "{news:?}");
    keep(&cache, &[1], 10.0);
    assert_eq!(first(&cache, 1), Some(10.0));
    // The whole one takes its place for good, without a word.
    let later = open(folder.path());
    assert_eq!(first(&later, 1), Some(10.0));
    assert!(cache.news().is_empty() && later.news().is_empty());
    // Damaged from its first byte, it is another picture's.
    let own = files(&later)
        .into_iter()
        .find(|file| *file != path)
        .unwrap();
    let mut bytes = fs::read(&own).unwrap();
    bytes[0] ^= 1;
    fs::write(&own, bytes).unwrap();
    let later = open(folder.path());
    assert!(!later.knows(&[1; 32]));
}

#[test]
fn no_more_is_kept_than_is_allowed_of_all_encoders() {
    let folder = tempfile::tempdir().unwrap();
    let most = 3 * RECORD + 1;
    let cache = open_for(folder.path(), SHAPE, most);
    let other_key = FeatureKey {
        name: "other".into(),
        ..key()
    };
    let other = FeatureCache::open(folder.path(), other_key, SHAPE, most).unwrap();
    keep(&other, &[1], 10.0);
    assert_eq!(cache.room().unwrap(), 2);
    keep(&cache, &[1, 2, 3], 10.0);
    assert!(cache.knows(&[2; 32]) && !cache.knows(&[3; 32]) && !cache.keeps_more());
    let news = cache.news();
    assert!(news[0].contains("feature_cache_max_bytes"), "{news:?}");
    assert!(cache.news().is_empty());
    assert_eq!(open_for(folder.path(), SHAPE, most).room().unwrap(), 0);
}

#[test]
fn what_is_only_read_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!FeatureCache::is_there(folder.path(), &key()));
    keep(&open(folder.path()), &[1], 10.0);
    assert!(FeatureCache::is_there(folder.path(), &key()));
    let cache = open(folder.path()).read_only();
    keep(&cache, &[2], 20.0);
    assert!(cache.knows(&[1; 32]) && !cache.knows(&[2; 32]));
    assert!(cache.news().is_empty());
}

#[test]
fn a_shorter_format_rounds_what_is_computed_as_what_is_read() {
    for (kept, rounded) in [(DType::BF16, 1.0), (DType::F16, 1.0009766)] {
        let folder = tempfile::tempdir().unwrap();
        let shape = FeatureShape { kept, ..SHAPE };
        let cache = open_for(folder.path(), shape, 1 << 20);
        let start = 1.001;
        let now = cache.keep(&[[1; 32]], features(1, start)).unwrap();
        let read = |features: VisionFeatures| features.positions.try_into_vec_as::<f32>().unwrap();
        let later = cache.get(&[[1; 32]], &Device::flex()).unwrap();
        assert_eq!(later.summary.dtype(), DType::F32);
        let (now, later) = (read(now), read(later));
        assert_eq!(now, later);
        assert_eq!(now[0], rounded);
        // Half as many bytes.
        assert_eq!(cache.picture_bytes(), 64 + 9 * 2);
        // Read only, it rounds the same.
        let full = open_for(folder.path(), shape, 0);
        let again = full.keep(&[[2; 32]], features(1, start)).unwrap();
        assert_eq!(read(again), now);
    }
    let folder = tempfile::tempdir().unwrap();
    let shape = FeatureShape {
        kept: DType::F16,
        ..SHAPE
    };
    let large = open_for(folder.path(), shape, 1 << 20).keep(&[[1; 32]], features(1, 7e4));
    assert!(large.unwrap_err().to_string().contains("bf16"));
}

/// An encoder of which several states are read gives positions that are wider than the picture's vector.
#[test]
fn positions_may_be_wider_than_the_vector_of_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let shape = FeatureShape {
        summary: 1,
        ..SHAPE
    };
    let cache = open_for(folder.path(), shape, 1 << 20);
    let all = features(2, 5.0);
    let narrow = VisionFeatures {
        summary: all.summary.narrow(1, 0, 1),
        positions: all.positions,
        grids: None,
    };
    let read = |features: VisionFeatures| {
        let summary = features.summary.try_into_vec_as::<f32>().unwrap();
        let positions = features.positions.try_into_vec_as::<f32>().unwrap();
        (summary, positions)
    };
    let hashes = [[1; 32], [2; 32]];
    cache.keep(&hashes, narrow.clone()).unwrap();
    assert_eq!(cache.picture_bytes(), 64 + 7 * 4);
    let found = cache.get(&hashes, &Device::flex()).unwrap();
    assert_eq!(read(found), read(narrow));
}

/// Pictures with grids of their own have records of any length, which another process finds one behind the other; a cut
/// one is absent.
#[test]
fn grids_come_back_with_their_positions() {
    let folder = tempfile::tempdir().unwrap();
    let shape = FeatureShape {
        positions: 4,
        own_grids: true,
        ..SHAPE
    };
    let drawn = |grids: &[Grid], start: f32| {
        let count: usize = grids.iter().map(|[rows, columns]| rows * columns).sum();
        let values = |count: usize| (0..count).map(|n| start + n as f32).collect::<Vec<f32>>();
        let device = Device::flex();
        let summary = TensorData::new(values(grids.len() * 3), [grids.len(), 3]);
        let positions = TensorData::new(values(count * 3), [1, count, 3]);
        VisionFeatures {
            summary: Tensor::from_data(summary, &device),
            positions: Tensor::from_data(positions, &device),
            grids: Some(grids.to_vec()),
        }
    };
    let read = |features: VisionFeatures| {
        let summary = features.summary.try_into_vec_as::<f32>().unwrap();
        let positions = features.positions.try_into_vec_as::<f32>().unwrap();
        (summary, positions, features.grids)
    };
    let hashes = [[1; 32], [2; 32], [3; 32]];
    let all = drawn(&[[1, 3], [2, 2], [5, 1]], 1.0);
    let cache = open_for(folder.path(), shape, 1 << 20);
    cache.keep(&hashes, all.clone()).unwrap();
    let found = cache.get(&hashes, &Device::flex()).unwrap();
    assert_eq!(read(found), read(all.clone()));
    // Another process, which asks in another order.
    let other = open_for(folder.path(), shape, 1 << 20);
    assert_eq!(other.len(), 3);
    let found = other.get(&[[3; 32], [1; 32]], &Device::flex()).unwrap();
    assert_eq!(read(found), read(all.clone().select(&[2, 0])));
    // Features of one size are none of these.
    let refused = cache.keep(&[[9; 32]], features(1, 1.0));
    assert!(refused.is_err());
    // The last record is cut, the ones before it stay.
    let file = &files(&cache)[0];
    let bytes = fs::read(file).unwrap();
    assert_eq!(bytes.len(), 3 * (64 + 8 + 3 * 4) + 12 * 3 * 4);
    fs::write(file, &bytes[..bytes.len() - 1]).unwrap();
    let cut = open_for(folder.path(), shape, 1 << 20);
    assert_eq!(cut.len(), 2);
    assert!(cut.get(&hashes, &Device::flex()).is_none());
    let found = cut.get(&hashes[..2], &Device::flex()).unwrap();
    assert_eq!(read(found), read(all.clone().slice(0..2)));
    // A damaged grid takes what is behind it along, and no more.
    let mut damaged = bytes.clone();
    damaged[64 + 8 + 12 + 3 * 12 + 64] = 200;
    fs::write(file, damaged).unwrap();
    let damaged = open_for(folder.path(), shape, 1 << 20);
    assert_eq!(damaged.len(), 1);
    damaged.keep(&hashes[1..], all.clone().slice(1..3)).unwrap();
    let found = damaged.get(&hashes, &Device::flex()).unwrap();
    assert_eq!(read(found), read(all));
}

#[test]
fn a_folder_that_cannot_be_used_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "no folder").unwrap();
    let error = FeatureCache::open(&file, key(), SHAPE, 1).unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
}
