//! `mlrm bench`: speed of training on this machine.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use miette::IntoDiagnostic;
use mlrm_config::RunConfig;
use mlrm_train::bench::{TrainBench, bench_train};
use mlrm_train::plan::RunPlan;

/// Measure speed.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Training steps of a config, after warm-up steps.
    Train(TrainBenchArgs),
}

/// What is measured.
#[derive(Debug, Args)]
pub struct TrainBenchArgs {
    /// The TOML file of the run.
    #[arg(default_value = "configs/bench-cpu.toml")]
    pub config: PathBuf,
    /// Override a setting.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Measured steps.
    #[arg(long, default_value_t = 5)]
    pub steps: usize,
    /// Steps before them.
    #[arg(long, default_value_t = 1)]
    pub warmup: usize,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: BenchArgs) -> miette::Result<ExitCode> {
    let What::Train(args) = args.what;
    let config = RunConfig::load(&args.config, &args.set).map_err(mlrm_train::TrainError::from)?;
    let report = bench_train(RunPlan::prepare(config)?, args.warmup, args.steps.max(1))?;
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&report).into_diagnostic()?
        );
    } else {
        print(&report);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(report: &TrainBench) {
    println!(
        "{} steps on {} in {}: {:.2} notes/s, {:.0} tokens/s, {:.3} s a step (spread {:.1} %)",
        report.runs,
        report.device,
        report.dtype,
        report.notes_per_second,
        report.tokens_per_second,
        report.seconds_per_step,
        100.0 * report.spread
    );
    for (phase, seconds) in &report.seconds_by_phase {
        println!("  {phase:<10} {seconds:.3} s");
    }
    println!(
        "  peak memory {:.0} MiB",
        report.peak_host_bytes as f64 / f64::from(1 << 20)
    );
}
