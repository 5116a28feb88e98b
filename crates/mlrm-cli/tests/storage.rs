//! Notes and pictures in one file, in many, in tar shards and in Parquet columns: the same run.

#[path = "support/shards.rs"]
mod shards;
mod support;

use std::fs;

use shards::{pictures, write_parquet, write_tar};
use support::{Home, events, losses, training};

#[test]
fn a_run_is_the_same_from_a_folder_tar_shards_parquet_and_notes_in_many_files() {
    let home = Home::with_notes();
    let pictures = pictures(&home);
    for (number, part) in pictures.chunks(30).enumerate() {
        fs::create_dir_all(home.path("data/shards")).expect("a folder");
        write_tar(&home, &format!("data/shards/{number}.tar"), part);
        write_parquet(
            &home,
            &format!("data/pictures-{number}.parquet"),
            part,
            part.len(),
        );
    }
    let text = home.read("data/notes.jsonl");
    let lines: Vec<&str> = text.lines().collect();
    for (number, part) in lines.chunks(25).enumerate() {
        home.write(
            &format!("data/notes/part-{number}.jsonl"),
            part.join("\n") + "\n",
        );
    }
    let train = |run: &str, sets: &str| {
        let sets = format!("{sets} train.max_steps=4");
        home.mlrm(training("folder.toml", run, sets)).done();
        let log = events(&home, run);
        let model = fs::read(home.path(run).join("model/head.safetensors")).expect("weights");
        (losses(&log), home.json(&format!("{run}/eval.json")), model)
    };
    let folder = train("folder", "");
    assert_eq!(folder.0.len(), 4);
    // Were the pictures not read, this would be no test of them.
    fs::rename(home.path("data/images"), home.path("data/gone")).expect("pictures");
    home.mlrm("train folder.toml --set run.dir=x")
        .failed_with(1, &["80 of 80 notes have no picture"]);
    assert_eq!(train("tar", "data.images=shards"), folder);
    assert_eq!(train("tars", "data.images=shards/*.tar"), folder);
    assert_eq!(train("parquet", "data.images=pictures-*.parquet"), folder);
    assert_eq!(
        train("notes", "data.images=shards data.notes=notes"),
        folder
    );
    assert_eq!(
        train(
            "pattern",
            "data.images=shards data.notes=notes/part-*.jsonl"
        ),
        folder
    );

    // A shard of notes, or of pictures, that changes while a run rests is named.
    let resume = "train notes/config.toml --resume --set train.max_steps=6";
    home.edit_line("data/notes/part-1.jsonl", 1, |line| {
        line.replace("\"title\":\"", "\"title\":\"another ")
    });
    home.mlrm(resume)
        .failed_with(1, &["data.notes has other content"]);
    home.edit_line("data/notes/part-1.jsonl", 1, |line| {
        line.replace("\"title\":\"another ", "\"title\":\"")
    });
    home.mlrm(resume).done();
    let resume = "train parquet/config.toml --resume --set train.max_steps=6";
    let mut other = pictures[60..].to_vec();
    other[0].1 = pictures[0].1.clone();
    write_parquet(&home, "data/pictures-2.parquet", &other, other.len());
    home.mlrm(resume)
        .failed_with(1, &["data.images holds other pictures"]);

    // An id twice in two shards.
    home.edit_line("data/notes/part-2.jsonl", 3, |_| lines[4].to_owned());
    let ran = home.mlrm("data check data --notes notes --images shards");
    ran.failed_with(1, &[]);
    ran.shows(&["part-2.jsonl:3: duplicate_id"]);
    let train = "train folder.toml --set run.dir=x --set data.notes=notes --set data.images=shards";
    home.mlrm(train).failed_with(
        1,
        &[
            "part-2.jsonl:3: the id",
            "is that of row 5 of `",
            "part-0.jsonl` already",
        ],
    );
}

/// A log in which a few notes are seen by most.
fn write_log(home: &Home, events: u64) {
    let mut random = 88_172_645_463_325_252_u64;
    let mut text = "user_id,note_id,timestamp\n".to_owned();
    for _ in 0..events {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let user = random % (events / 20);
        let note = (random >> 20) % 3_000 * ((random >> 40) % 5) / 4;
        let time = 1_700_000_000 + (random >> 24) % 4_000_000 / 600 * 600;
        text += &format!("user {user},{note},{time}\n");
    }
    home.write("log.csv", text);
}

#[test]
fn pairs_of_a_log_larger_than_memory_are_the_same() {
    let home = Home::empty();
    write_log(&home, 60_000);
    let pairs = |memory: &str, out: &str, rules: &str| {
        let words = format!("data pairs log.csv --out {out} --json");
        let ran = home.mlrm(format!("{words} {memory} {rules}"));
        ran.done();
        ran.json()
    };
    let rules = [
        "",
        "--weight cosine --min-users 2 --top-k all",
        "--weight events --ties both --window-days 20 --max-events-per-user 9",
        "--weight count --lower 2 --upper 5",
        "--weight inverse_activity --window-days 60 --top-k 3",
    ];
    for rules in rules {
        let whole = pairs("", "whole.csv", rules);
        assert!(whole["pairs"].as_u64().expect("a count") > 1000, "{whole}");
        assert_eq!(pairs("--memory 1MB", "disk.csv", rules), whole);
        assert!(home.read("disk.csv") == home.read("whole.csv"), "{rules:?}");
    }
    for split in ["note", "time", "none"] {
        let rules = format!("--split {split} --train-top-k 30 --seed 5");
        let whole = pairs("", &format!("whole-{split}"), &rules);
        let disk = pairs("--memory 1MB", &format!("disk-{split}"), &rules);
        assert_eq!(disk, whole);
        for part in ["train.csv", "validation.csv", "test.csv"] {
            let read = |of: &str| home.read(format!("{of}-{split}/{part}"));
            assert!(read("disk") == read("whole"), "{part}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_killed_command_leaves_no_parts_of_a_log_behind() {
    let home = Home::empty();
    write_log(&home, 60_000);
    let words = "data pairs log.csv --out pairs.csv --memory 1MB";
    let begun = std::time::Instant::now();
    home.mlrm(words).done();
    let whole = home.read("pairs.csv");
    let longest = begun.elapsed();
    let names = || home.files().into_keys().collect::<Vec<_>>();
    let before = names();
    let mut kills = 0;
    for part in 0..10 {
        let mut child = home.command(words).spawn().expect("the binary runs");
        std::thread::sleep(longest.mul_f64((f64::from(part) + 0.5) / 10.0));
        kills += usize::from(child.try_wait().expect("a state").is_none());
        child.kill().expect("a kill");
        child.wait().expect("an end");
        assert!(home.read("pairs.csv") == whole, "half of the pairs");
    }
    assert!(kills >= 5, "{kills}");
    home.mlrm(words).done();
    assert_eq!(names(), before);
}
