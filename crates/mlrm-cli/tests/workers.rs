//! `mlrm train` on several devices: what one learns, several learn together.

#![cfg(unix)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Home, events, named, resume, set, take_back, training, warned, weights_below};

/// Steps enough for differences to add up.
const STEPS: &str = "train.max_steps=20 train.eval_every_steps=10 train.saliency_every_steps=0 \
    eval.baselines=[]";

const TWO: &str = r#"backend.device=["flex","flex"]"#;
const FOUR: &str = r#"backend.device=["flex","flex","flex","flex"]"#;
const EIGHT: &str = r#"backend.device=["flex","flex","flex","flex","flex","flex","flex","flex"]"#;

#[track_caller]
fn train(home: &Home, run: &str, sets: &str) -> Vec<Value> {
    home.train(run, format!("{STEPS} {sets}")).done();
    events(home, run)
}

/// The loss of each step.
fn losses(events: &[Value]) -> Vec<f64> {
    let steps = named(events, "train_step").into_iter();
    steps
        .map(|step| step["loss"].as_f64().expect("a loss"))
        .collect()
}

#[track_caller]
fn assert_same_course(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (step, (found, expected)) in (1..).zip(found.iter().zip(expected)) {
        assert!(
            (found - expected).abs() <= 1e-5,
            "step {step}: {found} is not {expected}"
        );
    }
}

/// Every file of weights and moments below `folder`.
fn weights(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let found = weights_below(folder, &[""]);
    assert!(!found.is_empty());
    found
}

/// Adapters with dropout over notes that show parts of others; and every weight, by parts, over a loss
/// whose false negatives count.
#[test]
fn several_devices_take_the_steps_of_one() {
    let home = Home::with_config();
    let adapters = "model.llm.tune=lora model.llm.lora.dropout=0.2 train.swap.share=0.5";
    let parts = "train.micro_batch_notes=3 train.checkpoint_layers=true";
    for (name, sets) in [("adapters", adapters), ("parts", parts), ("whole", "")] {
        let expected = losses(&train(&home, name, sets));
        assert_eq!(expected.len(), 20);
        for (device, count) in [(TWO, "two"), (EIGHT, "eight")] {
            let run = format!("{name}-{count}");
            let found = train(&home, &run, &format!("{sets} {device}"));
            assert_same_course(&losses(&found), &expected);
            let started = &named(&found, "run_started")[0]["device"];
            assert!(started.as_str().expect("a text").starts_with("flex, flex"));
        }
    }
}

#[test]
fn a_run_on_two_devices_is_the_same_each_time_and_goes_on_with_any_number() {
    let home = Home::with_config();
    let sets = format!(
        "{TWO} train.save_every_steps=10 train.keep_checkpoints=9 \
        data.pairs.validation_fraction=0 train.swap.share=0.5"
    );
    let whole = train(&home, "first", &sets);
    train(&home, "again", &sets);
    let [first, again] = ["first/model", "again/model"].map(|model| weights(&home.path(model)));
    assert_eq!(first, again);
    let end = "checkpoints/step-20";
    let expected = weights(&home.path("first").join(end));
    for (run, devices) in [("first", TWO), ("again", "backend.device=flex")] {
        // As if it had been killed after its tenth step.
        let folder = home.path(run);
        fs::remove_dir_all(folder.join(end)).expect("a checkpoint");
        take_back(&home, run, 10);
        resume(&home, run, &set(devices)).done();
    }
    assert_eq!(weights(&home.path("first").join(end)), expected);
    let gone_on = events(&home, "again");
    let steps = named(&gone_on, "train_step");
    let second: Vec<f64> = steps[20..]
        .iter()
        .map(|step| step["loss"].as_f64().expect("a loss"))
        .collect();
    assert_eq!(steps[20]["step"], 11);
    assert_same_course(&second, &losses(&whole)[10..]);
}

#[test]
fn workers_keep_features_and_scale_the_loss_and_need_no_notes() {
    let home = Home::with_config();
    let kept = "train.feature_cache=features model.llm.tune=lora";
    let one = train(&home, "one", kept);
    fs::remove_dir_all(home.path("features")).expect("features");
    let two = train(&home, "two", &format!("{kept} {TWO}"));
    assert_same_course(&losses(&two), &losses(&one));
    let encoded = |events: &[Value]| -> u64 {
        let steps = named(events, "train_step").into_iter();
        steps
            .map(|step| step["pictures_encoded"].as_u64().expect("a count"))
            .sum()
    };
    assert!(encoded(&two) >= encoded(&one) && encoded(&one) > 0);
    // What one run kept, another with more workers reads.
    let eight = train(&home, "eight", &format!("{kept} {EIGHT}"));
    assert_eq!(encoded(&eight), 0);

    let f16 = "backend.dtype=f16 train.max_steps=12";
    let one = train(&home, "one-f16", f16);
    let two = train(&home, "two-f16", &format!("{f16} {TWO}"));
    let overflows = |events: &[Value]| warned(events, "overflow f16").len();
    assert!(overflows(&one) > 0);
    assert_eq!(overflows(&two), overflows(&one));

    // Four notes at most: the others of eight workers have none.
    let few = "train.batch_pairs=2";
    let one = train(&home, "one-few", few);
    let eight = train(&home, "eight-few", &format!("{few} {EIGHT}"));
    assert_same_course(&losses(&eight), &losses(&one));
}

#[test]
fn all_workers_hold_fewer_notes_where_one_runs_out_of_memory() {
    let home = Home::with_config();
    let sets = "train.max_steps=3 eval.baselines=[]";
    home.train("one", sets).done();
    let mut command = home.command(training("tiny.toml", "two", format!("{sets} {TWO}")));
    home.ran(command.env("MLRM_TEST_DEVICE_NOTES", "2")).done();
    let two = events(&home, "two");
    assert_same_course(&losses(&two), &losses(&events(&home, "one")));
    let told = warned(&two, "too little memory");
    assert!(told.len() >= 2, "{told:?}");
}

/// Every worker of this machine has gradients and activations of its own; the optimiser is the first one's.
#[test]
fn the_prediction_knows_of_all_workers() {
    let home = Home::with_config();
    // Shares of the same size: no note is merged with another.
    let sets = "train.max_steps=1 train.merge_duplicates=false train.eval_every_steps=0 \
        eval.baselines=[]";
    let bytes = |run: &str, device: &str| -> Value {
        home.train(run, format!("{sets} {device}")).done();
        named(&events(&home, run), "preflight")[0]["memory_bytes"].clone()
    };
    let (one, four) = (bytes("one", ""), bytes("four", FOUR));
    let part = |of: &Value, name: &str| of[name].as_u64().expect("bytes");
    assert_eq!(part(&four, "gradients"), 4 * part(&one, "gradients"));
    assert_eq!(part(&four, "optimiser"), part(&one, "optimiser"));
    assert_eq!(part(&four, "activations"), part(&one, "activations"));
    let old = part(&four, "weights") - part(&one, "weights");
    // Moments are two numbers of each weight.
    assert_eq!(2 * old, part(&one, "optimiser"));
}

/// The paper's settings but for sizes and devices.
#[test]
fn the_papers_config_runs_on_eight_devices() {
    let home = Home::with_notes();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/notellm2-paper.toml");
    let sets = format!(
        "{EIGHT} data.root=data data.images= tokenizer.train_vocab_size=300 \
        model.llm.path= model.llm.hidden_size=32 model.llm.num_hidden_layers=2 \
        model.llm.num_attention_heads=2 model.llm.num_key_value_heads=1 \
        model.llm.intermediate_size=64 model.vision.path= model.vision.hidden_size=24 \
        model.vision.num_hidden_layers=1 model.vision.num_attention_heads=2 \
        model.vision.intermediate_size=48 model.vision.image_size=32 \
        model.vision.patch_size=16 model.connector.layers=2 model.connector.hidden_size=24 \
        model.connector.num_attention_heads=2 model.connector.intermediate_size=48 \
        train.batch_pairs=16 train.max_steps=3 eval.baselines=[]"
    );
    let config = config.display().to_string();
    home.mlrm(training(&config, "paper", sets)).done();
    let paper = events(&home, "paper");
    assert_eq!(losses(&paper).len(), 3);
    assert!(losses(&paper).iter().all(|loss| loss.is_finite()));
    assert_eq!(named(&paper, "run_ended")[0]["reason"], "completed");
}

#[test]
fn a_benchmark_measures_one_device() {
    let home = Home::with_notes();
    let words = format!("bench train folder.toml --set {TWO}");
    home.refused(&words, &["2 devices", "--set backend.device=flex"]);
}
