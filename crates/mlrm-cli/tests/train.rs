//! `mlrm train`: the run folder, the same losses twice, stopping and going on, every kind of model.

mod support;
#[path = "support/tensors.rs"]
mod tensors;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{
    Home, end, events, losses, named, resume, set, signal, take_back, train_until, training, warned,
};
use tensors::read;

#[test]
fn a_run_leaves_the_whole_run_folder() {
    let home = Home::with_config();
    let ran = home.train("run", "");
    ran.done().shows(&["Recall@"]);
    check_events(&events(&home, "run"));
    check_eval(&home.json("run/eval.json"));

    let steps = ["run/checkpoints/step-3", "run/checkpoints/step-6"];
    for folder in steps {
        check_model(&home.path(folder).join("model"));
        for file in ["state.json", "optimiser.safetensors"] {
            assert!(home.path(folder).join(file).is_file(), "{folder}/{file}");
        }
    }
    check_model(&home.path("run/model"));
    let target = |link| fs::read_link(home.path(link)).expect(link);
    assert_eq!(target("run/last"), Path::new("checkpoints/step-6"));
    assert!(
        steps
            .map(|step| home.path(step))
            .contains(&home.path("run").join(target("run/best")))
    );
    assert!(
        !home
            .files()
            .keys()
            .any(|path| path.display().to_string().contains(".writing"))
    );

    // The resolved config is a config: the same run again, from its own file.
    let words = "train run/config.toml --set run.dir=again";
    home.mlrm(words).done();
    assert_eq!(
        losses(&events(&home, "again")),
        losses(&events(&home, "run"))
    );
}

fn check_events(events: &[Value]) {
    let first = &events[0];
    assert_eq!(first["event"], "run_started");
    assert_eq!(first["device"], "flex");
    assert_eq!(first["total_steps"], 6);
    assert_eq!(first["config"]["train"]["max_steps"], 6);
    assert_eq!(first["resumed_from_step"], Value::Null);
    end(events, "completed");
    let steps = named(events, "train_step");
    assert_eq!(steps.len(), 6);
    for step in steps {
        for key in [
            "epoch",
            "loss",
            "loss_multimodal",
            "loss_visual",
            "learning_rate",
            "gate_mean",
            "temperature_logit",
            "gradient_norm",
            "notes_per_second",
        ] {
            assert!(
                step[key].as_f64().is_some_and(f64::is_finite),
                "{key} of {step}"
            );
        }
        // Method §3: the two parts in the ratio 9 : 1.
        let part = |name: &str| step[name].as_f64().unwrap_or(f64::NAN);
        let whole = (9.0 * part("loss_multimodal") + part("loss_visual")) / 10.0;
        assert!((whole - part("loss")).abs() < 1e-5, "{step}");
        let phases = step["seconds_by_phase"].as_object().expect("phases");
        let phases: Vec<&str> = phases.keys().map(String::as_str).collect();
        let expected = "vision connector llm_forward backward optimiser data";
        assert_eq!(phases.join(" "), expected);
    }
    let evaluations = named(events, "evaluation");
    let splits: Vec<_> = evaluations.iter().map(|e| &e["split"]).collect();
    assert_eq!(splits, ["validation", "validation", "test"]);
    for evaluation in &evaluations {
        let figure = |name: &str| evaluation[name].as_f64().unwrap_or(f64::NAN);
        assert!((-8.0..0.0).contains(&figure("uniformity")), "{evaluation}");
        assert!((0.0..4.0).contains(&figure("alignment")), "{evaluation}");
    }
    // The final table has confidence intervals; they cost too much to be taken all the time.
    let metrics = |evaluation: &Value| evaluation["slices"]["all"].clone();
    let last = metrics(evaluations[2]);
    let bound = |name: &str| last[name].as_f64().unwrap_or(f64::NAN);
    assert!(
        bound("mrr:low") < bound("mrr") && bound("mrr") < bound("mrr:high"),
        "{last}"
    );
    assert!(metrics(evaluations[0])["mrr:low"].is_null());
    let saliency = named(events, "saliency");
    assert!(!saliency.is_empty());
    assert_eq!(saliency[0]["layers"].as_array().map(Vec::len), Some(2));
    assert!(!named(events, "checkpoint_saved").is_empty());
}

fn check_eval(eval: &Value) {
    assert_eq!(eval["pool"], 80);
    assert!(eval["queries"].as_u64().is_some_and(|queries| queries > 0));
    for slice in [
        "all",
        "short_query",
        "long_query",
        "short_target",
        "long_target",
    ] {
        assert!(eval["slices"][slice].is_object(), "{slice}");
    }
    let share = |metrics: &Value, name: &str| {
        let value = metrics[name]
            .as_f64()
            .unwrap_or_else(|| panic!("no {name} in {metrics}"));
        assert!((0.0..=1.0).contains(&value), "{name} is {value}");
        value
    };
    let models = ["bm25", "popularity", "random", "text_only", "image_only"]
        .map(|name| &eval["baselines"][name]["all"]);
    for metrics in models.into_iter().chain([&eval["slices"]["all"]]) {
        assert!(share(metrics, "recall@1") <= share(metrics, "recall@10"));
        assert!(share(metrics, "recall@10") <= share(metrics, "recall@100"));
        for name in ["ndcg@10", "mrr@10", "hit@10"] {
            share(metrics, name);
        }
        // A pool of 80 is within the first 100.
        assert!((share(metrics, "recall@100") - 1.0).abs() < 1e-12);
    }
}

fn check_model(folder: &Path) {
    for file in [
        "mlrm.toml",
        "head.safetensors",
        "llm/config.json",
        "llm/model.safetensors",
        "llm/tokenizer.json",
        "vision/config.json",
        "vision/model.safetensors",
        "vision/preprocessor_config.json",
    ] {
        assert!(folder.join(file).is_file(), "{}/{file}", folder.display());
    }
}

#[test]
fn the_seed_decides_every_loss() {
    let home = Home::with_config();
    let quick = "eval.baselines=[]";
    home.train("first", quick).done();
    home.train("second", quick).done();
    home.train("threads", "eval.baselines=[] data.loader_threads=3")
        .done();
    home.train("other", "eval.baselines=[] run.seed=2").done();
    let first = losses(&events(&home, "first"));
    assert_eq!(first.len(), 6);
    assert_eq!(losses(&events(&home, "second")), first);
    assert_eq!(losses(&events(&home, "threads")), first);
    let other = losses(&events(&home, "other"));
    for (step, text) in &first {
        assert_ne!(text, &other[step], "step {step}");
    }
    let model =
        |run: &str| fs::read(home.path(run).join("model/head.safetensors")).expect("a head");
    assert_eq!(model("second"), model("first"));
    assert_ne!(model("other"), model("first"));
}

#[test]
fn a_second_run_in_the_same_folder_is_refused() {
    let home = Home::trained();
    home.refused(
        "train tiny.toml",
        &["run already holds a run", "--resume", "--overwrite"],
    );
    home.train("run", "train.max_steps=1 eval.baselines=[]")
        .failed_with(1, &["--overwrite"]);
    let more = "--overwrite --set train.max_steps=1 --set eval.baselines=[]";
    home.mlrm(format!("train tiny.toml {more}")).done();
    let events = events(&home, "run");
    assert_eq!(losses(&events).len(), 1);
    assert!(home.path("run/checkpoints/step-1").is_dir());
    assert!(
        !home.path("run/checkpoints/step-2").exists(),
        "the old run is gone"
    );
}

#[test]
fn there_must_be_something_to_resume() {
    let home = Home::trained();
    let words = "train tiny.toml --resume --set run.dir=other";
    home.refused(words, &["other holds no checkpoint to resume from"]);
    let both = home.mlrm("train tiny.toml --resume --overwrite");
    both.failed_with(2, &["--resume", "--overwrite"]);
}

#[test]
fn a_run_does_not_go_on_with_another_model() {
    let home = Home::trained();
    let sets = "model.llm.hidden_size=64 model.head.dim=0 prompt.topics=2 \
        tokenizer.train_vocab_size=400";
    let differences = [
        "run was begun with other settings",
        "model.llm.hidden_size is 32 there and 64 here",
        "model.head.dim is 16 there and 0 here",
        "prompt.topics is 3 there and 2 here",
        "tokenizer.train_vocab_size is 300 there and 400 here",
        "mlrm train run/config.toml --resume",
    ];
    let words = format!("train run/config.toml --resume{}", set(sets));
    home.refused(words, &differences);

    // What a checkpoint leaves open may change.
    let sets = "train.max_steps=4 train.learning_rate=1e-4 model.llm.tune=frozen";
    resume(&home, "run", &set(sets)).done();
    assert_eq!(losses(&events(&home, "run")).len(), 4);
}

/// Enough steps to be caught in their midst.
const LONG: &str = "train.max_steps=60 train.eval_every_steps=20 train.save_every_steps=4 \
    eval.baselines=[]";

#[test]
#[cfg(unix)]
fn a_stopped_run_goes_on_as_if_it_had_not_stopped() {
    let home = Home::with_config();
    home.train("whole", LONG).done();
    let whole = losses(&events(&home, "whole"));
    assert_eq!(whole.len(), 60);

    let mut child = train_until(&home, "stopped", LONG, 3);
    signal(&child, "-INT");
    assert_eq!(child.wait().expect("an end").code(), Some(0));
    let stopped = events(&home, "stopped");
    end(&stopped, "stopped");
    let saved = named(&stopped, "checkpoint_saved");
    let saved = saved.last().expect("a checkpoint");
    assert_eq!(saved["reason"], "stopped");
    let step = saved["step"].as_u64().expect("a step");
    assert!((3..60).contains(&step), "stopped after step {step}");
    assert_eq!(losses(&stopped).len() as u64, step);
    let last = fs::read_link(home.path("stopped/last")).expect("a link");
    assert_eq!(last, Path::new(&format!("checkpoints/step-{step}")));

    home.mlrm("train stopped/config.toml --resume").done();
    let resumed = events(&home, "stopped");
    let starts = named(&resumed, "run_started");
    assert_eq!(starts[starts.len() - 1]["resumed_from_step"], step);
    end(&resumed, "completed");
    assert_eq!(losses(&resumed), whole);
    let metrics = |run: &str| home.json(&format!("{run}/eval.json"));
    assert_eq!(metrics("stopped"), metrics("whole"));
}

#[test]
fn a_killed_run_goes_on_from_its_last_checkpoint() {
    let home = Home::with_config();
    home.train("whole", LONG).done();
    let mut child = train_until(&home, "killed", LONG, 10);
    child.kill().expect("a kill");
    child.wait().expect("an end");
    home.mlrm("train killed/config.toml --resume").done();
    let killed = events(&home, "killed");
    let starts = named(&killed, "run_started");
    let from = starts[1]["resumed_from_step"].as_u64().expect("a step");
    assert!(
        from >= 4 && from.is_multiple_of(4),
        "resumed from step {from}"
    );
    assert_eq!(losses(&killed), losses(&events(&home, "whole")));
}

/// Trains two steps with these settings and gives the run's end, its test metrics and its steps.
#[track_caller]
fn trains(home: &Home, run: &str, sets: &str) -> Vec<Value> {
    let few = "train.max_steps=2 train.eval_every_steps=0 train.save_every_steps=0";
    home.train(run, format!("{few} {sets}")).done();
    let events = events(home, run);
    end(&events, "completed");
    let recall = home.json(&format!("{run}/eval.json"))["slices"]["all"]["recall@10"].as_f64();
    assert!(
        recall.is_some_and(|recall| recall > 0.0),
        "{sets:?}: {recall:?}"
    );
    let steps: Vec<Value> = named(&events, "train_step").into_iter().cloned().collect();
    assert_eq!(steps.len(), 2, "{sets:?}");
    for step in &steps {
        assert!(
            step["gradient_norm"]
                .as_f64()
                .is_some_and(|norm| norm > 0.0),
            "{sets:?}: {step}"
        );
    }
    steps
}

#[test]
fn every_variant_trains_and_evaluates() {
    let home = Home::with_config();
    for variant in [
        "text",
        "image",
        "basic",
        "micl",
        "latefusion",
        "lateearly",
        "notellm2",
    ] {
        let sets = format!("model.variant={variant} eval.baselines=[\"text_only\",\"image_only\"]");
        let steps = trains(&home, variant, &sets);
        let micl = matches!(variant, "micl" | "notellm2");
        let gate = matches!(variant, "latefusion" | "lateearly" | "notellm2");
        assert_eq!(steps[1]["loss_visual"].is_number(), micl, "{variant}");
        assert_eq!(steps[1]["gate_mean"].is_number(), gate, "{variant}");
        let vision = home.path(variant).join("model/vision").is_dir();
        assert_eq!(vision, variant != "text", "{variant}");
    }
}

#[test]
fn every_kind_of_part_trains() {
    let home = Home::with_config();
    let usual = trains(&home, "usual", "eval.baselines=[]");
    let kinds = "objective.kind=dual model.fusion.kind=scalar prompt.layout=after \
        model.connector.projector=linear model.vision.select_feature=patch \
        model.llm.family=llama model.llm.family=qwen3 prompt.language=zh";
    for (index, kind) in kinds.split_whitespace().enumerate() {
        let sets = format!("{kind} eval.baselines=[]");
        let steps = trains(&home, &format!("run-{index}"), &sets);
        assert_ne!(steps[1]["loss"], usual[1]["loss"], "{kind} changes nothing");
    }
}

#[test]
fn a_gate_begins_with_the_weight_that_was_asked_for() {
    let home = Home::with_config();
    for kind in ["vector", "scalar"] {
        for weight in [0.2, 0.5, 0.9] {
            let run = format!("{kind}-{weight}");
            let sets = format!(
                "model.fusion.kind={kind} model.fusion.initial_weight={weight} eval.baselines=[]"
            );
            let mean = trains(&home, &run, &sets)[0]["gate_mean"].as_f64();
            // The weights of a channel spread around it, those of a note do not.
            let near = if kind == "vector" { 0.05 } else { 1e-6 };
            let off = (mean.expect("a gate") - weight).abs();
            assert!(off < near, "{run}: {mean:?}");
            let head = read(&home.path(&run).join("model/head.safetensors"));
            let biased = head.contains_key("gate.trans_all.bias");
            // The paper's has none.
            assert_eq!(biased, kind == "vector" && weight != 0.5, "{run}");
        }
    }
}

#[test]
#[cfg(unix)]
fn a_model_trains_in_bf16_and_in_f16() {
    let home = Home::with_config();
    let few = "train.max_steps=12 train.eval_every_steps=0 eval.baselines=[]";
    home.train("full", few).done();
    let full = events(&home, "full");
    for dtype in ["bf16", "f16"] {
        let sets = format!("{few} backend.dtype={dtype}");
        home.train(dtype, &sets).done();
        let short = events(&home, dtype);
        let steps = named(&full, "train_step")
            .into_iter()
            .zip(named(&short, "train_step"));
        for (index, (full, short)) in steps.enumerate() {
            // In f16 the first steps overflow until the loss scale fits, and are left out.
            if dtype == "f16" && (1..11).contains(&index) {
                continue;
            }
            // The same course, to what 8 bits tell apart (docs, "Numerics"), and not the same bits.
            let (full, short) = (&full["loss"], &short["loss"]);
            let (expected, found) = (
                full.as_f64().expect("a loss"),
                short.as_f64().expect("a loss"),
            );
            assert!(
                (found / expected - 1.0).abs() < 0.02,
                "{short} is not {full}"
            );
            assert_ne!(full, short);
        }
        // A stop loses nothing of weights that the model itself holds in 8 bits.
        let stopped = format!("stopped-{dtype}");
        home.train(&stopped, format!("{sets} train.save_every_steps=6"))
            .done();
        take_back(&home, &stopped, 6);
        resume(&home, &stopped, "").done();
        // `losses` holds the repeated steps against the first ones.
        assert_eq!(losses(&events(&home, &stopped)), losses(&short));
        let scale = &home.json(&format!("{stopped}/last/state.json"))["loss_scale"];
        assert_eq!(scale.is_null(), dtype == "bf16", "{scale}");
    }
}

/// A loss scale that is too large for f16 is halved, the step is left out and told of, and it is not
/// taken for a run that diverges: what is learnt is what f32 learns.
#[test]
#[cfg(unix)]
fn an_overflow_in_f16_is_left_out_and_halves_the_scale() {
    let home = Home::with_config();
    let few = "backend.dtype=f16 train.max_steps=3 train.save_every_steps=1 \
        train.keep_checkpoints=9 eval.baselines=[]";
    home.train("run", few).done();
    let state = home.path("run/checkpoints/step-1/state.json");
    let text = fs::read_to_string(&state).expect("a state");
    let mut json: Value = serde_json::from_str(&text).expect("JSON");
    json["loss_scale"]["factor"] = (2f64.powi(40)).into();
    // Of a format that had no checksums.
    json["format"] = 0.into();
    let checksums = home.path("run/checkpoints/step-1/checksums.json");
    fs::remove_file(checksums).expect("checksums");
    fs::write(&state, json.to_string()).expect("written");
    take_back(&home, "run", 1);
    let longer = set("train.max_steps=40 train.eval_every_steps=0");
    resume(&home, "run", &longer).done();
    let events = events(&home, "run");
    let told = warned(&events, "overflow f16").len();
    let state: Value = home.json("run/last/state.json");
    let overflows = state["loss_scale"]["overflows"].as_u64().expect("a count");
    assert!(overflows > 20 && told as u64 >= overflows, "{state}");
    assert_eq!(state["updates"].as_u64(), Some(40 - overflows), "{state}");
}

/// A device that runs out of memory is given fewer notes at a time, until they fit; what it learns is
/// what it learns with all of them.
#[test]
fn a_device_that_runs_out_of_memory_goes_on_with_fewer_notes() {
    let home = Home::with_config();
    let few = "train.max_steps=3 eval.baselines=[]";
    home.train("whole", few).done();
    let full = |run: &str, notes: &str, more: &str| {
        let words = training("tiny.toml", run, few);
        let mut command = home.command(format!("{words} {more}"));
        home.ran(command.env("MLRM_TEST_DEVICE_NOTES", notes))
    };
    full("less", "2", "").done();
    let (whole, less) = (events(&home, "whole"), events(&home, "less"));
    let steps = named(&whole, "train_step");
    for (whole, less) in steps.iter().zip(named(&less, "train_step")) {
        let loss = |step: &Value| step["loss"].as_f64().expect("a loss");
        assert!(
            (loss(whole) - loss(less)).abs() < 1e-4,
            "{less} is not {whole}"
        );
    }
    let halved = warned(&less, "too little memory");
    assert!(halved.len() >= 2, "{halved:?}");
    let at_once = halved.iter().all(|text| text.starts_with("step 1:"));
    assert!(at_once, "{halved:?}");
    full("none", "0", "").failed_with(1, &["one note", "train.checkpoint_layers"]);

    // A run that goes on knows what fits, and holds no more where more would fit; unless it is told to.
    let warnings = |run: &str, from: usize| -> Vec<String> {
        let events = events(&home, run);
        let told = warned(&events, "").into_iter().skip(from);
        told.map(str::to_owned).collect()
    };
    let before = warned(&less, "").len();
    full("less", "2", "--resume --set train.max_steps=4").done();
    let told = warnings("less", before);
    let is_told = |told: &[String], text: &str| told.iter().any(|told| told.contains(text));
    assert!(is_told(&told, "holds 2 notes at a time"), "{told:?}");
    assert!(!is_told(&told, "too little memory"), "{told:?}");
    let state: Value = home.json("less/last/state.json");
    assert_eq!(state["most_notes_held"], 2, "{state}");
    let before = before + told.len();
    let more = set("train.max_steps=5 train.micro_batch_notes=3");
    full("less", "3", &format!("--resume{more}")).done();
    let told = warnings("less", before);
    assert!(!is_told(&told, "notes at a time"), "{told:?}");
}

#[test]
fn products_in_bf16_keep_the_course_of_those_in_f32() {
    let home = Home::with_config();
    // Wide enough for tiles.
    let few = "train.max_steps=6 train.eval_every_steps=0 eval.baselines=[] \
        model.llm.hidden_size=64";
    let short = format!("{few} backend.matmul_precision=bf16");
    home.train("full", few).done();
    let ran = home.train("short", &short);
    ran.done();
    let losses = |run: &str| -> Vec<f64> {
        let events = events(&home, run);
        let steps = named(&events, "train_step").into_iter();
        steps
            .map(|step| step["loss"].as_f64().expect("a loss"))
            .collect()
    };
    let (full, short) = (losses("full"), losses("short"));
    for (full, short) in full.iter().zip(&short) {
        assert!((short / full - 1.0).abs() < 0.02, "{short} is not {full}");
    }
    let devices = home.mlrm("devices --json").json();
    let flex = &devices.as_array().expect("backends")[0]["devices"][0];
    match flex["bf16_products"].is_string() {
        true => assert_ne!(full, short, "the setting changed nothing"),
        false => {
            assert_eq!(full, short, "f32 products where there are no others");
            assert!(ran.err.contains("matmul_precision"), "{}", ran.err);
        }
    }
    let both = "backend.matmul_precision=bf16 backend.dtype=bf16";
    home.train("both", both)
        .failed_with(1, &["backend.matmul_precision", "backend.dtype"]);
}

#[test]
fn an_embedding_table_may_have_rows_to_spare() {
    let home = Home::with_config();
    home.train(
        "run",
        "model.llm.vocab_size=512 train.max_steps=2 eval.baselines=[]",
    )
    .done();
    let llm = home.json("run/model/llm/config.json");
    assert_eq!(llm["vocab_size"], 512);
    home.mlrm("eval run --set eval.baselines=[]").done();
    // A tokenizer from a file shows its size when it is read.
    let path = "path = \"run/model/llm/tokenizer.json\"";
    home.write(
        "file.toml",
        support::TINY.replace("train_vocab_size = 300", path),
    );
    let ran = home.mlrm(training("file.toml", "small", "model.llm.vocab_size=280"));
    ran.failed_with(1, &["model.llm.vocab_size = 280", "300 tokens"]);
    assert!(!home.path("small").exists());
}

#[test]
fn a_model_folder_is_a_start() {
    let home = Home::trained();
    let (head, rest) = support::TINY.split_once("[tokenizer]").expect("a section");
    let (_, train) = rest.split_once("[train]").expect("a section");
    home.write(
        "more.toml",
        format!("{head}[model]\npath = \"run/model\"\n[train]{train}"),
    );
    let words = "train more.toml --set run.dir=more --set eval.baselines=[]";
    home.mlrm(words).done();
    let more = events(&home, "more");
    assert_eq!(losses(&more).len(), 6);
    // The first loss is that of the weights it began with, not of fresh ones.
    let first = |run: &str| losses(&events(&home, run))[&1].clone();
    assert_ne!(first("more"), first("run"));
}

/// A step uploads what its batch says and reads its numbers back at once: the same number of tensors in each, and
/// their sizes grow with the batch alone.
#[test]
fn a_step_moves_its_batch_and_one_read() {
    let home = Home::with_config();
    home.train("run", "train.max_steps=4 train.feature_cache='off'")
        .done();
    let events = events(&home, "run");
    let steps = named(&events, "train_step");
    assert_eq!(steps.len(), 4);
    let of =
        |step: &serde_json::Value, name: &str| step["transfers"][name].as_u64().expect("a number");
    // Rotary angles and the like are uploaded by the first step and kept.
    assert!(of(steps[0], "uploads") > of(steps[1], "uploads"));
    for step in &steps[1..] {
        assert_eq!(of(step, "reads"), 1);
        assert_eq!(of(step, "read_bytes"), 7 * 4);
        assert_eq!(of(step, "uploads"), of(steps[1], "uploads"));
    }
}

/// What is no negative of what is made on the device: of 400 places less is uploaded in all than one mask of them takes.
#[test]
fn what_is_uploaded_grows_with_the_places_of_a_batch() {
    let home = Home::with_config();
    let set = "train.max_steps=2 train.batch_pairs=200 data.pairs.min_users=1 \
        model.variant='text'";
    home.train("run", set).done();
    let events = events(&home, "run");
    let steps = named(&events, "train_step");
    let bytes = steps[1]["transfers"]["uploaded_bytes"].as_u64();
    assert!(bytes.is_some_and(|bytes| bytes < 400 * 400), "{bytes:?}");
}
