//! `train.feature_cache` through the binary.

mod support;

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use support::{Home, events, losses, named};

/// Swaps too: what counts is the picture that a note shows.
const SETS: [&str; 3] = [
    "train.max_steps=12",
    "train.swap.share=0.5",
    "eval.baselines=[]",
];

/// The files that hold features below `folder`.
fn files(home: &Home, folder: &str) -> Vec<PathBuf> {
    let list = |path: PathBuf| fs::read_dir(path).expect("a folder");
    let encoders = list(home.path(folder)).map(|entry| entry.expect("an entry").path());
    let files = encoders.flat_map(list);
    files.map(|entry| entry.expect("an entry").path()).collect()
}

/// What a run says of its features.
fn warnings(home: &Home, run: &str) -> String {
    let events = events(home, run);
    let message = |event: &&Value| event["message"].as_str().expect("a message").to_owned();
    let messages = named(&events, "warning");
    let messages: Vec<String> = messages.iter().map(message).collect();
    let of_features = messages.into_iter().filter(|m| m.contains("features"));
    of_features.collect::<Vec<String>>().join("\n")
}

#[test]
fn kept_features_change_no_bit_and_are_shared_by_runs() {
    let home = Home::with_config();
    home.train("plain", &SETS).done();
    let plain = losses(&events(&home, "plain"));
    let evaluated = |run: &str| home.mlrm(&["eval", run, "--json"]).done().json()["slices"].clone();
    let kept = [SETS.as_slice(), &["train.feature_cache=features"]].concat();

    home.train("first", &kept).done();
    assert_eq!(losses(&events(&home, "first")), plain);
    let said = warnings(&home, "first");
    assert!(
        said.contains("features of up to 80 of 80 pictures"),
        "{said}"
    );
    let written: u64 = files(&home, "features")
        .iter()
        .map(|file| fs::metadata(file).expect("a file").len())
        .sum();
    // A hash, a checksum, the class token and five positions of 24 numbers, for every picture.
    assert_eq!(written, 80 * (64 + 6 * 24 * 4));

    // Everything is known: nothing is written, and nothing will be.
    let before = files(&home, "features");
    home.train("second", &kept).done();
    assert_eq!(losses(&events(&home, "second")), plain);
    assert_eq!(warnings(&home, "second"), "");
    assert_eq!(evaluated("second"), evaluated("plain"));
    assert_eq!(files(&home, "features"), before);

    // One damaged record is computed again, by a process that writes a file of its own.
    let mut bytes = fs::read(&before[0]).expect("features");
    let last = bytes.len() - 1;
    bytes[last] ^= 64;
    fs::write(&before[0], bytes).expect("a file");
    home.train("third", &kept).done();
    assert_eq!(losses(&events(&home, "third")), plain);
    let after = files(&home, "features");
    let new = after.iter().filter(|file| !before.contains(file));
    let sizes: Vec<u64> = new
        .map(|file| fs::metadata(file).expect("a file").len())
        .collect();
    assert_eq!(sizes.iter().sum::<u64>(), 64 + 6 * 24 * 4);

    // Another encoder shares nothing.
    let other = [kept.as_slice(), &["run.seed=2"]].concat();
    home.train("other", &other).done();
    assert!(warnings(&home, "other").contains("(0 are there)"));
}

#[test]
fn past_its_bound_the_cache_keeps_what_fits() {
    let home = Home::with_config();
    home.train("plain", &SETS).done();
    let bound = [
        "train.feature_cache=features",
        "train.feature_cache_max_bytes=7000",
    ];
    home.train("bound", &[SETS.as_slice(), &bound].concat())
        .done();
    let plain = losses(&events(&home, "plain"));
    assert_eq!(losses(&events(&home, "bound")), plain);
    let said = warnings(&home, "bound");
    assert!(
        said.contains("features of up to 10 of 80 pictures"),
        "{said}"
    );
    assert!(said.contains("no more features are kept"), "{said}");
    let size = |file: &PathBuf| fs::metadata(file).expect("a file").len();
    assert_eq!(
        files(&home, "features").iter().map(size).sum::<u64>(),
        10 * 640
    );
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let home = Home::with_config();
    home.write("file", "no folder");
    let train = ["train", "tiny.toml", "--set", "train.feature_cache=file"];
    home.mlrm(&train).failed_with(1, &["file"]);
}
