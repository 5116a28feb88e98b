//! `mlrm eval RUN|MODEL`: retrieval of a model beside its baselines.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use miette::{IntoDiagnostic, miette};
use mlrm_config::{Baseline, RunConfig, Split};
use mlrm_data::split::PairData;
use mlrm_model::embedder::ModelFolder;
use mlrm_train::DataRecord;
use mlrm_train::corpus::{Notes, run_pairs};
use mlrm_train::encode::Inference;
use mlrm_train::evaluate::{BaselineSources, Measured, Retrieval, full_report};
use mlrm_train::plan::starting_model;
use mlrm_train::run_folder::check_measured;

use super::model_source::{ModelSource, picture_progress, tell_of_pictures};
use super::{check_place, write};

/// Measure retrieval of a run or model beside its baselines.
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub source: ModelSource,
    /// Override a setting of the run (`data.*`, `eval.*`), or give them for a bare model folder.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Measure although this setting, or all of this section, is not what the run was trained with; may
    /// be given several times.
    #[arg(long, value_name = "KEY")]
    pub accept_change: Vec<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Print a Markdown table.
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// Write the JSON to a file too.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Which held-out pairs are the truth.
    #[arg(long, value_enum, default_value_t = Held::Test)]
    pub split: Held,
}

/// A part of the pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Held {
    /// Held out from every choice.
    Test,
    /// Held out to choose the best checkpoint.
    Validation,
}

/// Runs the command.
pub fn run(args: EvalArgs) -> miette::Result<ExitCode> {
    args.out.as_deref().map_or(Ok(()), check_place)?;
    let config = args.source.run_config(&args.set)?;
    let mut model = args.source.open(&config)?;
    let vision = model.embedder.reads_pictures();
    let notes = Notes::open(&config.data, vision, &picture_progress())?;
    check_run(&args, &config, &notes)?;
    args.source.keep_features(&mut model, &notes, &config)?;
    let pairs = run_pairs(&config.data, &notes.set, config.run.seed)?;
    let held = match args.split {
        Held::Test => &pairs.pairs.test,
        Held::Validation => &pairs.pairs.validation,
    };
    if held.is_empty() {
        return Err(miette!(
            "no pair is held out: set data.pairs.test_fraction above 0, or data.pairs.split"
        ));
    }
    let retrieval = Retrieval::new(&notes.set, &pairs, held, &config.eval)?;
    let inference = Inference::new(&model.embedder);
    let untrained = untrained(&args.source, &config, &notes, &pairs)?;
    let sources = BaselineSources {
        note_users: &pairs.note_users,
        untrained: untrained.as_ref().map_err(String::as_str),
    };
    let Measured { report, .. } = full_report(
        &retrieval,
        &inference,
        &notes,
        &model.encoding,
        &config,
        &sources,
    )?;
    tell_of_pictures(&notes, &model.embedder);
    let json = serde_json::to_string_pretty(&report).into_diagnostic()?;
    if let Some(path) = &args.out {
        write(path, &format!("{json}\n"))?;
    }
    let name = model.embedder.config.variant.name();
    match (args.json, args.markdown) {
        (true, _) => println!("{json}"),
        (_, true) => println!("{}", report.to_markdown(name)),
        _ => println!("{}", report.to_text(name)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses to measure a run on other data than it was trained and held out with; says what is accepted.
fn check_run(args: &EvalArgs, config: &RunConfig, notes: &Notes) -> miette::Result<()> {
    let root = &args.source.model;
    if !args.source.is_run() {
        return say_if_other_notes_are_held_out(root, config);
    }
    let earlier = DataRecord::read(root)?;
    let data = DataRecord::of(config, notes, earlier.as_ref())?;
    for change in check_measured(root, config, &data, &args.accept_change)? {
        eprintln!("accepted: {} {}", change.key, change.difference);
    }
    Ok(())
}

/// Warns where a bare model folder tells of another seed, by which other notes are held out than training held out.
fn say_if_other_notes_are_held_out(folder: &Path, config: &RunConfig) -> miette::Result<()> {
    let Some(trained) = ModelFolder::open(folder).into_diagnostic()?.provenance.seed else {
        return Ok(());
    };
    let seed = config.run.seed;
    if trained != seed && config.data.pairs.split != Split::Time {
        eprintln!(
            "warning: the model was trained with run.seed = {trained}, and run.seed = {seed} holds other notes out: some of \
             those that it is measured on may have taught it\n  help: --set run.seed={trained}, and [data.pairs] as it was \
             trained; its run folder knows them"
        );
    }
    Ok(())
}

/// The model before training, for the baseline `zero_shot`, or why it cannot be had.
fn untrained(
    source: &ModelSource,
    config: &RunConfig,
    notes: &Notes,
    pairs: &PairData,
) -> miette::Result<Result<Inference, String>> {
    if !config.eval.baselines.contains(&Baseline::ZeroShot) {
        return Ok(Err("it is not among `eval.baselines`".into()));
    }
    if !source.is_run() {
        let reason =
            "a model folder does not tell what it was before training; name its run folder";
        return Ok(Err(reason.into()));
    }
    // The folders that the run began with may be gone; the rest of the table does not need them.
    let device = source.device(config)?;
    let mut config = config.clone();
    let start = crate::hub::resolve(&mut config)
        .map_err(|error| error.to_string())
        .and_then(|()| {
            starting_model(&config, &device, notes, pairs).map_err(|error| error.to_string())
        });
    Ok(start
        .map(|start| Inference::new(&start.embedder))
        .map_err(|error| format!("the model before training cannot be opened: {error}")))
}
