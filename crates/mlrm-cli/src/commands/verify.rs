//! `mlrm verify [CASE…]`: the model's numbers against golden cases from PyTorch.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use miette::{IntoDiagnostic, WrapErr};
use mlrm_bench::verify::{CaseReport, Comparison, Tolerance, verify};
use mlrm_config::{DType, MatmulPrecision};
use mlrm_train::TrainError;
use mlrm_train::device;

use super::print_json;

macro_rules! embedded {
    ($($file:literal)*) => {
        /// The case inside the binary: every part of the model, 0.4 MB.
        const EMBEDDED: &[(&str, &[u8])] = &[$((
            $file,
            include_bytes!(concat!("../../golden/qwen2_notellm2/", $file)),
        )),*];
    };
}

embedded! {
    "case.json" "inputs.safetensors" "expected.safetensors" "head.safetensors"
    "llm/config.json" "llm/model.safetensors" "vision/config.json" "vision/model.safetensors"
}

/// Check the model's numbers against golden cases from PyTorch.
///
/// Without a case, the one inside the binary is checked. Exits with 1 past tolerance.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Golden case folders.
    pub cases: Vec<PathBuf>,
    /// Where to compute; see `mlrm devices`.
    #[arg(long, default_value = "flex")]
    pub device: String,
    /// Number format of weights and activations: f32, bf16 or f16. The expected values are f32; what
    /// a shorter format may deviate follows from its rounding and the model's depth.
    #[arg(long, default_value = "f32")]
    pub dtype: DType,
    /// What the factors of f32 products on `flex` are rounded to: f32 or bf16, held to the limits of that format.
    #[arg(long, default_value = "f32")]
    pub matmul_precision: MatmulPrecision,
    /// Print every tensor, not only the worst of each group.
    #[arg(long)]
    pub all: bool,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Write every computed tensor of the (single) case to this safetensors file.
    #[arg(long, value_name = "FILE")]
    pub dump: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: VerifyArgs) -> miette::Result<ExitCode> {
    let device = device::open_for(&args.device, args.dtype, args.matmul_precision)
        .map_err(TrainError::from)?;
    let dtype = device::dtype(args.dtype);
    let embedded = tempfile::tempdir().into_diagnostic()?;
    let mut cases = args.cases;
    if cases.is_empty() {
        let folder = embedded.path().join("qwen2_notellm2 (embedded)");
        unpack(&folder)?;
        cases.push(folder);
    }
    if args.dump.is_some() && cases.len() != 1 {
        return Err(miette::miette!(
            "--dump takes one case, not {}",
            cases.len()
        ));
    }
    let mut reports = Vec::new();
    for case in &cases {
        let (report, computed) =
            verify(case, &device, dtype, args.matmul_precision).map_err(TrainError::from)?;
        if let Some(path) = &args.dump {
            mlrm_files::clear_unfinished(path);
            mlrm_model::weights::write_safetensors(path, &computed).map_err(TrainError::from)?;
        }
        if !args.json {
            print_report(&report, args.all);
        }
        reports.push(report);
    }
    if args.json {
        print_json(&reports)?;
    }
    let passed = reports.iter().filter(|report| report.passed()).count();
    if !args.json {
        println!(
            "{passed} of {} cases within tolerance on {}{}",
            reports.len(),
            args.device,
            match args.dtype {
                DType::F32 => String::new(),
                short => format!(" in {}", short.name()),
            }
        );
    }
    Ok(match passed == reports.len() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn unpack(folder: &std::path::Path) -> miette::Result<()> {
    for (name, bytes) in EMBEDDED {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, bytes))
            .into_diagnostic()
            .wrap_err("the embedded case cannot be unpacked")?;
    }
    Ok(())
}

fn print_report(report: &CaseReport, all: bool) {
    println!("{}", report.case);
    println!(
        "  {:<58} {:>12} {:>12} {:>10}",
        "tensor", "absolute", "relative", "allowed"
    );
    let rows = match all {
        true => report.comparisons.iter().collect(),
        false => worst_by_group(&report.comparisons),
    };
    for row in rows {
        let kind = match row.tolerance {
            Tolerance::OfLargest(_) => "",
            Tolerance::Absolute(_) => " absolute",
            Tolerance::OfNorm(_) => " of the norm",
            Tolerance::Cosine(_) => " from cosine 1",
        };
        // What is judged stands beside what is allowed.
        let relative = match row.tolerance {
            Tolerance::Absolute(_) => row.relative_error,
            _ => row.judged_error(),
        };
        println!(
            "  {:<58} {:>12.2e} {:>12.2e} {:>10.1e}{kind}{}",
            row.tensor,
            row.absolute_error,
            relative,
            row.tolerance.limit(),
            if row.passed { "" } else { "   FAILED" }
        );
    }
    let count = report.comparisons.len();
    let failed = report.comparisons.iter().filter(|row| !row.passed).count();
    println!("  {count} tensors, {failed} past tolerance\n");
}

/// Every failure, and of each group of tensors the one nearest to its limit.
fn worst_by_group(rows: &[Comparison]) -> Vec<&Comparison> {
    let used = |row: &Comparison| match row.tolerance.limit() {
        0.0 => row.judged_error(),
        limit => row.judged_error() / limit,
    };
    let group = |row: &Comparison| {
        let key_bias = matches!(row.tolerance, Tolerance::Absolute(_));
        let head = row.tensor.split('.').next().unwrap_or_default().to_owned();
        (head, row.tensor.contains("grad.llm"), key_bias)
    };
    let mut worst: Vec<&Comparison> = Vec::new();
    for row in rows {
        match worst.iter_mut().find(|other| group(other) == group(row)) {
            Some(other) if used(row) > used(other) => *other = row,
            Some(_) => {}
            None => worst.push(row),
        }
    }
    let failed = rows.iter().filter(|row| !row.passed);
    let mut all: Vec<&Comparison> = failed.collect();
    all.extend(worst.into_iter().filter(|row| row.passed));
    all
}
