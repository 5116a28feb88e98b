//! A run that is killed within a call of the file system goes on to the same model.
#![cfg(target_os = "linux")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{Home, Ran, Words, binary, skipped, training, weights_below};

/// Calls that change the file system.
const CALLS: &str = "openat,write,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,symlink,\
    symlinkat,link,linkat,fsync,fdatasync,ftruncate,copy_file_range";

/// Kills at most so many of them, spread evenly; the variable below takes all.
const MOST_KILLS: usize = 20;
const ALL: &str = "MLRM_ALL_CALLS";

const SETS: &str = "train.max_steps=4 train.save_every_steps=2 train.keep_checkpoints=1 \
    train.eval_every_steps=2 train.saliency_every_steps=0 eval.baselines=[]";

fn strace(home: &Home, options: &str, words: &str) -> Option<Output> {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq"]).args(options.words());
    command.arg(binary()).args(words.words());
    command.current_dir(home.path("."));
    command.env("XDG_CACHE_HOME", home.path(".cache"));
    command.output().ok()
}

/// The calls of an undisturbed command, as name and number; none where they cannot be traced.
fn moments(home: &Home, words: &str) -> Option<Vec<(String, usize)>> {
    if !strace(home, &format!("-o trace -e trace={CALLS}"), words)?
        .status
        .success()
    {
        return None;
    }
    let counts = counts(&home.read("trace"));
    std::fs::remove_file(home.path("trace")).expect("the trace");
    let numbered = |(name, count): (String, usize)| (1..=count).map(move |nth| (name.clone(), nth));
    Some(counts.into_iter().flat_map(numbered).collect())
}

/// At most so many moments, spread evenly, or all.
fn chosen(moments: &[(String, usize)], most: usize) -> Vec<(String, usize)> {
    let most = match std::env::var_os(ALL) {
        Some(_) => moments.len(),
        None => most.min(moments.len()),
    };
    let places: BTreeSet<usize> = (0..most).map(|at| at * moments.len() / most).collect();
    places.into_iter().map(|at| moments[at].clone()).collect()
}

/// Runs a command that is killed at a call; whether it was.
fn killed_at(home: &Home, words: &str, (call, nth): &(String, usize)) -> bool {
    let inject = format!("inject={call}:signal=SIGKILL:when={nth}");
    let options = format!("-o /dev/null -e trace={call} -e {inject}");
    let ended = strace(home, &options, words).expect("strace runs");
    !ended.status.success()
}

/// Of each call, how often the thread that makes it most makes it.
fn counts(trace: &str) -> BTreeMap<String, usize> {
    let mut by_thread: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in trace.lines() {
        let mut words = line.split_whitespace();
        let (Some(thread), Some(call)) = (words.next(), words.next()) else {
            continue;
        };
        if let Some((name, _)) = call.split_once('(') {
            *by_thread
                .entry((name.to_owned(), thread.to_owned()))
                .or_default() += 1;
        }
    }
    let mut counts = BTreeMap::new();
    for ((name, _), count) in by_thread {
        let most = counts.entry(name).or_insert(0);
        *most = count.max(*most);
    }
    counts
}

fn weights(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    weights_below(run, &["model"])
}

/// Goes on with what the killed process left, or begins where there is nothing.
fn go_on(home: &Home, run: &str) -> Ran {
    let words = training("tiny.toml", run, SETS);
    let ran = match home.path(run).exists() {
        true => home.mlrm(format!("{words} --resume")),
        false => home.mlrm(&words),
    };
    // It was killed before there was a run.
    match ran.err.contains("holds no checkpoint to resume from") {
        true => home.mlrm(&words),
        false => ran,
    }
}

#[test]
fn a_kill_within_any_call_of_the_file_system_loses_no_run() {
    const NAME: &str = "a_kill_within_any_call_of_the_file_system_loses_no_run";
    let home = Home::with_config();
    let Some(moments) = moments(&home, &training("tiny.toml", "whole", SETS)) else {
        skipped(NAME, "strace", "strace is not there, or may not trace");
        return;
    };
    let whole = weights(&home.path("whole"));
    let chosen = chosen(&moments, MOST_KILLS);
    let (mut killed, mut wrong) = (0, Vec::new());
    let train = training("tiny.toml", "run", SETS);
    for moment in &chosen {
        killed += usize::from(killed_at(&home, &train, moment));
        let (call, nth) = moment;
        let ran = go_on(&home, "run");
        if ran.code != Some(0) {
            wrong.push(format!("{call} {nth}: {}", ran.err));
        } else if weights(&home.path("run")) != whole {
            wrong.push(format!("{call} {nth}: other weights"));
        }
        let _gone = std::fs::remove_dir_all(home.path("run"));
    }
    println!(
        "{killed} kills at {} of {} calls",
        chosen.len(),
        moments.len()
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(
        killed * 2 > chosen.len(),
        "{killed} of {} were killed",
        chosen.len()
    );
}

#[test]
fn what_is_renamed_is_on_the_disk_before_and_its_name_after() {
    const NAME: &str = "what_is_renamed_is_on_the_disk_before_and_its_name_after";
    let home = Home::with_config();
    let root = home.path(".").canonicalize().expect("the folder");
    // Without the dots, as the trace has those of open files.
    let plain = |path: &str| root.join(path).components().collect::<PathBuf>();
    let train = training("tiny.toml", "run", SETS);
    let pairs = "data pairs data/interactions.csv --out pairs.csv";
    let split = "data pairs data/interactions.csv --out parts --split time";
    for words in [train.as_str(), pairs, split] {
        let options = "-y -o trace -e trace=rename,renameat,renameat2,fsync";
        if !strace(&home, options, words).is_some_and(|output| output.status.success()) {
            skipped(NAME, "strace", "strace is not there, or may not trace");
            return;
        }
        let trace = home.read("trace");
        let lines: Vec<&str> = trace.lines().collect();
        let brought = |lines: &[&str], path: &Path| {
            let open = format!("<{}>", path.display());
            let mut calls = lines.iter().filter(|line| line.contains("fsync("));
            calls.any(|line| line.contains(&open))
        };
        let mut renames = 0;
        for (at, line) in lines.iter().enumerate() {
            let parts: Vec<&str> = line.split('"').collect();
            let (true, &[_, from, _, to, ..]) = (line.contains("rename"), &parts[..]) else {
                continue;
            };
            let (from, to) = (plain(from), plain(to));
            renames += 1;
            let folder = to.parent().expect("a folder");
            assert!(brought(&lines[at..], folder), "the name is not: {line}");
            // A link holds nothing, and what steps aside is as it was.
            let holds = !to.ends_with("last") && !to.ends_with("best");
            if holds && to.extension().is_none_or(|ending| ending != "replaced") {
                assert!(brought(&lines[..at], &from), "what it names is not: {line}");
            }
        }
        assert!(renames > 0, "{words:?} renames nothing");
    }
}

/// What every file holds.
fn held(home: &Home) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = home.files().into_keys().filter(|path| path.is_file());
    let read = |path: PathBuf| (path.clone(), std::fs::read(path).expect("a file"));
    files.map(read).collect()
}

/// Kills a command at calls that change the file system, and runs it again: what it makes has the bytes of an
/// undisturbed run, or is not there, and in the end nothing else is.
fn survives(name: &str, home: &Home, words: &str, most: usize) {
    let before = held(home);
    let Some(moments) = moments(home, words) else {
        skipped(name, "strace", "strace is not there, or may not trace");
        return;
    };
    let expected = held(home);
    let is_made = |path: &&PathBuf| !before.contains_key(*path);
    let made: Vec<&PathBuf> = expected.keys().filter(is_made).collect();
    assert!(!made.is_empty(), "{name} makes nothing");
    // Files are opened to be read far more often than to be written.
    let (opened, changed): (Vec<_>, Vec<_>) =
        moments.into_iter().partition(|(call, _)| call == "openat");
    let moments = [chosen(&changed, most), chosen(&opened, most / 3)].concat();
    let mut killed = 0;
    for moment in &moments {
        for path in held(home).keys().filter(is_made) {
            std::fs::remove_file(path).expect("a file that it made");
        }
        let place = format!("{name}, {moment:?}");
        killed += usize::from(killed_at(home, words, moment));
        for path in &made {
            if let Ok(bytes) = std::fs::read(path) {
                assert!(bytes == expected[*path], "{place}: {}", path.display());
            }
        }
        let mut ran = home.mlrm(words);
        if ran.err.contains("the folder is not empty") {
            // It is there as a whole, and is not written over.
            assert!(made.iter().all(|path| path.exists()), "{place}: {ran:?}");
            let folder = made[0].parent().expect("a folder");
            std::fs::remove_dir_all(folder).expect("the folder that it made");
            ran = home.mlrm(words);
        }
        ran.done();
        let found = held(home);
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected), "{place}");
        for (path, bytes) in &found {
            assert!(bytes == &expected[path], "{place}: {}", path.display());
        }
    }
    println!("{name}: {killed} kills of {}", moments.len());
    assert!(killed * 2 > moments.len(), "{killed} of {}", moments.len());
}

#[test]
fn kills_within_calls_leave_no_half_of_a_shard_or_a_merge() {
    let home = Home::trained();
    let shard = |number: usize| {
        let words = "embed run --notes data/notes.jsonl --part-notes 10 --batch-notes 4 --visual";
        format!("{words} --out shards/{number}.npy --shard {number}/2")
    };
    home.mlrm(shard(1)).done();
    survives("embed --shard", &home, &shard(0), MOST_KILLS);
    for out in ["merged.npy", "merged.parquet", "merged.safetensors"] {
        let merge = format!("embed --merge shards --out {out}");
        survives("embed --merge", &home, &merge, MOST_KILLS / 2);
    }
}

#[test]
fn kills_within_calls_leave_no_half_of_the_index_of_a_tar_file() {
    let home = Home::trained();
    let text = home.read("data/notes.jsonl");
    let first = text.lines().take(4).collect::<Vec<_>>().join("\n");
    home.write("notes.jsonl", first);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all("images", home.path("data/images"))
        .expect("the pictures");
    // More files than are listed faster than an index is read.
    for number in 0..400 {
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        tar.append_data(&mut header, format!("other/{number}"), b"none".as_slice())
            .expect("a file");
    }
    home.write("pictures.tar", tar.into_inner().expect("a tar file"));
    let words = "embed run --notes notes.jsonl --images pictures.tar --out x.npy";
    survives("index of a tar file", &home, words, 2 * MOST_KILLS);
    let indices = || {
        let files = home.files().into_keys();
        files.filter(|path| path.to_string_lossy().ends_with(".tar.json"))
    };
    assert_eq!(indices().count(), 1);
}

#[test]
fn kills_within_calls_leave_no_half_of_pairs_that_are_made_on_disk() {
    let home = Home::empty();
    let mut text = "user_id,note_id,timestamp\n".to_owned();
    for row in 0_u64..40_000 {
        let random = row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let (user, note) = (random % 2_000, random / 2_000 % 700);
        text += &format!("u{user},n{note},{}\n", 1_700_000_000 + random % 3_000_000);
    }
    home.write("log.csv", text);
    for out in ["pairs.csv", "parts --split time"] {
        let words = format!("data pairs log.csv --memory 1MB --out {out}");
        survives("data pairs --memory", &home, &words, MOST_KILLS);
    }
}
