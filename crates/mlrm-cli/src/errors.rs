//! How errors reach the user: one message, its causes, exit code 1.

use std::process::ExitCode;

use mlrm_train::TrainError;

/// Prints `error` to standard error and gives the exit code of a failed command.
pub fn print(error: &miette::Report) -> ExitCode {
    // A config's findings are a report of their own, with places and advice.
    if let Some(TrainError::Config(config)) = error.downcast_ref::<TrainError>() {
        eprintln!("{config}");
        return ExitCode::FAILURE;
    }
    let mut line = format!("error: {error}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !line.contains(&cause) {
            line += &format!("\n  caused by: {cause}");
        }
    }
    if let Some(help) = error.help() {
        line += &format!("\n  help: {help}");
    }
    eprintln!("{line}");
    ExitCode::FAILURE
}
