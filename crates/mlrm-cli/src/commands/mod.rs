//! One file a subcommand: arguments, and what they do.

pub mod bench;
pub mod completions;
pub mod config;
pub mod data;
pub mod devices;
pub mod embed;
pub mod eval;
pub mod export;
mod formats;
pub mod index;
pub mod inspect;
pub mod man;
mod model_source;
pub mod report;
pub mod saliency;
pub mod similar;
mod stop;
pub mod sweep;
pub mod train;
pub mod verify;
pub mod watch;

#[cfg(feature = "hub")]
pub use formats::bytes;

use std::path::Path;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use miette::{IntoDiagnostic, WrapErr, miette};
use mlrm_files::folder_of;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Refuses a place for a file that cannot be written, before hours are spent on what belongs there.
fn check_place(file: &Path) -> miette::Result<()> {
    if file.is_dir() {
        return Err(miette!(
            "{} is a folder, and a file is to be written",
            file.display()
        ));
    }
    let folder = folder_of(file);
    // It has no name: nothing is left of it.
    tempfile::tempfile_in(folder)
        .into_diagnostic()
        .wrap_err_with(|| format!("nothing can be written in {}", folder.display()))?;
    Ok(())
}

/// Writes a file in one go.
fn write(path: &Path, text: &str) -> miette::Result<()> {
    mlrm_files::write(path, text)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot write {}", path.display()))
}

/// Reads what JSON holds of a file; `what` says what it should be, as `a table of a sweep`.
fn read_json<T: DeserializeOwned>(path: &Path, what: &str) -> miette::Result<T> {
    let text = std::fs::read_to_string(path)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .into_diagnostic()
        .wrap_err_with(|| format!("{} is no {what}", path.display()))
}

/// Prints a value as JSON.
fn print_json(value: &impl Serialize) -> miette::Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(value).into_diagnostic()?);
    Ok(ExitCode::SUCCESS)
}

/// A bar of this look on the terminal.
pub fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Reads a count of an option that must not be 0.
fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("not a count: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::at_least_one;

    #[test]
    fn counts_are_at_least_one() {
        assert_eq!(at_least_one("3"), Ok(3));
        assert!(at_least_one("0").is_err());
        assert!(at_least_one("-1").is_err());
    }
}
