//! `mlrm train`, killed at random moments, in the midst of saving and of evaluating, and gone on
//! with until it ends: the same weights, bit by bit.

#![cfg(unix)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::{Home, training, weights_below};

/// Saves and evaluates all the time, so that a kill often hits it; the end is not on an interval.
const OFTEN: &str = "train.max_steps=23 train.eval_every_steps=4 train.save_every_steps=3 \
    train.saliency_every_steps=0 eval.baselines=[] train.keep_checkpoints=1";

/// Adapters with dropout, and notes that show parts of others.
const DRAWN: &str = "model.llm.tune=lora model.llm.lora.dropout=0.2 train.swap.share=0.5 \
    data.loader_threads=3";

/// Batches in parts that read features of pictures, which a killed process leaves half-written, and
/// more than one pass over the pairs.
const KEPT: &str = "train.feature_cache=features train.micro_batch_notes=5 train.swap.share=0.5 \
    train.batch_pairs=24 data.loader_threads=2";

/// Two workers, each with a share of every batch.
const TWO_DEVICES: &str = "backend.device=[\"flex\",\"flex\"] model.llm.tune=lora \
    model.llm.lora.dropout=0.2";

/// Kills in most settings.
const KILLS: usize = 14;

/// When a process is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So many milliseconds after its start.
    After(u64),
    /// As soon as it writes a checkpoint or a model, so many microseconds later.
    Saving(u64),
    /// As soon as a step that is to be evaluated is taken.
    Evaluating,
}

#[test]
fn a_run_killed_at_any_moment_ends_with_the_same_weights() {
    kill_again_and_again(OFTEN, KILLS);
}

#[test]
fn so_does_one_with_dropout_and_swaps() {
    kill_again_and_again(&format!("{OFTEN} {DRAWN}"), KILLS);
}

#[test]
fn so_does_one_that_keeps_features_and_passes_over_its_pairs_again() {
    let home = kill_again_and_again(&format!("{OFTEN} {KEPT}"), KILLS);
    let events = support::events(&home, "whole");
    let last = support::named(&events, "train_step").pop().expect("a step");
    assert!(last["epoch"].as_f64().expect("a number") > 1.5, "{last}");
}

#[test]
fn so_does_one_on_two_devices() {
    kill_again_and_again(&format!("{OFTEN} {TWO_DEVICES}"), KILLS / 2);
}

/// `most`: how often processes are killed in all.
fn kill_again_and_again(sets: &str, most: usize) -> Home {
    let home = Home::with_config();
    home.train("whole", format!("{sets} train.feature_cache=off"))
        .done();
    let whole = weights(&home.path("whole"));
    assert!(whole.len() >= 5, "{:?}", whole.keys());
    let mut random = 88_172_645_463_325_252_u64;
    let mut kills = [0; 3];
    let mut run = 0;
    while kills.iter().sum::<usize>() < most {
        run += 1;
        // What runs before this one kept would leave it nothing to do.
        let _none = fs::remove_dir_all(home.path("features"));
        let name = format!("killed-{run}");
        let mut words = training("tiny.toml", &name, sets);
        loop {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let kind = kills.iter().sum::<usize>() % 3;
            let moment = match kind {
                0 => Moment::After(150 + random % 700),
                1 => Moment::Saving(random % 20_000),
                _ => Moment::Evaluating,
            };
            let killed =
                kills.iter().sum::<usize>() < most && killed_at(&home, &name, &words, moment);
            if killed {
                kills[kind] += 1;
            } else if ended(&home, &name) {
                break;
            } else {
                // It had all its kills, or ended before its moment: it goes on to its end.
                home.mlrm(&words).done();
                break;
            }
            if home.path(&name).join("config.toml").is_file() {
                words = format!("train {name}/config.toml --resume");
            }
        }
        assert_eq!(weights(&home.path(&name)), whole, "{name}: {kills:?}");
        assert!(!leftovers(&home.path(&name)), "{name}");
    }
    assert!(kills.iter().all(|&kills| kills >= most / 4), "{kills:?}");
    home
}

/// Starts the process and kills it at its moment; whether it was still running.
fn killed_at(home: &Home, run: &str, words: &str, moment: Moment) -> bool {
    let folder = home.path(run);
    let log = folder.join("events.jsonl");
    let evaluated = due_evaluations(&log);
    let mut child = home
        .command(words)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let begun = Instant::now();
    let reached = || match moment {
        Moment::After(milliseconds) => begun.elapsed() >= Duration::from_millis(milliseconds),
        Moment::Saving(_) => is_saving(&folder),
        Moment::Evaluating => due_evaluations(&log) > evaluated,
    };
    while !reached() {
        if has_ended(&mut child) {
            return false;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{moment:?} never comes"
        );
        std::thread::sleep(Duration::from_micros(200));
    }
    if let Moment::Saving(microseconds) = moment {
        std::thread::sleep(Duration::from_micros(microseconds));
    }
    if has_ended(&mut child) {
        return false;
    }
    child.kill().expect("a kill");
    child.wait().expect("an end");
    true
}

/// Whether the process has ended; it must have ended well.
fn has_ended(child: &mut Child) -> bool {
    let Some(status) = child.try_wait().expect("a state") else {
        return false;
    };
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        use std::io::Read;
        stderr.read_to_string(&mut said).expect("its messages");
    }
    assert!(status.success(), "{status}: {said}");
    true
}

/// Steps in the log that an evaluation follows.
fn due_evaluations(log: &Path) -> usize {
    let text = fs::read_to_string(log).unwrap_or_default();
    let steps = text
        .lines()
        .filter(|line| line.starts_with("{\"event\":\"train_step\""));
    let due = |line: &&str| {
        [4, 8, 12, 16, 20]
            .iter()
            .any(|step| line.contains(&format!("\"step\":{step},")))
    };
    steps.filter(due).count()
}

fn is_saving(run: &Path) -> bool {
    [run.to_owned(), run.join("checkpoints")]
        .iter()
        .any(|folder| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let mut names = entries.map(|entry| entry.file_name());
            names.any(|name| name.to_string_lossy().starts_with(".writing-"))
        })
}

fn ended(home: &Home, run: &str) -> bool {
    let log = fs::read_to_string(home.path(run).join("events.jsonl")).unwrap_or_default();
    log.contains("\"event\":\"run_ended\"")
}

/// Every file of weights and moments that the run ended with.
fn weights(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    weights_below(run, &["model", "checkpoints/step-23"])
}

/// Whether anything half-written is left.
fn leftovers(run: &Path) -> bool {
    let replaced = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name());
        names.any(|name| name.to_string_lossy().ends_with(".replaced"))
    };
    is_saving(run) || replaced(run) || replaced(&run.join("checkpoints"))
}
