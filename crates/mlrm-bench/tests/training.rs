//! Optimiser steps and objectives against PyTorch (`tests/golden/training`, made by
//! `tests/golden/oracle/make_training.py`).

mod support;

use burn::tensor::{DType, Device};
use mlrm_bench::verify::GoldenCase;
use mlrm_config::ObjectiveKind;
use mlrm_data::split::{Pair, PairSplit, Partners};
use mlrm_model::weights::{Checkpoint, ExportedTensor, export, export_gradients};
use mlrm_train::group::Alone;
use mlrm_train::objective::{Exclusions, Prefix};
use mlrm_train::optimiser::AdamW;
use mlrm_train::step::train_step;
use serde_json::Value;
use support::{assert_close, batch, golden, number, training};

fn expected() -> (Value, Checkpoint) {
    let folder = golden().join("training");
    let text = std::fs::read_to_string(folder.join("training.json")).expect("training.json");
    let tensors = Checkpoint::open(&folder.join("training.safetensors")).expect("tensors");
    (serde_json::from_str(&text).expect("JSON"), tensors)
}

fn case() -> GoldenCase {
    let folder = golden().join("cases/qwen2_notellm2");
    GoldenCase::open(&folder, &Device::flex(), DType::F32).expect("the case opens")
}

fn largest_difference(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    pairs
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, f64::max)
}

/// The trained tensors under the names of the fixture.
fn weights(case: &GoldenCase) -> Vec<ExportedTensor> {
    let core = &case.embedder.core;
    let config = &case.embedder.config;
    let mut all = export(&core.head, "", config.head_names().rename).expect("head");
    let names = config.llm.family().names.rename;
    all.extend(export(&core.llm, "llm.model.", names).expect("llm"));
    all
}

/// Compares every tensor that the fixture holds below `prefix`; `allowed` is an absolute error.
fn assert_weights(case: &GoldenCase, prefix: &str, tensors: &Checkpoint, allowed: f64) {
    let mut compared = 0;
    for (name, _, values) in weights(case) {
        let stored = tensors.get(&format!("{prefix}{name}")).expect("readable");
        let Some(stored) = stored else { continue };
        let error = largest_difference(&values, &stored.values);
        assert!(
            error <= allowed,
            "{prefix}{name}: off by {error:.2e}, allowed {allowed:.2e}"
        );
        compared += 1;
    }
    assert!(compared >= 4, "only {compared} tensors below {prefix}");
}

fn trajectory(name: &str) {
    let (json, tensors) = expected();
    let run = &json["runs"][name];
    let mut case = case();
    let (settings, context) = training(&case, run);
    let mut optimiser = AdamW::new(&settings);
    let rates = run["learning_rates"].as_array().expect("rates");
    let largest = rates.iter().map(number).fold(0.0, f64::max);
    let steps = run["steps"].as_array().expect("steps");
    for (index, step) in steps.iter().enumerate() {
        let batch = batch(&case, (0..6).collect());
        let rate = number(&rates[index]);
        let stats = train_step(
            &mut case.embedder,
            &mut optimiser,
            batch,
            rate,
            &context,
            false,
            &mut Alone,
        )
        .expect("the step is taken");
        assert!(stats.updated);
        let at = |what: &str| format!("{name}, step {}, {what}", index + 1);
        assert_close(&at("loss"), stats.loss, number(&step["loss"]), 1e-4);
        let multimodal = number(&step["loss_multimodal"]);
        assert_close(
            &at("multimodal loss"),
            stats.loss_multimodal,
            multimodal,
            1e-4,
        );
        let visual = stats.loss_visual.expect("mICL has a visual loss");
        assert_close(
            &at("visual loss"),
            visual,
            number(&step["loss_visual"]),
            1e-4,
        );
        let norm = number(&step["gradient_norm"]);
        assert_close(&at("gradient norm"), stats.gradient_norm, norm, 1e-3);
        let temperature = case.embedder.core.head.temperature.val();
        let temperature = f64::from(temperature.into_scalar::<f32>());
        assert_close(
            &at("temperature"),
            temperature,
            number(&step["temperature"]),
            1e-5,
        );
        if index == 0 {
            assert_weights(&case, &format!("run.{name}.step1."), &tensors, rate / 100.0);
        }
    }
    assert_weights(&case, &format!("run.{name}."), &tensors, largest / 100.0);
}

#[test]
fn five_steps_follow_pytorch() {
    trajectory("plain");
}

#[test]
fn five_steps_with_decay_and_clipping_that_show_follow_pytorch() {
    trajectory("strong");
}

fn known_partners(json: &Value) -> Partners {
    let id = |value: &Value| value.as_u64().expect("an id") as u32;
    let pair = |pair: &Value| Pair {
        query: id(&pair[0]),
        target: id(&pair[1]),
        weight: 1.0,
    };
    let train = json["known_pairs"]
        .as_array()
        .expect("pairs")
        .iter()
        .map(pair)
        .collect();
    let split = PairSplit {
        train,
        ..PairSplit::default()
    };
    split.known_partners(8)
}

#[test]
fn objectives_and_their_gradients_follow_pytorch() {
    let (json, tensors) = expected();
    let partners = known_partners(&json);
    let ids = json["note_ids"].as_array().expect("ids").iter();
    let ids: Vec<u32> = ids.map(|id| id.as_u64().expect("an id") as u32).collect();
    // The whole, of 12 dimensions, counts without being listed.
    let matryoshka = [(2, 1.0), (5, 0.5)].map(|(dim, weight)| Prefix { dim, weight });
    for (name, kind, masked, prefixes) in [
        ("one_tower", ObjectiveKind::OneTower, false, &[][..]),
        ("one_tower_masked", ObjectiveKind::OneTower, true, &[]),
        (
            "one_tower_matryoshka",
            ObjectiveKind::OneTower,
            true,
            &matryoshka,
        ),
        ("dual", ObjectiveKind::Dual, false, &[]),
        ("dual_masked", ObjectiveKind::Dual, true, &[]),
        ("dual_matryoshka", ObjectiveKind::Dual, true, &matryoshka),
    ] {
        let case = case();
        let core = &case.embedder.core;
        let features = case
            .pixels
            .clone()
            .and_then(|p| case.embedder.encode_vision(p));
        let embeddings = core
            .forward(&case.embedder.config, &case.tokens, features, None)
            .expect("a forward pass");
        let exclusions = if masked {
            Exclusions::false_negatives(&ids, |note| partners.of(note))
        } else {
            Exclusions::diagonal(ids.len())
        };
        let mut objective = case.objective.clone();
        objective.kind = kind;
        objective.prefixes = prefixes.to_vec();
        let temperature = core.head.temperature.val();
        let losses = objective.losses(&embeddings, temperature, &exclusions);
        let gradients = losses.total.backward();
        let expected = &json["objectives"][name];
        let total = f64::from(losses.total.into_scalar::<f32>());
        assert_close(name, total, number(&expected["loss"]), 1e-5);
        let visual = losses.visual.expect("a visual loss");
        let visual = f64::from(visual.into_scalar::<f32>());
        assert_close(name, visual, number(&expected["loss_visual"]), 1e-5);
        let names = case.embedder.config.head_names().rename;
        let prefix = format!("objective.{name}.grad.");
        let mut compared = 0;
        let found = export_gradients(&core.head, &gradients, &prefix, names).expect("gradients");
        for (name, _, values) in found {
            let Some(stored) = tensors.get(&name).expect("readable") else {
                continue;
            };
            let scale = stored.values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            let error = largest_difference(&values, &stored.values) / f64::from(scale);
            assert!(error <= 1e-3, "{name}: relative error {error:.2e}");
            compared += 1;
        }
        assert_eq!(compared, 5, "{name}");
    }
}
