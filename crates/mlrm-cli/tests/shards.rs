//! A corpus in shards, by `mlrm embed --shard` and `--merge`: the bytes of an undivided run, or a reason.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use support::{Home, Ran, set};

const COUNT: usize = 3;

/// The options of all that embed in these tests: eight parts.
const OPTIONS: &str = "--notes data/notes.jsonl --part-notes 10 --batch-notes 4";

fn words(model: &str, out: &str, more: &str) -> String {
    format!("embed {model} --out {out} {OPTIONS} {more}")
}

/// The command that embeds one of the shards.
fn shard_words(number: usize, more: &str) -> String {
    let options = format!("--shard {number}/{COUNT} {more}");
    words("run", &format!("shards/{number}.npy"), &options)
}

fn shard(home: &Home, number: usize, more: &str) -> Ran {
    home.mlrm(shard_words(number, more))
}

fn merge(home: &Home) -> Ran {
    home.mlrm("embed --merge shards --out merged.npy")
}

/// What lies below the folder and is not of model or data.
fn made(home: &Home) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = home.files().into_keys().filter(|path| path.is_file());
    let here = home.path("");
    let short = files.map(|path| (path.strip_prefix(&here).expect("here").to_owned(), path));
    let made = short.filter(|(short, _)| {
        let first = short.iter().next().expect("a name");
        !["run", "data", ".cache", "tiny.toml"]
            .iter()
            .any(|name| first == *name)
    });
    made.map(|(short, path)| (short, fs::read(path).expect("a file")))
        .collect()
}

#[test]
fn shards_are_computed_once_and_merge_to_the_bytes_of_an_undivided_run() {
    let home = Home::trained();
    home.mlrm(words("run", "whole.npy", "--visual")).done();
    for number in (0..COUNT).rev() {
        shard(&home, number, "--visual").done();
    }
    let manifest = home.json("shards/1.npy.shard.json");
    for (key, value) in [
        ("shard", 1),
        ("of", 3),
        ("first_row", 20),
        ("rows", 30),
        ("all_rows", 80),
    ] {
        assert_eq!(manifest[key], value, "{key}: {manifest}");
    }
    assert_eq!(manifest["files"].as_array().expect("files").len(), 3);
    // Nothing is computed, or written, twice.
    let before = home.files();
    let again = shard(&home, 1, "--visual");
    again.done().shows(&["is there already"]);
    assert_eq!(home.files(), before);
    merge(&home).done();
    for (whole, merged) in [
        ("whole.npy", "merged.npy"),
        ("whole.ids.txt", "merged.ids.txt"),
        ("whole.visual.npy", "merged.visual.npy"),
    ] {
        assert_eq!(
            fs::read(home.path(whole)).expect("a file"),
            fs::read(home.path(merged)).expect("a file")
        );
    }
    // Other options, and what an interrupted write has damaged, are computed again.
    let ran = shard(&home, 1, "");
    ran.done().shows(&["30 embeddings"]);
    let file = home.path("shards/1.npy");
    let bytes = fs::read(&file).expect("a file");
    fs::write(&file, &bytes[..bytes.len() - 1]).expect("a file");
    let ran = shard(&home, 1, "");
    ran.done().shows(&["30 embeddings"]);
    assert_eq!(fs::read(&file).expect("a file"), bytes);
}

#[test]
fn a_merge_names_all_that_is_missing_damaged_twice_or_of_other_things() {
    let home = Home::trained();
    let refused = |says: &[&str]| {
        home.refused("embed --merge shards --out merged.npy", says);
    };
    fs::create_dir(home.path("shards")).expect("a folder");
    refused(&["shards: there is no shard in it"]);
    shard(&home, 1, "").done();
    refused(&["of 3 shards these are missing: 0, 2"]);

    shard(&home, 0, "").done();
    shard(&home, 2, "--dim 8").done();
    home.mlrm(words("run", "shards/x.npy", "--shard 1/3"))
        .done();
    let file = home.path("shards/0.ids.txt");
    let text = fs::read_to_string(&file).expect("ids");
    fs::write(&file, text.replace('1', "2")).expect("ids");
    refused(&[
        "shard 2 (shards/2.npy.shard.json) is of another job than shards/0.npy.shard.json: --dim differ",
        "shards/0.ids.txt: it is not what was written",
        "shard 1 (shards/x.npy.shard.json) is in shards/1.npy.shard.json too",
        "of 3 shards these are missing: 2",
    ]);
    fs::remove_file(home.path("shards/x.npy.shard.json")).expect("a manifest");
    fs::write(&file, text).expect("ids");

    // Another model, and notes that changed.
    home.train("other", "train.max_steps=2 eval.baselines=[] run.seed=2")
        .done();
    home.mlrm(words("other", "shards/2.npy", "--shard 2/3"))
        .done();
    refused(&["shard 2 (", "the model differ"]);
    // The same model with other products.
    let config = home.read("run/config.toml");
    let products = ["matmul_precision = \"f32\"", "matmul_precision = \"bf16\""];
    assert!(config.contains(products[0]));
    home.write("run/config.toml", config.replace(products[0], products[1]));
    shard(&home, 2, "").done();
    refused(&["shard 2 (", "backend.matmul_precision differ"]);
    home.write("run/config.toml", config);
    home.edit_line("data/notes.jsonl", 1, |line| {
        line.replace("\"title\":\"", "\"title\":\"another ")
    });
    shard(&home, 2, "").done();
    refused(&["shard 2 (", "the notes differ"]);
    shard(&home, 0, "").done();
    shard(&home, 1, "").done();
    home.refused(
        "embed --merge shards --out shards/1.npy",
        &["--out shards/1.npy is one of the shards"],
    );
    merge(&home).done();
    home.mlrm("embed run --merge shards --out x.npy")
        .failed_with(2, &["--merge"]);
    home.mlrm("embed --out x.npy")
        .failed_with(2, &["--notes", "MODEL"]);
}

/// Id and picture of the note of a row.
fn note(home: &Home, row: usize) -> (String, PathBuf) {
    let text = home.read("data/notes.jsonl");
    let note: serde_json::Value =
        serde_json::from_str(text.lines().nth(row).expect("a row")).expect("JSON");
    let field = |name: &str| note[name].as_str().expect("a text").to_owned();
    (field("id"), home.path("data").join(field("image")))
}

/// The picture of a row, in two ways spoilt: cut off, which a look at its end shows, or within, which only
/// decoding does.
fn spoil(home: &Home, row: usize, cut: bool) -> String {
    let (id, path) = note(home, row);
    let mut bytes = fs::read(&path).expect("a picture");
    let end = bytes.len();
    match cut {
        true => bytes.truncate(end / 2),
        false => bytes[end / 3..end / 2].fill(0x55),
    }
    fs::write(path, bytes).expect("a picture");
    id
}

#[test]
fn pictures_that_fail_are_listed_and_stop_nothing() {
    let home = Home::trained();
    let failed = [(3, true), (25, false), (79, true)].map(|(row, cut)| spoil(&home, row, cut));
    let ids = |list: &str| -> Vec<String> {
        let text = home.read(list);
        let pictures = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        pictures
            .map(|picture| {
                assert!(!picture["reason"].as_str().expect("a reason").is_empty());
                picture["id"].as_str().expect("an id").to_owned()
            })
            .collect()
    };
    let whole = home.mlrm(words("run", "whole.npy", ""));
    whole
        .done()
        .shows(&["3 pictures failed: whole.npy.failed.jsonl"]);
    assert_eq!(ids("whole.npy.failed.jsonl"), failed);
    for number in 0..COUNT {
        shard(&home, number, "").done();
    }
    merge(&home).done();
    assert_eq!(ids("merged.npy.failed.jsonl"), failed);
    assert_eq!(home.json("shards/0.npy.shard.json")["failed_pictures"], 1);
    assert_eq!(
        fs::read(home.path("whole.npy")).expect("a file"),
        fs::read(home.path("merged.npy")).expect("a file")
    );
    // It is too late to leave out a note whose picture cannot be decoded.
    let ran = home.mlrm(words("run", "whole.npy", "--set data.on_bad_image=drop"));
    ran.done().shows(&["78 embeddings"]);
    let list = home.read("whole.npy.failed.jsonl");
    let left_out: Vec<bool> = list
        .lines()
        .map(|line| line.contains("\"left_out\":true"))
        .collect();
    assert_eq!(left_out, [true, false, true]);
    // A list that is not true any more goes.
    for row in [3, 25, 79] {
        fs::copy(note(&home, 0).1, note(&home, row).1).expect("a picture");
    }
    home.mlrm(words("run", "whole.npy", "")).done();
    assert!(!home.path("whole.npy.failed.jsonl").exists());
}

#[test]
fn pictures_that_fail_stop_only_who_is_strict() {
    let home = Home::trained();
    // All of the second part.
    for row in 10..20 {
        fs::remove_file(note(&home, row).1).expect("a picture");
    }
    spoil(&home, 33, true);
    let embed = |out: &str, sets: &str| home.mlrm(words("run", out, &set(sets)));
    let ran = embed("default.npy", "");
    ran.done().shows(&["80 embeddings"]);
    let told = "11 notes are read by text alone (10 without a picture, 1 with one";
    ran.tells(&[told]);
    assert_eq!(home.read("default.npy.failed.jsonl").lines().count(), 11);
    let ran = embed("left.npy", "data.on_missing_image=drop");
    ran.done().shows(&["70 embeddings"]);
    for (key, place) in [
        ("data.on_missing_image", "10 of 10 notes"),
        ("data.on_bad_image", "1 of 10 notes"),
    ] {
        embed("strict.npy", &format!("{key}=error")).failed_with(1, &[key, place]);
        assert!(!home.path("strict.npy").exists());
    }
    // Where none is there, the place is wrong, unless somebody says that it is not.
    for row in (0..10).chain(20..80) {
        fs::remove_file(note(&home, row).1).expect("a picture");
    }
    home.refused(
        words("run", "none.npy", ""),
        &["none of the first 10 pictures is there", "--images"],
    );
    let ran = embed("none.npy", "data.on_missing_image=text");
    ran.done().shows(&["80 embeddings"]);
    embed("none.npy", "data.on_missing_image=drop").failed_with(1, &["every note is dropped"]);
}

#[test]
fn shards_and_merges_that_are_killed_at_any_moment_end_in_the_same_files() {
    let home = Home::trained();
    let late = spoil(&home, 12, false);
    let text = "--set data.on_bad_image=text";
    home.mlrm(words("run", "whole.npy", text)).done();
    for number in 0..COUNT {
        shard(&home, number, text).done();
    }
    merge(&home).done();
    let expected = made(&home);
    assert!(home.read("merged.npy.failed.jsonl").contains(&late));
    assert_eq!(
        expected[&PathBuf::from("whole.npy")],
        expected[&PathBuf::from("merged.npy")]
    );

    let mut random = 88_172_645_463_325_252_u64;
    let mut kills = 0;
    // How long an undisturbed command takes, so that kills fall anywhere in it.
    let mut killed = |command: &str, longest: &mut Duration| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let begun = std::time::Instant::now();
        let mut child = home
            .command(command)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the binary runs");
        std::thread::sleep(longest.mul_f64((random % 1000) as f64 / 1000.0));
        let killed = child.try_wait().expect("a state").is_none();
        child.kill().expect("a kill");
        let status = child.wait().expect("an end");
        assert!(killed || status.success(), "{command:?}");
        if !killed {
            *longest = begun.elapsed();
        }
        killed
    };
    for round in 0..3 {
        fs::remove_dir_all(home.path("shards")).expect("shards");
        for number in 0..COUNT {
            let out = format!("shards/{number}.npy");
            let command = shard_words(number, text);
            let begun = std::time::Instant::now();
            home.mlrm(&command).done();
            let mut longest = begun.elapsed();
            if number == round {
                fs::remove_dir_all(home.path("shards")).expect("shards");
            }
            for _ in 0..4 {
                let there = home.path(format!("{out}.shard.json")).is_file();
                kills += usize::from(killed(&command, &mut longest));
                // A manifest is there when, and only when, all that it speaks of is whole.
                if home.path(format!("{out}.shard.json")).is_file() {
                    let name = PathBuf::from(&out);
                    assert_eq!(
                        Some(&fs::read(home.path(&out)).expect("a file")),
                        expected.get(&name)
                    );
                } else {
                    assert!(!there, "a shard that was whole is not any more");
                }
            }
        }
        // Those that the removal took, or that were killed last.
        for number in 0..COUNT {
            shard(&home, number, text).done();
        }
        let command = "embed --merge shards --out merged.npy";
        let begun = std::time::Instant::now();
        merge(&home).done();
        let mut longest = begun.elapsed();
        for _ in 0..6 {
            kills += usize::from(killed(command, &mut longest));
            // Of NumPy's files the old ones go before the new ones come: it may be absent, never half.
            if let Ok(merged) = fs::read(home.path("merged.npy")) {
                assert_eq!(Some(&merged), expected.get(&PathBuf::from("merged.npy")));
            }
        }
        merge(&home).done();
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        let ended = made(&home);
        assert_eq!(names(&ended), names(&expected));
        for (name, bytes) in &ended {
            assert!(Some(bytes) == expected.get(name), "{}", name.display());
        }
    }
    assert!(kills >= 20, "{kills}");
}
