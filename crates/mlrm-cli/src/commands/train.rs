//! `mlrm train CONFIG`: train, then measure the chosen model beside its baselines.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};
use std::time::Instant;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use miette::{IntoDiagnostic, WrapErr};
use mlrm_config::{Baseline, RunConfig, Toggle};
use mlrm_eval::EvalReport;
use mlrm_events::{Action, EndReason, Evaluation, Event, EventLog, EventSink, Split, Stamped};
use mlrm_report::progress::ProgressLine;
use mlrm_report::run::folder_and_name;
use mlrm_report::tensorboard::TensorBoardWriter;
use mlrm_report::tui::{Dashboard, DashboardHandle, Options, Source};
use mlrm_train::TrainError;
use mlrm_train::encode::Inference;
use mlrm_train::evaluate::{BaselineSources, Measured, Retrieval, full_report};
use mlrm_train::examples::write_examples;
use mlrm_train::plan::RunPlan;
use mlrm_train::run_folder::{Existing, RunFolder, write_beside};
use mlrm_train::trainer::{Finished, Trainer, event_slices};

use super::model_source::ALLOW_NAN;

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
    /// Take weights that are NaN or infinite as they are (`model.allow_nan`).
    #[arg(long)]
    pub allow_nan: bool,
    /// Plain progress instead of the dashboard.
    #[arg(long)]
    pub no_dashboard: bool,
}

/// Runs the command.
pub fn run(args: TrainArgs) -> miette::Result<ExitCode> {
    let mut overrides = args.set;
    overrides.extend(args.allow_nan.then(|| ALLOW_NAN.to_owned()));
    let loaded = RunConfig::load_with_places(&args.config, &overrides).map_err(TrainError::from)?;
    for warning in &loaded.warnings {
        eprintln!("{}", warning.report("warning"));
    }
    let existing = match (args.resume, args.overwrite) {
        (true, _) => Existing::Resume,
        (_, true) => Existing::Overwrite,
        _ => Existing::Refuse,
    };
    let config = loaded.config;
    RunFolder::check(&config, existing)?;
    eprintln!("preparing {}", args.config.display());
    let plan = RunPlan::prepare_training(config.clone())?;
    let untrained = config
        .eval
        .baselines
        .contains(&Baseline::ZeroShot)
        .then(|| Inference::new(&plan.embedder));
    let (folder, log) = RunFolder::open(&config, existing)?;
    let (ask, requests) = mpsc::channel();
    stop_on_signals(ask.clone())?;
    let mut screen = Screen::open(&config, log, ask, args.no_dashboard)?;
    let started = Instant::now();
    let trained = Trainer::new(plan, folder, &mut screen, requests).and_then(Trainer::run);
    let outcome = match trained {
        Ok(finished) if finished.stopped => {
            let end = Trainer::end_event(&finished, started.elapsed().as_secs_f64());
            screen.emit_now(end).into_diagnostic()?;
            Ok((finished, None))
        }
        Ok(finished) => {
            let measured = measure(&finished, untrained.as_ref(), &mut screen);
            let mut end = Trainer::end_event(&finished, started.elapsed().as_secs_f64());
            if let (Err(error), Event::RunEnded(end)) = (&measured, &mut end) {
                end.reason = EndReason::Failed;
                end.message = Some(error.to_string());
            }
            screen.emit_now(end).into_diagnostic()?;
            Ok((finished, measured?))
        }
        Err(error) => Err(error),
    };
    screen.close();
    let (finished, report) = outcome?;
    print_outcome(&finished, report.as_ref());
    Ok(ExitCode::SUCCESS)
}

/// Measures the chosen model on the test pairs; `None` where there are none.
fn measure(
    finished: &Finished,
    untrained: Option<&Inference>,
    screen: &mut Screen,
) -> miette::Result<Option<EvalReport>> {
    let plan = &finished.plan;
    let test = &plan.pairs.pairs.test;
    if test.is_empty() {
        return Ok(None);
    }
    let eval = &plan.config.eval;
    let retrieval = Retrieval::new(&plan.notes.set, &plan.pairs, test, eval)?;
    let model = Inference::new(&plan.embedder);
    let sources = BaselineSources {
        note_users: &plan.pairs.note_users,
        untrained: untrained.ok_or("it is not among `eval.baselines`"),
    };
    screen.say("measuring retrieval on the held-out notes");
    let Measured { report, embeddings } = full_report(
        &retrieval,
        &model,
        &plan.notes,
        &plan.encoding,
        eval,
        &sources,
    )?;
    let (_, own) = &embeddings[0];
    let geometry = retrieval.geometry(own)?;
    let baselines = report.baselines.iter();
    let event = Event::Evaluation(Evaluation {
        step: finished.chosen_step as u64,
        split: Split::Test,
        pool: report.pool as u64,
        queries: report.queries as u64,
        slices: event_slices(&report.slices),
        baselines: baselines
            .map(|(k, v)| (k.clone(), event_slices(v)))
            .collect(),
        uniformity: Some(geometry.uniformity),
        alignment: Some(geometry.alignment),
    });
    screen.emit_now(event).into_diagnostic()?;
    let json = serde_json::to_string_pretty(&report).into_diagnostic()?;
    write_beside(
        &finished.folder.root.join("eval.json"),
        &format!("{json}\n"),
    )?;
    let models: Vec<_> = embeddings.iter().map(|(name, all)| (*name, all)).collect();
    let images = plan.config.data.root.join(&plan.config.data.images);
    let seed = plan.config.run.seed;
    let root = &finished.folder.root;
    write_examples(root, &plan.notes, &images, retrieval.task(), &models, seed)?;
    Ok(Some(report))
}

fn print_outcome(finished: &Finished, report: Option<&EvalReport>) {
    let root = finished.folder.root.display();
    if finished.stopped {
        println!("stopped; go on with `mlrm train {root}/config.toml --resume`");
        return;
    }
    if let Some(report) = report {
        let variant = finished.plan.embedder.config.variant.name();
        println!("{}", report.to_text(variant));
    }
    println!("model of step {}: {root}/model", finished.chosen_step);
}

/// Ctrl-C and termination save and stop; a second Ctrl-C ends at once.
fn stop_on_signals(ask: Sender<Action>) -> miette::Result<()> {
    let asked = std::sync::atomic::AtomicBool::new(false);
    ctrlc::set_handler(move || {
        if asked.swap(true, std::sync::atomic::Ordering::SeqCst) {
            std::process::exit(130);
        }
        // The trainer has ended where nobody listens any more.
        let _ended = ask.send(Action::Stop);
    })
    .into_diagnostic()
    .wrap_err("Ctrl-C cannot be handled")
}

/// Everything that reads the run's events while it runs.
struct Screen {
    log: EventLog,
    tensorboard: Option<TensorBoardWriter>,
    dashboard: Option<(DashboardHandle, Sender<Stamped>)>,
    progress: ProgressLine,
    bar: ProgressBar,
}

impl Screen {
    fn open(
        config: &RunConfig,
        log: EventLog,
        ask: Sender<Action>,
        no_dashboard: bool,
    ) -> miette::Result<Self> {
        let terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
        let wanted = match config.dashboard.enabled {
            Toggle::Auto => terminal,
            Toggle::On => true,
            Toggle::Off => false,
        };
        let dashboard = (wanted && !no_dashboard).then(|| open_dashboard(config, ask));
        let folder = config.run.dir.join("tensorboard");
        let tensorboard = config
            .train
            .tensorboard
            .then(|| TensorBoardWriter::create(&folder))
            .transpose()
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot write {}", folder.display()))?;
        let dashboard = dashboard.transpose()?;
        let bar = if terminal && dashboard.is_none() {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        Ok(Self {
            log,
            tensorboard,
            dashboard,
            progress: ProgressLine::new(),
            bar,
        })
    }

    /// A line for people that is not an event.
    fn say(&self, line: &str) {
        if self.dashboard.is_none() && self.bar.is_hidden() {
            println!("{line}");
        } else {
            self.bar.set_message(line.to_owned());
        }
    }

    fn show(&mut self, event: &Stamped) {
        if let Some((handle, sender)) = &mut self.dashboard {
            if handle.is_open() {
                let _closing = sender.send(event.clone());
                self.progress.terminal(event);
                return;
            }
            // Somebody closed the dashboard: the run goes on with plain lines.
            self.dashboard = None;
        }
        if self.bar.is_hidden() {
            if let Some(line) = self.progress.plain(event) {
                println!("{line}");
            }
        } else {
            if let Some(line) = self.progress.terminal(event) {
                self.bar.println(line);
            }
            self.bar.set_message(self.progress.status());
            self.bar.tick();
        }
    }

    fn close(self) {
        self.bar.finish_and_clear();
        if let Some((handle, _)) = self.dashboard {
            // A terminal that is gone is no error of the run.
            let _gone = handle.close();
        }
    }
}

impl EventSink for Screen {
    fn emit(&mut self, event: &Stamped) -> io::Result<()> {
        self.log.emit(event)?;
        if let Some(tensorboard) = &mut self.tensorboard {
            tensorboard.emit(event)?;
        }
        self.show(event);
        Ok(())
    }
}

fn open_dashboard(
    config: &RunConfig,
    ask: Sender<Action>,
) -> miette::Result<(DashboardHandle, Sender<Stamped>)> {
    let (events, receiver) = mpsc::channel();
    let options = Options {
        run_name: folder_and_name(&config.run.dir).1,
        frames_per_second: f64::from(config.dashboard.frames_per_second),
        requests: Some(ask),
        ..Options::default()
    };
    let handle = Dashboard::spawn(Source::Channel(receiver), options)
        .into_diagnostic()
        .wrap_err("the dashboard cannot be shown; use --no-dashboard")?;
    Ok((handle, events))
}
