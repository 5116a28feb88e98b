//! `mlrm sweep FILE`: the runs of a sweep, and their table.

mod jobs;
mod state;
mod table;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use miette::{IntoDiagnostic, WrapErr, miette};
use mlrm_config::{Cell, Sweep, SweepOverrides};
use mlrm_report::follow::{Listed, RUNS_FILE};
use mlrm_report::sweep::SweepTable;
use mlrm_train::TrainError;
use mlrm_train::plan::RunPlan;
use mlrm_train::run_folder::other_settings;

use super::embed::Shard;
use super::{at_least_one, write};
use jobs::Outcome;
use state::{State, state_of};

/// Run every combination of settings that a file describes, and compare them in one table.
///
/// What is done already is not done again: a sweep that was stopped or killed goes on by the same
/// command, its interrupted runs from their last checkpoints.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// The TOML file of the sweep (see the guide, "Sweeps").
    pub file: PathBuf,
    /// Override a setting of all runs; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The config that all runs start from, in place of `base` in the file.
    #[arg(long, value_name = "CONFIG")]
    pub base: Option<PathBuf>,
    /// The folder of the runs, in place of `dir` in the file.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Seeds in place of those of the file: 1,2,3.
    #[arg(long, value_name = "SEEDS", value_delimiter = ',')]
    pub seeds: Option<Vec<u64>>,
    /// Runs at the same time, each a process of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub jobs: usize,
    /// Only every n-th run, from the i-th on, as `i/n` with i from 0: one task of an array job.
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// Show all runs in the dashboard instead of lines, as `mlrm watch DIR` does.
    #[arg(long, conflicts_with_all = ["check", "table"])]
    pub dashboard: bool,
    /// Check everything, list the runs and what they are at, and run nothing.
    #[arg(long, conflicts_with = "table")]
    pub check: bool,
    /// Print the table of what is done, and run nothing.
    #[arg(long)]
    pub table: bool,
    /// Tabulate one baseline of each run in place of its model: `cosine`, `text_only`, `zero_shot`, `dim_16`, …
    #[arg(long, value_name = "NAME", requires = "table")]
    pub baseline: Option<String>,
    /// The form of the printed table.
    #[arg(long, value_enum, default_value_t = Form::Markdown, requires = "table")]
    pub format: Form,
}

/// The form of a printed table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A Markdown table.
    Markdown,
    /// Everything as JSON.
    Json,
    /// One line a row and metric.
    Csv,
}

/// Runs the command.
///
/// # Errors
/// A sweep or a config that is wrong, folders that hold other runs, or files that cannot be written.
pub fn run(args: SweepArgs) -> miette::Result<ExitCode> {
    let overrides = SweepOverrides {
        set: args.set.clone(),
        base: args.base.clone(),
        dir: args.dir.clone(),
        seeds: args.seeds.clone(),
    };
    let sweep = Sweep::load(&args.file, &overrides).map_err(TrainError::from)?;
    let cells = sweep.cells().map_err(TrainError::from)?;
    refuse_other_runs(&cells)?;
    if args.table {
        let table = table::collect(&sweep, &cells, args.baseline.as_deref())?;
        write_files(&sweep.dir, &table)?;
        if sweep.dir.is_dir() {
            write_list(&sweep, &cells)?;
        }
        match args.format {
            Form::Markdown => crate::output::data(table.to_markdown().as_bytes()),
            Form::Json => crate::output::data(json(&table)?.as_bytes()),
            Form::Csv => crate::output::data(table.to_csv().as_bytes()),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let own: Vec<&Cell> = match args.shard {
        Some(shard) => cells
            .iter()
            .enumerate()
            .filter(|(at, _)| shard.takes(*at))
            .map(|(_, cell)| cell)
            .collect(),
        None => cells.iter().collect(),
    };
    let mut missing = Vec::new();
    for cell in &own {
        let state = state_of(cell.dir())?;
        if args.check {
            println!("{}: {}", cell.name(), state.words());
        }
        if state != State::Done {
            missing.push(*cell);
        }
    }
    let done = own.len() - missing.len();
    plan(&missing)?;
    if args.check {
        println!("{} runs, {done} of them done; all can begin", own.len());
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::create_dir_all(&sweep.dir)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot make {}", sweep.dir.display()))?;
    write_list(&sweep, &cells)?;
    let outcome = jobs::run(&args, &sweep, &missing, done)?;
    finish(&args, &sweep, &cells, &outcome)
}

/// Says how it ended; where all runs are there, the table is written.
fn finish(
    args: &SweepArgs,
    sweep: &Sweep,
    cells: &[Cell],
    outcome: &Outcome,
) -> miette::Result<ExitCode> {
    for (cell, reason) in &outcome.failed {
        eprintln!("failed: {cell}: {reason}");
    }
    if outcome.stopped {
        println!("stopped; go on with the same command");
        return Ok(ExitCode::SUCCESS);
    }
    if args.shard.is_none() {
        let table = table::collect(sweep, cells, None)?;
        write_files(&sweep.dir, &table)?;
        crate::output::data(table.to_markdown().as_bytes());
        println!(
            "\ntable.md, table.csv, table.json and curves: {}",
            sweep.dir.display()
        );
    }
    match outcome.failed.len() {
        0 => Ok(ExitCode::SUCCESS),
        count => Err(miette!(
            help =
                "the log of a run is beside its folder; the same command tries again what failed",
            "{count} runs failed"
        )),
    }
}

/// Refuses folders that hold runs of other settings: their numbers would stand for these.
fn refuse_other_runs(cells: &[Cell]) -> miette::Result<()> {
    let mut found = Vec::new();
    for cell in cells {
        let changes = other_settings(cell.dir(), &cell.loaded.config)?;
        if !changes.is_empty() {
            let changes: Vec<String> = changes
                .iter()
                .map(|change| format!("`{}` {}", change.key, change.difference))
                .collect();
            found.push(format!("{}: {}", cell.dir().display(), changes.join(", ")));
        }
    }
    match found.is_empty() {
        true => Ok(()),
        false => Err(miette!(
            help = "name another folder by `dir` or --dir, or remove these runs",
            "{} of {} folders hold runs of other settings:\n  {}",
            found.len(),
            cells.len(),
            found.join("\n  ")
        )),
    }
}

/// Opens data and model of every row once, as its runs will; all that cannot begin is said.
fn plan(missing: &[&Cell]) -> miette::Result<()> {
    let mut found: Vec<(String, Vec<&str>)> = Vec::new();
    let mut failed = 0;
    let mut last = None;
    let mut said = HashSet::new();
    for cell in missing {
        if last.replace(&cell.row) == Some(&cell.row) {
            continue;
        }
        eprintln!("checking {}", cell.row);
        // Most rows share what their base has.
        for warning in &cell.loaded.warnings {
            let warning = warning.report("warning");
            if !said.contains(&warning) {
                eprintln!("{warning}");
                said.insert(warning);
            }
        }
        let mut config = cell.loaded.config.clone();
        let planned = crate::hub::resolve(&mut config)
            .and_then(|()| Ok(RunPlan::prepare(config, &|_, _| {}).map(|_| ())?));
        if let Err(error) = planned {
            let mend = error.help().map(|mend| format!(" ({mend})"));
            let reason = format!("{error}{}", mend.unwrap_or_default());
            failed += 1;
            // Mostly all rows have one reason.
            match found.iter_mut().find(|(told, _)| *told == reason) {
                Some((_, rows)) => rows.push(cell.row.as_str()),
                None => found.push((reason, vec![cell.row.as_str()])),
            }
        }
    }
    let found: Vec<String> = found
        .into_iter()
        .map(|(reason, rows)| format!("{}: {reason}", rows.join("; ")))
        .collect();
    match found.is_empty() {
        true => Ok(()),
        false => Err(miette!(
            help = "nothing was run",
            "{failed} rows of the sweep cannot begin:\n  {}",
            found.join("\n  ")
        )),
    }
}

fn json(table: &SweepTable) -> miette::Result<String> {
    Ok(serde_json::to_string_pretty(table).into_diagnostic()? + "\n")
}

/// The list of all runs, for those who watch them.
fn write_list(sweep: &Sweep, cells: &[Cell]) -> miette::Result<()> {
    let listed = cells.iter().map(|cell| Listed {
        name: cell.name(),
        folder: cell
            .dir()
            .strip_prefix(&sweep.dir)
            .unwrap_or(cell.dir())
            .to_owned(),
    });
    let listed: Vec<Listed> = listed.collect();
    let text = serde_json::to_string_pretty(&listed).into_diagnostic()?;
    write(&sweep.dir.join(RUNS_FILE), &(text + "\n"))
}

/// The table in all its forms, into the folder of the sweep; that of a baseline beside that of the models, once a run has
/// it: until then its name may be any.
fn write_files(dir: &Path, table: &SweepTable) -> miette::Result<()> {
    let baseline = table.baseline.as_ref();
    if !dir.is_dir() || (baseline.is_some() && table.rows.is_empty()) {
        return Ok(());
    }
    let of = baseline.map_or_else(String::new, |name| format!("-{name}"));
    let mut files = vec![
        (format!("table{of}.md"), table.to_markdown()),
        (format!("table{of}.csv"), table.to_csv()),
        (format!("table{of}.json"), json(table)?),
    ];
    let curves = table.curves().into_iter();
    files.extend(curves.map(|(axis, svg)| (format!("curve-{axis}{of}.svg"), svg)));
    for (name, text) in files {
        write(&dir.join(name), &text)?;
    }
    Ok(())
}
