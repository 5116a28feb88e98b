//! `mlrm man`: the manual pages.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_mangen::Man;
use miette::{IntoDiagnostic, WrapErr};

use crate::output;

/// Write the manual page to standard output, or a page for each command into a folder.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write mlrm.1, mlrm-train.1 and so on into this folder, such as ~/.local/share/man/man1.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Runs the command on the whole command line `cli`.
pub fn run(args: ManArgs, cli: Command) -> miette::Result<ExitCode> {
    // Every command has a page; that of `help` would only tell of itself.
    let cli = cli.disable_help_subcommand(true);
    let Some(folder) = args.out else {
        let mut page = Vec::new();
        Man::new(cli).render(&mut page).into_diagnostic()?;
        output::data(&page);
        return Ok(ExitCode::SUCCESS);
    };
    let written =
        std::fs::create_dir_all(&folder).and_then(|()| clap_mangen::generate_to(cli, &folder));
    written
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot write manual pages into {}", folder.display()))?;
    println!("{}", folder.join("mlrm.1").display());
    Ok(ExitCode::SUCCESS)
}
