//! `mlrm devices`: what this binary holds and what this machine has.

use std::process::ExitCode;

use clap::Args;
use mlrm_bench::devices::{BackendReport, DeviceReport, Speed, inventory, measure};

/// List backends and devices.
///
/// Names are those that `--device` and `backend.device` take. Of each backend that is absent, says
/// which cargo feature or driver is missing.
#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// Measure each device's matrix-product rate and copy bandwidth (f32).
    #[arg(long)]
    pub measure: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: DevicesArgs) -> miette::Result<ExitCode> {
    let mut backends = inventory();
    if args.measure {
        let usable = |device: &&mut DeviceReport| device.error.is_none();
        let devices = backends.iter_mut().flat_map(|b| &mut b.devices);
        for device in devices.filter(usable) {
            match measure(device) {
                Ok(speed) => device.speed = Some(speed),
                Err(error) => device.error = Some(error.to_string()),
            }
        }
    }
    if args.json {
        super::print_json(&backends)?;
    } else {
        backends.iter().for_each(print_backend);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_backend(backend: &BackendReport) {
    if backend.devices.is_empty() {
        println!("{:<9} {}", backend.backend, backend.note);
    }
    for device in &backend.devices {
        println!("{:<9} {} ({})", device.name, device.adapter, device.kind);
        let memory = device.memory_bytes.map_or_else(
            || "memory not told".to_owned(),
            |bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        );
        println!("{:<9} driver: {}; {memory}", "", device.driver);
        if !device.dtypes.is_empty() {
            println!("{:<9} dtypes: {}", "", device.dtypes.join(", "));
        }
        if let Some(instructions) = device.bf16_products {
            let key = "backend.matmul_precision = \"bf16\"";
            println!(
                "{:<9} {instructions}: f32 matrices are multiplied faster with {key}",
                ""
            );
        }
        if let Some(speed) = &device.speed {
            print_speed(speed);
        }
        if let Some(error) = &device.error {
            println!("{:<9} cannot be used: {error}", "");
        }
    }
}

fn print_speed(speed: &Speed) {
    println!(
        "{:<9} product of {size} by {size} matrices: {:.3} TFLOP/s (spread {:.0} %)",
        "",
        speed.matmul.per_second / 1e12,
        100.0 * speed.matmul.spread,
        size = speed.matmul_size,
    );
    println!(
        "{:<9} copy of {} MiB: {:.1} GB/s read and written (spread {:.0} %)",
        "",
        speed.copy_bytes >> 20,
        speed.copy.per_second / 1e9,
        100.0 * speed.copy.spread,
    );
}
