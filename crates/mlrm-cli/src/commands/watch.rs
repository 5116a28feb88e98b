//! `mlrm watch RUN`: the dashboard on a live or finished run, read-only.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use miette::{IntoDiagnostic, WrapErr, miette};
use mlrm_events::{EventTail, read_log};
use mlrm_report::follow::{FollowedRun, Listed, RUNS_FILE, Source};
use mlrm_report::run::{event_log_path, folder_and_name};
use mlrm_report::state::RunState;
use mlrm_report::tui::{App, ColorDepth, Dashboard, Options, Outcome, SweepApp, Theme, View};

use super::read_json;

/// Watch a live or finished run, or all runs of a sweep, in the terminal.
///
/// Reads the run's events only: watching costs the training nothing, and can begin and end at any
/// time, also from another machine over a shared folder.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The run folder, its events.jsonl, or the folder of a sweep.
    pub run: PathBuf,
    /// The first view.
    #[arg(long, default_value = "overview", value_parser = views())]
    pub view: View,
    /// Colours; by default what NO_COLOR, COLORTERM and TERM say.
    #[arg(long, value_enum, default_value_t = ColorArg::Auto)]
    pub color: ColorArg,
    /// Draw with ASCII characters only.
    #[arg(long)]
    pub ascii: bool,
    /// Draw at most so many frames per second, and only when something changed.
    #[arg(long, default_value_t = 10.0, value_name = "N")]
    pub frames_per_second: f64,
    /// Write one frame to this SVG file instead of showing the dashboard.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Size of that frame in cells, as COLUMNSxROWS.
    #[arg(long, default_value = "120x40", value_parser = parse_size, value_name = "SIZE")]
    pub size: (u16, u16),
}

/// How many colours the terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    /// What the environment says.
    Auto,
    /// None.
    None,
    /// The terminal's 16.
    #[value(name = "16")]
    Ansi16,
    /// 256.
    #[value(name = "256")]
    Ansi256,
    /// 24 bit.
    #[value(name = "true")]
    True,
}

impl ColorArg {
    fn depth(self) -> Option<ColorDepth> {
        match self {
            ColorArg::Auto => None,
            ColorArg::None => Some(ColorDepth::None),
            ColorArg::Ansi16 => Some(ColorDepth::Ansi16),
            ColorArg::Ansi256 => Some(ColorDepth::Ansi256),
            ColorArg::True => Some(ColorDepth::True),
        }
    }
}

/// The views by the names of their tabs.
fn views() -> impl TypedValueParser<Value = View> {
    PossibleValuesParser::new(View::ALL.map(View::name)).map(|name| {
        let chosen = View::ALL.into_iter().find(|view| view.name() == name);
        chosen.unwrap_or(View::Overview)
    })
}

fn parse_size(text: &str) -> Result<(u16, u16), String> {
    let sides = text.split_once(['x', 'X']).and_then(|(columns, rows)| {
        Some((columns.trim().parse().ok()?, rows.trim().parse().ok()?))
    });
    match sides {
        Some((columns @ 60..=1000, rows @ 15..=500)) => Ok((columns, rows)),
        Some(_) => Err("from 60x15 to 1000x500".into()),
        None => Err("COLUMNSxROWS, such as 120x40".into()),
    }
}

/// Runs `mlrm watch`.
///
/// # Errors
/// There is no such run, its log cannot be read, or the terminal cannot be taken over.
pub fn run(args: WatchArgs) -> miette::Result<ExitCode> {
    let log = event_log_path(&args.run);
    let (folder, run_name) = folder_and_name(&args.run);
    if !folder.exists() {
        return Err(miette!(
            help = "name the folder that `mlrm train` made (`run.dir` of the config)",
            "there is no run {}",
            args.run.display()
        ));
    }
    let runs = match folder.join(RUNS_FILE).is_file() && !log.exists() {
        true => Some(runs_of(&folder)?),
        false => None,
    };
    match (&args.svg, runs) {
        (Some(svg), Some(runs)) => write_sweep_frame(&args, svg, runs, run_name),
        (Some(svg), None) => write_frame(&args, svg, run_name),
        (None, runs) => watch(&args, runs, run_name),
    }
}

/// The runs of a sweep, by the list in its folder.
///
/// # Errors
/// The list cannot be read.
pub(super) fn runs_of(sweep: &Path) -> miette::Result<Vec<FollowedRun>> {
    let listed: Vec<Listed> = read_json(&sweep.join(RUNS_FILE), "list of runs")?;
    let runs = listed.into_iter();
    let runs = runs.map(|run| FollowedRun::of_sweep(run.name, &sweep.join(run.folder)));
    Ok(runs.collect())
}

fn watch(
    args: &WatchArgs,
    runs: Option<Vec<FollowedRun>>,
    run_name: String,
) -> miette::Result<ExitCode> {
    if !std::io::stdout().is_terminal() {
        return Err(miette!(
            help = "`mlrm report RUN --out report.html` writes a file, and so does --svg",
            "the dashboard needs a terminal"
        ));
    }
    let mut theme = Theme::detect();
    theme.colors = args.color.depth().unwrap_or(theme.colors);
    theme.unicode &= !args.ascii;
    let options = Options {
        run_name,
        frames_per_second: args.frames_per_second,
        requests: None,
        theme,
        view: args.view,
    };
    let dashboard = match runs {
        Some(runs) => Dashboard::spawn_sweep(runs, options),
        None => {
            let tail = EventTail::new(event_log_path(&args.run));
            Dashboard::spawn(Source::Tail(tail), options)
        }
    };
    let outcome = dashboard
        .and_then(|dashboard| dashboard.wait())
        .into_diagnostic()
        .wrap_err("the dashboard failed")?;
    Ok(match outcome {
        Outcome::Closed | Outcome::Finished => ExitCode::SUCCESS,
        // As a shell reports a program that a signal ended.
        Outcome::Interrupted(signal) => ExitCode::from(128_u8.saturating_add(signal as u8)),
    })
}

/// One frame as a picture.
fn write_frame(args: &WatchArgs, svg: &Path, run_name: String) -> miette::Result<ExitCode> {
    let log = read_log(event_log_path(&args.run)).into_diagnostic()?;
    say_unreadable(&args.run, log.malformed.len() as u64);
    let state = RunState::from_log(&log);
    let mut app = App::new(run_name, frame_theme(args), false);
    app.view = args.view;
    let picture = app.svg(args.size, &state, mlrm_report::unix_time());
    super::write(svg, &picture)?;
    Ok(ExitCode::SUCCESS)
}

/// One frame of the runs of a sweep.
fn write_sweep_frame(
    args: &WatchArgs,
    svg: &Path,
    mut runs: Vec<FollowedRun>,
    name: String,
) -> miette::Result<ExitCode> {
    for run in &mut runs {
        run.poll();
        if let Some(problem) = run.take_problem() {
            eprintln!("warning: {}: {problem}", run.name);
        }
    }
    let app = SweepApp::new(name, frame_theme(args), false);
    let picture = app.svg(args.size, &runs, mlrm_report::unix_time());
    super::write(svg, &picture)?;
    Ok(ExitCode::SUCCESS)
}

/// A file has no terminal that would say what it shows.
fn frame_theme(args: &WatchArgs) -> Theme {
    Theme {
        colors: args.color.depth().unwrap_or(ColorDepth::True),
        unicode: !args.ascii,
    }
}

/// Says how many lines of a log were passed over.
pub fn say_unreadable(run: &Path, lines: u64) {
    if lines > 0 {
        eprintln!(
            "warning: {}: {lines} lines are no events and were passed over",
            event_log_path(run).display()
        );
    }
}
