//! Disks that are full, or read only: a message, nothing half written, a run that goes on.
//!
//! Each test mounts a small file system of its own, which an unprivileged user may do in a namespace of
//! its own (`unshare`), where the system allows it.
#![cfg(target_os = "linux")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{Home, binary, events, losses, skipped, weights_below};

const SETS: &str = "--set train.max_steps=40 --set train.save_every_steps=4 --set train.keep_checkpoints=1 \
    --set train.eval_every_steps=0 --set data.pairs.validation_fraction=0 --set eval.baselines=[] \
    --set train.saliency_every_steps=0 --set train.probe_notes=0";

/// Runs a shell script in a mount namespace of its own, in the folder of `home`; `$mlrm` is the binary.
fn script(home: &Home, text: &str) -> Output {
    Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", text])
        .current_dir(home.path("."))
        .env("mlrm", binary())
        .output()
        .expect("unshare runs")
}

/// Whether `test` may mount; says so where it may not.
fn may_mount(home: &Home, test: &str) -> bool {
    let found = Command::new("unshare")
        .args([
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            "mkdir probe && mount -t tmpfs tmpfs probe",
        ])
        .current_dir(home.path("."))
        .output();
    let may = found.is_ok_and(|output| output.status.success());
    if !may {
        skipped(
            test,
            "unshare",
            "this system lets no user mount a file system",
        );
    }
    may
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Weights that the run ends with.
fn weights(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    weights_below(run, &["model"])
}

#[test]
fn a_disk_that_fills_up_costs_no_more_than_the_steps_since_the_last_checkpoint() {
    let home = Home::with_config();
    if !may_mount(
        &home,
        "a_disk_that_fills_up_costs_no_more_than_the_steps_since_the_last_checkpoint",
    ) {
        return;
    }
    // Enough for the run; another program fills the disk once a checkpoint is there.
    let text = format!(
        "mkdir full && mount -t tmpfs -o size=64m tmpfs full || exit 9
         $mlrm train tiny.toml --set run.dir=full/run --set train.log_every_steps=1 {SETS} > first.txt 2>&1 &
         while ! [ -e full/run/last ]; do sleep 0.005; done
         cat /dev/zero > full/other 2> /dev/null
         wait $!; echo \"first $?\" >> first.txt
         find full/run -name '*.tmp' > halves.txt
         rm full/other
         $mlrm train full/run/config.toml --resume > second.txt 2>&1; echo \"second $?\" >> second.txt
         ls -A full/run/checkpoints > left.txt
         cp -a full/run run"
    );
    let output = script(&home, &text);
    assert!(output.status.success(), "{}", said(&output));
    let (first, second) = (home.read("first.txt"), home.read("second.txt"));
    // It may have ended before the disk was full; then there is nothing to see here.
    assert!(first.contains("first 1"), "{first}");
    assert!(first.contains("No space left on device"), "{first}");
    assert!(!first.contains("panicked"), "{first}");
    assert!(second.contains("second 0"), "{second}");
    assert_eq!(home.read("left.txt"), "step-40\n");
    home.mlrm(format!("train tiny.toml --set run.dir=whole {SETS}"))
        .done();
    assert_eq!(
        losses(&events(&home, "run")),
        losses(&events(&home, "whole"))
    );
    assert!(
        weights(&home.path("run")) == weights(&home.path("whole")),
        "other weights"
    );
}

#[test]
fn a_disk_that_is_too_small_is_told_of_before_the_first_step() {
    let home = Home::with_config();
    if !may_mount(
        &home,
        "a_disk_that_is_too_small_is_told_of_before_the_first_step",
    ) {
        return;
    }
    let text = format!(
        "mkdir small && mount -t tmpfs -o size=1m tmpfs small || exit 9
         $mlrm train tiny.toml --set run.dir=small/run {SETS}; echo \"code $?\"; ls small"
    );
    let said = said(&script(&home, &text));
    for word in [
        "code 1",
        "the run may take",
        "1.00 MiB are free",
        "train.keep_checkpoints = 1",
    ] {
        assert!(said.contains(word), "no `{word}`: {said}");
    }
    assert!(!said.lines().any(|line| line == "run"), "{said}");
}

#[test]
fn a_folder_that_is_read_only_is_named_and_can_still_be_read() {
    let home = Home::with_config();
    if !may_mount(
        &home,
        "a_folder_that_is_read_only_is_named_and_can_still_be_read",
    ) {
        return;
    }
    home.train("kept/run", "train.max_steps=4 eval.baselines=[]")
        .done();
    let text = format!(
        "mount --bind kept kept && mount -o remount,bind,ro kept || exit 9
         $mlrm train tiny.toml --set run.dir=kept/other {SETS} > other.txt 2>&1; echo \"code $?\" >> other.txt
         $mlrm train kept/run/config.toml --resume --set train.max_steps=6 > resumed.txt 2>&1
         echo \"code $?\" >> resumed.txt
         $mlrm eval kept/run --set eval.baselines=[] > eval.txt 2>&1; echo \"code $?\" >> eval.txt"
    );
    let output = script(&home, &text);
    assert!(output.status.success(), "{}", said(&output));
    for name in ["other.txt", "resumed.txt"] {
        let text = home.read(name);
        for word in ["code 1", "Read-only file system", "kept/"] {
            assert!(text.contains(word), "no `{word}`: {text}");
        }
        assert!(!text.contains("panicked"), "{text}");
    }
    assert!(
        home.read("eval.txt").contains("code 0"),
        "{}",
        home.read("eval.txt")
    );
}
