//! `mlrm`: train, evaluate and run multimodal embedding models.
//!
//! A command is one file in `commands`, its options first; what several share stands in `commands/mod.rs`
//! and `commands/model_source.rs`. `hub` turns names on the Hub into folders before a command runs,
//! `output` says what a command says, and `errors` why it failed.

// First: its macros are for all that follow.
#[macro_use]
mod output;

mod commands;
mod errors;
mod hub;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Train, evaluate and run multimodal embedding models for item-to-item recommendation.
#[derive(Debug, Parser)]
#[command(name = "mlrm", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a model from a config file.
    Train(commands::train::TrainArgs),
    /// Run every combination of settings of a sweep, and compare them.
    Sweep(commands::sweep::SweepArgs),
    /// Make, convert, check and pair data.
    Data(commands::data::DataArgs),
    /// Measure retrieval of a run or model beside its baselines.
    Eval(commands::eval::EvalArgs),
    /// Write the embeddings of a corpus.
    Embed(commands::embed::EmbedArgs),
    /// Build an approximate index of embeddings.
    Index(commands::index::IndexArgs),
    /// List the nearest notes of a note.
    Similar(commands::similar::SimilarArgs),
    /// Watch a run in the terminal.
    Watch(commands::watch::WatchArgs),
    /// Write a report of one or several runs.
    Report(commands::report::ReportArgs),
    /// Measure how much each layer reads the picture and the text.
    Saliency(commands::saliency::SaliencyArgs),
    /// Say what a model is, whether its weights fit its config, and what training it would need.
    Inspect(commands::inspect::InspectArgs),
    /// Write a model as Hugging Face folders.
    Export(commands::export::ExportArgs),
    /// Check the model's numbers against golden cases from PyTorch.
    Verify(commands::verify::VerifyArgs),
    /// List backends and devices.
    Devices(commands::devices::DevicesArgs),
    /// Measure speed.
    Bench(commands::bench::BenchArgs),
    /// Explain and check settings.
    Config(commands::config::ConfigArgs),
    /// Write the completions of a shell.
    Completions(commands::completions::CompletionsArgs),
    /// Write manual pages.
    Man(commands::man::ManArgs),
}

impl Command {
    /// The models that are named on the command line.
    fn models(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Eval(args) => vec![&mut args.source.model],
            Self::Embed(args) => args
                .source
                .iter_mut()
                .map(|source| &mut source.model)
                .collect(),
            Self::Saliency(args) => args.models.iter_mut().collect(),
            Self::Export(args) => vec![&mut args.model],
            Self::Bench(args) => args.models(),
            _ => Vec::new(),
        }
    }
}

fn main() -> ExitCode {
    let mut command = Cli::parse().command;
    // A model's next step takes what the last one freed; logs and tables have a budget, of which it would be a part.
    if !matches!(command, Command::Data(_)) {
        mlrm_model::ops::keep_freed_memory();
    }
    // `mlrm eval … | head` ends quietly; a training run outlives whoever read its output.
    let trains = match &command {
        Command::Train(_) => true,
        Command::Sweep(args) => !args.table,
        _ => false,
    };
    if !trains {
        sigpipe::reset();
    }
    for model in command.models() {
        match hub::folder(model) {
            Ok(folder) => *model = folder,
            Err(error) => return errors::print(&error),
        }
    }
    let result = match command {
        Command::Train(args) => commands::train::run(args),
        Command::Sweep(args) => commands::sweep::run(args),
        Command::Data(args) => commands::data::run(args),
        Command::Eval(args) => commands::eval::run(args),
        Command::Embed(args) => commands::embed::run(args),
        Command::Index(args) => commands::index::run(args),
        Command::Similar(args) => commands::similar::run(args),
        Command::Watch(args) => commands::watch::run(args),
        Command::Report(args) => commands::report::run(args),
        Command::Saliency(args) => commands::saliency::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Export(args) => commands::export::run(args),
        Command::Verify(args) => commands::verify::run(args),
        Command::Devices(args) => commands::devices::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::Config(args) => commands::config::run(args),
        Command::Completions(args) => commands::completions::run(args, Cli::command()),
        Command::Man(args) => commands::man::run(args, Cli::command()),
    };
    if let Some(told) = mlrm_data::store::told() {
        eprintln!("{told}");
    }
    match result {
        Ok(_) if output::lost() && !trains => {
            errors::print(&miette::miette!("standard output could not be written"))
        }
        // What a training says is in its folder too.
        Ok(code) => code,
        Err(error) => errors::print(&error),
    }
}
