//! The dashboard of a real training in a real terminal, driven by tmux key by key.
#![cfg(unix)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::{Home, Words, end, events, named, resume, skipped};

/// What the shell writes once a command has ended.
const DONE: &str = "exit code ";
const PATIENCE: Duration = Duration::from_secs(90);

/// A tmux server of its own with one terminal in it, ended with the test.
struct Terminal {
    /// Where its socket is; in the test's folder, so that nothing outlives the test.
    socket: PathBuf,
}

impl Terminal {
    /// A shell in `folder` on a terminal of this size; `None`, loudly, where there is no tmux.
    fn open(name: &str, folder: &Path, (columns, rows): (u16, u16)) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            skipped(
                name,
                "tmux",
                "tmux is not installed, so no terminal can be driven",
            );
            return None;
        }
        let socket = folder.join("tmux");
        let terminal = Self { socket };
        let folder = folder.display();
        let words = format!("-f /dev/null new-session -d -x {columns} -y {rows} -c {folder}");
        let shell = "env PS1='ready> ' LANG=C.UTF-8 NO_COLOR= sh";
        terminal.tmux(&[words.words().as_slice(), &[shell]].concat());
        terminal.sees("ready>");
        Some(terminal)
    }

    #[track_caller]
    fn tmux(&self, words: &[&str]) -> Output {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(&self.socket)
            .arg("-u")
            .args(words)
            .output()
            .expect("tmux runs");
        assert!(output.status.success(), "tmux {words:?}: {output:?}");
        output
    }

    /// Presses keys, by tmux's names.
    #[track_caller]
    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types a command line.
    #[track_caller]
    fn enter(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.press(&["Enter"]);
    }

    /// What is on the screen.
    fn screen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The screen as soon as it is as `expected`.
    #[track_caller]
    fn wait_for(&self, what: &str, expected: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if expected(&screen) {
                return screen;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "no sign of {what} in:\n{screen}"
            );
            sleep(Duration::from_millis(50));
        }
    }

    /// The screen as soon as this stands on it.
    #[track_caller]
    fn sees(&self, words: &str) -> String {
        self.wait_for(words, |screen| screen.contains(words))
    }

    /// A terminal flag of the pane, such as `alternate_on` or `mouse_any_flag`.
    fn flag(&self, name: &str) -> String {
        let output = self.tmux(&["display-message", "-p", &format!("#{{{name}}}")]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Checks that a program has left the terminal as it found it.
    #[track_caller]
    fn is_clean(&self, home: &Home) {
        // The first line is the size, which is the test's doing.
        let settings = |name| {
            home.read(name)
                .lines()
                .skip(1)
                .collect::<Vec<_>>()
                .join("\n")
        };
        let before = settings("before");
        assert!(
            before.contains(" icanon "),
            "no settings of a terminal: {before}"
        );
        assert_eq!(
            before,
            settings("after"),
            "the terminal's settings were changed"
        );
        for (flag, clean) in [
            ("alternate_on", "0"),
            ("mouse_any_flag", "0"),
            ("cursor_flag", "1"),
        ] {
            assert_eq!(self.flag(flag), clean, "{flag}");
        }
        // And it still works.
        self.enter("echo $((6 * 7)) is the answer");
        self.sees("\n42 is the answer");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut tmux = Command::new("tmux");
        let _already_gone = tmux.arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

/// A command line around the binary that notes the terminal's settings before and after, and the
/// process.
fn noted(arguments: &str) -> String {
    let mlrm = support::binary();
    let mlrm = mlrm.display();
    format!(
        "stty -a > before; sh -c 'echo $$ > pid; exec {mlrm} {arguments}'; echo {DONE}$?; \
         stty -a > after; echo noted"
    )
}

/// The step on the screen.
fn step(screen: &str) -> Option<u64> {
    let after = screen.split(" step ").nth(1)?;
    let digits = after.split(' ').next()?.replace(',', "");
    digits.parse().ok()
}

/// Waits for the end of the noted command; what it left on the screen.
#[track_caller]
fn ended(terminal: &Terminal, code: i32) -> String {
    let line = format!("{DONE}{code}\n");
    terminal.wait_for(&line, |screen| {
        screen.contains(&line) && screen.contains("\nnoted")
    })
}

/// A run that ends only when it is asked to.
const ENDLESS: &str = "train tiny.toml --set train.max_steps=1000000 --set train.eval_every_steps=20 \
                       --set train.save_every_steps=50 --set eval.baselines=[]";

#[test]
fn a_training_is_watched_steered_and_stopped() {
    let home = Home::with_config();
    let Some(terminal) = Terminal::open("steered", &home.path("."), (120, 40)) else {
        return;
    };
    terminal.enter(&noted(ENDLESS));
    terminal.wait_for("ten steps", |screen| {
        screen.contains("running") && step(screen) > Some(10)
    });
    assert_eq!(terminal.flag("alternate_on"), "1");

    for (key, panel) in [
        ("2", "Saliency by layer"),
        ("3", "Recall@"),
        ("4", "Gate values"),
        ("5", "Events (notable)"),
        ("6", "parameters trained"),
        ("1", "Gradient norm"),
        ("?", "save and stop after this step"),
    ] {
        terminal.press(&[key]);
        terminal.sees(panel);
    }
    // Any key closes the help, Tab goes to the next view and back tab to the one before.
    terminal.press(&["Escape"]);
    terminal.wait_for("no help", |screen| !screen.contains("page keys"));
    terminal.press(&["Tab"]);
    terminal.sees("Saliency by layer");
    terminal.press(&["BTab"]);
    terminal.sees("Gradient norm");

    resizes(&terminal);
    pauses_and_saves(&terminal, &home);

    terminal.press(&["x"]);
    terminal.sees("press x again");
    terminal.press(&["x"]);
    let screen = ended(&terminal, 0);
    assert!(
        screen.contains("stopped; go on with `mlrm train"),
        "{screen}"
    );
    // Not a line of the dashboard is left.
    assert!(
        !screen.contains("Overview") && !screen.contains("x stop"),
        "{screen}"
    );
    terminal.is_clean(&home);
    is_whole(&home);
}

#[test]
fn a_sweep_is_watched_run_by_run_and_stopped() {
    let home = Home::with_config();
    let Some(terminal) = Terminal::open("sweep", &home.path("."), (120, 30)) else {
        return;
    };
    let sweep = "base = \"tiny.toml\"\ndir = \"runs\"\nset = [\"train.max_steps=1000000\", \
                 \"train.eval_every_steps=20\", \"eval.baselines=[]\"]\nseeds = [1, 2]\n";
    home.write("sweep.toml", sweep);
    terminal.enter(&noted("sweep sweep.toml --dashboard"));
    terminal.wait_for("a run and its recall", |screen| {
        ["1 running", "1 waiting", "of 1,000,000", " %", "Recall@"]
            .iter()
            .all(|words| screen.contains(words))
    });
    terminal.press(&["Enter"]);
    terminal.wait_for("the run", |screen| {
        screen.starts_with("1 Overview") && screen.contains("esc all runs")
    });
    terminal.press(&["Escape"]);
    terminal.sees("2 runs");
    terminal.press(&["x", "x"]);
    let screen = ended(&terminal, 0);
    assert!(
        screen.contains("stopped; go on with the same command"),
        "{screen}"
    );
    assert!(!screen.contains("Overview"), "{screen}");
    terminal.is_clean(&home);
}

#[track_caller]
fn resizes(terminal: &Terminal) {
    for (columns, rows) in [(60, 15), (200, 60), (30, 8), (80, 24)] {
        terminal.tmux(&format!("resize-window -x {columns} -y {rows}").words());
        if columns < 60 {
            terminal.sees("mlrm needs 60x15");
            continue;
        }
        // The views stand in the first row and the keys in the last, whole, and nothing is left of
        // the size before. tmux shows the old screen, cut, until the dashboard has drawn the new one.
        terminal.wait_for("the new size", |screen| {
            let lines: Vec<&str> = screen.lines().collect();
            lines.len() == rows
                && lines[0].starts_with("1 Overview 2 Attention")
                && lines[rows - 1].starts_with("q detach")
                && screen.matches("q detach").count() == 1
        });
    }
}

#[track_caller]
fn pauses_and_saves(terminal: &Terminal, home: &Home) {
    terminal.press(&["Space"]);
    let screen = terminal.sees("paused");
    let paused_at = step(&screen).expect("a step");
    terminal.press(&["s"]);
    let saved = format!("run/checkpoints/step-{paused_at}/model/mlrm.toml");
    assert!(came(PATIENCE, || home.path(&saved).is_file()), "no {saved}");
    assert_eq!(
        step(&terminal.screen()),
        Some(paused_at),
        "a paused run went on"
    );
    terminal.press(&["Space"]);
    terminal.wait_for("more steps", |screen| {
        screen.contains("running") && step(screen) > Some(paused_at)
    });
}

/// The run's files after it was stopped.
#[track_caller]
fn is_whole(home: &Home) {
    let events = events(home, "run");
    let controls: Vec<&str> = named(&events, "control")
        .into_iter()
        .filter_map(|control| control["action"].as_str())
        .collect();
    assert_eq!(controls, ["pause", "save", "resume", "stop"]);
    end(&events, "stopped");
    let stopped = named(&events, "control")[3]["step"]
        .as_u64()
        .expect("a step");
    let steps = named(&events, "train_step");
    let steps: Vec<u64> = steps
        .iter()
        .filter_map(|event| event["step"].as_u64())
        .collect();
    assert_eq!(
        steps,
        (1..=stopped).collect::<Vec<u64>>(),
        "a step was lost or taken twice"
    );
    let last = std::fs::canonicalize(home.path("run/last")).expect("the link to the last one");
    assert!(
        last.ends_with(format!("step-{stopped}")),
        "{last:?} is not of step {stopped}"
    );
    // The model is one that other commands take.
    let words = "embed run --notes data/notes.jsonl --out notes.npy";
    home.mlrm(words).done();
    // And the run goes on where it was stopped.
    let more = format!("--set train.max_steps={}", stopped + 2);
    resume(home, "run", &more).done();
}

#[test]
fn a_training_goes_on_without_its_dashboard() {
    let home = Home::with_config();
    let Some(terminal) = Terminal::open("detached", &home.path("."), (80, 24)) else {
        return;
    };
    terminal.enter(&noted(ENDLESS));
    terminal.wait_for("a step", |screen| step(screen) > Some(1));
    terminal.press(&["q"]);
    terminal.wait_for("the plain screen", |screen| !screen.contains("1 Overview"));
    assert_eq!(terminal.flag("alternate_on"), "0");
    let logged = || events_so_far(&home);
    let before = logged();
    let went_on = came(PATIENCE, || logged() >= before + 10);
    assert!(went_on, "the run stood still");
    // Without the dashboard, Ctrl-C is the signal again.
    terminal.press(&["C-c"]);
    ended(&terminal, 0);
    terminal.is_clean(&home);
    end(&events(&home, "run"), "stopped");
}

fn events_so_far(home: &Home) -> usize {
    home.read("run/events.jsonl").lines().count()
}

#[test]
fn signals_give_the_terminal_back() {
    let home = Home::trained();
    let Some(terminal) = Terminal::open("signals", &home.path("."), (80, 24)) else {
        return;
    };
    for (signal, code) in [("TERM", 143), ("HUP", 129), ("INT", 130)] {
        terminal.enter("clear");
        terminal.enter(&noted("watch run"));
        terminal.sees("completed");
        assert_eq!(terminal.flag("alternate_on"), "1");
        assert!(kill(signal, &home.read("pid")), "{signal}");
        ended(&terminal, code);
        terminal.is_clean(&home);
    }
}

/// Waits until it is so; whether it was before `patience` ended.
fn came(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > patience {
            return false;
        }
        sleep(Duration::from_millis(50));
    }
    true
}

/// Closes the terminal under whatever runs in it.
fn close(terminal: Terminal) {
    drop(terminal);
}

/// Sends a signal by the shell's own `kill`, which is everywhere; whether there was such a process.
fn kill(signal: &str, process: &str) -> bool {
    let kill = format!("kill -{signal} {} 2> /dev/null", process.trim());
    Command::new("sh")
        .args(["-c", &kill])
        .status()
        .expect("a shell")
        .success()
}

/// Whether a process ends within ten seconds.
fn ends(process: &str) -> bool {
    came(Duration::from_secs(10), || !kill("0", process))
}

#[test]
fn watching_ends_with_its_terminal() {
    let home = Home::trained();
    let mlrm = support::binary();
    let watch = format!("echo $$ > pid; exec {} watch run", mlrm.display());
    // With the signal that a closed terminal sends, and (in a session of its own) without.
    for session in ["", "setsid -w "] {
        let Some(terminal) = Terminal::open("closed", &home.path("."), (80, 24)) else {
            return;
        };
        terminal.enter(&format!("{session}sh -c '{watch}'"));
        terminal.sees("completed");
        close(terminal);
        assert!(ends(&home.read("pid")), "it runs without a terminal");
    }
}

#[test]
fn a_stopped_terminal_does_not_keep_a_watcher_from_ending() {
    let home = Home::trained();
    let Some(terminal) = Terminal::open("stopped", &home.path("."), (80, 24)) else {
        return;
    };
    terminal.enter(&noted("watch run --frames-per-second 60"));
    terminal.sees("completed");
    // Nobody takes the output any more, as behind a connection that is broken.
    let (tmux, tty) = (terminal.flag("pid"), terminal.flag("pane_tty"));
    assert!(kill("STOP", &tmux));
    let watcher = home.read("pid");
    // New sizes make it draw all anew, until the terminal's buffer is full.
    for turn in 0..40 {
        let columns = (80 + turn % 2).to_string();
        let resized = Command::new("stty")
            .args(["-F", &tty, "cols", &columns])
            .status();
        assert!(resized.expect("stty").success());
        sleep(Duration::from_millis(25));
    }
    kill("TERM", &watcher);
    let ended_by_itself = ends(&watcher);
    kill("KILL", &watcher);
    assert!(kill("CONT", &tmux));
    assert!(ended_by_itself, "a stopped terminal holds it");
    ended(&terminal, 143);
}

#[test]
fn a_training_without_a_keyboard_has_plain_lines() {
    let home = Home::with_config();
    let Some(terminal) = Terminal::open("no keyboard", &home.path("."), (120, 40)) else {
        return;
    };
    // In a session of its own there is no terminal to fall back to.
    let mlrm = support::binary();
    terminal.enter(&format!(
        "setsid -w {} train tiny.toml --set eval.baselines=[] < /dev/null; echo {DONE}$?",
        mlrm.display()
    ));
    let screen = terminal.sees(&format!("\n{DONE}0"));
    assert!(screen.contains("going on without"), "{screen}");
}

#[test]
fn a_training_outlives_its_terminal() {
    let home = Home::with_config();
    let mlrm = support::binary();
    // In a session of its own no signal tells it that the terminal has gone; writing fails.
    let train = format!(
        "setsid -w {} train tiny.toml --set train.max_steps=150 --set train.eval_every_steps=0 \
         --set train.save_every_steps=0 --set eval.baselines=[]",
        mlrm.display()
    );
    for (run, detached) in [("watched", false), ("detached", true)] {
        let Some(terminal) = Terminal::open("outlived", &home.path("."), (80, 24)) else {
            return;
        };
        let errors = if detached { "2> detached.err" } else { "" };
        terminal.enter(&format!(
            "{train} {errors} --set run.dir={run} --set 'dashboard.enabled=\"on\"'"
        ));
        terminal.wait_for("a step", |screen| step(screen) > Some(1));
        if detached {
            terminal.press(&["q"]);
            terminal.wait_for("the plain screen", |screen| !screen.contains("1 Overview"));
        }
        close(terminal);
        let log = format!("{run}/events.jsonl");
        let ended = || home.read(&log).contains("\"run_ended\"");
        assert!(came(PATIENCE, ended), "the run stood still");
        end(&events(&home, run), "completed");
        assert!(home.path(format!("{run}/model/mlrm.toml")).is_file());
        if detached {
            let said = home.read("detached.err");
            assert!(!said.contains("panicked"), "{said}");
        }
    }
}
