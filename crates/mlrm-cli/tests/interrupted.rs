//! Runs that meet signals, a second process, outputs that go away and errors in their midst: what was
//! learnt is kept.

mod support;

use std::fs;
use std::process::Stdio;

use support::{FOUR, Home, end, events, losses, named, resume, signal, train_until, training};

/// Enough steps to be caught in their midst.
const LONG: &str = "train.max_steps=4000 train.eval_every_steps=0 train.save_every_steps=0 \
    train.saliency_every_steps=0 eval.baselines=[]";

#[test]
#[cfg(unix)]
fn a_live_run_belongs_to_its_process() {
    let home = Home::with_config();
    let mut child = train_until(&home, "run", LONG, 2);
    signal(&child, "-STOP");
    let holder = format!("process {} on ", child.id());
    let words = ["run is in use: ", &holder];
    for flag in ["--resume", "--overwrite"] {
        home.refused(format!("train tiny.toml {flag}"), &words);
    }
    home.refused("train tiny.toml", &words);
    signal(&child, "-CONT");
    child.kill().expect("a kill");
    child.wait().expect("an end");
    // Nobody holds it any more; there is no checkpoint yet, so that the run begins again.
    let config = home.path("run/config.toml");
    let text = fs::read_to_string(&config).expect("a config");
    fs::write(config, text.replace("max_steps = 4000", "max_steps = 3")).expect("a config");
    let ran = resume(&home, "run", "");
    ran.done();
    ran.tells(&["holds no checkpoint yet"]);
    assert_eq!(home.json("run/last/state.json")["step"], 3);
}

#[test]
#[cfg(unix)]
fn every_signal_saves_and_stops_and_hanging_up_twice_is_one() {
    let home = Home::with_config();
    for (index, signals) in [["-HUP", "-HUP"], ["-HUP", "-TERM"], ["-TERM", "-HUP"]]
        .into_iter()
        .enumerate()
    {
        let run = format!("run-{index}");
        let mut child = train_until(&home, &run, LONG, 2);
        signals.into_iter().for_each(|name| signal(&child, name));
        assert_eq!(child.wait().expect("an end").code(), Some(0), "{signals:?}");
        let events = events(&home, &run);
        let saved = home.json(&format!("{run}/last/state.json"))["step"].clone();
        assert_eq!(end(&events, "stopped")["step"], saved);
    }
}

#[test]
#[cfg(unix)]
fn output_that_nobody_takes_ends_no_run() {
    let home = Home::with_config();
    let full = || {
        fs::File::options()
            .write(true)
            .open("/dev/full")
            .expect("a full device")
    };
    let spawn = |run: &str, out: Stdio, err: Stdio| {
        home.command(training("tiny.toml", run, FOUR))
            .stdout(out)
            .stderr(err)
            .spawn()
            .expect("the binary runs")
    };
    let mut child = spawn("full", full().into(), full().into());
    assert_eq!(child.wait().expect("an end").code(), Some(0));
    let mut child = spawn("closed", Stdio::piped(), Stdio::piped());
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().expect("an end").code(), Some(0));
    for run in ["full", "closed"] {
        end(&events(&home, run), "completed");
        assert!(home.path(run).join("model/mlrm.toml").is_file());
    }
    // An error is no panic there either.
    let mut child = spawn("full", full().into(), full().into());
    assert_eq!(child.wait().expect("an end").code(), Some(1));
}

#[test]
fn what_was_learnt_is_saved_before_an_error() {
    let home = Home::with_config();
    let sets = format!("{LONG} data.synth.notes=400 data.prefetch_batches=0 train.batch_pairs=2");
    let child = train_until(&home, "run", &sets, 2);
    fs::rename(home.path("data/images"), home.path("data/away")).expect("a move");
    let output = child.wait_with_output().expect("an end");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in ["images/", "is saved: once that is corrected, go on with"] {
        assert!(said.contains(words), "no `{words}`: {said}");
    }
    let ended = events(&home, "run");
    let end = end(&ended, "failed");
    let state = home.json("run/last/state.json");
    assert_eq!(state["step"], end["step"]);

    fs::rename(home.path("data/away"), home.path("data/images")).expect("a move");
    let end = state["step"].as_u64().expect("a step") + 2;
    resume(&home, "run", &format!("--set train.max_steps={end}")).done();
    let resumed = events(&home, "run");
    assert_eq!(losses(&resumed).len() as u64, end);
}

#[test]
fn checkpoints_come_by_the_clock_too() {
    let home = Home::with_config();
    let clock = "train.save_every_steps=0 train.save_every_minutes=1e-7";
    home.train("run", format!("{FOUR} {clock}")).done();
    let events = events(&home, "run");
    let saved = named(&events, "checkpoint_saved");
    let saved: Vec<_> = saved
        .iter()
        .map(|event| (&event["step"], &event["reason"]))
        .collect();
    let reasons = ["interval", "interval", "interval", "completed"].map(serde_json::Value::from);
    let steps = [1, 2, 3, 4].map(serde_json::Value::from);
    let expected: Vec<_> = steps.iter().zip(&reasons).collect();
    assert_eq!(saved, expected);
}

#[test]
fn what_killed_processes_left_is_cleared() {
    let home = Home::with_config();
    home.train("run", FOUR).done();
    home.write("run/checkpoints/.writing-abc/model/half", "half");
    home.write("run/.writing-def", "half");
    // Killed between the two renames that replace a folder.
    let place = |name: &str| home.path("run/checkpoints").join(name);
    fs::rename(place("step-4"), place("step-4.replaced")).expect("a move");
    let ran = resume(&home, "run", "");
    ran.done();
    for name in [".writing-abc", ".writing-def", "step-4.replaced"] {
        assert!(ran.err.contains(name), "no `{name}`: {ran:?}");
    }
    let left: Vec<String> = home
        .files()
        .keys()
        .map(|path| path.display().to_string())
        .collect();
    assert!(
        !left
            .iter()
            .any(|path| path.contains(".writing") || path.contains(".replaced"))
    );
    let events = events(&home, "run");
    assert_eq!(named(&events, "run_started")[1]["resumed_from_step"], 4);
}

#[test]
fn a_malformed_line_of_the_log_costs_nothing_else() {
    let home = Home::with_config();
    home.train("run", FOUR).done();
    home.edit_line("run/events.jsonl", 3, |line| {
        line[..line.len() / 2].to_owned()
    });
    resume(&home, "run", "--set train.max_steps=5").done();
    home.mlrm("report run").done();
    let report = home.read("run/report.html");
    assert!(report.contains("unreadable lines in the log"));
    home.mlrm("watch run --svg frame.svg").done();
    assert!(home.read("frame.svg").contains(">unreadable</text>"));
}
