//! `mlrm devices`: what this binary holds and what it finds.

use std::process::ExitCode;

use clap::Args;
use miette::IntoDiagnostic;
use mlrm_config::BackendName;
use mlrm_train::device;
use serde::Serialize;

/// List backends and devices.
#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    backend: &'static str,
    compiled_in: bool,
    available: bool,
    /// What it is, or what is missing.
    note: String,
}

/// Runs the command.
pub fn run(args: DevicesArgs) -> miette::Result<ExitCode> {
    let rows: Vec<Row> = BackendName::ALL.into_iter().map(row).collect();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows).into_diagnostic()?);
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{:<8} {:<9} {:<10} note",
        "backend", "built in", "available"
    );
    for row in &rows {
        let yes = |flag| if flag { "yes" } else { "no" };
        println!(
            "{:<8} {:<9} {:<10} {}",
            row.backend,
            yes(row.compiled_in),
            yes(row.available),
            row.note
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn row(backend: BackendName) -> Row {
    let compiled_in = device::compiled_in(backend);
    let opened = compiled_in.then(|| device::open(backend.name()));
    let note = match &opened {
        None => format!("cargo build --release --features {}", backend.name()),
        Some(Err(error)) => error.to_string(),
        Some(Ok(_)) if backend == BackendName::Flex => {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            format!("the CPU, {threads} threads")
        }
        Some(Ok(device)) => format!("{device:?}"),
    };
    Row {
        backend: backend.name(),
        compiled_in,
        available: matches!(opened, Some(Ok(_))),
        note,
    }
}
