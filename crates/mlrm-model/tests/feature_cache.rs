//! Features of pictures on disk.

use std::fs;
use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use mlrm_model::nn::linear;
use mlrm_model::vision::{FeatureCache, FeatureShape, VisionFeatures, features_key};

const SHAPE: FeatureShape = FeatureShape {
    positions: 2,
    width: 3,
    dtype: DType::F32,
};

fn features(notes: usize, start: f32) -> VisionFeatures {
    let values = |count: usize| (0..count).map(|n| start + n as f32).collect::<Vec<f32>>();
    let device = Device::flex();
    let summary = TensorData::new(values(notes * 3), [notes, 3]);
    let positions = TensorData::new(values(notes * 6), [notes, 2, 3]);
    VisionFeatures {
        summary: Tensor::from_data(summary, &device),
        positions: Tensor::from_data(positions, &device),
    }
}

fn open(folder: &Path, most_bytes: u64) -> FeatureCache {
    FeatureCache::open(folder, "encoder", SHAPE, most_bytes).unwrap()
}

fn first(cache: &FeatureCache, picture: u8) -> Option<f32> {
    let found = cache.get(&[[picture; 32]], &Device::flex())?;
    Some(found.positions.try_into_vec_as::<f32>().unwrap()[0])
}

#[test]
fn features_come_back_here_and_in_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), 1 << 20);
    cache.put(&[[1; 32], [2; 32]], &features(2, 10.0)).unwrap();
    assert_eq!(
        (first(&cache, 1), first(&cache, 2)),
        (Some(10.0), Some(16.0))
    );
    // The own file has grown since it was mapped.
    cache.put(&[[3; 32]], &features(1, 50.0)).unwrap();
    assert_eq!((first(&cache, 3), first(&cache, 4)), (Some(50.0), None));

    let other = open(folder.path(), 1 << 20);
    other.put(&[[3; 32], [4; 32]], &features(2, 70.0)).unwrap();
    assert_eq!(
        (first(&other, 2), first(&other, 3)),
        (Some(16.0), Some(50.0))
    );
    assert_eq!(first(&other, 4), Some(76.0));
    assert_eq!(
        (open(folder.path(), 1 << 20).len(), other.damaged()),
        (4, 0)
    );
}

#[test]
fn damaged_and_cut_records_are_absent_and_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), 1 << 20);
    cache
        .put(&[[1; 32], [2; 32], [3; 32]], &features(3, 10.0))
        .unwrap();
    let mut files = fs::read_dir(cache.folder()).unwrap();
    let path = files.next().unwrap().unwrap().path();
    drop(cache);
    let mut bytes = fs::read(&path).unwrap();
    bytes[64 + 5] ^= 1;
    bytes.truncate(bytes.len() - 1);
    fs::write(&path, bytes).unwrap();
    let cache = open(folder.path(), 1 << 20);
    assert!(!cache.knows(&[1; 32]) && cache.knows(&[2; 32]) && !cache.knows(&[3; 32]));
    assert_eq!(cache.damaged(), 1);
    cache.put(&[[1; 32]], &features(1, 10.0)).unwrap();
    assert_eq!(first(&open(folder.path(), 1 << 20), 1), Some(10.0));
    assert_eq!(first(&cache, 1), Some(10.0));
}

#[test]
fn no_more_is_kept_than_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let size = SHAPE.record_bytes() as u64;
    let cache = open(folder.path(), 2 * size + 1);
    cache
        .put(&[[1; 32], [2; 32], [3; 32]], &features(3, 10.0))
        .unwrap();
    assert!(cache.knows(&[2; 32]) && !cache.knows(&[3; 32]));
    assert!(
        cache
            .closed_reason()
            .is_some_and(|r| r.contains("max_bytes"))
    );
    assert_eq!((cache.closed_reason(), cache.room()), (None, 0));
    assert_eq!(open(folder.path(), 2 * size + 1).room(), 0);
}

#[test]
fn two_processes_name_different_encoders_differently() {
    let device = Device::flex();
    let (one, other) = (linear(2, 3, true, &device), linear(2, 2, true, &device));
    let key = |map, reading| features_key(map, reading).unwrap();
    let same = one.clone();
    assert_eq!(key(&one, "a"), key(&same, "a"));
    assert_ne!(key(&one, "a"), key(&one, "b"));
    assert_ne!(key(&one, "a"), key(&other, "a"));
}
