//! `mlrm bench`: speed and memory on this machine.

mod compare;
mod print;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use miette::{IntoDiagnostic, miette};
use mlrm_bench::speed::{
    BenchReport, LoadOptions, ProductOptions, Samples, bench_embed, bench_load, bench_matmul,
    bench_train,
};
use mlrm_config::{DType, RunConfig};
use mlrm_train::TrainError;
use mlrm_train::plan::RunPlan;
use serde_json::Value;

use super::model_source::{ModelSource, picture_progress};
use super::{at_least_one, print_json};
use crate::hub;
use compare::Earlier;

/// Measure speed and memory: medians over several runs, after some that do not count.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Training steps of a config, at its full token budget.
    Train(ModelArgs),
    /// Embedding of batches of `eval.batch_notes` notes with the model of a config.
    Embed(ModelArgs),
    /// Products of two square matrices.
    Matmul(MatmulArgs),
    /// Opening a model folder.
    Load(LoadArgs),
}

/// What is printed, and compared with what.
#[derive(Debug, Args)]
struct Output {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print ratios to an earlier run's JSON too.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ModelArgs {
    /// The TOML file of the run.
    #[arg(default_value = "configs/bench-cpu.toml")]
    config: PathBuf,
    /// Override a setting.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Measured steps.
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    steps: usize,
    /// Steps before them.
    #[arg(long, default_value_t = 1)]
    warmup: usize,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct MatmulArgs {
    /// Where to compute; see `mlrm devices`.
    #[arg(long, default_value = "flex")]
    device: String,
    /// Number format: f32, bf16 or f16.
    #[arg(long, default_value = "f32")]
    dtype: DType,
    /// Side of the matrices; by default large enough to keep the device busy.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    size: Option<usize>,
    /// Measured samples.
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    runs: usize,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct LoadArgs {
    #[command(flatten)]
    source: ModelSource,
    /// Number format on the device: f32, bf16 or f16.
    #[arg(long, default_value = "f32")]
    dtype: DType,
    /// Measured runs.
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    runs: usize,
    /// Runs before them; 0 lets the first one read from the disk.
    #[arg(long, default_value_t = 1)]
    warmup: usize,
    #[command(flatten)]
    output: Output,
}

impl BenchArgs {
    /// The models that are named on the command line.
    pub fn models(&mut self) -> Vec<&mut PathBuf> {
        match &mut self.what {
            What::Load(args) => vec![&mut args.source.model],
            _ => Vec::new(),
        }
    }
}

impl What {
    fn output(&self) -> &Output {
        match self {
            Self::Train(args) | Self::Embed(args) => &args.output,
            Self::Matmul(args) => &args.output,
            Self::Load(args) => &args.output,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Train(_) => "train",
            Self::Embed(_) => "embed",
            Self::Matmul(_) => "matmul",
            Self::Load(_) => "load",
        }
    }

    fn measure(&self) -> Result<BenchReport, miette::Report> {
        Ok(match self {
            Self::Train(args) => bench_train(
                RunPlan::prepare(args.config()?, &picture_progress())?,
                args.samples(),
            )?,
            Self::Embed(args) => bench_embed(
                &RunPlan::prepare(args.config()?, &picture_progress())?,
                args.samples(),
            )?,
            Self::Matmul(args) => bench_matmul(&ProductOptions {
                device: args.device.clone(),
                dtype: args.dtype,
                size: args.size,
                runs: args.runs,
            })?,
            Self::Load(args) => bench_load(&LoadOptions {
                folder: args.source.folder()?,
                device: args.source.device.clone(),
                dtype: args.dtype,
                samples: Samples {
                    warmup: args.warmup,
                    runs: args.runs,
                },
            })?,
        })
    }
}

impl ModelArgs {
    fn config(&self) -> miette::Result<RunConfig> {
        let mut config = RunConfig::load(&self.config, &self.set).map_err(TrainError::from)?;
        let devices = config.backend.device.names();
        if let [first, _, ..] = devices {
            return Err(miette!(
                "backend.device lists {} devices, and one is measured at a time: name it, as \
                 --set backend.device={first}",
                devices.len()
            ));
        }
        hub::resolve(&mut config)?;
        Ok(config)
    }

    fn samples(&self) -> Samples {
        Samples {
            warmup: self.warmup,
            runs: self.steps,
        }
    }
}

/// Runs the command.
pub fn run(args: BenchArgs) -> miette::Result<ExitCode> {
    let output = args.what.output();
    // A file that nothing can be compared with is refused before minutes of measuring.
    let name = args.what.name();
    let earlier = output.compare.as_deref();
    let earlier = earlier.map(|path| Earlier::read(path, name)).transpose()?;
    let report = args.what.measure()?;
    let mut json = serde_json::to_value(&report).into_diagnostic()?;
    let comparison = earlier.map(|earlier| earlier.compare(&json));
    if !output.json {
        print::report(&report);
        if let Some(comparison) = &comparison {
            print::comparison(comparison);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let (Some(comparison), Value::Object(fields)) = (&comparison, &mut json) {
        let comparison = serde_json::to_value(comparison).into_diagnostic()?;
        fields.insert("compare".into(), comparison);
    }
    print_json(&json)
}

/// An error of a file that holds no earlier measurement.
fn not_a_measurement(path: &std::path::Path, why: &str) -> miette::Report {
    miette!(
        "{}: {why}; --compare takes what `mlrm bench … --json` printed",
        path.display()
    )
}
