//! Measurements for people.

use mlrm_bench::speed::{BenchReport, Figures, NotesFigures};

use super::compare::Comparison;

/// Prints a measurement.
pub(super) fn report(report: &BenchReport) {
    let (what, device, dtype) = (report.what, &report.device, &report.dtype);
    println!(
        "{what} on {device} in {dtype}, median of {} (spread {:.1} %)",
        report.runs,
        100.0 * report.spread
    );
    let sizes: Vec<String> = report
        .shape
        .iter()
        .map(|(name, size)| format!("{name} {size}"))
        .collect();
    println!("  {}", sizes.join(", "));
    match &report.figures {
        Figures::Notes(figures) => notes(figures),
        Figures::Products {
            flops_per_second,
            seconds_per_product,
        } => println!(
            "  {:.1} GFLOP/s, {:.2} ms per product",
            flops_per_second / 1e9,
            1e3 * seconds_per_product
        ),
        Figures::Load {
            seconds,
            bytes,
            bytes_per_second,
        } => println!(
            "  {seconds:.3} s for {}, {} per second",
            mebibytes(*bytes as f64),
            mebibytes(*bytes_per_second)
        ),
    }
    if let (Some(mfu), Figures::Notes(figures)) = (report.mfu, &report.figures) {
        println!(
            "  {:.1} GFLOP per step: {:.1} % of the {:.1} GFLOP/s of large matrix products",
            figures.flops_per_step / 1e9,
            100.0 * mfu,
            figures.matmul_flops_per_second / 1e9
        );
    }
    let peaks = [
        ("host", report.peak_host_bytes),
        ("device", report.peak_device_bytes),
    ];
    for (place, bytes) in peaks {
        let told = bytes.map_or("not told".into(), |bytes| mebibytes(bytes as f64));
        println!("  peak memory, {place}: {told}");
    }
}

fn notes(figures: &NotesFigures) {
    println!(
        "  {:.2} notes/s, {:.0} tokens/s, {:.3} s per step",
        figures.notes_per_second, figures.tokens_per_second, figures.seconds_per_step
    );
    for (phase, seconds) in &figures.seconds_by_phase {
        println!("    {phase:<12} {seconds:.3} s");
    }
    let both = [
        figures.processor_seconds_per_step,
        figures.kernel_seconds_per_step,
    ];
    if let [Some(all), Some(kernel)] = both {
        println!("  processor time {all:.3} s per step, {kernel:.3} s of it in the kernel");
    }
}

/// Prints ratios to an earlier measurement.
pub(super) fn comparison(comparison: &Comparison) {
    println!("this run over {}:", comparison.file.display());
    for (figure, ratio) in &comparison.ratios {
        println!("  {figure:<36} {:.3}", ratio.as_f64().unwrap_or(f64::NAN));
    }
    for difference in &comparison.differs {
        println!("  not the same: {difference}");
    }
}

fn mebibytes(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}
