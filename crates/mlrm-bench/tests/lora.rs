//! LoRA training steps against PyTorch and PEFT (`tests/golden/lora`, made by
//! `tests/golden/oracle/make_lora.py`).

mod support;

use std::path::Path;

use burn::tensor::{DType, Device};
use mlrm_bench::verify::GoldenCase;
use mlrm_model::weights::{
    Checkpoint, ExportedTensor, export, export_adapters, export_gradients, trained_parameter_count,
};
use mlrm_train::group::Alone;
use mlrm_train::objective::Exclusions;
use mlrm_train::optimiser::AdamW;
use mlrm_train::step::train_step;
use serde_json::Value;
use support::{assert_close, batch, golden, number, training};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).expect("a copy");
        }
    }
}

/// The case that the fixtures belong to, with the adapters of one run.
fn case(run: &str) -> GoldenCase {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&golden().join("cases/qwen2_notellm2"), folder.path());
    copy(
        &golden().join("lora").join(run),
        &folder.path().join("adapter"),
    );
    GoldenCase::open(folder.path(), &Device::flex(), DType::F32).expect("the case opens")
}

/// Compares `found` with every tensor below `prefix` in the fixture but gradients below a whole
/// run; `scale` makes the allowed error of the tensor's largest value.
fn assert_tensors(
    found: &[ExportedTensor],
    prefix: &str,
    tensors: &Checkpoint,
    allowed: impl Fn(f64) -> f64,
) -> usize {
    let names = tensors.names().filter_map(|name| {
        let own = name.strip_prefix(prefix)?;
        (!own.starts_with("grad.")).then_some((name, own))
    });
    let compare = |(stored_name, own): (&str, &str)| {
        let values = found.iter().find(|(name, _, _)| name == own);
        let (_, shape, values) = values.unwrap_or_else(|| panic!("{own} was not computed"));
        let stored = tensors.get(stored_name).expect("readable").expect("named");
        assert_eq!(*shape, stored.shape, "{own}");
        let largest = stored.values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let pairs = values.iter().zip(&stored.values);
        let error = pairs.fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
        let allowed = allowed(f64::from(largest));
        assert!(
            f64::from(error) <= allowed,
            "{stored_name}: off by {error:.2e}, allowed {allowed:.2e}"
        );
    };
    names.map(compare).count()
}

/// How the case's language model calls its tensors.
fn llm_names(case: &GoldenCase) -> fn(&str) -> String {
    case.embedder.config.llm.family().names.rename
}

fn gradients(case: &GoldenCase) -> Vec<ExportedTensor> {
    let (core, config) = (&case.embedder.core, &case.embedder.config);
    let features = case
        .pixels
        .clone()
        .and_then(|p| case.embedder.encode_vision(p));
    let embeddings = core
        .forward(config, &case.tokens, features, None)
        .expect("a forward pass");
    let exclusions = Exclusions::diagonal(case.tokens.notes());
    let temperature = core.head.temperature.val();
    let losses = case.objective.losses(&embeddings, temperature, &exclusions);
    let gradients = losses.total.backward();
    let names = config.head_names().rename;
    let mut all = export_gradients(&core.head, &gradients, "", names).expect("head");
    all.extend(export_gradients(&core.llm, &gradients, "model.", llm_names(case)).expect("llm"));
    all
}

fn follows_peft(run: &str, adapted_maps: usize) {
    let folder = golden().join("lora");
    let text = std::fs::read_to_string(folder.join("lora.json")).expect("lora.json");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let json = &json["runs"][run];
    let tensors = Checkpoint::open(&folder.join("lora.safetensors")).expect("tensors");
    let mut case = case(run);
    let frozen = export(&case.embedder.core.llm, "", llm_names(&case)).expect("the LLM");

    let found = gradients(&case);
    let of_llm = found
        .iter()
        .filter(|(name, _, _)| name.starts_with("model."));
    assert_eq!(of_llm.count(), 2 * adapted_maps, "only adapters learn");
    let compared = assert_tensors(&found, &format!("{run}.grad."), &tensors, |largest| {
        1e-3 * largest
    });
    assert_eq!(compared, 2 * adapted_maps + 4);

    let (settings, context) = training(&case, json);
    let mut optimiser = AdamW::new(&settings);
    let rates = json["learning_rates"].as_array().expect("rates");
    let steps = json["steps"].as_array().expect("steps");
    for (index, (step, rate)) in steps.iter().zip(rates).enumerate() {
        let batch = batch(&case, (0..case.tokens.notes() as u32).collect());
        let model = &mut case.embedder;
        let stats = train_step(
            model,
            &mut optimiser,
            batch,
            number(rate),
            &context,
            false,
            &mut Alone,
        );
        let stats = stats.expect("the step is taken");
        let at = |what: &str| format!("{run}, step {}, {what}", index + 1);
        assert_close(&at("loss"), stats.loss, number(&step["loss"]), 1e-4);
        let norm = number(&step["gradient_norm"]);
        assert_close(&at("gradient norm"), stats.gradient_norm, norm, 1e-3);
    }
    let core = &case.embedder.core;
    let names = case.embedder.config.head_names().rename;
    let mut trained = export(&core.head, "", names).expect("head");
    trained.extend(export_adapters(&core.llm, "model.", llm_names(&case)).expect("adapters"));
    // Adam turns rounding noise of small gradients into steps: float32 itself is 7e-5 off float64.
    let largest_rate = rates.iter().map(number).fold(0.0, f64::max);
    assert_tensors(&trained, &format!("{run}."), &tensors, |_| {
        largest_rate / 20.0
    });

    let after = export(&core.llm, "", llm_names(&case)).expect("the LLM");
    assert_eq!(frozen, after, "the language model itself stays as it was");
    let state = optimiser.moments.keys();
    let of_llm: Vec<&String> = state.filter(|path| path.starts_with("llm.")).collect();
    assert_eq!(of_llm.len(), 2 * adapted_maps);
    assert!(of_llm.iter().all(|path| path.contains(".lora.")));
    let moments = optimiser.moments.values().map(|m| m.first.dims()[0]);
    assert_eq!(moments.sum::<usize>(), trained_parameter_count(core));
}

#[test]
fn five_lora_steps_follow_peft() {
    follows_peft("plain", 4);
}

#[test]
fn five_rank_stabilised_steps_follow_peft() {
    follows_peft("rslora", 8);
}

#[test]
fn five_steps_with_adapters_everywhere_follow_peft() {
    follows_peft("all_linear", 14);
}
