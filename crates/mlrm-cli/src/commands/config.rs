//! `mlrm config`: what a key means, whether a file is right, the schema for editors.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use miette::IntoDiagnostic;
use mlrm_config::{ConfigError, RunConfig, explain, json_schema};

/// Exit code of a run that found something wrong.
const FAILED: u8 = 1;
/// Exit code of a command line that makes no sense.
const USAGE: u8 = 2;

/// Arguments of `mlrm config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say what a key does: type, default, meaning and source.
    Explain {
        /// A key (`train.learning_rate`) or a section (`model.llm`); without one, all sections.
        #[arg(default_value = "", hide_default_value = true)]
        key: String,
        /// Also say which value the key has in this file, and where it is set.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Override a key of the file.
        #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
        overrides: Vec<String>,
    },
    /// Check a config file, and say everything that is wrong in it.
    Check {
        /// The file.
        file: PathBuf,
        /// Override a key of the file.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        overrides: Vec<String>,
        /// Print the resolved config: every key, defaults and overrides included.
        #[arg(long)]
        resolved: bool,
    },
    /// Print the JSON schema of configs, for editors that complete and check TOML.
    Schema,
}

/// Runs `mlrm config`.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(args: ConfigArgs) -> miette::Result<ExitCode> {
    match args.command {
        ConfigCommand::Explain {
            key,
            config,
            overrides,
        } => {
            let explanation = match explain(&key) {
                Ok(explanation) => explanation,
                Err(error) => return Ok(refuse(&error, USAGE)),
            };
            let mut text = explanation.to_string();
            if let Some(path) = config.filter(|_| explanation.keys.is_empty()) {
                match value_in(&path, &overrides, &explanation.key) {
                    Ok(value) => text.push_str(&value),
                    Err(error) => return Ok(refuse(&error, FAILED)),
                }
            }
            print(&text)
        }
        ConfigCommand::Check {
            file,
            overrides,
            resolved,
        } => check(&file, &overrides, resolved),
        ConfigCommand::Schema => {
            let schema = serde_json::to_string_pretty(&json_schema()).into_diagnostic()?;
            print(&(schema + "\n"))
        }
    }
}

fn check(file: &Path, overrides: &[String], resolved: bool) -> miette::Result<ExitCode> {
    let loaded = match RunConfig::load_with_places(file, overrides) {
        Ok(loaded) => loaded,
        Err(error) => return Ok(refuse(&error, FAILED)),
    };
    for warning in &loaded.warnings {
        eprintln!("{}", warning.report("warning"));
    }
    if resolved {
        return match loaded.config.to_toml_string() {
            Ok(text) => print(&text),
            Err(error) => Ok(refuse(&error, FAILED)),
        };
    }
    print(&format!("{}: nothing is wrong\n", file.display()))
}

/// The line that says which value a key has in a file, and where it is set.
fn value_in(file: &Path, overrides: &[String], key: &str) -> Result<String, ConfigError> {
    let loaded = RunConfig::load_with_places(file, overrides)?;
    let place = match loaded.places.of(key) {
        Some(place) => place.to_string(),
        None => "the default".into(),
    };
    Ok(match loaded.value(key) {
        Some(value) => format!("  value    {value} ({place})\n"),
        None => String::new(),
    })
}

/// Prints what is wrong with a config.
fn refuse(error: &ConfigError, code: u8) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(code)
}

/// Writes to standard output.
fn print(text: &str) -> miette::Result<ExitCode> {
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}
