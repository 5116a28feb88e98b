//! Output that cannot be written, logs that cannot be read, and text that would steer a terminal.

mod support;

use std::fs;
use std::process::Stdio;

use support::{Home, end, events};

const TRAIN: &str =
    "train tiny.toml --no-dashboard --set train.max_steps=4 --set eval.baselines=[]";

#[test]
fn a_training_does_not_need_anybody_to_read_along() {
    let home = Home::with_config();
    let mut command = home.command(format!("{TRAIN} --set run.dir=piped"));
    let mut running = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // As `| head -0` does; the other side is closed before anything was said.
    drop(running.stdout.take());
    drop(running.stderr.take());
    assert_eq!(running.wait().expect("its end").code(), Some(0));
    end(&events(&home, "piped"), "completed");
    assert!(home.path("piped/model/mlrm.toml").is_file());
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_is_lost_is_a_failure_of_those_that_make_nothing_else() {
    let home = Home::trained();
    let full = || {
        fs::File::options()
            .write(true)
            .open("/dev/full")
            .expect("a full device")
    };
    let lost = |words: &str| {
        let output = home
            .command(words)
            .stdout(full())
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("panicked"), "{said}");
        (output.status.code(), said)
    };
    let (code, said) = lost("devices");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("standard output could not be written"),
        "{said}"
    );
    let (code, said) = lost(&format!("{TRAIN} --set run.dir=full"));
    assert_eq!(code, Some(0), "{said}");
    assert!(home.path("full/model/mlrm.toml").is_file());
}

#[test]
fn a_log_with_lines_that_are_no_events_is_read_without_them() {
    let home = Home::trained();
    let mut lines: Vec<String> = home
        .read("run/events.jsonl")
        .lines()
        .map(str::to_owned)
        .collect();
    lines.insert(2, "garbage".into());
    lines.insert(4, "{\"event\": 3".into());
    home.write("run/events.jsonl", lines.join("\n") + "\n");
    let says = "2 lines are no events and were passed over";

    let ran = home.mlrm("report run --out r.html");
    ran.done().tells(&[says]);
    assert!(
        home.read("r.html")
            .contains("unreadable lines in the log</th>")
    );
    let ran = home.mlrm("watch run --svg w.svg");
    ran.done().tells(&[says]);
    // A picture places every word by itself.
    assert!(home.read("w.svg").contains(">unreadable</text>"));
}

#[test]
fn a_report_of_no_known_ending_is_refused() {
    let home = Home::trained();
    home.refused(
        "report run --out r.pdf",
        &["r.pdf", "HTML or Markdown", "--format"],
    );
}

#[test]
fn what_would_steer_a_terminal_is_written_out() {
    let home = Home::trained();
    let path = "no\u{1b}[31m\u{202e}thing";
    let ran = home.mlrm(format!("report {path}"));
    ran.failed_with(1, &["no\\u001b[31m\\u202ething"]);
    assert!(!ran.err.contains(['\u{1b}', '\u{202e}']), "{ran:?}");
}

#[test]
fn a_run_that_diverges_says_so_and_can_be_looked_at() {
    let home = Home::with_config();
    let ran = home.train("run", "train.learning_rate=1e30 eval.baselines=[]");
    ran.failed_with(1, &["the run has diverged", "lower train.learning_rate"]);
    home.mlrm("report run --out r.html").done();
    home.mlrm("report run --out r.md").done();
    assert!(home.read("r.md").contains("the run has diverged"));
    home.mlrm("watch run --svg w.svg").done();
}
