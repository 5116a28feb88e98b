//! `mlrm data pairs`.

mod rules;

pub(super) use rules::word;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use miette::miette;
use mlrm_config::{PairSettings, RunConfig, TimeUnit};
use mlrm_data::interactions::refuse_unknown;
use mlrm_data::notes::{Note, NoteSet};
use mlrm_data::pair_sql::{Dialect, PairQuery, SplitQuery};
use mlrm_data::pairs::{
    Log, Losses, RawPair, Scoring, folder_beside, write_pairs, write_pairs_csv,
};
use mlrm_data::split::{Part, split_any_log};

use super::{print, print_json, report, table};
use crate::commands::formats::ByteSize;
use rules::RuleArgs;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("destination").args(["out", "sql"]).multiple(true)))]
pub(super) struct PairsArgs {
    /// Behaviour log, CSV or Parquet: user_id, note_id, timestamp.
    #[arg(
        value_name = "INTERACTIONS",
        required_unless_present_any = ["config", "sql"],
        conflicts_with = "sql"
    )]
    interactions: Option<PathBuf>,
    /// Take log, notes and `[data.pairs]` from a run's config; what is given here goes before.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Notes file: ids of the log that are not in it are refused, and splits are made over its
    /// notes. Without one, the notes are those of the log.
    #[arg(long, value_name = "FILE")]
    notes: Option<PathBuf>,
    /// Where the pairs go: a .csv or .parquet file; with --split, a new folder for train.csv,
    /// validation.csv and test.csv. Without it, CSV on standard output.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Unit of the log's times where they are numbers: auto, s, ms, us or ns [default: auto].
    #[arg(long, value_name = "UNIT", value_parser = word::<TimeUnit>)]
    time_unit: Option<TimeUnit>,
    #[command(flatten)]
    rules: RuleArgs,
    /// Seed of the split [default: `run.seed` of the config, 0 without one].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Most memory for the log, such as 4GB. A larger one is divided by user into files beside --out,
    /// which are gone when the command ends, and gives the same pairs.
    #[arg(long, value_name = "SIZE", conflicts_with = "sql")]
    memory: Option<ByteSize>,
    /// Print the counts as JSON.
    #[arg(long, requires = "out", conflicts_with = "sql")]
    json: bool,
    /// Write the plan as a SQL query for this engine instead (spark, duckdb or datafusion): it
    /// reads a table interactions(user_id, note_id, timestamp) and gives query_id, target_id,
    /// weight. No file is read but the config, whose split is the query's; with a config or
    /// --notes, a split over notes reads a table notes(id).
    #[arg(long, value_name = "ENGINE", value_parser = word::<Dialect>)]
    sql: Option<Dialect>,
    /// The part of the split that --sql gives: train, validation or test. Without it, a split over
    /// notes gives the pairs of all parts.
    #[arg(long, requires = "sql", value_parser = part)]
    part: Option<Part>,
}

fn part(text: &str) -> Result<Part, String> {
    match text {
        "train" => Ok(Part::Train),
        "validation" => Ok(Part::Validation),
        "test" => Ok(Part::Test),
        _ => Err("neither train nor validation nor test".into()),
    }
}

/// What the command works on.
struct Plan {
    log: PathBuf,
    notes: Option<PathBuf>,
    time_unit: TimeUnit,
    rules: PairSettings,
    seed: u64,
}

impl Plan {
    fn new(args: &PairsArgs) -> miette::Result<Self> {
        let mut plan = Self {
            log: args.interactions.clone().unwrap_or_default(),
            notes: args.notes.clone(),
            time_unit: args.time_unit.unwrap_or_default(),
            rules: args.rules.over(PairSettings::default()),
            seed: args.seed.unwrap_or(0),
        };
        if let Some(path) = &args.config {
            let config = RunConfig::load(path, &[]).map_err(|error| miette!("{error}"))?;
            let data = config.data;
            plan.seed = args.seed.unwrap_or(config.run.seed);
            if args.sql.is_some() {
                plan.notes = plan.notes.or(Some(data.notes));
            } else if args.interactions.is_none() {
                let log = data.interactions.as_deref().ok_or_else(|| {
                    miette!(
                        help = "set `data.interactions`, or give a log on the command line",
                        "{}: there is no log to score",
                        path.display()
                    )
                })?;
                plan.log = data.place(log);
                plan.notes = plan.notes.or(Some(data.place(&data.notes)));
            }
            plan.time_unit = args.time_unit.unwrap_or(data.time_unit);
            plan.rules = args.rules.over(data.pairs);
        }
        Ok(plan)
    }
}

pub(super) fn run(args: &PairsArgs) -> miette::Result<ExitCode> {
    let plan = Plan::new(args)?;
    if let Some(dialect) = args.sql {
        return write_sql(args, plan, dialect);
    }
    check_out(args, &plan)?;
    if let Some(out) = &args.out {
        mlrm_files::clear_unfinished(out);
    }
    let memory = args.memory.map_or(u64::MAX, |memory| memory.0);
    let folder = folder_beside(args.out.as_deref());
    let log = Log::read(&plan.log, plan.time_unit, memory, &folder).map_err(report)?;
    for notice in log.notices() {
        eprintln!("{}: {notice}", plan.log.display());
    }
    let notes = notes_of(&plan, &log)?;
    match (&args.out, args.rules.split) {
        (None, Some(_)) => Err(miette!(
            help = "add --out DIR",
            "a split is written into a folder, and none is named"
        )),
        (Some(out), Some(_)) => {
            let data = split_any_log(&log, &notes, &plan.rules, plan.seed).map_err(report)?;
            data.pairs.write(out, &notes).map_err(report)?;
            say_losses(data.pairs.train.len(), data.losses);
            let counts = [
                ("train", data.pairs.train.len() as u64),
                ("validation", data.pairs.validation.len() as u64),
                ("test", data.pairs.test.len() as u64),
            ];
            summary(args, &log, out, &counts)
        }
        (out, _) => {
            let scoring = Scoring::new(&plan.rules).map_err(report)?;
            let (scored, losses) = log.score(&scoring, |_, _| true).map_err(report)?;
            let pairs = scored.pairs;
            say_losses(pairs.len(), losses);
            let ids = log.notes();
            let rows = pairs.iter().map(|pair| RawPair {
                query: &ids[pair.query],
                target: &ids[pair.target],
                weight: pair.weight,
            });
            let Some(out) = out else {
                let mut text = Vec::new();
                write_pairs_csv(&mut text, rows).map_err(|error| miette!("{error}"))?;
                crate::output::data(&text);
                return Ok(ExitCode::SUCCESS);
            };
            write_pairs(out, rows).map_err(report)?;
            summary(args, &log, out, &[("pairs", pairs.len() as u64)])
        }
    }
}

/// The plan as a query, to standard output or into a file.
fn write_sql(args: &PairsArgs, plan: Plan, dialect: Dialect) -> miette::Result<ExitCode> {
    let splits = args.config.is_some() || args.rules.split.is_some();
    if args.part.is_some() && !splits {
        return Err(miette!(
            help = "add --split, or a config",
            "--part names a part of a split, and there is no split"
        ));
    }
    let query = PairQuery {
        rules: plan.rules,
        time_unit: plan.time_unit,
        split: splits.then_some(SplitQuery {
            seed: plan.seed,
            part: args.part,
            notes_table: plan.notes.is_some(),
        }),
    };
    let sql = query.sql(dialect).map_err(report)?;
    match &args.out {
        None => crate::output::data(sql.as_bytes()),
        Some(out) if out.extension().is_some_and(|ending| ending == "sql") => {
            mlrm_files::write(out, sql).map_err(|error| miette!("{}: {error}", out.display()))?;
        }
        Some(out) => {
            return Err(miette!(
                help = "let its name end in .sql",
                "--out {}: the query is written as SQL",
                out.display()
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses to write over what is read, and files whose form is unknown.
fn check_out(args: &PairsArgs, plan: &Plan) -> miette::Result<()> {
    let Some(out) = &args.out else {
        return Ok(());
    };
    let inputs = [Some(&plan.log), plan.notes.as_ref(), args.config.as_ref()];
    let place = |path: &Path| path.canonicalize().ok();
    let here = place(out);
    if here.is_some()
        && inputs
            .into_iter()
            .flatten()
            .any(|input| place(input) == here)
    {
        return Err(miette!(
            help = "name another file",
            "--out {} is a file that is read",
            out.display()
        ));
    }
    let ending = out.extension().unwrap_or_default().to_string_lossy();
    if args.rules.split.is_none() && !["csv", "parquet"].contains(&ending.as_ref()) {
        return Err(miette!(
            help = "let its name end in .csv or .parquet",
            "--out {}: pairs are written as CSV or Parquet",
            out.display()
        ));
    }
    Ok(())
}

/// Says to standard error why there are few pairs.
fn say_losses(pairs: usize, losses: Option<Losses>) {
    if let Some(losses) = losses {
        eprintln!("few pairs ({pairs}): {losses}");
    }
}

/// The notes of the notes file, which must have every note of the log; or else those of the log.
fn notes_of(plan: &Plan, log: &Log) -> miette::Result<NoteSet> {
    if let Some(path) = &plan.notes {
        let notes = NoteSet::read(path).map_err(report)?;
        for notice in notes.notices() {
            eprintln!("{}: {notice}", path.display());
        }
        refuse_unknown(log.notes(), &plan.log, &notes).map_err(report)?;
        return Ok(notes);
    }
    let note = |id: &String| Note {
        id: id.clone(),
        ..Note::default()
    };
    let notes = log.notes().texts().iter().map(note).collect();
    NoteSet::new(notes).map_err(|error| miette!("{error}"))
}

fn summary(
    args: &PairsArgs,
    log: &Log,
    out: &Path,
    counts: &[(&str, u64)],
) -> miette::Result<ExitCode> {
    let mut all = vec![
        ("events", log.events()),
        ("users", log.users()),
        ("notes", log.notes().len() as u64),
    ];
    all.extend(counts);
    if args.json {
        let all: serde_json::Map<_, _> = all
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count.into()))
            .collect();
        return print_json(&all);
    }
    print(&format!("{} written\n{}", out.display(), table(&all)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::run_words;

    const LOG: &str = "user_id,note_id,timestamp\nu,a,1\nu,b,2\nv,a,1\nv,b,2\nv,c,700000\n";

    #[test]
    fn flags_go_before_the_config() {
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = home.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        file("log.csv", LOG);
        file(
            "notes.jsonl",
            "{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"id\":\"c\"}\n",
        );
        let root = home.path().display();
        let config = format!(
            "[data]\nroot = \"{root}\"\ninteractions = \"log.csv\"\n\
             [tokenizer]\ntrain_vocab_size = 300\n[data.pairs]\nweight = \"count\"\nwindow_days = 30.0\n"
        );
        let config = file("config.toml", &config);
        let out = home.path().join("pairs.csv");
        let pairs = |more: &[&str]| {
            let out = out.display().to_string();
            let words = [&["pairs", "--config", &config, "--out", &out], more].concat();
            run_words(&words).unwrap();
            std::fs::read_to_string(&out).unwrap()
        };
        let head = "query_id,target_id,weight\n";
        assert_eq!(pairs(&[]), format!("{head}a,b,2\na,c,1\nb,c,1\n"));
        assert_eq!(pairs(&["--top-k", "1"]), format!("{head}a,b,2\nb,c,1\n"));
        assert_eq!(pairs(&["--window-days", "7"]), format!("{head}a,b,2\n"));
        assert_eq!(
            pairs(&["--weight", "cosine", "--min-users", "2"]),
            format!("{head}a,b,1\n")
        );
    }

    #[test]
    fn ids_that_no_note_has_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("log.csv");
        let notes = home.path().join("notes.jsonl");
        std::fs::write(&log, LOG).unwrap();
        std::fs::write(&notes, "{\"id\":\"a\"}\n{\"id\":\"b\"}\n").unwrap();
        let [log, notes] = [log, notes].map(|path| path.display().to_string());
        let message = run_words(&["pairs", &log, "--notes", &notes]).unwrap_err();
        assert!(
            message
                .to_string()
                .contains("the note `c` of the log is not among the notes")
        );
    }
}
