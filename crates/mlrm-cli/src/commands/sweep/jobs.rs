//! The runs of a sweep as processes of their own, and what is seen of them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar};
use miette::{IntoDiagnostic, WrapErr};
use mlrm_config::{Cell, Sweep};
use mlrm_events::{Action, EventTail};
use mlrm_report::progress::ProgressLine;
use mlrm_report::run::{event_log_path, folder_and_name, last_words, output_path};
use mlrm_report::tui::{Dashboard, DashboardHandle, Options};
use mlrm_train::group::LAUNCH_MARKS;

use super::SweepArgs;
use super::state::{State, beginning, is_held, state_of};
use crate::commands::{stop, styled, watch};

/// How often processes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a run that another process holds is left alone.
const HELD_FOR: Duration = Duration::from_secs(1);

/// How the runs ended.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Whether somebody asked to stop.
    pub(super) stopped: bool,
    /// Run and reason.
    pub(super) failed: Vec<(String, String)>,
}

/// How one run ended.
enum End {
    Done,
    /// It saved and ended because it was asked to.
    Stopped,
    Failed(String),
}

/// Runs `cells`, at most `args.jobs` at a time; `done` others are done already.
///
/// # Errors
/// The program cannot be started, or a folder cannot be written. A run that fails is none.
pub(super) fn run(
    args: &SweepArgs,
    sweep: &Sweep,
    cells: &[&Cell],
    done: usize,
) -> miette::Result<Outcome> {
    let (ask, requests) = mpsc::channel();
    stop::on_signals(ask.clone())?;
    let dashboard = args
        .dashboard
        .then(|| open_dashboard(&sweep.dir, ask))
        .transpose()?;
    let mut screen = Screen::open(&args.file, done, done + cells.len(), dashboard);
    let mut outcome = Outcome::default();
    let mut waiting: VecDeque<(&Cell, Instant)> =
        cells.iter().map(|cell| (*cell, Instant::now())).collect();
    let mut running: Vec<Job<'_>> = Vec::new();
    while !running.is_empty() || !(waiting.is_empty() || outcome.stopped) {
        if !outcome.stopped && requests.try_recv().is_ok() {
            outcome.stopped = true;
            screen.line("stopping: runs save and end");
            // A run whose input ends saves and ends.
            running.iter_mut().for_each(|job| job.input = None);
        }
        while !outcome.stopped && running.len() < args.jobs {
            let ready = waiting.iter().position(|(_, from)| *from <= Instant::now());
            let Some((cell, _)) = ready.and_then(|at| waiting.remove(at)) else {
                break;
            };
            if is_held(&cell.loaded.config) {
                waiting.push_back((cell, Instant::now() + HELD_FOR));
            } else if state_of(cell.dir())? == State::Done {
                // Another process has finished it.
                screen.ended(cell, &End::Done);
            } else {
                screen.line(&format!("{} begins", cell.name()));
                running.push(Job::start(sweep, cell, screen.bar())?);
            }
        }
        let mut at = 0;
        while at < running.len() {
            match running[at].look()? {
                Some(status) => {
                    let job = running.remove(at);
                    job.bar.finish_and_clear();
                    let end = job.end(status, outcome.stopped)?;
                    screen.ended(job.cell, &end);
                    if let End::Failed(reason) = end {
                        outcome.failed.push((job.cell.name(), reason));
                    }
                }
                None => at += 1,
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
    screen.close();
    Ok(outcome)
}

/// A run in a process of its own.
struct Job<'a> {
    cell: &'a Cell,
    child: Child,
    /// Its end tells the process that nobody waits for it any more.
    input: Option<ChildStdin>,
    log: PathBuf,
    tail: EventTail,
    progress: ProgressLine,
    bar: ProgressBar,
}

impl<'a> Job<'a> {
    fn start(sweep: &Sweep, cell: &'a Cell, bar: ProgressBar) -> miette::Result<Self> {
        let log = output_path(cell.dir());
        let folder = log.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot make {}", folder.display()))?;
        let output = File::create(&log)
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().into_diagnostic()?;
        let program = std::env::current_exe().into_diagnostic()?;
        let mut command = Command::new(program);
        command.arg("train").arg(&sweep.base);
        command.args(cell.overrides.iter().flat_map(|set| ["--set", set]));
        command.args(["--no-dashboard", "--stop-with-input"]);
        command.args(beginning(&cell.loaded.config)?);
        // A run of a sweep is its own, however the sweep was started.
        for mark in LAUNCH_MARKS {
            command.env_remove(mark);
        }
        command.stdin(Stdio::piped()).stdout(output).stderr(errors);
        let mut child = command
            .spawn()
            .into_diagnostic()
            .wrap_err("a run cannot be started")?;
        Ok(Self {
            input: child.stdin.take(),
            child,
            tail: EventTail::new(event_log_path(cell.dir())),
            progress: ProgressLine::new(),
            cell,
            log,
            bar,
        })
    }

    /// Reads what the run has told; its status once it has ended.
    fn look(&mut self) -> miette::Result<Option<ExitStatus>> {
        if !self.bar.is_hidden() {
            // A log that cannot be read now can be the next time.
            let events = self
                .tail
                .poll()
                .map(|batch| batch.events)
                .unwrap_or_default();
            for event in &events {
                self.progress.plain(event);
            }
            self.bar
                .set_message(format!("{}: {}", self.cell.name(), self.progress.status()));
            self.bar.tick();
        }
        self.child.try_wait().into_diagnostic()
    }

    fn end(&self, status: ExitStatus, stopped: bool) -> miette::Result<End> {
        Ok(match state_of(self.cell.dir())? {
            State::Done if status.success() => End::Done,
            State::Interrupted | State::Missing if stopped && status.success() => End::Stopped,
            State::Failed(reason) => End::Failed(reason),
            _ => End::Failed(self.last_words(status)),
        })
    }

    /// The error that the process printed, or how it ended.
    fn last_words(&self, status: ExitStatus) -> String {
        last_words(&self.log).unwrap_or_else(|| {
            let log = self.log.display();
            format!("the process ended with {status}; see {log}")
        })
    }
}

/// All runs of the sweep in the dashboard, which may ask for their end.
fn open_dashboard(dir: &Path, ask: mpsc::Sender<Action>) -> miette::Result<DashboardHandle> {
    let options = Options {
        run_name: folder_and_name(dir).1,
        requests: Some(ask),
        ..Options::default()
    };
    Dashboard::spawn_sweep(watch::runs_of(dir)?, options)
        .into_diagnostic()
        .wrap_err("the dashboard cannot be shown; leave --dashboard out")
}

/// The view of all runs: a line for each that runs and one for all, or plain lines where standard
/// error is no terminal; or the dashboard, until a person closes it.
struct Screen {
    dashboard: Option<DashboardHandle>,
    /// Lines that wait until the dashboard gives the terminal back.
    held: Vec<String>,
    all: MultiProgress,
    total: ProgressBar,
    live: bool,
    ended: usize,
    failed: usize,
    runs: usize,
}

impl Screen {
    fn open(file: &Path, done: usize, runs: usize, dashboard: Option<DashboardHandle>) -> Self {
        let live = dashboard.is_none() && io::stderr().is_terminal();
        let all = MultiProgress::new();
        let total = match live {
            true => all.add(ProgressBar::new(runs as u64)),
            false => ProgressBar::hidden(),
        };
        let total = styled(total, "{msg} [{wide_bar}] {pos} of {len}, {elapsed}");
        total.set_message(file.display().to_string());
        total.set_position(done as u64);
        let mut screen = Self {
            dashboard,
            held: Vec::new(),
            all,
            total,
            live,
            ended: done,
            failed: 0,
            runs,
        };
        screen.line(&format!(
            "{}: {runs} runs, {done} of them done",
            file.display()
        ));
        screen
    }

    /// The line of a run that begins.
    fn bar(&self) -> ProgressBar {
        if !self.live {
            return ProgressBar::hidden();
        }
        let bar = styled(ProgressBar::new_spinner(), "{spinner} {wide_msg}");
        self.all.insert_before(&self.total, bar)
    }

    fn line(&mut self, text: &str) {
        if let Some(dashboard) = &mut self.dashboard {
            self.held.push(text.to_owned());
            if !dashboard.is_open() {
                self.close_dashboard();
            }
            return;
        }
        match self.live {
            true => {
                // A terminal that is gone is no error of the sweep.
                let _gone = self.all.println(text);
            }
            false => println!("{text}"),
        }
    }

    fn ended(&mut self, cell: &Cell, end: &End) {
        let words = match end {
            End::Done => {
                self.ended += 1;
                "ended".to_owned()
            }
            End::Stopped => "stopped".to_owned(),
            End::Failed(reason) => {
                self.failed += 1;
                format!("failed: {reason}")
            }
        };
        self.total.set_position((self.ended + self.failed) as u64);
        let (ended, runs, failed) = (self.ended, self.runs, self.failed);
        let count = format!("{ended} of {runs} done, {failed} failed");
        self.line(&format!("{}: {words} ({count})", cell.name()));
    }

    /// Gives the terminal back and prints what has waited for it.
    fn close_dashboard(&mut self) {
        let Some(dashboard) = self.dashboard.take() else {
            return;
        };
        if let Err(error) = dashboard.close() {
            eprintln!("the dashboard ended: {error}");
        }
        self.held.drain(..).for_each(|line| println!("{line}"));
    }

    fn close(mut self) {
        self.close_dashboard();
        self.total.finish_and_clear();
    }
}
