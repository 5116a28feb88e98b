//! Pictures with grids of their own: from files to the pass of a training step, against what `transformers` made of them.

mod support;

use std::fs;

use burn::tensor::{DType, Device, Tensor};
use mlrm_bench::verify::GoldenCase;
use mlrm_config::PictureDefaults;
use mlrm_data::batch::{BatchPictures, NoteBatch, Picture};
use mlrm_data::image::{DecodeOptions, ImagePreprocessor, PreprocessorConfig, Resize, decode};
use mlrm_model::embedder::{EmbedderCheckpoints, Embeddings, TokenBatch};
use mlrm_train::encode::token_batch;
use mlrm_train::features::vision_features;
use mlrm_train::optimiser::{FlatGradients, flat_gradients};
use support::golden;

const CASES: [&str; 2] = ["system_qwen2_5_vl_own_grids", "system_qwen3_vl_own_grids"];

fn open(name: &str) -> GoldenCase {
    let folder = golden().join("cases").join(name);
    GoldenCase::open(&folder, &Device::flex(), DType::F32).expect("the case opens")
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().try_into_vec_as::<f32>().expect("values")
}

/// The pictures of a case, from their files.
fn pictures(name: &str) -> Vec<Picture> {
    let folder = golden().join("cases").join(name);
    let config = PreprocessorConfig::load(&folder.join("system"), PictureDefaults::Clip);
    let config = config.expect("a config").expect("a file");
    let Some(Resize::Within(range)) = config.resize else {
        panic!("sizes within a range: {config:?}");
    };
    let preprocessor = ImagePreprocessor::of_own_sizes(config, range);
    let picture = |index: usize| {
        let file = folder.join(format!("pictures/{index}.png"));
        let bytes = fs::read(file).expect("a picture");
        let picture = decode(&bytes, &DecodeOptions::default()).expect("a picture");
        let (width, height) = picture.dimensions();
        let pixels = preprocessor.resize_crop(&picture);
        let mut values = vec![0.0; pixels.len()];
        preprocessor.normalize_into(&pixels, &mut values);
        Picture {
            hash: None,
            size: preprocessor.output_size(height, width),
            values: Some(values.into()),
        }
    };
    (0..6).map(picture).collect()
}

/// The case's inputs, as the loader would give them.
fn batch(case: &GoldenCase, distinct: Vec<Picture>) -> NoteBatch {
    let tokens = &case.tokens;
    NoteBatch {
        notes: tokens.notes(),
        seq: tokens.seq,
        input_ids: tokens.input_ids.clone(),
        lengths: tokens.lengths.clone(),
        image_index: tokens.image_index.clone(),
        pictures: Some(BatchPictures {
            of_note: (0..distinct.len()).collect(),
            distinct,
        }),
        rows: (0..6).collect(),
        ..NoteBatch::default()
    }
}

/// The picture (64 by 13 pixels, to 48 by 8) that Pillow 13, which made the case, resizes along its columns first; Pillow
/// did all along their rows first before, as is done here. Rounded to bytes in between, they differ by a step or two.
const TALL: usize = 4;

#[test]
fn files_become_what_the_published_processor_makes_of_them() {
    for name in CASES {
        let case = open(name);
        let pictures = pictures(name);
        assert_eq!(case.own_pictures.len(), pictures.len());
        let mut sizes = Vec::new();
        for (index, (expected, found)) in case.own_pictures.iter().zip(&pictures).enumerate() {
            let [_, _, height, width] = expected.dims();
            assert_eq!(found.size, [height, width], "{name}");
            let expected = values(expected.clone());
            let steps = if index == TALL { 2.0 } else { 0.0 };
            // A step of a byte, where the deviation of the pixels is 0.26.
            let allowed = steps / (255.0 * 0.26);
            let own = found.values.as_deref().expect("values");
            assert_eq!(own.len(), expected.len());
            let close = own
                .iter()
                .zip(&expected)
                .all(|(a, b)| (a - b).abs() <= allowed);
            assert!(close, "{name}, picture {index}: {own:?} {expected:?}");
            sizes.push(found.size.map(|side| side / 8));
        }
        assert_eq!(sizes, [[3, 2], [1, 5], [2, 3], [3, 3], [6, 1], [2, 3]]);
    }
}

fn embed(case: &GoldenCase, batch: &NoteBatch) -> Embeddings {
    let mut batch = batch.clone();
    let embedder = &case.embedder;
    let features = vision_features(embedder, &mut batch).expect("pictures");
    let tokens = token_batch(&batch);
    let embedded = embedder
        .core
        .forward(&embedder.config, &tokens, features, None);
    embedded.expect("the batch is embedded")
}

/// A note's embedding does not depend on the grids of the others, nor on whether two notes show one picture.
#[test]
fn each_note_of_a_batch_is_what_it_is_alone() {
    for name in CASES {
        let case = open(name);
        let mut whole = batch(&case, pictures(name));
        let pictures = whole.pictures.as_mut().expect("pictures");
        pictures.of_note = vec![3, 1, 1, 0, 4, 3];
        let together = values(embed(&case, &whole).multimodal);
        let width = together.len() / 6;
        for note in 0..6 {
            let alone = values(embed(&case, &whole.slice(note..note + 1)).multimodal);
            let found = &together[note * width..][..width];
            for (a, b) in found.iter().zip(&alone) {
                assert!((a - b).abs() <= 2e-6, "{name}, note {note}: {a}, {b}");
            }
        }
        // Some are read by their text alone, whatever their picture is.
        whole.by_text = vec![false, true, false, false, false, true];
        let mixed = values(embed(&case, &whole).multimodal);
        for note in [0, 2, 3, 4] {
            let (a, b) = (
                &mixed[note * width..][..width],
                &together[note * width..][..width],
            );
            let close = a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 2e-6);
            assert!(close, "{name}, note {note}");
        }
        let text = TokenBatch {
            image_index: None,
            by_text: Vec::new(),
            ..token_batch(&whole.slice(1..2))
        };
        let embedder = &case.embedder;
        let text = embedder.core.forward(&embedder.config, &text, None, None);
        let text = values(text.expect("a text").multimodal);
        for (a, b) in mixed[width..][..width].iter().zip(&text) {
            assert!((a - b).abs() <= 2e-6, "{name}: {a}, {b}");
        }
    }
}

/// Layers that are run again for their gradients give the same ones.
#[test]
fn gradients_of_checkpointed_layers_are_the_same() {
    for name in CASES {
        let case = open(name);
        let mut batch = batch(&case, pictures(name));
        let embedder = &case.embedder;
        let features = vision_features(embedder, &mut batch).expect("pictures");
        let tokens = token_batch(&batch);
        let inputs = || {
            let core = &embedder.core;
            let inputs = core.llm_inputs(&embedder.config, &tokens, features.clone(), None);
            inputs.expect("inputs")
        };
        let loss = |embeddings: Embeddings| {
            let multimodal = embeddings.multimodal;
            let cosines = multimodal.clone().matmul(multimodal.transpose());
            cosines.square().sum()
        };
        let core = &embedder.core;
        let whole = loss(core.embeddings(inputs(), None)).backward();
        let whole = flat_gradients(core, whole);
        let frozen = embedder.inference();
        let checkpoints = EmbedderCheckpoints::new(core, &frozen, inputs());
        let mut sum = FlatGradients::new();
        checkpoints.backward(core, loss, &mut |gradients| {
            for (name, gradient) in flat_gradients(core, gradients) {
                let before = sum.remove(&name);
                let all = match before {
                    Some(before) => before + gradient,
                    None => gradient,
                };
                sum.insert(name, all);
            }
        });
        assert_eq!(whole.len(), sum.len(), "{name}");
        for (parameter, expected) in &whole {
            let (expected, found) = (values(expected.clone()), values(sum[parameter].clone()));
            let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            for (a, b) in expected.iter().zip(&found) {
                let allowed = 1e-5 * largest + 1e-7;
                assert!((a - b).abs() <= allowed, "{name}, {parameter}: {a}, {b}");
            }
        }
    }
}
