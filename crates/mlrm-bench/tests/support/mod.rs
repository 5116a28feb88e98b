//! What the tests of training steps share: golden fixtures as the trainer's loader gives them.

// Every test file uses a part of this.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use mlrm_bench::verify::GoldenCase;
use mlrm_config::TrainSettings;
use mlrm_data::batch::{BatchPictures, NoteBatch};
use mlrm_data::order::Cursor;
use mlrm_train::step::StepContext;
use serde_json::Value;

pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// The case's inputs, the notes named by `rows`.
pub fn batch(case: &GoldenCase, rows: Vec<u32>) -> NoteBatch {
    let tokens = &case.tokens;
    let pixels = case.pixels.clone().expect("the case has pictures");
    let image_size = pixels.dims()[3];
    let values = pixels.try_into_vec_as::<f32>().expect("pixels");
    NoteBatch {
        notes: tokens.notes(),
        seq: tokens.seq,
        input_ids: tokens.input_ids.clone(),
        lengths: tokens.lengths.clone(),
        image_index: tokens.image_index.clone(),
        image_emb_index: tokens.image_emb_index.clone(),
        pictures: Some(BatchPictures::from_values(&values, image_size)),
        rows,
        by_text: Vec::new(),
        places: Vec::new(),
    }
}

/// How the fixture's `run` trains the case.
pub fn training(case: &GoldenCase, run: &Value) -> (TrainSettings, StepContext) {
    let settings = TrainSettings {
        weight_decay: number(&run["weight_decay"]),
        ..TrainSettings::default()
    };
    let context = StepContext {
        objective: case.objective.clone(),
        partners: None,
        shares: None,
        clip_norm: number(&run["clip_norm"]),
        max_temperature_logit: None,
        micro_batch_notes: 0,
        checkpoint_layers: false,
        loss_scale: 1.0,
        cursor: Cursor::default(),
        most_notes: None,
        may_run_out_of_memory: false,
        device: Device::flex(),
        sync_phases: false,
    };
    (settings, context)
}

pub fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[track_caller]
pub fn assert_close(what: &str, found: f64, expected: f64, relative: f64) {
    let error = (found - expected).abs() / expected.abs();
    assert!(
        error <= relative,
        "{what}: {found} is not {expected} (relative error {error:.2e})"
    );
}
