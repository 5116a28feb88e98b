//! What a run says that it will take, against what it takes; and runs that cannot fit.

mod support;

use std::fs;

use serde_json::Value;
use support::{Home, events, files_below, losses, named, training};

// Batches of these few notes hold most of them several times.
const SHORT: &str = "train.max_steps=2 train.merge_duplicates=false train.eval_every_steps=0 \
    data.pairs.validation_fraction=0 data.prefetch_batches=1 \
    train.saliency_every_steps=0 eval.baselines=[]";

fn bytes(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no bytes: {value}"))
}

fn predicted(home: &Home, run: &str) -> Value {
    let events = events(home, run);
    named(&events, "preflight")[0].clone()
}

#[test]
fn a_run_says_what_it_will_take() {
    let home = Home::with_config();
    let ran = home.train("run", "train.max_steps=8 eval.baselines=[]");
    ran.done();
    for word in ["predicted:", "weights ", "activations ", "peak ", "disk "] {
        assert!(ran.err.contains(word), "no `{word}`: {ran:?}");
    }
    let events = events(&home, "run");
    let names: Vec<&Value> = events.iter().take(2).map(|event| &event["event"]).collect();
    assert_eq!(names, ["run_started", "preflight"]);
    let found = named(&events, "preflight");
    assert_eq!(found.len(), 2, "{found:?}");
    let parts = found[0]["memory_bytes"].as_object().expect("a map");
    let part = |name: &str| bytes(&parts[name]);
    // Moments of all that learns, in f32; gradients of the same.
    assert_eq!(part("optimiser"), 2 * part("gradients"));
    let held: u64 = ["program", "loader", "weights", "optimiser"]
        .map(part)
        .iter()
        .sum();
    assert!(bytes(&found[0]["peak_host_bytes"]) > held);
    assert_eq!(found[0]["peak_device_bytes"], Value::Null);
    assert_eq!(found[0]["seconds_left"], Value::Null);
    // The first step is not timed.
    assert_eq!(
        (&found[1]["step"], &found[1]["timed_steps"]),
        (&6.into(), &5.into())
    );
    assert!(
        found[1]["seconds_left"]
            .as_f64()
            .is_some_and(|seconds| seconds > 0.0)
    );
    ran.shows(&["to the end, evaluations included"]);

    // The run folder never held more than was said.
    let files = files_below(&home.path("run/checkpoints/step-8")).into_iter();
    let sizes = files.map(|file| fs::metadata(file).expect("a file").len());
    let weights: u64 = sizes.sum();
    assert!(bytes(&found[0]["disk_bytes"]) > weights, "{weights}");
}

#[test]
fn a_run_that_cannot_fit_is_refused_with_what_would_fit() {
    let home = Home::with_config();
    let sets = format!("{SHORT} train.batch_pairs=64");
    home.train("run", &sets).done();
    let peak = bytes(&predicted(&home, "run")["peak_host_bytes"]);
    let parts = predicted(&home, "run")["memory_bytes"].clone();
    // Less than all by half of the activations.
    let limit = peak - bytes(&parts["activations"]) / 2;
    let limit = format!("backend.max_memory_bytes={limit}");
    let limited = format!("{sets} {limit}");
    let ran = home.train("small", &limited);
    ran.failed_with(
        1,
        &[
            "training would take",
            "train.micro_batch_notes = ",
            "activations",
        ],
    );
    assert!(!home.path("small").exists());
    let line = ran
        .err
        .lines()
        .find(|line| line.contains("it would fit with"));
    let line = line.expect("a way out");
    let notes = line.split("micro_batch_notes = ").nth(1).expect("a number");
    let notes: String = notes.chars().take_while(char::is_ascii_digit).collect();
    let found = format!("train.micro_batch_notes={notes}");
    home.train("small", format!("{limited} {found}")).done();

    // Nothing helps; and a whole run folder stays as it is.
    let before = home.files();
    let ran = home.mlrm("train tiny.toml --overwrite --set backend.max_memory_bytes=1000");
    ran.failed_with(
        1,
        &[
            "there are 1000 B",
            "take a smaller model",
            "backend.max_memory_bytes",
        ],
    );
    assert_eq!(home.files(), before);
}

/// `auto` takes the most notes that fit, says how many, and keeps to that number.
#[test]
fn as_many_notes_as_fit_are_held() {
    let home = Home::with_config();
    let auto = "train.micro_batch_notes=auto";
    let sets = format!("{SHORT} train.batch_pairs=64 {auto}");
    let ran = home.train("all", &sets);
    ran.done();
    ran.tells(&["128 notes, all held at a time (auto)"]);
    let all = predicted(&home, "all");
    assert_eq!(all["micro_batch_notes"], 0);
    let peak = bytes(&all["peak_host_bytes"]);
    let activations = bytes(&all["memory_bytes"]["activations"]);
    // Less than all of it, with room for a prediction that is off.
    let limit = (peak - activations / 2) as f64 / 0.85;
    let limit = format!("backend.max_memory_bytes={limit:.0}");
    let limited = format!("{sets} {limit}");
    home.train("auto", &limited).done();
    let found = predicted(&home, "auto");
    let held = bytes(&found["micro_batch_notes"]);
    assert!((2..128).contains(&held), "{found}");
    assert!(bytes(&found["peak_host_bytes"]) < peak - activations / 2 + (2 << 20));
    let line = format!("micro_batch_notes = {held}\n");
    assert!(home.read("auto/config.toml").contains(&line));
    // Parts of like size, no fewer than there have to be.
    let parts = 128_u64.div_ceil(held);
    assert_eq!(held, 128_u64.div_ceil(parts));
    let fewer = 128_u64.div_ceil(parts - 1);
    home.train("fewer", format!("{sets} train.micro_batch_notes={fewer}"))
        .done();
    let fewer = bytes(&predicted(&home, "fewer")["peak_host_bytes"]);
    assert!(fewer + (2 << 20) > peak - activations / 2, "{fewer}");

    // With more memory, the run that goes on holds what it held, and learns what it would have learnt.
    let two = format!("{sets} train.schedule=constant train.warmup_ratio=0");
    let four = format!("{two} train.max_steps=4");
    home.train("stopped", format!("{two} {limit}")).done();
    home.mlrm(training("tiny.toml", "stopped", &four) + " --resume")
        .done();
    home.train("whole", format!("{four} train.micro_batch_notes={held}"))
        .done();
    assert_eq!(
        losses(&events(&home, "stopped")),
        losses(&events(&home, "whole"))
    );
    assert_eq!(losses(&events(&home, "whole")).len(), 4);
}

/// The disk that features of pictures take is told beside that of the run.
#[test]
fn kept_features_are_predicted() {
    let home = Home::with_config();
    let sets = format!("{SHORT} train.feature_cache=features");
    let ran = home.train("run", &sets);
    ran.done();
    ran.tells(&["features      at most"]);
    let said = bytes(&predicted(&home, "run")["feature_cache_bytes"]);
    // 80 pictures of a summary and five positions, 24 wide in f32, with two hashes each.
    assert_eq!(said, 80 * (6 * 24 * 4 + 64));
    home.train("none", SHORT).done();
    assert_eq!(predicted(&home, "none")["feature_cache_bytes"], Value::Null);
}

/// Configs whose memory is that of the model, each in a second or two.
#[test]
#[cfg(target_os = "linux")]
fn predictions_are_near_what_runs_take() {
    let home = Home::with_config();
    let wide = "model.llm.hidden_size=256 model.llm.num_hidden_layers=4 \
        model.llm.intermediate_size=704";
    let cases = [
        (
            "doubled notes once",
            "train.batch_pairs=256 train.max_steps=1 train.merge_duplicates=true",
        ),
        ("many notes", "train.batch_pairs=256 train.max_steps=1"),
        (
            "in parts",
            "train.batch_pairs=256 train.max_steps=1 train.micro_batch_notes=64",
        ),
        ("wide", "train.batch_pairs=32"),
        (
            "wide, layers again",
            "train.batch_pairs=32 train.checkpoint_layers=true",
        ),
        ("wide, lora", "train.batch_pairs=32 model.llm.tune=lora"),
        (
            "wide, q8",
            "train.batch_pairs=32 model.llm.tune=frozen model.llm.quantisation=q8",
        ),
    ];
    let mut far = Vec::new();
    for (index, (name, sets)) in cases.into_iter().enumerate() {
        let run = format!("run-{index}");
        let wide = if name.starts_with("wide") { wide } else { "" };
        home.train(
            &run,
            format!("{SHORT} data.pairs.test_fraction=0.02 {wide} {sets}"),
        )
        .done();
        let said = bytes(&predicted(&home, &run)["peak_host_bytes"]) as f64;
        let events = events(&home, &run);
        let took = bytes(&events[events.len() - 1]["peak_host_bytes"]) as f64;
        let line = format!(
            "{name}: said {:.1} MiB, took {:.1} MiB",
            said / 1048576.0,
            took / 1048576.0
        );
        println!("{line}");
        if !(0.75..1.25).contains(&(said / took)) {
            far.push(line);
        }
    }
    assert!(far.is_empty(), "{far:#?}");
}
