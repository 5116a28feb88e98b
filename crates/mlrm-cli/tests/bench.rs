//! `mlrm bench`: every kind of measurement, its JSON, and comparison with an earlier one.

mod support;

use serde_json::Value;
use support::{Home, set};

/// Fields that every measurement has.
const COMMON: &str = "what device dtype shape peak_host_bytes peak_device_bytes mfu runs spread";

#[track_caller]
fn check_common(bench: &Value, what: &str, runs: u64) {
    for key in COMMON.split(' ') {
        assert!(bench.get(key).is_some(), "{key} of {bench}");
    }
    assert_eq!(bench["what"], what);
    assert_eq!(bench["device"], "flex");
    assert_eq!(bench["runs"], runs);
    assert!(
        bench["shape"]
            .as_object()
            .is_some_and(|shape| !shape.is_empty())
    );
    assert!(number(bench, "spread") >= 0.0);
    // The memory of the device `flex` is the host's.
    assert!(bench["peak_device_bytes"].is_null(), "{bench}");
    if cfg!(target_os = "linux") {
        assert!(number(bench, "peak_host_bytes") > 1e6, "{bench}");
    }
}

#[track_caller]
fn number(json: &Value, key: &str) -> f64 {
    let value = json[key].as_f64();
    value.unwrap_or_else(|| panic!("no number {key} in {json}"))
}

#[track_caller]
fn check_model(bench: &Value, phases: &str) {
    for key in [
        "notes_per_second",
        "tokens_per_second",
        "seconds_per_step",
        "flops_per_step",
        "matmul_flops_per_second",
        "mfu",
    ] {
        assert!(number(bench, key) > 0.0, "{key} of {bench}");
    }
    let by_phase = bench["seconds_by_phase"].as_object().expect("phases");
    let names: Vec<&str> = by_phase.keys().map(String::as_str).collect();
    assert_eq!(names.join(" "), phases);
    let seconds: f64 = names
        .iter()
        .map(|phase| number(&bench["seconds_by_phase"], phase))
        .inspect(|seconds| assert!(*seconds > 0.0, "{bench}"))
        .sum();
    // The phases are the step: of two runs, medians are means.
    let step = number(bench, "seconds_per_step");
    assert!((seconds / step - 1.0).abs() < 0.05, "{seconds} of {step} s");
    let positions = number(&bench["shape"], "positions");
    let ratio = number(bench, "tokens_per_second") / number(bench, "notes_per_second");
    assert!((ratio / positions - 1.0).abs() < 1e-9, "{bench}");
    let utilisation =
        number(bench, "flops_per_step") / step / number(bench, "matmul_flops_per_second");
    assert!(
        (number(bench, "mfu") / utilisation - 1.0).abs() < 1e-9,
        "{bench}"
    );
}

#[test]
fn training_is_measured_by_phase() {
    let home = Home::with_config();
    let words = "bench train tiny.toml --steps 2 --json";
    let bench = home.mlrm(words).done().json();
    check_common(&bench, "train", 2);
    check_model(&bench, "vision connector llm_forward backward optimiser");
    assert_eq!(bench["shape"]["notes"], 16);
    assert_eq!(bench["dtype"], "f32");
    assert!(!home.path("run").exists(), "a measurement is no run");
}

/// A step at the full token budget is predicted as it is measured, and refused before it takes the machine's memory.
#[test]
fn steps_that_cannot_fit_are_refused() {
    let home = Home::with_config();
    let sets = "train.batch_pairs=64 train.merge_duplicates=true prompt.max_tokens=200";
    let words = format!("bench train tiny.toml --steps 1 --json {}", set(sets));
    let took = number(&home.mlrm(&words).done().json(), "peak_host_bytes");
    // Far less than it takes, far more than the program.
    let limited = format!("{words} --set backend.max_memory_bytes={:.0}", 0.6 * took);
    let ran = home.mlrm(&limited);
    ran.failed_with(1, &["training would take", "train.micro_batch_notes = "]);
    home.mlrm(format!("{limited} --set train.micro_batch_notes=8"))
        .done();
}

#[test]
fn embedding_is_measured_by_phase() {
    let home = Home::with_config();
    let words = "bench embed tiny.toml --steps 2 --json";
    let more = "--set eval.batch_notes=100 --set backend.dtype=f16";
    let bench = home.mlrm(format!("{words} {more}")).done().json();
    check_common(&bench, "embed", 2);
    check_model(&bench, "vision connector llm_forward");
    assert_eq!(bench["shape"]["notes"], 100);
    assert_eq!(bench["dtype"], "f16");
}

#[test]
fn products_are_measured() {
    let home = Home::empty();
    let words = "bench matmul --size 64 --runs 3";
    for dtype in ["f32", "bf16"] {
        let bench = home
            .mlrm(format!("{words} --json --dtype {dtype}"))
            .done()
            .json();
        check_common(&bench, "matmul", 3);
        assert_eq!(
            (&bench["dtype"], &bench["shape"]["size"]),
            (&dtype.into(), &64.into())
        );
        let operations = number(&bench, "flops_per_second") * number(&bench, "seconds_per_product");
        assert!(
            (operations / (2.0 * 64f64.powi(3)) - 1.0).abs() < 1e-9,
            "{bench}"
        );
    }
    let text = home.mlrm(words);
    text.done().shows(&["GFLOP/s"]);
}

#[test]
fn loading_is_measured() {
    let home = Home::trained();
    // A run folder stands for its model.
    let bench = home.mlrm("bench load run --runs 2 --json").done().json();
    check_common(&bench, "load", 2);
    let bytes = [
        "head.safetensors",
        "llm/model.safetensors",
        "vision/model.safetensors",
    ]
    .map(|file| {
        std::fs::metadata(home.path("run/model").join(file))
            .expect(file)
            .len()
    });
    assert_eq!(bench["bytes"], bytes.iter().sum::<u64>());
    let rate = number(&bench, "bytes") / number(&bench, "seconds");
    assert!((number(&bench, "bytes_per_second") / rate - 1.0).abs() < 1e-9);
}

#[test]
fn an_earlier_measurement_is_compared() {
    let home = Home::empty();
    let words = "bench matmul --size 32 --json";
    let mut earlier = home.mlrm(words).done().json();
    earlier["flops_per_second"] = 1.0.into();
    earlier["shape"]["size"] = 16.into();
    home.write("before.json", earlier.to_string());
    let compare = format!("{words} --compare before.json");
    let now = home.mlrm(&compare).done().json();
    let ratio = number(&now["compare"]["ratios"], "flops_per_second");
    assert_eq!(ratio, number(&now, "flops_per_second"));
    assert_eq!(
        now["compare"]["differs"],
        serde_json::json!(["shape.size: 32, was 16"])
    );
    let text = home.mlrm("bench matmul --size 32 --compare before.json");
    text.done().shows(&["flops_per_second"]);
    text.shows(&["not the same: shape.size: 32, was 16"]);
}

#[test]
fn what_cannot_be_compared_is_refused_before_it_is_measured() {
    let home = Home::empty();
    let words = "bench matmul --size 32 --compare";
    let refused = |file: &str, says: &[&str]| {
        home.refused(format!("{words} {file}"), says);
    };
    refused("absent.json", &["absent.json", "No such file"]);
    home.write("text.json", "notes/s: 7");
    refused("text.json", &["text.json", "not JSON", "--compare"]);
    home.write("list.json", "[]");
    refused("list.json", &["list.json", "not a JSON object"]);
    home.write("other.json", "{\"pool\": 3}");
    refused("other.json", &["other.json", "`what`"]);
    home.write("train.json", "{\"what\": \"train\"}");
    refused(
        "train.json",
        &["train.json", "`mlrm bench train`", "`mlrm bench matmul`"],
    );
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let home = Home::with_notes();
    for (words, says) in [
        ("bench matmul --size 0", "at least 1"),
        ("bench matmul --size big", "not a count"),
        ("bench matmul --dtype f8", "`f8` is not a number format"),
        ("bench train --steps 0", "at least 1"),
    ] {
        home.mlrm(words).failed_with(2, &[says]);
    }
    home.refused("bench matmul --device cudda", &["cudda"]);
    home.refused("bench load absent", &["absent", "model folder"]);
    home.refused("bench train absent.toml", &["absent.toml"]);
}
