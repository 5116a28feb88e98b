//! `mlrm verify` against the golden cases: it passes where it should, and can fail.

mod support;
#[path = "support/tensors.rs"]
mod tensors;

use std::fs;

use serde_json::Value;
use support::{Home, golden_cases};
use tensors::{RawTensor, copy_folder, edit, read};

/// The case that has every part of the model.
const CASE: &str = "qwen2_notellm2";

fn case_folders() -> Vec<String> {
    let entries = fs::read_dir(golden_cases()).expect("the golden cases");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut folders: Vec<String> = paths
        .filter(|path| path.is_dir())
        .map(|path| path.display().to_string())
        .collect();
    folders.sort();
    folders
}

fn failed_tensors(report: &Value) -> Vec<&str> {
    let rows = report["comparisons"].as_array().expect("comparisons");
    let failed = rows.iter().filter(|row| row["passed"] != true);
    failed
        .map(|row| row["tensor"].as_str().expect("a name"))
        .collect()
}

#[test]
fn every_golden_case_passes() {
    let home = Home::empty();
    let cases = case_folders();
    assert!(cases.len() >= 17, "{cases:?}");
    let words = cases.join(" ");
    let ran = home.mlrm(format!("verify --json {words}"));
    let reports = ran.done().json();
    let reports = reports.as_array().expect("a report a case");
    assert_eq!(reports.len(), cases.len());
    for (report, case) in reports.iter().zip(&cases) {
        assert_eq!(failed_tensors(report), [""; 0], "{case}");
        // Every expected tensor was compared: a case cannot pass by comparing little.
        let expected = read(&golden_cases().join(case).join("expected.safetensors"));
        let rows = report["comparisons"].as_array().expect("comparisons");
        let compared = |name: &String| rows.iter().any(|row| row["tensor"] == name.as_str());
        let left: Vec<&String> = expected.keys().filter(|name| !compared(name)).collect();
        assert!(left.is_empty(), "{case}: not compared: {left:?}");
    }
}

#[test]
fn the_embedded_case_passes() {
    let ran = Home::empty().mlrm(["verify"]);
    let out = &ran.done().out;
    assert!(out.contains("embedded"), "{out}");
    assert!(
        out.contains("1 of 1 cases within tolerance on flex"),
        "{out}"
    );
}

#[test]
fn an_altered_expectation_fails_and_is_named() {
    let home = Home::empty();
    let original = golden_cases().join(CASE);
    let names = [
        "final.embedding",
        "final.gate_z",
        "inputs_embeds",
        "loss",
        "grad.linear.weight",
        "saliency.I.1",
    ];
    for name in names {
        let folder = home.path(name);
        copy_folder(&original, &folder);
        edit(&folder.join("expected.safetensors"), |tensors| {
            let tensor = tensors.get_mut(name).expect(name);
            let mut values = tensor.values();
            values[0] += 1e-2 * tensor.largest();
            *tensor = RawTensor::of(&tensor.shape, &values);
        });
        let ran = home.mlrm(format!("verify --json {name}"));
        ran.failed_with(1, &[]);
        assert_eq!(failed_tensors(&ran.json()[0]), [name]);
    }
    let table = home.mlrm("verify loss");
    table.failed_with(1, &[]);
    let row = table.out.lines().find(|line| line.ends_with("FAILED"));
    assert!(
        row.is_some_and(|row| row.trim_start().starts_with("loss ")),
        "{}",
        table.out
    );
    assert!(
        table.out.contains("0 of 1 cases within tolerance"),
        "{}",
        table.out
    );
}

#[test]
fn shorter_formats_keep_to_what_their_rounding_explains() {
    let home = Home::empty();
    let cases = case_folders();
    let words = cases.join(" ");
    for (option, dtype) in [
        ("--dtype", "bf16"),
        ("--dtype", "f16"),
        ("--matmul-precision", "bf16"),
    ] {
        let ran = home.mlrm(format!("verify --json {option} {dtype} {words}"));
        let reports = ran.done().json();
        for report in reports.as_array().expect("a report a case") {
            assert_eq!(
                failed_tensors(report),
                [""; 0],
                "{option} {dtype}: {}",
                report["case"]
            );
        }
    }
}

#[test]
fn a_trained_model_embeds_in_bf16_as_in_f32() {
    let home = Home::with_config();
    home.train("run", "train.max_steps=40 eval.baselines=[]")
        .done();
    let embed = |out: &str| {
        home.embed("run", out);
        read(&home.path(out))
            .remove("embeddings")
            .expect("embeddings")
    };
    let full = embed("f32.safetensors");
    let config = home.read("run/config.toml");
    let short = config.replace("dtype = \"f32\"", "dtype = \"bf16\"");
    assert_ne!(config, short);
    home.write("run/config.toml", short);
    let short = embed("bf16.safetensors");
    let width = full.shape[1];
    let (full, short) = (full.values(), short.values());
    assert_ne!(full, short);
    for (full, short) in full.chunks(width).zip(short.chunks(width)) {
        let cosine: f32 = full.iter().zip(short).map(|(a, b)| a * b).sum();
        assert!(cosine >= 0.999, "{cosine}");
    }
}

#[test]
fn a_wrong_value_fails_in_a_shorter_format_too() {
    let home = Home::empty();
    for name in [
        "final.embedding",
        "llm.hidden.1",
        "loss",
        "grad.linear.weight",
    ] {
        let folder = home.path(name);
        copy_folder(&golden_cases().join(CASE), &folder);
        edit(&folder.join("expected.safetensors"), |tensors| {
            let tensor = tensors.get_mut(name).expect(name);
            let opposite: Vec<f32> = tensor.values().iter().map(|value| -value).collect();
            *tensor = RawTensor::of(&tensor.shape, &opposite);
        });
        let ran = home.mlrm(format!("verify --json --dtype bf16 {name}"));
        ran.failed_with(1, &[]);
        assert_eq!(failed_tensors(&ran.json()[0]), [name]);
    }
}

#[test]
fn the_dump_holds_every_expected_tensor() {
    let home = Home::empty();
    let case = golden_cases().join(CASE);
    home.mlrm(format!("verify {} --dump dump.safetensors", case.display()))
        .done();
    let dump = read(&home.path("dump.safetensors"));
    let expected = read(&case.join("expected.safetensors"));
    for (name, tensor) in &expected {
        let computed = dump
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in the dump"));
        assert_eq!(computed.shape, tensor.shape, "{name}");
    }
    // Names alone could be written over anything.
    for name in ["final.embedding", "llm.hidden.1", "visual_tokens"] {
        let limit = 1e-4 * expected[name].largest();
        let pairs = dump[name].values().into_iter().zip(expected[name].values());
        let worst = pairs
            .map(|(left, right)| (left - right).abs())
            .fold(0.0, f32::max);
        assert!(worst <= limit, "{name}: {worst}");
    }
}

#[test]
fn cases_that_cannot_be_read_are_refused() {
    let home = Home::empty();
    home.refused("verify absent", &["absent/case.json"]);
    copy_folder(&golden_cases().join(CASE), &home.path("case"));
    home.write("case/case.json", "{");
    home.refused("verify case", &["case/case.json"]);
    copy_folder(&golden_cases().join(CASE), &home.path("case"));
    fs::remove_file(home.path("case/expected.safetensors")).expect("a file");
    home.refused("verify case", &["expected.safetensors"]);
    home.refused(
        "verify case case --dump x",
        &["--dump takes one case, not 2"],
    );
}
