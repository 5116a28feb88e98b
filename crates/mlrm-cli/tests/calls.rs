//! A run that is killed within a call of the file system goes on to the same model.
#![cfg(target_os = "linux")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use support::{Home, Ran, binary, skipped};

/// Calls that change the file system.
const CALLS: &str = "openat,write,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,symlink,\
    symlinkat,link,linkat,fsync,fdatasync,ftruncate,copy_file_range";

/// Kills at most so many of them, spread evenly; the variable below takes all.
const MOST_KILLS: usize = 20;
const ALL: &str = "MLRM_ALL_CALLS";

const SETS: [&str; 6] = [
    "train.max_steps=4",
    "train.save_every_steps=2",
    "train.keep_checkpoints=1",
    "train.eval_every_steps=2",
    "train.saliency_every_steps=0",
    "eval.baselines=[]",
];

fn strace(home: &Home, options: &[&str], run: &str) -> Option<Output> {
    let dir = format!("run.dir={run}");
    let sets = SETS.iter().copied().chain([dir.as_str()]);
    Command::new("strace")
        .args(["-f", "-qq"])
        .args(options)
        .arg(binary())
        .args(["train", "tiny.toml"])
        .args(sets.flat_map(|set| ["--set", set]))
        .current_dir(home.path("."))
        .output()
        .ok()
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

fn weights(run: &Path) -> Vec<Vec<u8>> {
    let names = [
        "llm/model.safetensors",
        "head.safetensors",
        "vision/model.safetensors",
    ];
    let read = |name| std::fs::read(run.join("model").join(name)).expect("weights");
    names.map(read).into()
}

/// Goes on with what the killed process left, or begins where there is nothing.
fn go_on(home: &Home, run: &str) -> Ran {
    let dir = format!("run.dir={run}");
    let sets = SETS.iter().copied().chain([dir.as_str()]);
    let sets = sets.flat_map(|set| ["--set", set]);
    let words: Vec<&str> = ["train", "tiny.toml"].into_iter().chain(sets).collect();
    let ran = match home.path(run).exists() {
        true => home.mlrm(&[&words[..], &["--resume"]].concat()),
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
    let trace = ["-o", "trace", "-e", &format!("trace={CALLS}")];
    let traced = strace(&home, &trace, "whole");
    if !traced
        .as_ref()
        .is_some_and(|output| output.status.success())
    {
        skipped(NAME, "strace", "strace is not there, or may not trace");
        return;
    }
    let whole = weights(&home.path("whole"));
    let moments: Vec<(String, usize)> = counts(&home.read("trace"))
        .into_iter()
        .flat_map(|(name, count)| (1..=count).map(move |nth| (name.clone(), nth)))
        .collect();
    let most = match std::env::var_os(ALL) {
        Some(_) => moments.len(),
        None => MOST_KILLS.min(moments.len()),
    };
    let chosen: BTreeSet<usize> = (0..most).map(|at| at * moments.len() / most).collect();
    let (mut killed, mut wrong) = (0, Vec::new());
    for at in &chosen {
        let (call, nth) = &moments[*at];
        let inject = format!("inject={call}:signal=SIGKILL:when={nth}");
        let options = [
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={call}"),
            "-e",
            &inject,
        ];
        let ended = strace(&home, &options, "run").expect("strace runs");
        killed += usize::from(!ended.status.success());
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
