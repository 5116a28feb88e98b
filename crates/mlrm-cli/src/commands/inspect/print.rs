//! What a model is, for people.

use mlrm_model::source::Part;
use mlrm_report::format::count;

use super::{Report, Training};
use crate::commands::formats::bytes;

/// Prints a report.
pub(super) fn report(report: &Report) {
    for part in &report.parts {
        self::part(part);
    }
    if let Some(words) = &report.tokenizer {
        println!(
            "tokenizer: {} tokens for {} rows of the lookup table",
            words.tokens, words.rows
        );
    }
    if let Some(training) = &report.training {
        self::training(training);
    }
    if let Some(loaded) = &report.loaded {
        let peak = match loaded.peak_bytes {
            Some(peak) => format!(
                ", peak memory {} ({:.2} times the parameters)",
                bytes(peak),
                peak as f64 / loaded.parameter_bytes as f64
            ),
            None => String::new(),
        };
        println!(
            "\nloaded in {}: {:.2} s, {} of parameters{peak}",
            loaded.dtype,
            loaded.seconds,
            bytes(loaded.parameter_bytes)
        );
    }
}

fn part(part: &Part) {
    let family = part.family.as_deref().unwrap_or("mlrm");
    println!("{} ({family}): {}", part.part, part.path.display());
    let formats = part.formats.iter();
    let formats: Vec<String> = formats
        .map(|(name, tensors)| format!("{tensors} in {name}"))
        .collect();
    let files = if part.files == 1 { "file" } else { "files" };
    println!(
        "  {} parameters; tensors: {}; {} in {} {files}",
        count(part.parameters),
        formats.join(", "),
        bytes(part.bytes),
        part.files
    );
    let sizes: Vec<String> = part
        .sizes
        .iter()
        .map(|(key, n)| format!("{key} {n}"))
        .collect();
    if !sizes.is_empty() {
        println!("  {}", sizes.join(", "));
    }
    for unread in &part.ignored {
        println!("  ignored: `{}`: {}", unread.name, unread.reason);
    }
    for note in &part.notes {
        println!("  config.json: {note}");
    }
    for mismatch in &part.mismatches {
        println!("  {mismatch}");
    }
}

fn training(training: &Training) {
    println!(
        "\nmemory to train in {} with {} pairs of notes of {} positions (estimate):",
        training.dtype, training.batch_pairs, training.positions
    );
    println!(
        "  {:<8} {:>14} {:>10} {:>10} {:>10} {:>12} {:>10} {:>10}",
        "tune", "learning", "weights", "optimiser", "gradients", "activations", "pictures", "peak"
    );
    for estimate in &training.estimates {
        println!(
            "  {:<8} {:>14} {:>10} {:>10} {:>10} {:>12} {:>10} {:>10}",
            match estimate.tune {
                "lora" => format!("lora {}", training.rank),
                tune => tune.to_owned(),
            },
            count(estimate.trained_parameters),
            bytes(estimate.weights_bytes),
            bytes(estimate.optimiser_bytes),
            bytes(estimate.gradients_bytes),
            bytes(estimate.activations_bytes),
            bytes(estimate.pictures_bytes),
            bytes(estimate.total_bytes)
        );
    }
}
