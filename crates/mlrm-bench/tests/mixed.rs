//! Batches in which some notes have no picture: each note is embedded, and learned from, as it is alone.

mod support;

use burn::tensor::{DType, Device, Tensor, TensorData};
use mlrm_bench::verify::GoldenCase;
use mlrm_data::batch::NoteBatch;
use mlrm_model::embedder::{Embeddings, TokenBatch};
use mlrm_model::vision::VisionFeatures;
use mlrm_train::encode::token_batch;
use mlrm_train::features::vision_features;
use mlrm_train::optimiser::{FlatGradients, flat_gradients};
use support::{batch, golden};

/// Rows of the batch that have no picture.
const BY_TEXT: [usize; 2] = [1, 4];

fn case() -> GoldenCase {
    let folder = golden().join("cases/qwen2_notellm2");
    GoldenCase::open(&folder, &Device::flex(), DType::F32).expect("the case opens")
}

/// The ids of a row without those of the picture.
fn text_ids(batch: &NoteBatch, row: usize) -> Vec<i32> {
    let ids = &batch.input_ids[row * batch.seq..][..batch.lengths[row]];
    let special = [&batch.image_index, &batch.image_emb_index];
    let special = special.map(|index| index.as_ref().expect("mICL prompts")[row]);
    let ids = ids.iter().enumerate();
    ids.filter(|(place, _)| !special.contains(place))
        .map(|(_, &id)| id)
        .collect()
}

/// The case's batch with text prompts in the rows that have no picture, and anything at all for these
/// pictures and indices.
fn mixed(case: &GoldenCase) -> NoteBatch {
    let mut batch = batch(case, (0..6).collect());
    batch.by_text = (0..6).map(|row| BY_TEXT.contains(&row)).collect();
    for row in BY_TEXT {
        let ids = text_ids(&batch, row);
        let pad = batch.input_ids[row * batch.seq];
        let place = &mut batch.input_ids[row * batch.seq..][..batch.seq];
        place.fill(pad);
        place[..ids.len()].copy_from_slice(&ids);
        batch.lengths[row] = ids.len();
        let pictures = batch.pictures.as_mut().expect("pictures");
        let picture = &mut pictures.distinct[row];
        let values = picture.values.as_ref().expect("values");
        picture.values = Some(vec![7.0; values.len()].into());
    }
    for index in [&mut batch.image_index, &mut batch.image_emb_index] {
        let index = index.as_mut().expect("mICL prompts");
        for row in BY_TEXT {
            index[row] = 0;
        }
    }
    batch
}

/// A row's text prompt alone: neither picture nor indices.
fn text_alone(batch: &NoteBatch, row: usize) -> TokenBatch {
    TokenBatch {
        seq: batch.lengths[row],
        input_ids: batch.input_ids[row * batch.seq..][..batch.lengths[row]].to_vec(),
        lengths: vec![batch.lengths[row]],
        image_index: None,
        image_emb_index: None,
        by_text: Vec::new(),
    }
}

fn features(case: &GoldenCase, batch: &NoteBatch) -> VisionFeatures {
    let features = vision_features(&case.embedder, &mut batch.clone());
    features.expect("pictures").expect("a vision encoder")
}

fn embed(case: &GoldenCase, tokens: &TokenBatch, features: Option<VisionFeatures>) -> Embeddings {
    let embedder = &case.embedder;
    let embedded = embedder
        .core
        .forward(&embedder.config, tokens, features, None);
    embedded.expect("the batch is embedded")
}

fn row(values: &Tensor<2>, row: usize) -> Vec<f32> {
    let values = values.clone().inner().narrow(0, row, 1);
    values.try_into_vec_as::<f32>().expect("values")
}

fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-6, "{what}: {a}, {b}");
    }
}

#[test]
fn each_row_of_a_mixed_batch_is_what_it_is_alone() {
    let case = case();
    let whole = batch(&case, (0..6).collect());
    let with_pictures = embed(&case, &token_batch(&whole), Some(features(&case, &whole)));
    let mixed = mixed(&case);
    let found = embed(&case, &token_batch(&mixed), Some(features(&case, &mixed)));
    let gate = found.gate.as_ref().expect("late fusion");
    assert_eq!(gate.dims()[0], 4);
    let visual = |e: &Embeddings, at| row(e.visual.as_ref().expect("mICL"), at);
    for at in 0..6 {
        let what = format!("row {at}");
        let multimodal = row(&found.multimodal, at);
        if BY_TEXT.contains(&at) {
            let alone = embed(&case, &text_alone(&mixed, at), None);
            assert_same(&multimodal, &row(&alone.multimodal, 0), &what);
            assert_same(&visual(&found, at), &multimodal, &what);
        } else {
            assert_same(&multimodal, &row(&with_pictures.multimodal, at), &what);
            assert_same(&visual(&found, at), &visual(&with_pictures, at), &what);
        }
    }
}

#[test]
fn a_batch_of_texts_alone_needs_no_picture() {
    let case = case();
    let mut all = mixed(&case);
    for at in (0..6).filter(|at| !BY_TEXT.contains(at)) {
        let ids = text_ids(&all, at);
        all.lengths[at] = ids.len();
        let seq = all.seq;
        all.input_ids[at * seq..][..ids.len()].copy_from_slice(&ids);
    }
    all.by_text = vec![true; 6];
    let found = embed(&case, &token_batch(&all), Some(features(&case, &all)));
    assert!(found.gate.is_none());
    for at in 0..6 {
        let alone = embed(&case, &text_alone(&all, at), None);
        let expected = row(&alone.multimodal, 0);
        assert_same(&row(&found.multimodal, at), &expected, "multimodal");
        assert_same(
            &row(found.visual.as_ref().expect("mICL"), at),
            &expected,
            "visual",
        );
    }
}

/// Gradients of a sum over the embedding of one row, each value with another weight.
fn gradients(case: &GoldenCase, embeddings: &Embeddings, at: usize) -> FlatGradients {
    let width = embeddings.multimodal.dims()[1];
    let weights: Vec<f32> = (0..width).map(|i| (i as f32 * 0.7).sin()).collect();
    let data = TensorData::new(weights, [1, width]);
    let weights = Tensor::<2>::from_data(data, &embeddings.multimodal.device());
    let loss = (embeddings.multimodal.clone().narrow(0, at, 1) * weights).sum();
    flat_gradients(&case.embedder.core, loss.backward())
}

#[test]
fn a_note_without_a_picture_teaches_what_its_text_teaches_alone() {
    let case = case();
    let mixed = mixed(&case);
    let found = embed(&case, &token_batch(&mixed), Some(features(&case, &mixed)));
    let found = gradients(&case, &found, 1);
    let alone = embed(&case, &text_alone(&mixed, 1), None);
    let alone = gradients(&case, &alone, 0);
    let read = |values: &Tensor<1>| values.clone().try_into_vec_as::<f32>().expect("values");
    let mut compared = 0;
    for (name, gradient) in &found {
        let gradient = read(gradient);
        match alone.get(name) {
            Some(expected) => {
                let expected = read(expected);
                let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
                for (a, b) in gradient.iter().zip(&expected) {
                    let allowed = 1e-6_f32.max(1e-5 * largest);
                    assert!((a - b).abs() <= allowed, "{name}: {a}, {b}");
                }
                compared += 1;
            }
            // Connector, gate and the picture's map learn nothing of a text.
            None => assert!(gradient.iter().all(|&value| value == 0.0), "{name}"),
        }
    }
    assert!(compared > 10 && compared == alone.len(), "{compared}");
}
