//! `model.llm.tune` through the binary: LoRA, frozen and quantised language models.

mod support;
#[path = "support/tensors.rs"]
mod tensors;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::{Home, events, losses, named, skipped, training};
use tensors::{RawTensor, Tensors, copy_folder, read, write};

const TUNED: &str = "model.llm.tune=lora";

const LORA: &str = "model.llm.tune=lora model.llm.lora.rank=4 model.llm.lora.dropout=0.2 \
    train.saliency_every_steps=0 eval.baselines=[]";

/// Parameters of TINY's language model that learn in a run: all − those of connector, fusion, head.
fn trained(home: &Home, run: &str) -> u64 {
    let events = events(home, run);
    let start = named(&events, "run_started")[0];
    let number = |name: &str| start[name].as_u64().expect("a count");
    assert!(number("parameters_total") >= number("parameters_trained"));
    number("parameters_trained")
}

/// Takes the run back to its checkpoint of `step` and goes on.
#[cfg(unix)]
fn go_on_from(home: &Home, run: &str, step: usize) {
    support::take_back(home, run, step);
    support::resume(home, run, "").done();
}

#[cfg(unix)]
fn same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = |path: &Path| fs::metadata(path).expect("a file").ino();
    inode(one) == inode(other)
}

/// What a language model that does not learn makes of a prompt is computed once in a run, and anew by `mlrm eval` and after
/// a kill, beside other prompts.
#[test]
#[cfg(unix)]
fn states_that_are_kept_change_no_bit() {
    let home = Home::with_config();
    for variant in ["text", "latefusion"] {
        let sets = format!(
            "model.variant={variant} model.llm.tune=frozen train.max_steps=30 train.eval_every_steps=0 \
             train.save_every_steps=7 train.keep_checkpoints=9 eval.baselines=['zero_shot']"
        );
        let ran = home.train(variant, &sets);
        ran.done().shows(&["notes are computed once"]);
        let steps = || losses(&events(&home, variant));
        let (whole, table) = (steps(), home.json(&format!("{variant}/eval.json")));
        let weights = || support::weights_below(&home.path(variant), &["model"]);
        let trained = weights();
        let measured = home.mlrm(format!("eval {variant} --json")).json();
        assert_eq!(measured["slices"], table["slices"], "{variant}");

        go_on_from(&home, variant, 7);
        assert_eq!(steps(), whole, "{variant}");
        assert!(weights() == trained, "{variant}");
        let again = home.json(&format!("{variant}/eval.json"));
        assert_eq!(again["slices"], table["slices"], "{variant}");
        assert_eq!(again["baselines"], table["baselines"], "{variant}");
    }
}

#[test]
#[cfg(unix)]
fn a_lora_run_keeps_its_language_model_and_resumes_bit_by_bit() {
    let home = Home::with_config();
    home.train("run", LORA).done();
    let whole = losses(&events(&home, "run"));
    assert_eq!(whole.len(), 6);

    // Rank 4 beside seven maps of two layers: 4 · (inputs + outputs) each.
    let maps = 2 * ((32 + 32) + 2 * (32 + 16) + (32 + 32) + 3 * (32 + 64));
    home.train("frozen", "model.llm.tune=frozen eval.baselines=[]")
        .done();
    assert_eq!(trained(&home, "run"), trained(&home, "frozen") + 4 * maps);

    let config = home.json("run/model/adapter/adapter_config.json");
    assert_eq!(
        (&config["r"], &config["peft_type"]),
        (&4.into(), &"LORA".into())
    );
    let adapter = read(&home.path("run/model/adapter/adapter_model.safetensors"));
    assert_eq!(adapter.len(), 28);
    let b = &adapter["base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight"];
    assert_eq!(b.shape, [16, 4]);
    assert!(b.largest() > 0.0, "B has learnt");

    // One copy of what does not change, in every checkpoint.
    let weights =
        |folder: &str, part: &str| home.path(format!("run/{folder}/{part}/model.safetensors"));
    for part in ["llm", "vision"] {
        let first = weights("checkpoints/step-3/model", part);
        assert!(same_file(
            &first,
            &weights("checkpoints/step-6/model", part)
        ));
        assert!(same_file(&first, &weights("model", part)));
    }
    let frozen = home.path("frozen/model/llm/model.safetensors");
    assert_eq!(read(&weights("model", "llm")), read(&frozen));

    go_on_from(&home, "run", 3);
    // `losses` has seen that the repeated steps are the same, dropout included.
    assert_eq!(losses(&events(&home, "run")), whole);
    let other = format!("{LORA} model.llm.lora.dropout=0");
    home.train("other", &other).done();
    assert_ne!(losses(&events(&home, "other"))[&1], whole[&1]);
}

#[test]
#[cfg(unix)]
fn a_batch_in_parts_trains_the_same_and_resumes_bit_by_bit() {
    let home = Home::with_config();
    home.train("whole", LORA).done();
    let whole = losses(&events(&home, "whole"));
    for (run, parts) in [
        ("slices", "train.micro_batch_notes=3"),
        ("layers", "train.checkpoint_layers=true"),
        (
            "both",
            "train.micro_batch_notes=5 train.checkpoint_layers=true",
        ),
    ] {
        home.train(run, format!("{LORA} {parts}")).done();
        let found = losses(&events(&home, run));
        assert_eq!(found.len(), whole.len());
        for (step, numbers) in &found {
            // Dropout included: its masks belong to notes and positions.
            let loss = |numbers: &String| -> f64 {
                let first = numbers.split(' ').next().expect("a loss");
                first.parse().expect("a number")
            };
            let error = (loss(numbers) - loss(&whole[step])).abs();
            assert!(
                error < 1e-4,
                "{run}, step {step}: {numbers}, not {}",
                whole[step]
            );
        }
        go_on_from(&home, run, 3);
        assert_eq!(losses(&events(&home, run)), found);
    }
}

#[test]
fn adapters_are_a_start_and_can_be_merged() {
    let home = Home::with_config();
    home.train("run", format!("{LORA} train.max_steps=3"))
        .done();
    let of_run = home.mlrm("eval run --json").done().json()["slices"]["all"].clone();

    // A language model as Hugging Face's tools keep it, with the adapters beside it.
    let llm = "model.llm.path=run/model/llm";
    let adapter = "model.llm.lora.path=run/model/adapter";
    let step = format!("train.max_steps=1 eval.baselines=[] {llm} {adapter}");
    for tune in ["lora", "frozen", "full"] {
        home.train(tune, format!("{step} model.llm.tune={tune}"))
            .done();
        let has_adapter = home.path(format!("{tune}/model/adapter")).is_dir();
        assert_eq!(has_adapter, tune != "full", "{tune}");
    }
    // The same function, whether A·B stands beside W or is a part of it.
    let first = |run: &str| {
        let events = events(&home, run);
        named(&events, "train_step")[0]["loss"]
            .as_f64()
            .expect("a loss")
    };
    assert_eq!(first("lora"), first("frozen"));
    assert!((first("lora") - first("full")).abs() < 1e-4 * first("lora"));

    // Those of layers that are passed over are passed over too.
    home.train("cut", format!("{step} {TUNED} model.llm.keep_layers=1"))
        .done();
    let cut = read(&home.path("cut/model/adapter/adapter_model.safetensors"));
    let all = read(&home.path("run/model/adapter/adapter_model.safetensors"));
    assert_eq!(2 * cut.len(), all.len());
    assert!(cut.keys().all(|name| name.contains("layers.0.")));

    // The whole model folder: its adapters go on learning, or must be said to be others.
    home.write(
        "more.toml",
        home.read("tiny.toml")
            .replace("[model]", "[model]\npath = \"run/model\""),
    );
    let more = "train more.toml --set run.dir=more --set train.max_steps=1";
    let tuned = format!("{more} --set {TUNED}");
    home.mlrm(format!("{tuned} --set model.llm.lora.rank=4"))
        .done();
    home.refused(
        format!("{tuned} --set run.dir=less"),
        &["rank 4", "[model.llm.lora]"],
    );
    assert!(
        of_run["recall@10"]
            .as_f64()
            .is_some_and(|recall| recall > 0.0)
    );
}

#[test]
#[cfg(unix)]
fn a_quantised_language_model_trains_and_resumes_bit_by_bit() {
    let home = Home::with_config();
    home.train("dense", LORA).done();
    for quantisation in ["q8", "q4"] {
        let sets = format!("{LORA} model.llm.quantisation={quantisation}");
        home.train(quantisation, sets).done();
        let whole = losses(&events(&home, quantisation));
        assert_ne!(whole[&1], losses(&events(&home, "dense"))[&1]);
        go_on_from(&home, quantisation, 3);
        assert_eq!(losses(&events(&home, quantisation)), whole);

        // What is saved are the rounded weights: not more different values in a block than codes.
        let file = home.path(format!("{quantisation}/model/llm/model.safetensors"));
        let mut row = read(&file)["model.layers.0.mlp.down_proj.weight"].values();
        // 32 outputs, one block, of the first input.
        row = row.into_iter().step_by(64).collect();
        assert_eq!(row.len(), 32);
        row.sort_by(f32::total_cmp);
        row.dedup();
        let few = row.len() <= 15;
        assert_eq!(few, quantisation == "q4", "{row:?}");
    }
}

#[test]
fn inspect_counts_the_adapters_that_are_meant() {
    let home = Home::with_config();
    let sets = "model.llm.lora.target_modules=[\"q_proj\",\"v_proj\"]";
    home.train("run", format!("{LORA} {sets}")).done();
    let inspect = |words: &str| {
        let command = format!("inspect run --json {words}");
        home.mlrm(command).done().json()["training"].clone()
    };
    let number = |training: &serde_json::Value, tune: usize, key: &str| {
        training["estimates"][tune][key].as_u64().expect("a number")
    };
    let adapters = |training: &serde_json::Value| {
        let trained = |tune| number(training, tune, "trained_parameters");
        trained(1) - trained(2)
    };
    // The run's own: rank 4 beside q and v of two layers; and what the run said that it trains.
    let own = inspect("");
    assert_eq!(adapters(&own), 2 * 4 * ((32 + 32) + (32 + 16)));
    assert_eq!(
        number(&own, 1, "trained_parameters"),
        trained(&home, "run"),
        "the estimate is what trained"
    );
    let other = inspect("--rank 2 --targets down_proj");
    assert_eq!(adapters(&other), 2 * 2 * (64 + 32));
    // Fewer maps keep fewer activations, full tuning most.
    let activations = |training, tune| number(training, tune, "activations_bytes");
    let all = inspect("--targets all-linear");
    assert!(activations(&own, 2) < activations(&own, 1));
    assert!(activations(&own, 1) < activations(&all, 1));
    assert_eq!(activations(&own, 0), activations(&all, 0));
    // A quarter of the bytes and an eighth, and scales of 4 bytes for 32 or 16 outputs.
    let weights = |training: &serde_json::Value| number(training, 2, "weights_bytes");
    let held = |bits: u64| {
        let map = |inputs: u64, outputs: u64| {
            let block = 64.min(1 << outputs.trailing_zeros());
            inputs * outputs * (32 - bits) / 8 - 4 * inputs * outputs / block
        };
        let layer = 2 * map(32, 32) + 2 * map(32, 16) + 2 * map(32, 64) + map(64, 32);
        weights(&own) - 2 * layer
    };
    for (name, bits) in [("q8", 8), ("q4", 4)] {
        assert_eq!(
            weights(&inspect(&format!("--quantisation {name}"))),
            held(bits)
        );
    }
    home.refused(
        "inspect run --targets q_prj",
        &["no linear map of this name", "did you mean `q_proj`?"],
    );
    let opt = support::golden_cases().join("opt_micl_ragged/llm");
    let opt = opt.to_str().expect("UTF-8");
    let of_opt = home
        .mlrm(format!("inspect {opt} --json --targets fc1,fc2"))
        .done()
        .json();
    assert!(adapters(&of_opt["training"]) > 0);
}

#[test]
fn peft_loads_what_a_run_wrote() {
    const TEST: &str = "peft_loads_what_a_run_wrote";
    let home = Home::with_config();
    home.train("run", LORA).done();
    let python = std::env::var("MLRM_PYTHON").unwrap_or("python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peft_loads.py");
    let output = std::process::Command::new(&python)
        .arg(script)
        .arg(home.path("run/model"))
        .output();
    let Ok(output) = output else {
        skipped(
            TEST,
            "peft",
            &format!("there is no `{python}` (set MLRM_PYTHON)"),
        );
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(77) => skipped(TEST, "peft", &said),
        code => assert_eq!(code, Some(0), "{said}"),
    }
}

#[test]
fn settings_that_no_adapter_can_have() {
    let home = Home::with_config();
    home.mlrm(support::SYNTH).done();
    for (sets, words) in [
        (
            "model.llm.lora.rank=0",
            ["model.llm.lora.rank", "integer in [1, 65536]"],
        ),
        (
            "model.llm.lora.dropout=1.0",
            ["model.llm.lora.dropout", "[0, 1)"],
        ),
        ("model.llm.lora.alpha=0", ["model.llm.lora.alpha", "> 0"]),
        (
            "model.llm.lora.target_modules=[\"q_prj\"]",
            ["no linear map of this name", "did you mean `q_proj`?"],
        ),
        (
            "model.llm.lora.target_modules=[\"all-linear\",\"q_proj\"]",
            ["model.llm.lora.target_modules", "every linear map"],
        ),
        (
            "model.llm.tune=full model.llm.quantisation=q8",
            ["model.llm.quantisation", "`model.llm.tune`"],
        ),
        (
            "model.llm.quantisation=q2",
            ["model.llm.quantisation", "\"q4\""],
        ),
        (
            "model.llm.quantisation=q8 model.llm.intermediate_size=72",
            ["layers.0.mlp.gate_proj", "72 outputs"],
        ),
        (
            "model.llm.lora.path=nowhere",
            ["nowhere", "adapter_config.json"],
        ),
    ] {
        let sets = format!("{TUNED} {sets}");
        home.refused(training("tiny.toml", "run", sets), &words);
    }
}

#[test]
fn adapter_folders_that_mean_something_else() {
    let home = Home::with_config();
    home.train("run", format!("{LORA} train.max_steps=1"))
        .done();
    let config = home.read("run/model/adapter/adapter_config.json");
    for (right, wrong, words) in [
        (
            "\"use_dora\": false",
            "\"use_dora\": true",
            ["`use_dora` = true", "adapter_config.json"],
        ),
        (
            "\"bias\": \"none\"",
            "\"bias\": \"all\"",
            ["`bias`", "only `none` is"],
        ),
        (
            "\"peft_type\": \"LORA\"",
            "\"peft_type\": \"IA3\"",
            ["`peft_type`", "only LORA is"],
        ),
        ("\"r\": 4", "\"r\": 5", ["wrong shape", "lora_A.weight"]),
        (
            "\"v_proj\"",
            "\"c_attn\"",
            ["`c_attn`", "no linear map of this name"],
        ),
        (
            "\"v_proj\"",
            "\"q_proj\"",
            ["unexpected", "v_proj.lora_A.weight"],
        ),
        (
            "\"bias\": \"none\"",
            "\"bias\": \"none\", \"new\": 1",
            ["`new` = 1", "does not know"],
        ),
        (
            "\"lora_alpha\": 8.0",
            "\"lora_alpha\": -8.0",
            ["`lora_alpha` above 0", "adapter_config.json"],
        ),
        (
            "\"bias\": \"none\"",
            "\"bias\": \"none\", \"modules_to_save\": [\"norm\"]",
            ["modules_to_save", "embed_tokens and lm_head"],
        ),
    ] {
        assert!(config.contains(right), "{right} in {config}");
        copy_folder(&home.path("run/model/adapter"), &home.path("bad"));
        home.write("bad/adapter_config.json", config.replace(right, wrong));
        let sets = format!("{TUNED} model.llm.lora.path=bad");
        home.refused(training("tiny.toml", "again", sets), &words);
        fs::remove_dir_all(home.path("bad")).expect("removed");
    }
}

/// The folder `run/model/adapter` as `name`, its config and tensors changed as PEFT may save them.
fn peft_folder(
    home: &Home,
    name: &str,
    config: impl FnOnce(&mut Value),
    tensors: impl FnOnce(&mut Tensors),
) {
    copy_folder(&home.path("run/model/adapter"), &home.path(name));
    let mut json = home.json(&format!("{name}/adapter_config.json"));
    config(&mut json);
    home.write(&format!("{name}/adapter_config.json"), json.to_string());
    let file = home.path(format!("{name}/adapter_model.safetensors"));
    let mut all = read(&file);
    tensors(&mut all);
    write(&file, &all);
}

#[test]
fn adapter_folders_in_every_spelling_of_peft() {
    let home = Home::with_config();
    home.train("run", format!("{LORA} train.max_steps=2"))
        .done();
    let table = read(&home.path("run/model/llm/model.safetensors"));
    let table = table["model.embed_tokens.weight"].clone();

    let pattern = r"^model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj$";
    peft_folder(
        &home,
        "pattern",
        |c| c["target_modules"] = pattern.into(),
        |_| {},
    );
    // A plain state_dict has the adapter's own name in every tensor's.
    let own_name = |all: &mut Tensors| {
        let named = std::mem::take(all).into_iter();
        all.extend(named.map(|(name, t)| (name.replace(".weight", ".default.weight"), t)));
    };
    peft_folder(&home, "state_dict", |_| {}, own_name);
    let word_table = "base_model.model.model.embed_tokens.weight";
    let saved = |c: &mut Value| c["modules_to_save"] = json!(["embed_tokens", "lm_head"]);
    let with = |words: RawTensor| {
        move |all: &mut Tensors| {
            all.insert("base_model.model.lm_head.weight".into(), words.clone());
            all.insert(word_table.into(), words);
        }
    };
    peft_folder(&home, "words", saved, with(table.clone()));
    let larger: Vec<f32> = table.values().iter().map(|value| value * 1.5).collect();
    let other = RawTensor::of(&table.shape, &larger);
    peft_folder(&home, "other_words", saved, with(other.clone()));

    let losses_from = |folder: &str| {
        let run = format!("from_{}", folder.replace('/', "_"));
        let sets = format!(
            "{TUNED} model.llm.path=run/model/llm model.llm.lora.path={folder} \
            train.max_steps=2 train.saliency_every_steps=0 eval.baselines=[]"
        );
        home.train(&run, sets).done();
        losses(&events(&home, &run))
    };
    let plain = losses_from("run/model/adapter");
    for same in ["pattern", "state_dict", "words"] {
        assert_eq!(losses_from(same), plain, "{same}");
    }
    assert_ne!(losses_from("other_words"), plain);
    let written = read(&home.path("from_other_words/model/llm/model.safetensors"));
    assert_eq!(written["model.embed_tokens.weight"], other);

    peft_folder(
        &home,
        "none",
        |c| c["target_modules"] = r".*\.c_attn".into(),
        |_| {},
    );
    let (rows, half) = (table.shape[0], table.shape[1] / 2);
    let narrow = RawTensor::of(&[rows, half], &vec![0.0; rows * half]);
    peft_folder(&home, "narrow", saved, with(narrow));
    for (folder, words) in [
        ("none", ["no linear map", "c_attn"]),
        ("narrow", ["table of words", "does not fit"]),
    ] {
        let sets = format!("{TUNED} model.llm.lora.path={folder}");
        home.refused(training("tiny.toml", "bad", sets), &words);
    }
}
