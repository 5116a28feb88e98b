//! Conversion against a naive one, writing and strict loading of small modules.

mod conversion;

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use burn::module::{Module, Param};
use burn::nn::Embedding;
use burn::tensor::{DType, Device, Tensor, TensorData};
use half::{bf16, f16};
use safetensors::Dtype;

use super::convert::{NewRows, Source, Wanted, convert};
use super::*;
use crate::error::ModelError;
use crate::nn::{Linear, embedding, linear};

/// Values that differ, of many magnitudes.
fn values(count: usize) -> Vec<f32> {
    let value = |i: usize| {
        let mantissa = (i.wrapping_mul(2_654_435_761) % 1999) as f32 - 999.0;
        mantissa * 2f32.powi((i % 17) as i32 - 12)
    };
    (0..count).map(value).collect()
}

#[derive(Module, Debug)]
struct Toy {
    embed_tokens: Embedding,
    map: Linear,
    scale: Param<Tensor<1>>,
}

const NAMES: NameTable = NameTable {
    rename: |path| path.replace("map.", "dense."),
    ignored: &[("position_ids", "a constant")],
};

fn toy(rows: usize, device: &Device) -> Toy {
    Toy {
        embed_tokens: embedding(rows, 6, device),
        map: linear(6, 5, true, device),
        scale: crate::nn::zeros([3], device),
    }
}

/// A toy with values, and its folder written in shards of at most 100 bytes.
fn written(folder: &Path, dtype: DType) -> (Toy, Written) {
    let device = Device::flex().autodiff();
    let full = fill(
        toy(7, &device),
        Tensors::Base,
        NAMES.rename,
        dtype,
        &mut |tensor| Some(values(tensor.shape.iter().product())),
    );
    let options = WriteOptions {
        dtype: None,
        shard_bytes: Some(100),
    };
    let written = write_module(folder, &full, "model.", NAMES.rename, options).expect("written");
    (full, written)
}

fn load_toy(folder: &Path, rows: usize, options: &LoadOptions) -> Result<Toy, ModelError> {
    let checkpoint = Checkpoint::open(folder)?;
    let device = Device::flex().autodiff();
    load(toy(rows, &device), &checkpoint, "model.", NAMES, options)
}

fn all_values(toy: &Toy) -> Vec<ExportedTensor> {
    export(toy, "", NAMES.rename).expect("values")
}

#[test]
fn shards_are_written_and_read_back_bit_for_bit() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let folder = tempfile::tempdir().expect("a folder");
        let (full, written) = written(folder.path(), dtype);
        assert_eq!(written.dtype, dtype);
        assert_eq!(written.bytes, ((42 + 30 + 5 + 3) * dtype.size()) as u64);
        // In f32 the table of 168 bytes is a shard of its own, the map of 120 too.
        let shards = if dtype == DType::F32 { 3 } else { 2 };
        assert_eq!(written.files.len(), shards, "{written:?}");
        let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint");
        assert_eq!(checkpoint.files().count(), shards);
        assert_eq!(checkpoint.dtype(), dtype);
        assert_eq!(
            checkpoint.shape("model.dense.weight"),
            Some([5, 6].as_slice())
        );
        let read = load_toy(folder.path(), 7, &LoadOptions::new(dtype)).expect("a module");
        assert_eq!(all_values(&read), all_values(&full));
        assert_eq!(read.map.weight.dtype(), dtype);
        assert!(read.map.weight.is_require_grad());
        // Once more, in one file.
        let again = tempfile::tempdir().expect("a folder");
        let options = WriteOptions::default();
        write_module(again.path(), &read, "model.", NAMES.rename, options).expect("written");
        let single = Checkpoint::open(again.path()).expect("a checkpoint");
        for name in checkpoint.names() {
            let (a, b) = (checkpoint.get(name), single.get(name));
            let (a, b) = (
                a.expect("a tensor").expect("it"),
                b.expect("a tensor").expect("it"),
            );
            assert_eq!((a.shape, a.values), (b.shape, b.values), "{name}");
        }
    }
}

#[test]
fn loading_allocates_no_zeros_and_new_words_grow_the_table() {
    let folder = tempfile::tempdir().expect("a folder");
    let (full, _) = written(folder.path(), DType::F32);
    let device = Device::flex().autodiff();
    let empty = toy(9, &device);
    assert!(!empty.map.weight.is_initialized());
    let refused = load_toy(folder.path(), 9, &LoadOptions::new(DType::F32));
    let message = refused.expect_err("another size").to_string();
    assert!(message.contains("`model.embed_tokens.weight` is [7, 6], the config means [9, 6]"));
    assert!(
        message.contains("model-00001-of-00003.safetensors"),
        "{message}"
    );
    let new_words = NewRows {
        stored_rows: 7,
        known_rows: 7,
        ids: vec![7, 8],
    };
    let options = LoadOptions {
        new_words: Some(new_words),
        ..LoadOptions::new(DType::F32)
    };
    let grown = load_toy(folder.path(), 9, &options).expect("a module");
    let (before, after) = (all_values(&full), all_values(&grown));
    assert_eq!(after[0].1, [9, 6]);
    assert_eq!(after[0].2[..42], before[0].2);
    assert_eq!(after[0].2[42..48], after[0].2[48..]);
    assert_eq!(before[1..], after[1..]);
}

#[test]
fn what_does_not_fit_is_listed_before_anything_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let device = Device::flex();
    let tensors = [
        ("embed_tokens.weight", vec![7, 6]),
        ("dense.weight", vec![6, 5]),
        ("scale", vec![3]),
        ("odd", vec![2]),
        ("position_ids", vec![4]),
    ];
    let tensors = tensors.map(|(name, shape)| {
        let count = shape.iter().product();
        (name.to_owned(), shape, vec![f32::NAN; count])
    });
    let path = folder.path().join(SINGLE_FILE);
    write_safetensors(&path, &tensors).expect("a file");
    let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint");
    let found = fit(&toy(7, &device), &checkpoint, "", NAMES, None);
    let listed: Vec<String> = found.mismatches.iter().map(ToString::to_string).collect();
    assert_eq!(
        listed,
        [
            "wrong shape: `dense.weight` is [6, 5], the config means [5, 6]",
            "missing: `dense.bias` [5]",
            "unexpected: `odd` has no place in the model",
        ]
    );
    assert_eq!(found.ignored, [("position_ids".to_owned(), "a constant")]);
    let refused = load(
        toy(7, &device),
        &checkpoint,
        "",
        NAMES,
        &LoadOptions::new(DType::F32),
    );
    let message = refused.expect_err("it does not fit").to_string();
    assert!(
        message.contains("model.safetensors: 3 tensors do not fit"),
        "{message}"
    );
}

#[test]
fn damaged_values_need_permission() {
    let folder = tempfile::tempdir().expect("a folder");
    let (full, _) = written(folder.path(), DType::F32);
    let damaged = fill(
        full,
        Tensors::Base,
        NAMES.rename,
        DType::F32,
        &mut |tensor| (tensor.name == "scale").then(|| vec![1.0, f32::NAN, f32::INFINITY]),
    );
    let folder = tempfile::tempdir().expect("a folder");
    let write = |options| write_module(folder.path(), &damaged, "model.", NAMES.rename, options);
    write(WriteOptions::default()).expect("written");
    let mut options = LoadOptions::new(DType::F32);
    let message = load_toy(folder.path(), 7, &options)
        .expect_err("NaN")
        .to_string();
    for word in [
        "model.safetensors",
        "`model.scale` holds 2 values",
        "--allow-nan",
    ] {
        assert!(message.contains(word), "{message}");
    }
    options.allow_nan = true;
    let taken = load_toy(folder.path(), 7, &options).expect("with permission");
    let scale = all_values(&taken).pop().expect("a tensor").2;
    assert!(scale[1].is_nan() && scale[2] == f32::INFINITY);
}

#[test]
fn f16_has_no_room_for_large_values() {
    let folder = tempfile::tempdir().expect("a folder");
    let device = Device::flex();
    let large = fill(
        toy(7, &device),
        Tensors::Base,
        NAMES.rename,
        DType::F32,
        &mut |tensor| Some(vec![1e5; tensor.shape.iter().product()]),
    );
    let write = |dtype| {
        let options = WriteOptions {
            dtype: Some(dtype),
            shard_bytes: None,
        };
        write_module(folder.path(), &large, "", NAMES.rename, options)
    };
    let message = write(DType::F16).expect_err("too large").to_string();
    assert!(
        message.contains("`embed_tokens.weight`") && message.contains("f16"),
        "{message}"
    );
    write(DType::BF16).expect("written");
    let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint");
    assert_eq!(checkpoint.format("scale").as_deref(), Some("BF16"));
}

#[test]
fn broken_files_name_the_tensor() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.safetensors");
    let tensors = ["first", "second"].map(|name| (name.to_owned(), vec![4], vec![0.5f32; 4]));
    write_safetensors(&path, &tensors).expect("a file");
    let whole = fs::read(&path).expect("a file");
    let refused = |bytes: &[u8], words: &[&str]| {
        fs::write(&path, bytes).expect("a file");
        let message = Checkpoint::open(&path).err().expect("broken").to_string();
        for word in words {
            assert!(message.contains(word), "no `{word}` in {message}");
        }
    };
    refused(&[], &["x.safetensors", "0 bytes"]);
    refused(&whole[..20], &["x.safetensors", "only 12 follow"]);
    refused(
        &whole[..whole.len() - 1],
        &["`second`", "byte 32", "holds 31"],
    );
    refused(
        &whole[..whole.len() - 17],
        &["`first`", "byte 16", "holds 15"],
    );
    refused(
        &[whole.as_slice(), &[0; 3]].concat(),
        &["3 bytes follow the last tensor"],
    );
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&(1u64 << 60).to_le_bytes());
    refused(&huge, &["1152921504606846976", "header"]);
    let edited = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut windows = whole.windows(from.len());
        let start = windows
            .position(|window| window == from.as_bytes())
            .expect("the text");
        let mut bytes = whole.clone();
        bytes[start..start + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    refused(&edited("[4]", "[5]"), &["`first`", "[5]"]);
    refused(&edited("[0,16]", "[0,15]"), &["`first`", "bytes 0 to 15"]);
    refused(
        &edited("[16,32]", "[12,32]"),
        &["`second`", "does not begin"],
    );
    refused(&edited("\"F32\"", "\"F99\""), &["header", "F99"]);
    refused(&edited("{\"__meta", "x\"__meta"), &["header"]);
}
