//! `mlrm data`: make, convert, check and pair up data sets.

mod batches;
mod check;
mod import;
mod pairs;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use miette::miette;
use mlrm_config::{SynthSettings, SynthStyle};
use mlrm_data::DataError;
use mlrm_data::import::movielens::{MovieLens, convert};
use mlrm_synth::ensure_synth;
use pairs::word;
use serde_json::json;

use super::print_json;

/// Arguments of `mlrm data`.
#[derive(Debug, Args)]
pub struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Make a drawn sample set: pictures, texts and a log, the same for the same settings.
    Synth(SynthArgs),
    /// Import tables to notes, a log and pictures, as a spec or a preset says.
    Import(import::ImportArgs),
    /// Convert the official MovieLens files of any release, posters and plots to notes and a log.
    Movielens(MovielensArgs),
    /// Find every problem of a data set, by file and row. Exits with 1 when there is any.
    Check(check::CheckArgs),
    /// Score pairs of related notes from a log, and split them if asked to.
    Pairs(pairs::PairsArgs),
    /// Write what the steps of a run are fed, for a training loop of one's own.
    Batches(batches::BatchesArgs),
}

/// Runs `mlrm data`.
///
/// # Errors
/// When a file cannot be read or written, or is not what it should be.
pub fn run(args: DataArgs) -> miette::Result<ExitCode> {
    match args.command {
        DataCommand::Synth(args) => synth(&args),
        DataCommand::Import(args) => import::run(&args),
        DataCommand::Movielens(args) => movielens(&args),
        DataCommand::Check(args) => check::run(&args),
        DataCommand::Pairs(args) => pairs::run(&args),
        DataCommand::Batches(args) => batches::run(&args),
    }
}

#[derive(Debug, Args)]
struct SynthArgs {
    /// Folder to make; an existing set of the same settings is kept as it is.
    #[arg(value_name = "DIR")]
    out: PathBuf,
    /// Notes to draw.
    #[arg(long, value_name = "N", default_value_t = SynthSettings::default().notes)]
    notes: usize,
    /// Users that browse them.
    #[arg(long, value_name = "N", default_value_t = SynthSettings::default().users)]
    users: usize,
    /// Events a user leaves in the log.
    #[arg(long, value_name = "N", default_value_t = SynthSettings::default().events_per_user)]
    events_per_user: usize,
    /// Side of the square pictures in pixels.
    #[arg(long, value_name = "N", default_value_t = SynthSettings::default().image_pixels)]
    image_pixels: u32,
    /// Seed of the set.
    #[arg(long, value_name = "N", default_value_t = SynthSettings::default().seed)]
    seed: u64,
    /// What the pictures are like: drawn, or photographs [default: drawn].
    #[arg(long, value_parser = word::<SynthStyle>)]
    style: Option<SynthStyle>,
    /// Print JSON: {"root", "made", "settings"}.
    #[arg(long)]
    json: bool,
}

fn synth(args: &SynthArgs) -> miette::Result<ExitCode> {
    let settings = SynthSettings {
        notes: args.notes,
        users: args.users,
        events_per_user: args.events_per_user,
        image_pixels: args.image_pixels,
        seed: args.seed,
        style: args.style.unwrap_or_default(),
    };
    let made = ensure_synth(&args.out, &settings).map_err(report)?;
    if args.json {
        return print_json(&json!({"root": args.out, "made": made, "settings": settings}));
    }
    let state = if made { "made" } else { "is there already" };
    let events = settings.users.saturating_mul(settings.events_per_user);
    let counts = [
        ("notes", settings.notes as u64),
        ("users", settings.users as u64),
        ("events", events as u64),
    ];
    print(&format!(
        "{} {state}\n{}",
        args.out.display(),
        table(&counts)
    ))
}

#[derive(Debug, Args)]
struct MovielensArgs {
    /// Folder of the official release: movies.dat, movies.csv or u.item, and the ratings.
    #[arg(value_name = "DIR", required_unless_present_all = ["movies", "ratings"])]
    source: Option<PathBuf>,
    /// The file of films, when it is not in DIR.
    #[arg(long, value_name = "FILE")]
    movies: Option<PathBuf>,
    /// The file of ratings, when it is not in DIR.
    #[arg(long, value_name = "FILE")]
    ratings: Option<PathBuf>,
    /// Folder of posters, named by film id (1.jpg, 2.png, …).
    #[arg(long, value_name = "DIR")]
    posters: Option<PathBuf>,
    /// Plots: lines `MovieID::plot`, or a .jsonl file with id and plot.
    #[arg(long, value_name = "FILE")]
    plots: Option<PathBuf>,
    /// Folder to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print the counts as JSON.
    #[arg(long)]
    json: bool,
}

fn movielens(args: &MovielensArgs) -> miette::Result<ExitCode> {
    let source = MovieLens {
        folder: args.source.clone().unwrap_or_default(),
        movies: args.movies.clone(),
        ratings: args.ratings.clone(),
        posters: args.posters.clone(),
        plots: args.plots.clone(),
    };
    let summary = convert(&source, &args.out).map_err(report)?;
    if args.json {
        return print_json(&json!({
            "notes": summary.notes,
            "posters": summary.pictures,
            "plots": summary.with_content,
            "users": summary.users,
            "interactions": summary.interactions,
        }));
    }
    import::notices(&summary);
    let counts = [
        ("notes", summary.notes),
        ("with a poster", summary.pictures),
        ("with a plot", summary.with_content),
        ("users", summary.users),
        ("events", summary.interactions),
    ];
    print(&format!("{} made\n{}", args.out.display(), table(&counts)))
}

/// An error of the data crate, whose message says already what, where and how to correct it.
fn report(error: DataError) -> miette::Report {
    miette!("{error}")
}

/// Names and numbers, one a line, aligned.
fn table<Name: AsRef<str>>(counts: &[(Name, u64)]) -> String {
    let width = |width: usize, text: &str| width.max(text.chars().count());
    let names = counts
        .iter()
        .fold(0, |most, (name, _)| width(most, name.as_ref()));
    let numbers = counts
        .iter()
        .fold(0, |most, (_, count)| width(most, &count.to_string()));
    let line =
        |(name, count): &(Name, u64)| format!("  {:names$}  {count:>numbers$}\n", name.as_ref());
    counts.iter().map(line).collect()
}

/// Writes to standard output.
fn print(text: &str) -> miette::Result<ExitCode> {
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use miette::IntoDiagnostic;

    use super::*;

    #[derive(Debug, Parser)]
    struct Whole {
        #[command(flatten)]
        data: DataArgs,
    }

    pub(super) fn run_words(words: &[&str]) -> miette::Result<ExitCode> {
        let words = ["data"].iter().chain(words);
        run(Whole::try_parse_from(words).into_diagnostic()?.data)
    }

    #[test]
    fn tables_are_aligned() {
        assert_eq!(
            table(&[("a", 1), ("é long", 200)]),
            "  a         1\n  é long  200\n"
        );
    }

    #[test]
    fn movielens_needs_a_folder_or_both_files() {
        let message = run_words(&["movielens", "--out", "x", "--movies", "m"]);
        assert!(message.unwrap_err().to_string().contains("required"));
        let message = run_words(&["movielens", "nowhere", "--out", "x"]);
        assert!(
            message
                .unwrap_err()
                .to_string()
                .contains("nowhere/movies.dat")
        );
    }

    #[test]
    fn a_sample_set_is_made_checked_and_paired() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("set").display().to_string();
        let small = [
            "synth",
            &root,
            "--notes",
            "40",
            "--users",
            "60",
            "--image-pixels",
            "8",
        ];
        assert_eq!(run_words(&small).unwrap(), ExitCode::SUCCESS);
        assert_eq!(run_words(&small).unwrap(), ExitCode::SUCCESS);
        assert_eq!(run_words(&["check", &root]).unwrap(), ExitCode::SUCCESS);
        let log = format!("{root}/interactions.csv");
        let out = home.path().join("split").display().to_string();
        let split = [
            "pairs", &log, "--split", "note", "--seed", "1", "--out", &out,
        ];
        assert_eq!(run_words(&split).unwrap(), ExitCode::SUCCESS);
        for name in ["train.csv", "validation.csv", "test.csv"] {
            assert!(home.path().join("split").join(name).is_file());
        }
        std::fs::remove_file(home.path().join("set/images/n00003.png")).unwrap();
        let fixed = home.path().join("fixed");
        let fix = ["check", &root, "--fix", &fixed.display().to_string()];
        assert_eq!(run_words(&fix).unwrap(), ExitCode::from(1));
        let rest = std::fs::read_to_string(fixed.join("notes.jsonl")).unwrap();
        assert_eq!(rest.lines().count(), 39);
    }
}
