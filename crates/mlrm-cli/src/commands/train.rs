//! `mlrm train CONFIG`: train, then measure the chosen model beside its baselines.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget};
use miette::{IntoDiagnostic, WrapErr};
use mlrm_config::{RunConfig, Toggle};
use mlrm_events::{Action, Event, EventSink, Stamped};
use mlrm_report::progress::ProgressLine;
use mlrm_report::run::folder_and_name;
use mlrm_report::tensorboard::TensorBoardWriter;
use mlrm_report::tui::{Attached, Options};
use mlrm_train::group::World;
use mlrm_train::run_folder::{Existing, RunFolder, RunOptions};
use mlrm_train::{Finished, Run, TrainError};

use super::model_source::{ALLOW_NAN, picture_progress};
use super::{stop, styled};
use crate::{errors, hub};

/// Train a model from a config file, and measure it beside its baselines.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// The TOML file of the run; see `mlrm config explain`.
    pub config: PathBuf,
    /// Override a setting; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Go on with the run in `run.dir` from its last checkpoint.
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Remove a run that is already in `run.dir`.
    #[arg(long)]
    pub overwrite: bool,
    /// Go on although this setting, or all of this section, is not what the run was begun with; may
    /// be given several times.
    #[arg(long, value_name = "KEY", requires = "resume")]
    pub accept_change: Vec<String>,
    /// Take weights that are NaN or infinite as they are (`model.allow_nan`).
    #[arg(long)]
    pub allow_nan: bool,
    /// Plain progress instead of the dashboard.
    #[arg(long)]
    pub no_dashboard: bool,
    /// Save and stop once standard input ends: with the process that started this one.
    #[arg(long, hide = true)]
    pub stop_with_input: bool,
}

/// Runs the command: trains, or takes part in the training of the process that leads where several were
/// started together.
pub fn run(args: TrainArgs) -> miette::Result<ExitCode> {
    let Some(world) = World::join()? else {
        train(args, None)?;
        return Ok(ExitCode::SUCCESS);
    };
    let rank = world.rank();
    let done = match rank {
        0 => train(args, Some(&world)).and_then(|()| Ok(world.end()?)),
        _ => follow(&args, &world).wrap_err_with(|| format!("rank {rank} cannot go on")),
    };
    if let Err(error) = done {
        errors::print(&error);
        world.abort();
    }
    Ok(ExitCode::SUCCESS)
}

fn train(args: TrainArgs, world: Option<&World>) -> miette::Result<()> {
    let loaded = RunConfig::load_with_places(&args.config, &overrides(&args));
    let loaded = loaded.map_err(TrainError::from)?;
    for warning in &loaded.warnings {
        eprintln!("{}", warning.report("warning"));
    }
    let mut config = loaded.config;
    let existing = match (args.resume, args.overwrite) {
        (true, _) => Existing::Resume,
        (_, true) => Existing::Overwrite,
        _ => Existing::Refuse,
    };
    let options = RunOptions {
        existing,
        accepted: args.accept_change,
        computes: world.map(World::computes).unwrap_or_default(),
    };
    if existing == Existing::Resume {
        pin_hub_names(&mut config)?;
    } else {
        // Before anything is downloaded for it.
        RunFolder::check(&config, &options)?;
    }
    hub::resolve(&mut config)?;
    eprintln!("preparing {}", args.config.display());
    let mut run = Run::open(config.clone(), &options, &picture_progress())?;
    if let Some(world) = world {
        eprintln!("{} processes train together", world.size());
        run.lead(world.group(&config.backend)?);
    }
    for notice in run.notices() {
        eprintln!("{notice}");
    }
    eprintln!("predicted:\n{}", run.preflight().table().trim_end());
    let (ask, requests) = mpsc::channel();
    stop::on_signals(ask.clone())?;
    if args.stop_with_input {
        stop::on_end_of_input(ask.clone()).into_diagnostic()?;
    }
    let mut screen = Screen::open(&config, ask, args.no_dashboard)?;
    let finished = run.train(&mut screen, requests);
    screen.close();
    print_outcome(&finished?);
    Ok(())
}

/// Takes part in a run that another process leads, and hears of signals from it alone.
fn follow(args: &TrainArgs, world: &World) -> miette::Result<()> {
    let (ask, _unread) = mpsc::channel();
    stop::on_signals(ask)?;
    world.follow(|| {
        let config = RunConfig::load(&args.config, &overrides(args));
        let mut config = config.map_err(TrainError::from)?;
        if args.resume {
            pin_hub_names(&mut config)?;
        }
        hub::resolve(&mut config)?;
        Ok(config)
    })
}

/// Settings in place of those of the config file.
fn overrides(args: &TrainArgs) -> Vec<String> {
    let nan = args.allow_nan.then(|| ALLOW_NAN.to_owned());
    args.set.iter().cloned().chain(nan).collect()
}

/// Names on the Hub without a revision mean, in a run that goes on, the commits that it began with.
fn pin_hub_names(config: &mut RunConfig) -> miette::Result<()> {
    let path = config.run.dir.join("config.toml");
    if path.is_file() {
        let earlier = RunConfig::load(&path, &[]).map_err(TrainError::from)?;
        hub::pin(config, &earlier);
    }
    Ok(())
}

fn print_outcome(finished: &Finished) {
    let root = finished.folder.root.display();
    if finished.stopped {
        println!("stopped; go on with `mlrm train {root}/config.toml --resume`");
        return;
    }
    if let Some(report) = &finished.report {
        let variant = finished.plan.embedder.config.variant.name();
        println!("{}", report.to_text(variant));
    }
    println!("model of step {}: {root}/model", finished.chosen_step);
}

/// Everything that reads the run's events while it runs.
struct Screen {
    tensorboard: Option<TensorBoardWriter>,
    dashboard: Attached,
    progress: ProgressLine,
    bar: ProgressBar,
}

impl Screen {
    fn open(config: &RunConfig, ask: Sender<Action>, no_dashboard: bool) -> miette::Result<Self> {
        let terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
        let wanted = match config.dashboard.enabled {
            Toggle::Auto => terminal,
            Toggle::On => true,
            Toggle::Off => false,
        };
        let dashboard = match (wanted && !no_dashboard).then(|| open_dashboard(config, ask)) {
            // Nobody asked for it: without a keyboard (`< /dev/null`) plain lines will do.
            Some(Err(error)) if matches!(config.dashboard.enabled, Toggle::Auto) => {
                eprintln!("{error}: going on without");
                Attached::default()
            }
            other => other.transpose()?.unwrap_or_default(),
        };
        let folder = config.run.dir.join("tensorboard");
        let tensorboard = config
            .train
            .tensorboard
            .then(|| TensorBoardWriter::create(&folder))
            .transpose()
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot write {}", folder.display()))?;
        let bar = match terminal && !dashboard.is_open() {
            true => ProgressBar::new_spinner(),
            false => ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()),
        };
        Ok(Self {
            tensorboard,
            dashboard,
            progress: ProgressLine::new(),
            bar: styled(bar, "{spinner} {wide_msg}"),
        })
    }

    fn show(&mut self, event: &Stamped) {
        if self.dashboard.show(event) {
            self.progress.terminal(event);
            return;
        }
        if self.bar.is_hidden() {
            let text = self.progress.plain(event);
            match (&event.event, text) {
                // Where output goes to a file, a person still sees what is wrong.
                (Event::Warning(_), Some(text)) => eprintln!("{text}"),
                (_, Some(text)) => println!("{text}"),
                (_, None) => {}
            }
        } else {
            if let Some(line) = self.progress.terminal(event) {
                self.bar.println(line);
            }
            self.bar.set_message(self.progress.status());
            self.bar.tick();
        }
    }

    fn close(mut self) {
        self.bar.finish_and_clear();
        // A terminal that is gone is no error of the run.
        let _gone = self.dashboard.close();
    }
}

impl EventSink for Screen {
    fn emit(&mut self, event: &Stamped) -> io::Result<()> {
        if let Some(tensorboard) = &mut self.tensorboard {
            tensorboard.emit(event)?;
        }
        self.show(event);
        Ok(())
    }

    fn say(&mut self, text: &str) {
        if !self.dashboard.is_open() && self.bar.is_hidden() {
            println!("{text}");
        } else {
            self.bar.set_message(text.to_owned());
        }
    }
}

fn open_dashboard(config: &RunConfig, ask: Sender<Action>) -> miette::Result<Attached> {
    let options = Options {
        run_name: folder_and_name(&config.run.dir).1,
        frames_per_second: f64::from(config.dashboard.frames_per_second),
        requests: Some(ask),
        ..Options::default()
    };
    Attached::open(options)
        .into_diagnostic()
        .wrap_err("the dashboard cannot be shown; use --no-dashboard")
}
