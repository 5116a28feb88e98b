//! `mlrm completions SHELL`: what a shell needs to complete commands and options.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::output;

/// Write the completions of a shell to standard output.
///
/// bash: mlrm completions bash > ~/.local/share/bash-completion/completions/mlrm
///
/// zsh: mlrm completions zsh > a folder of $fpath, as _mlrm
///
/// fish: mlrm completions fish > ~/.config/fish/completions/mlrm.fish
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: Shell,
}

/// Runs the command on the whole command line `cli`.
pub fn run(args: CompletionsArgs, mut cli: Command) -> miette::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli, "mlrm", &mut script);
    output::data(&script);
    Ok(ExitCode::SUCCESS)
}
