//! `mlrm embed` interrupted and begun again, on a model that may have changed in between.

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use support::{Home, Ran, training};

const OUT: &str = "notes.npy";

/// Eight parts of ten notes.
fn words(model: &str) -> String {
    format!("embed {model} --notes data/notes.jsonl --out {OUT} --part-notes 10 --batch-notes 1")
}

/// The parts that lie in the folder.
fn parts(home: &Home) -> Vec<PathBuf> {
    let is_part = |path: &PathBuf| path.to_string_lossy().contains(".part-");
    let mut parts: Vec<PathBuf> = home.files().into_keys().filter(is_part).collect();
    parts.sort();
    parts
}

/// Embeds, killed once two parts are there.
#[track_caller]
fn interrupted(home: &Home, model: &str) -> Vec<PathBuf> {
    let whole = |home: &Home| {
        let sealed = |path: &PathBuf| !path.to_string_lossy().contains("unsealed");
        let mut parts = parts(home);
        parts.retain(sealed);
        parts
    };
    // A machine may be quick enough to end the job first: it is tried again.
    for _ in 0..20 {
        let mut running = home.command(words(model)).spawn().expect("the binary runs");
        let start = Instant::now();
        while whole(home).len() < 2 && running.try_wait().expect("its state").is_none() {
            assert!(start.elapsed() < Duration::from_secs(60), "no part");
        }
        running.kill().expect("a kill");
        let _killed = running.wait();
        let kept = whole(home);
        if kept.len() >= 2 {
            return kept;
        }
        fs::remove_file(home.path(OUT)).expect("the result");
    }
    panic!("the job always ended before it could be interrupted");
}

/// The result of an uninterrupted job in one part.
#[track_caller]
fn at_once(home: &Home, model: &str) -> Vec<u8> {
    let out = "at-once.npy";
    let words = format!("embed {model} --notes data/notes.jsonl --out {out} --batch-notes 1");
    home.mlrm(&words).done();
    fs::read(home.path(out)).expect("embeddings")
}

#[track_caller]
fn again(home: &Home, model: &str) -> (Ran, Vec<u8>) {
    let ran = home.mlrm(words(model));
    ran.done();
    assert_eq!(parts(home), Vec::<PathBuf>::new(), "parts are left");
    let result = fs::read(home.path(OUT)).expect("embeddings");
    fs::remove_file(home.path(OUT)).expect("the result");
    (ran, result)
}

#[test]
fn an_interrupted_job_goes_on_to_the_same_bytes() {
    let home = Home::trained();
    let expected = at_once(&home, "run");
    let kept = interrupted(&home, "run");
    let (ran, result) = again(&home, "run");
    let taken = format!("{} of them are from an interrupted run", 10 * kept.len());
    ran.shows(&[&taken]);
    assert_eq!(result, expected);
    let (ran, result) = again(&home, "run");
    assert!(!ran.out.contains("interrupted"), "{ran:?}");
    assert_eq!(result, expected);
}

#[test]
fn parts_that_are_damaged_or_of_other_things_are_computed_again() {
    let home = Home::trained();
    home.train("other", "train.max_steps=2 eval.baselines=[] run.seed=2")
        .done();
    let (expected, of_other) = (at_once(&home, "run"), at_once(&home, "other"));
    assert_ne!(expected, of_other, "otherwise this could not fail");

    // One flipped bit in a part.
    let kept = interrupted(&home, "run");
    let mut bytes = fs::read(&kept[0]).expect("a part");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&kept[0], bytes).expect("a part");
    let (ran, result) = again(&home, "run");
    ran.tells(&["it is damaged"]);
    assert_eq!(result, expected);

    // Another model.
    interrupted(&home, "run");
    let (ran, result) = again(&home, "other");
    assert!(
        ran.err.contains("another model") && !ran.out.contains("interrupted"),
        "{ran:?}"
    );
    assert_eq!(result, of_other);

    // A picture that was replaced: its part alone is computed again.
    let kept = interrupted(&home, "run");
    let is_picture = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "png");
    let pictures: Vec<PathBuf> = home.files().into_keys().filter(is_picture).collect();
    fs::copy(&pictures[1], &pictures[0]).expect("a picture");
    let expected = at_once(&home, "run");
    let (ran, result) = again(&home, "run");
    let taken = format!("{} of them are from an interr", 10 * (kept.len() - 1));
    assert!(
        ran.err.contains("other notes, pictures") && ran.out.contains(&taken),
        "{ran:?}"
    );
    assert_eq!(result, expected);

    // A note that was edited, its id kept.
    interrupted(&home, "run");
    home.edit_line("data/notes.jsonl", 1, |line| {
        line.replace("\"title\":\"", "\"title\":\"another ")
    });
    let expected = at_once(&home, "run");
    let (ran, result) = again(&home, "run");
    assert!(
        ran.err.contains("other notes") && !ran.out.contains("interrupted"),
        "{ran:?}"
    );
    assert_eq!(result, expected);
}

#[test]
fn a_place_that_cannot_be_written_is_refused_before_anything_is_computed() {
    let home = Home::trained();
    fs::create_dir(home.path("folder.npy")).expect("a folder");
    let embed = "embed run --notes data/notes.jsonl --out";
    home.refused(format!("{embed} folder.npy"), &["folder.npy is a folder"]);
    let says = ["nothing can be written in data/notes.jsonl"];
    home.refused(format!("{embed} data/notes.jsonl/x.npy"), &says);
    home.refused("eval run --out folder.npy", &["is a folder"]);
    home.refused("eval run --out none/x.json", &["written in none"]);
    home.refused("saliency run --svg none/x.svg", &["written in none"]);
}

#[test]
fn counts_and_shards_that_hold_nothing_are_refused() {
    let home = Home::trained();
    let with = |option: &str, value: &str| {
        let words = format!("embed run --notes data/notes.jsonl --out {OUT} {option} {value}");
        home.mlrm(&words)
    };
    with("--batch-notes", "0").failed_with(2, &["--batch-notes", "at least 1"]);
    with("--part-notes", "0").failed_with(2, &["--part-notes", "at least 1"]);
    with("--shard", "0/1000").failed_with(1, &["shard 0/1000 of 80 notes holds none"]);
}

#[test]
fn shorter_embeddings_and_those_of_eight_bits_are_trained_measured_written_and_compared() {
    let home = Home::with_config();
    let sizes = "objective.matryoshka_dims=[4,8]";
    let measured = "eval.baselines=[\"int8\"]";
    home.train("run", format!("train.max_steps=2 {sizes} {measured}"))
        .done();
    home.train("whole", format!("train.max_steps=2 {measured}"))
        .done();
    let report = home.json("run/eval.json");
    let names: Vec<&String> = report["baselines"]
        .as_object()
        .expect("rows")
        .keys()
        .collect();
    assert_eq!(names, ["dim_4", "dim_8", "int8"]);
    let recall = |row: &str| report["baselines"][row]["all"]["recall@10"].as_f64();
    assert!(recall("dim_4").is_some_and(|recall| (0.0..=1.0).contains(&recall)));
    // The sizes are trained: the weights are others.
    assert_ne!(report["slices"], home.json("whole/eval.json")["slices"]);

    let embed = |out: &str, options: &str| {
        home.mlrm(format!(
            "embed run --notes data/notes.jsonl --out {out} {options}"
        ))
    };
    embed("whole.npy", "").done();
    embed("small.npy", "--dim 8 --dtype int8").done();
    let bytes = fs::metadata(home.path("small.npy")).expect("a file").len();
    assert_eq!(bytes, 128 + 80 * 8, "a header, and a byte a number");
    let near = |file: &str, options: &str| {
        let words = format!("similar {file} --id n00000 --json -k 5 {options}");
        let found = home.mlrm(words).done().json();
        let scores = found[0]["neighbours"].as_array().expect("a list").iter();
        scores
            .map(|near| near["score"].as_f64().expect("a score"))
            .collect::<Vec<_>>()
    };
    let (cut, rounded) = (near("whole.npy", "--dim 8"), near("small.npy", ""));
    assert_eq!(rounded, near("small.npy", "--dim 8"));
    for (a, b) in cut.iter().zip(&rounded) {
        assert!((a - b).abs() < 0.02, "{cut:?} {rounded:?}");
    }
    assert_ne!(near("whole.npy", ""), cut);
    home.refused(
        "embed run --notes data/notes.jsonl --out x.npy --dim 17",
        &["--dim", "16 dimensions"],
    );
    home.refused(
        "similar small.npy --id n00000 --dim 9",
        &["--dim", "1 to 8"],
    );
    for (set, says) in [
        (
            "objective.matryoshka_dims=[4,17]",
            "embeddings have 16 dimensions, fewer than 17",
        ),
        (
            "objective.matryoshka_dims=[4,4]",
            "the size 4 is listed twice",
        ),
        (
            "objective.matryoshka_weights=[1.0]",
            "1 weights for 0 sizes",
        ),
    ] {
        home.refused(
            format!("train tiny.toml --set {set}"),
            &["objective.matryoshka", says],
        );
    }
    let sets = "model.path=run/model objective.matryoshka_dims=[99]";
    home.refused(
        training("tiny.toml", "x", sets),
        &["objective.matryoshka_dims has 99", "16 dimensions"],
    );
}
