//! `train.feature_cache` through the binary.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use support::{Home, Ran, events, losses, named, training, warned};

/// More than one pass over the pairs. Swaps too: what counts is the picture that a note shows.
const SETS: &str = "train.max_steps=40 train.batch_pairs=16 train.eval_every_steps=15 \
    train.swap.share=0.5 eval.baselines=['image_only']";

const KEPT: &str = "train.feature_cache=features";

/// Hash and checksum, the class token and five positions of 24 numbers.
const RECORD: u64 = 64 + 6 * 24 * 4;

fn with(more: &str) -> String {
    format!("{SETS} {more}")
}

/// The files that hold features below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let list = |path: PathBuf| {
        let entries = fs::read_dir(path).into_iter().flatten();
        entries.map(|entry| entry.expect("an entry").path())
    };
    let encoders = list(folder.to_owned()).filter(|path| path.is_dir());
    let files = encoders.flat_map(list);
    let mut files: Vec<PathBuf> = files
        .filter(|file| file.extension().is_some_and(|ending| ending == "features"))
        .collect();
    files.sort();
    files
}

/// How many pictures the files hold.
fn records(files: &[PathBuf]) -> u64 {
    let sizes = files
        .iter()
        .map(|file| fs::metadata(file).expect("a file").len());
    let bytes: u64 = sizes.sum();
    assert_eq!(bytes % RECORD, 0);
    bytes / RECORD
}

/// What a run warns of features.
fn warnings(home: &Home, run: &str) -> Vec<String> {
    let events = events(home, run);
    let messages = warned(&events, "features").into_iter();
    messages.map(str::to_owned).collect()
}

/// What a run found of its features.
fn found(home: &Home, run: &str) -> Value {
    named(&events(home, run), "run_started")[0]["feature_cache"].clone()
}

/// Step → passes over the pairs before it, and pictures that were encoded in it.
fn encoded(home: &Home, run: &str) -> Vec<(f64, u64)> {
    let events = events(home, run);
    let steps = named(&events, "train_step").into_iter();
    let mut passes = 0.0;
    let step = |event: &Value| {
        let before = passes;
        passes = event["epoch"].as_f64().expect("a number");
        (
            before,
            event["pictures_encoded"].as_u64().expect("a number"),
        )
    };
    steps.map(step).collect()
}

fn all_encoded(home: &Home, run: &str) -> u64 {
    encoded(home, run)
        .iter()
        .map(|(_, pictures)| pictures)
        .sum()
}

#[test]
fn kept_features_change_no_bit_and_are_shared() {
    let home = Home::with_config();
    home.train("plain", SETS).done();
    let plain = losses(&events(&home, "plain"));
    assert_eq!(found(&home, "plain"), Value::Null);
    assert!(all_encoded(&home, "plain") > 300);

    let first = home.train("first", with(KEPT));
    first.done();
    assert_eq!(losses(&events(&home, "first")), plain);
    first.tells(&["0 of 80 are there, 80 more will take"]);
    let written = files(&home.path("features"));
    assert_eq!((written.len(), records(&written)), (1, 80));
    let steps = encoded(&home, "first");
    assert!(
        (30..=80).contains(&all_encoded(&home, "first")),
        "{steps:?}"
    );
    // From the second pass on nothing is encoded: the evaluation before it has seen all pictures.
    let second: Vec<_> = steps.iter().filter(|(passes, _)| *passes >= 1.0).collect();
    assert!(
        second.len() > 5 && second.iter().all(|(_, pictures)| *pictures == 0),
        "{steps:?}"
    );

    // A second run encodes nothing at all, and adds nothing.
    home.train("second", with(KEPT)).done();
    assert_eq!(losses(&events(&home, "second")), plain);
    assert_eq!(all_encoded(&home, "second"), 0);
    assert_eq!(found(&home, "second")["missing"], 0);
    assert_eq!(files(&home.path("features")), written);
    assert!(warnings(&home, "second").is_empty());
    measured_the_same(&home, "plain", "second");

    // Another encoder shares nothing.
    home.train("other", with(KEPT) + " run.seed=2").done();
    assert_eq!(found(&home, "other")["missing"], 80);
}

/// Commands that read the pictures of two runs of equal weights, one of which keeps features, find
/// equal numbers.
#[track_caller]
fn measured_the_same(home: &Home, plain: &str, kept: &str) {
    let written = files(&home.path("features"));
    let evaluated = |run: &str| home.mlrm(format!("eval {run} --json")).done().json();
    assert_eq!(evaluated(kept), evaluated(plain));
    let embedded = |run: &str| {
        let out = format!("{run}.npy");
        let notes = format!("--notes data/notes.jsonl --out {out} --batch-notes 7");
        home.mlrm(format!("embed {run} {notes}")).done();
        fs::read(home.path(&out)).expect("embeddings")
    };
    assert_eq!(embedded(kept), embedded(plain));
    let scores =
        |run: &str| home.mlrm(format!("saliency {run} --json")).done().json()["layers"].clone();
    assert_eq!(scores(kept), scores(plain));
    assert_eq!(files(&home.path("features")), written);
}

#[test]
fn parts_of_a_batch_read_the_same_features() {
    let home = Home::with_config();
    let parts = with("train.micro_batch_notes=3");
    home.train("plain", &parts).done();
    home.train("kept", format!("{parts} {KEPT}")).done();
    let plain = losses(&events(&home, "plain"));
    assert_eq!(losses(&events(&home, "kept")), plain);
    // A notes' pictures are encoded together with others, wherever they come.
    home.train("whole", with(KEPT)).done();
    home.train("parts", format!("{parts} {KEPT}")).done();
    assert_eq!(losses(&events(&home, "parts")), plain);
    assert_eq!(all_encoded(&home, "parts"), 0);
}

#[test]
fn a_damaged_entry_is_named_once_and_computed_again() {
    let home = Home::with_config();
    home.train("plain", SETS).done();
    home.train("first", with(KEPT)).done();
    let before = files(&home.path("features"));
    // One value of one picture, and the end cut off, as by a process that was killed.
    let mut bytes = fs::read(&before[0]).expect("features");
    bytes[(3 * RECORD + 100) as usize] ^= 64;
    bytes.truncate(bytes.len() - 10);
    fs::write(&before[0], bytes).expect("a file");
    home.train("second", with(KEPT)).done();
    let plain = losses(&events(&home, "plain"));
    assert_eq!(losses(&events(&home, "second")), plain);
    let said = warnings(&home, "second");
    assert!(
        said.len() == 1 && said[0].contains("1 damaged entry"),
        "{said:?}"
    );
    assert!(
        said[0].contains(
            before[0]
                .file_name()
                .and_then(|n| n.to_str())
                .expect("a name")
        )
    );
    let after = files(&home.path("features"));
    let new: Vec<PathBuf> = after
        .into_iter()
        .filter(|file| !before.contains(file))
        .collect();
    assert_eq!(records(&new), 2);
    home.train("third", with(KEPT)).done();
    assert!(warnings(&home, "third").is_empty());
    assert_eq!(all_encoded(&home, "third"), 0);
}

#[test]
fn two_processes_fill_one_folder() {
    let home = Home::with_config();
    home.train("plain", SETS).done();
    let plain = losses(&events(&home, "plain"));
    let start = |run: &str| {
        let mut command = home.command(training("tiny.toml", run, with(KEPT)));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("the binary runs")
    };
    let runs = ["one", "two", "three"];
    let children = runs.map(start);
    for child in children {
        let output = child.wait_with_output().expect("an end");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
    }
    for run in runs {
        assert_eq!(losses(&events(&home, run)), plain, "{run}");
        assert!(warnings(&home, run).is_empty());
    }
    // Nobody wrote what another one had written.
    assert_eq!(records(&files(&home.path("features"))), 80);
}

#[test]
fn past_its_bound_the_cache_keeps_what_fits() {
    let home = Home::with_config();
    home.train("plain", SETS).done();
    let ran = home.train("bound", with(KEPT) + " train.feature_cache_max_bytes=7000");
    ran.done();
    let plain = losses(&events(&home, "plain"));
    assert_eq!(losses(&events(&home, "bound")), plain);
    let said = ["10 more will take", "70 will be encoded each time"];
    assert!(said.iter().all(|words| ran.err.contains(words)), "{ran:?}");
    assert_eq!(found(&home, "bound")["will_be_kept"], 10);
    let said = warnings(&home, "bound");
    assert!(
        said.len() == 1 && said[0].contains("feature_cache_max_bytes"),
        "{said:?}"
    );
    assert_eq!(records(&files(&home.path("features"))), 10);
}

#[test]
fn a_shorter_format_rounds_alike_whoever_computes() {
    let home = Home::with_config();
    home.train("plain", SETS).done();
    let plain = losses(&events(&home, "plain"));
    for dtype in ["bf16", "f16"] {
        let kept = format!("train.feature_cache={dtype} train.feature_cache_dtype={dtype}");
        let kept = with(&kept);
        let run = |name: &str| {
            let run = format!("{dtype}-{name}");
            home.train(&run, &kept).done();
            losses(&events(&home, &run))
        };
        let first = run("first");
        assert_ne!(first, plain);
        assert_eq!(run("second"), first);
        let files = files(&home.path(dtype));
        let bytes = files.iter().map(|f| fs::metadata(f).expect("a file").len());
        assert_eq!(bytes.sum::<u64>(), 80 * (64 + 6 * 24 * 2));
    }
}

/// By itself, features are kept of encoders that others gave, where all of them fit.
#[test]
fn auto_keeps_features_of_given_encoders_in_the_users_cache() {
    let home = Home::with_config();
    home.train("start", "train.max_steps=2").done();
    assert!(files(&home.path(".cache/mlrm/features")).is_empty());
    let given = with("model.path=start/model");
    let ran: Ran = home.train("first", &given);
    ran.done();
    ran.tells(&["features of pictures are kept in"]);
    let written = files(&home.path(".cache/mlrm/features"));
    assert_eq!(records(&written), 80);
    // Of the model that came of it, they are the same: nothing is encoded to measure it.
    let evaluated = home.mlrm("eval first");
    evaluated.done().tells(&["80 of 80 are there"]);
    // A run in which few pictures come twice would keep none, and reads what is there.
    let short = with("model.path=start/model ") + "train.max_steps=1";
    home.train("short", short)
        .done()
        .tells(&["80 of 80 are there"]);
    home.train("off", format!("{given} train.feature_cache=off"))
        .done();
    assert_eq!(found(&home, "off"), Value::Null);
    assert_eq!(
        losses(&events(&home, "off")),
        losses(&events(&home, "first"))
    );

    // Where not all of them fit, or few pictures come twice, nothing is kept.
    home.train("start2", "train.max_steps=2 run.seed=2").done();
    for bound in ["train.feature_cache_max_bytes=7000", "train.max_steps=1"] {
        home.train("unasked", with("model.path=start2/model ") + bound)
            .done();
        assert_eq!(found(&home, "unasked"), Value::Null);
        assert_eq!(files(&home.path(".cache/mlrm/features")), written);
        fs::remove_dir_all(home.path("unasked")).expect("a run");
    }
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let home = Home::with_config();
    home.write("file", "no folder");
    home.mlrm("train tiny.toml --set train.feature_cache=file")
        .failed_with(1, &["file"]);
}
