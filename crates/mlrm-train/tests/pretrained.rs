//! Pre-trained weights against `transformers`: the same token ids, pixels, hidden states and embeddings
//! from texts and pictures that `tests/transformers/pretrained.py` writes.
//!
//! The environment variable `MLRM_PRETRAINED` names a language model and a vision encoder, with a comma
//! between them: folders, or names on the Hub, from which they are fetched then. `MLRM_PYTHON` names a
//! Python with torch, transformers, safetensors and pillow.

#![cfg(feature = "flex")]

#[path = "../../../tests/skipped.rs"]
mod skipped;

use std::path::{Path, PathBuf};
use std::process::Command;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use mlrm_config::{PictureDefaults, SelectFeature};
use mlrm_data::image::{DecodeOptions, ImagePreprocessor, PreprocessorConfig, decode};
use mlrm_data::tokenizer::Tokenizer;
use mlrm_model::decoder::{Decoder, DecoderTrace};
use mlrm_model::source::{Loaded, ModelSource};
use mlrm_model::vision::{FeatureSelection, VisionTower};
use mlrm_model::weights::{Checkpoint, LoadOptions};
use skipped::skipped;

/// Of the largest value of a hidden state, in f32.
const LARGEST: f64 = 1e-4;
/// Of the root mean square of a hidden state, in f32: a single value of a language model's states may be
/// hundreds of times as large as all others together, and the limit above would say nothing of these.
const NORM: f64 = 1e-4;
/// Of the largest pixel value.
const PIXELS: f64 = 1e-6;
/// Least cosine of an embedding in bf16 with that of PyTorch in f32.
const COSINE: f64 = 0.999;
/// Texts or pictures that are run at once.
const BATCH: usize = 8;

/// What Python wrote, and the two folders; `None` with a notice where something is missing.
fn prepared(out: &Path) -> Option<[PathBuf; 2]> {
    let skip = |why: &str| {
        skipped(
            "pretrained_models_compute_what_transformers_does",
            "pretrained",
            why,
        );
        None
    };
    let Ok(names) = std::env::var("MLRM_PRETRAINED") else {
        return skip("set MLRM_PRETRAINED to `LLM,VISION`, two folders or names on the Hub");
    };
    let (llm, vision) = names.split_once(',').expect("MLRM_PRETRAINED = LLM,VISION");
    let python = std::env::var("MLRM_PYTHON").unwrap_or_else(|_| "python3".into());
    let imports = ["-c", "import PIL, safetensors, torch, transformers"];
    let found = Command::new(&python).args(imports).output();
    if !found.is_ok_and(|output| output.status.success()) {
        return skip(&format!(
            "`{python}` has not all of torch, transformers, safetensors, pillow"
        ));
    }
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/transformers/pretrained.py");
    let ran = Command::new(&python)
        .arg(script)
        .args([llm, vision])
        .arg(out)
        .status();
    assert!(ran.expect("Python runs").success(), "pretrained.py failed");
    let folders = std::fs::read_to_string(out.join("folders.json")).expect("folders.json");
    Some(serde_json::from_str(&folders).expect("two folders"))
}

/// The largest error and its share of the largest value, and the error's share in the mean square.
struct Errors {
    largest: f64,
    norm: f64,
}

impl Errors {
    fn of<'a>(pairs: impl Iterator<Item = (&'a f32, &'a f32)>) -> Self {
        let (mut error, mut most, mut errors, mut squares) = (0f64, 0f64, 0f64, 0f64);
        for (&computed, &expected) in pairs {
            let difference = f64::from(computed) - f64::from(expected);
            // A NaN is an error without bound.
            let size = if difference.is_nan() {
                f64::INFINITY
            } else {
                difference.abs()
            };
            error = error.max(size);
            most = most.max(f64::from(expected).abs());
            errors += size * size;
            squares += f64::from(expected).powi(2);
        }
        assert!(most > 0.0, "nothing to compare with");
        Self {
            largest: error / most,
            norm: (errors / squares).sqrt(),
        }
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().expect("values")
}

/// The hidden states of every layer against the expected ones, `[states, 32, positions, width]`, of which
/// the first `lengths[item]` positions count; says the worst.
fn compare_states(what: &str, states: &[Vec<f32>], expected: &Checkpoint, lengths: &[usize]) {
    let wanted = expected
        .get("hidden_states")
        .expect("readable")
        .expect("states");
    let [layers, items, positions, width] = wanted.shape[..] else {
        panic!("{what}: {:?}", wanted.shape);
    };
    assert_eq!((states.len(), lengths.len()), (layers, items), "{what}");
    let (mut largest, mut norm) = ((0.0, 0), (0.0, 0));
    for (layer, (state, wanted)) in states
        .iter()
        .zip(wanted.values.chunks(items * positions * width))
        .enumerate()
    {
        assert_eq!(state.len(), wanted.len(), "{what}, state {layer}");
        let rows = state
            .chunks(positions * width)
            .zip(wanted.chunks(positions * width));
        let counted = rows
            .zip(lengths)
            .flat_map(|((a, b), &length)| a.iter().zip(b).take(length * width));
        let errors = Errors::of(counted);
        if errors.largest >= largest.0 {
            largest = (errors.largest, layer);
        }
        if errors.norm >= norm.0 {
            norm = (errors.norm, layer);
        }
    }
    println!(
        "{what}: {layers} states of {items}: largest error {:.1e} of the largest value (state {}), {:.1e} in the mean \
         square (state {})",
        largest.0, largest.1, norm.0, norm.1
    );
    assert!(
        largest.0 <= LARGEST,
        "{what}: {} of the largest value",
        largest.0
    );
    assert!(norm.0 <= NORM, "{what}: {} in the mean square", norm.0);
}

/// The least cosine of the rows of `computed` with the embeddings of PyTorch in f32, which is held, and
/// that of PyTorch's own bf16, which is said.
fn compare_embeddings(what: &str, computed: &[f32], expected: &Checkpoint) {
    let stored = |name: &str| expected.get(name).expect("readable").expect(name);
    let (exact, theirs) = (stored("embedding"), stored("embedding_bf16"));
    let width = exact.shape[1];
    assert_eq!(computed.len(), exact.values.len(), "{what}");
    let least = |rows: &[f32]| {
        let pairs = rows.chunks(width).zip(exact.values.chunks(width));
        pairs
            .map(|(a, b)| cosine(a, b))
            .fold(f64::INFINITY, f64::min)
    };
    let (ours, theirs) = (least(computed), least(&theirs.values));
    println!("{what} in bf16: least cosine with f32 {ours:.5}; PyTorch's own {theirs:.5}");
    assert!(ours >= COSINE, "{what}: {ours}");
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let product = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum()
    };
    product(a, b) / (product(a, a) * product(b, b)).sqrt()
}

fn load(folder: &Path, dtype: DType, device: &Device) -> Loaded {
    let source = ModelSource::open(folder, &[]).expect("a model");
    let fits = |part: mlrm_model::source::Part| part.mismatches.is_empty();
    assert!(source.parts().expect("its parts").into_iter().all(fits));
    source
        .load(device, &LoadOptions::new(dtype))
        .expect("weights")
}

/// All states of all rows, `[rows, positions, width]` each, in batches.
fn in_batches(rows: usize, mut run: impl FnMut(usize, usize) -> Vec<Tensor<3>>) -> Vec<Vec<f32>> {
    let mut all: Vec<Vec<f32>> = Vec::new();
    for first in (0..rows).step_by(BATCH) {
        let states = run(first, BATCH.min(rows - first));
        all.resize(states.len(), Vec::new());
        for (all, state) in all.iter_mut().zip(states) {
            all.extend(values(state));
        }
    }
    all
}

fn check_language_model(folder: &Path, out: &Path, device: &Device) {
    let texts = std::fs::read_to_string(out.join("texts.json")).expect("texts");
    let texts: Vec<String> = serde_json::from_str(&texts).expect("texts");
    let expected = Checkpoint::open(&out.join("llm.safetensors")).expect("expected");
    let integers = |name: &str| expected.get_i64(name).expect("readable").expect(name);
    let ((shape, ids), (_, lengths)) = (integers("input_ids"), integers("lengths"));
    let lengths: Vec<usize> = lengths.into_iter().map(|length| length as usize).collect();
    let tokenizer = Tokenizer::load(&folder.join("tokenizer.json")).expect("a tokenizer");
    for (row, text) in texts.iter().enumerate() {
        let own = tokenizer.encode_text(text).expect("words");
        let theirs = &ids[row * shape[1]..][..lengths[row]];
        assert!(
            own.iter()
                .map(|&id| i64::from(id))
                .eq(theirs.iter().copied()),
            "{text:?}: {own:?}, {theirs:?}"
        );
    }
    println!(
        "language model: {} ids of {} texts are equal",
        lengths.iter().sum::<usize>(),
        texts.len()
    );
    let run = |decoder: &Decoder, first: usize, count: usize| {
        let rows = ids[first * shape[1]..][..count * shape[1]].to_vec();
        let rows = TensorData::new(rows, [count, shape[1]]);
        let mut trace = DecoderTrace::default();
        decoder.forward(
            decoder.embed(Tensor::<2, Int>::from_data(rows, device)),
            Some(&mut trace),
        );
        trace.hidden_states
    };
    let states = |dtype| match load(folder, dtype, device) {
        Loaded::Llm(decoder) => in_batches(texts.len(), |first, count| run(&decoder, first, count)),
        _ => panic!("{} is no language model", folder.display()),
    };
    compare_states("language model", &states(DType::F32), &expected, &lengths);
    let last = states(DType::BF16).pop().expect("a state");
    let width = last.len() / ids.len();
    let last = last.chunks(shape[1] * width).zip(&lengths);
    let pooled: Vec<f32> = last
        .flat_map(|(row, n)| row[(n - 1) * width..n * width].to_vec())
        .collect();
    compare_embeddings("language model", &pooled, &expected);
}

fn check_vision_encoder(folder: &Path, out: &Path, device: &Device) {
    let expected = Checkpoint::open(&out.join("vision.safetensors")).expect("expected");
    let pixels = expected
        .get("pixel_values")
        .expect("readable")
        .expect("pixels");
    let [count, channels, side, _] = pixels.shape[..] else {
        panic!("{:?}", pixels.shape)
    };
    let config = PreprocessorConfig::load(folder, PictureDefaults::Clip)
        .expect("readable")
        .expect("a config");
    let preprocessor = ImagePreprocessor::new(config, side).expect("square pictures");
    let mut own = vec![0.0; pixels.values.len()];
    for (index, own) in own.chunks_mut(channels * side * side).enumerate() {
        let bytes = std::fs::read(out.join(format!("picture_{index:02}.png"))).expect("a picture");
        let picture = decode(&bytes, &DecodeOptions::default()).expect("a picture");
        preprocessor.normalize_into(&preprocessor.resize_crop(&picture), own);
    }
    let errors = Errors::of(own.iter().zip(&pixels.values));
    println!(
        "vision encoder: pixels of {count} pictures differ by {:.1e} of the largest",
        errors.largest
    );
    assert!(errors.largest <= PIXELS, "{}", errors.largest);
    let last_norm = FeatureSelection {
        layer: -1,
        positions: SelectFeature::ClsPatch,
        post_layernorm: true,
    };
    let run = |tower: &VisionTower, first: usize, count: usize| {
        let size = channels * side * side;
        let batch = own[first * size..][..count * size].to_vec();
        let batch = TensorData::new(batch, [count, channels, side, side]);
        let mut every = Vec::new();
        let features = tower.forward(
            Tensor::from_data(batch, device),
            last_norm,
            Some(&mut every),
        );
        every.push(features.summary.unsqueeze_dim(1));
        every
    };
    let states = |dtype| match load(folder, dtype, device) {
        Loaded::Vision(tower) => in_batches(count, |first, count| run(&tower, first, count)),
        _ => panic!("{} is no vision encoder", folder.display()),
    };
    let mut exact = states(DType::F32);
    exact.pop();
    let wanted = expected.shape("hidden_states").expect("states")[2];
    compare_states("vision encoder", &exact, &expected, &vec![wanted; count]);
    let embeddings = states(DType::BF16).pop().expect("embeddings");
    compare_embeddings("vision encoder", &embeddings, &expected);
}

#[test]
fn pretrained_models_compute_what_transformers_does() {
    let out = tempfile::tempdir().expect("a folder");
    let Some([llm, vision]) = prepared(out.path()) else {
        return;
    };
    let device = Device::flex();
    check_language_model(&llm, out.path(), &device);
    check_vision_encoder(&vision, out.path(), &device);
}
