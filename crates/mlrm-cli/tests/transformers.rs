//! What `mlrm export` writes, read by Hugging Face's own library, and PyTorch trained as a run was. Runs where Python with torch,
//! transformers and safetensors is: `python3`, or what the environment variable `MLRM_PYTHON` names.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Home, Words, golden_cases, golden_parts, python_with, set};

/// Python with the packages, or `None` with a notice that nothing was tested.
fn python(test: &str) -> Option<String> {
    python_with(test, "transformers", "safetensors, torch, transformers")
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// Published checkpoints in miniature, each with the folders below the exported one: the halves of a whole
/// BLIP-2 or Qwen-VL; of a whole CLIP or SigLIP the tower is what is exported.
fn published() -> Vec<(PathBuf, &'static [&'static str])> {
    let root = golden_cases().join("../published");
    let entries = fs::read_dir(root).expect("published checkpoints");
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    let halves = |path: &PathBuf| -> &'static [&'static str] {
        let whole = ["blip2", "qwen-vl"];
        match whole
            .iter()
            .any(|name| path.to_string_lossy().contains(name))
        {
            true => &["llm", "vision"],
            false => &[""],
        }
    };
    folders
        .into_iter()
        .map(|path| (path.clone(), halves(&path)))
        .collect()
}

/// Whole models of another seed and batch than the golden cases.
#[test]
fn held_out_whole_models_compute_what_transformers_does() {
    let Some(python) = python("held_out_whole_models_compute_what_transformers_does") else {
        return;
    };
    let home = Home::with_config();
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/oracle/make_qwen_vl.py");
    for kind in ["qwen2_5_vl", "qwen3_vl"] {
        let case = text(&home.path(kind));
        let output = Command::new(&python)
            .arg(&script)
            .args([kind, &case, "--seed", "145", "--pairs", "3"])
            .env("OMP_NUM_THREADS", "1")
            .output()
            .expect("python runs");
        assert!(output.status.success(), "{output:?}");
        home.mlrm(format!("verify {case}")).done();
    }
}

#[test]
fn exported_folders_give_the_same_hidden_states() {
    let Some(python) = python("exported_folders_give_the_same_hidden_states") else {
        return;
    };
    let home = Home::trained();
    let mut pairs = Vec::new();
    let mut export = |source: &Path, below: &[&str], options: &str| {
        let out = home.path(format!("out{}", pairs.len()));
        let (source, target) = (text(source), text(&out));
        let command = format!("export {source} --out {target} {options}");
        home.mlrm(&command).done();
        for part in below {
            pairs.extend([source.clone(), text(&out.join(part))]);
        }
    };
    let shards = "--shard-size 4kB";
    for part in golden_parts() {
        export(&part, &[""], shards);
    }
    for (whole, below) in published() {
        export(&whole, below, shards);
    }
    for part in ["llm", "vision"] {
        export(&home.path("run/model").join(part), &[""], shards);
    }
    // From one half-precision folder to another.
    home.mlrm("export run --out half --dtype bf16").done();
    export(&home.path("half/llm"), &[""], "");
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/transformers/check_export.py");
    let output = Command::new(python)
        .arg(script)
        .args(&pairs)
        .env("OMP_NUM_THREADS", "1")
        .output();
    let output = output.expect("Python runs");
    let shown = String::from_utf8_lossy(&output.stdout);
    eprintln!("{shown}");
    assert!(
        output.status.success(),
        "{shown}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        shown
            .lines()
            .filter(|line| line.starts_with("same "))
            .count()
            >= 50,
        "{shown}"
    );
}

#[test]
fn the_command_in_the_refusal_converts_pytorch_files() {
    let Some(python) = python("the_command_in_the_refusal_converts_pytorch_files") else {
        return;
    };
    let home = Home::empty();
    let source = golden_cases().join("qwen3_text_no_head/llm");
    fs::create_dir(home.path("llm")).expect("a folder");
    fs::copy(source.join("config.json"), home.path("llm/config.json")).expect("a file");
    let split = "import sys, torch; from safetensors.torch import load_file; \
                 tensors = list(load_file(sys.argv[1]).items()); \
                 torch.save(dict(tensors[:9]), 'llm/pytorch_model-00001-of-00002.bin'); \
                 torch.save(dict(tensors[9:]), 'llm/pytorch_model-00002-of-00002.bin')";
    let weights = text(&source.join("model.safetensors"));
    let folder = home.path("llm");
    let run = |command: &mut Command| {
        let output = command
            .current_dir(folder.parent().expect("a folder"))
            .output();
        let output = output.expect("it runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run(Command::new(&python).args(["-c", split, &weights]));
    let refused = home.refused("inspect llm", &["which can run code"]);
    let command = refused
        .err
        .lines()
        .find(|line| line.trim().starts_with("python -c"));
    let command = command.expect("a command").trim();
    let command = command.replacen("python", &python, 1);
    run(Command::new("sh").args(["-c", &command]));
    home.mlrm("inspect llm --load").done();
}

/// PyTorch takes the steps of a run, from the same weights and batches; then both are measured alike.
fn trained_alike(home: &Home, python: &str, name: &str, sets: &str) {
    // Without notes to choose a step by, the last one is the model. The rate is one at which rounding does not
    // grow from step to step.
    let sets = format!(
        "data.pairs.validation_fraction=0 train.eval_every_steps=0 train.save_every_steps=0 \
        train.saliency_every_steps=0 train.log_every_steps=1 eval.baselines=[] \
        train.learning_rate=3e-4 train.max_steps=30 {sets}"
    );
    let [start, out, again] = ["start", "pytorch", "again"].map(|part| format!("{name}-{part}"));
    let batches = format!("{name}.safetensors");
    home.train(&start, format!("{sets} train.max_steps=0"))
        .done();
    home.train(name, &sets).done();
    let flags = set(&sets);
    let ran = home.mlrm(format!("data batches tiny.toml --out {batches}{flags}"));
    ran.done().shows(&["steps         30"]);
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/oracle/train_alike.py");
    let train_alike = |arguments: String| {
        let mut command = Command::new(python);
        command.arg(&script).args(arguments.words());
        command.current_dir(home.path(""));
        command.env("OMP_NUM_THREADS", "1");
        command.output().expect("Python runs")
    };
    let run = |arguments: String| {
        let output = train_alike(arguments);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{shown}\n{problem}");
        eprintln!("{name}: {shown}");
        shown
    };
    let model = format!("{start}/model");
    // Far below the 1 % that is promised over hundreds of steps: rounding alone.
    run(format!("--tolerance 1e-3 {model} {batches} {name} {out}"));
    home.train(&again, format!("{sets} train.max_steps=0 model.path={out}"))
        .done();
    let shown = run(format!("--compare {name} {again}"));
    assert!(shown.starts_with("Recall@10 "), "{shown}");
    // The check can fail: the same pairs in another order.
    let other = "other.safetensors";
    let windows = "--set train.length_window_batches=3";
    home.mlrm(format!(
        "data batches tiny.toml --out {other}{flags} {windows}"
    ))
    .done();
    let output = train_alike(format!(
        "--tolerance 1e-3 {model} {other} {name} {name}-unlike"
    ));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(shown.contains("\nloss: largest relative"), "{output:?}");
}

#[test]
fn pytorch_learns_the_same_from_the_same_batches() {
    let test = "pytorch_learns_the_same_from_the_same_batches";
    let packages = "numpy, peft, safetensors, torch, transformers";
    let Some(python) = python_with(test, "transformers", packages) else {
        return;
    };
    let home = Home::with_config();
    trained_alike(
        &home,
        &python,
        "full",
        "objective.mask_false_negatives=true",
    );
    let lora = "model.llm.tune=lora model.llm.lora.rank=4 train.schedule=cosine";
    trained_alike(&home, &python, "lora", lora);
}
