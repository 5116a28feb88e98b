//! `mlrm data import`: any tables to notes, a log and pictures.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use miette::{IntoDiagnostic, miette};
use mlrm_data::import::fetch::{FetchOptions, FetchSummary, Reach, fetch};
use mlrm_data::import::{ImportSummary, Spec, import, is_import_of, presets};
use serde_json::json;

use super::{print, print_json, report, table};

/// Arguments of `mlrm data import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A spec (SPEC.toml), or the name of a preset (--list).
    #[arg(value_name = "SPEC", required_unless_present = "list")]
    spec: Option<String>,
    /// Folder of the tables; of a spec's file by default that in which it lies.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Folder to make.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["list", "show"])]
    out: Option<PathBuf>,
    /// Leave out events of a smaller rating, whatever `events.min_rating` says.
    #[arg(long, value_name = "RATING")]
    min_rating: Option<f64>,
    /// Fetch the pictures that the tables name by their address. Where DIR is there already, an
    /// earlier fetch is gone on with.
    #[arg(long)]
    fetch_images: bool,
    /// Pictures fetched at once.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        requires = "fetch_images"
    )]
    parallel: usize,
    /// Pictures fetched at once from one host.
    #[arg(long, value_name = "N", default_value_t = 4, requires = "fetch_images")]
    per_host: usize,
    /// Largest picture.
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = 20,
        requires = "fetch_images"
    )]
    max_picture_mib: u64,
    /// All pictures together.
    #[arg(
        long,
        value_name = "GIB",
        default_value_t = 100,
        requires = "fetch_images"
    )]
    max_total_gib: u64,
    /// Further tries of a picture.
    #[arg(long, value_name = "N", default_value_t = 3, requires = "fetch_images")]
    retries: u32,
    /// How long a server may say nothing.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30,
        requires = "fetch_images"
    )]
    timeout_seconds: u64,
    /// Fetch from addresses of this machine and its networks too, which are refused by default: a
    /// table must not make mlrm ask what only this machine can reach.
    #[arg(long, requires = "fetch_images")]
    allow_private_addresses: bool,
    /// List the presets.
    #[arg(long)]
    list: bool,
    /// Print the text of the preset, to be changed into a spec of one's own.
    #[arg(long)]
    show: bool,
    /// Print the counts as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `mlrm data import`.
///
/// # Errors
/// Everything that is wrong with the spec, or with the tables.
pub fn run(args: &ImportArgs) -> miette::Result<ExitCode> {
    if args.list {
        return list();
    }
    let name = args.spec.as_deref().unwrap_or_default();
    let is_file = Path::new(name).is_file() || name.ends_with(".toml");
    if args.show && !is_file {
        let from = args.from.as_deref().unwrap_or(Path::new("."));
        return print(presets::text(name, from).map_err(report)?);
    }
    let (mut spec, from) = match is_file {
        true => {
            let path = Path::new(name);
            let folder = path.parent().map(Path::to_path_buf);
            let from = args.from.clone().or(folder).unwrap_or_default();
            (Spec::read(path).map_err(report)?, from)
        }
        false => {
            let from = args.from.clone().unwrap_or_default();
            let spec = presets::spec(name, &from).map_err(report)?;
            if args.from.is_none() {
                return Err(miette!("name the folder of the tables: --from DIR"));
            }
            (spec, from)
        }
    };
    if let Some(least) = args.min_rating {
        match &mut spec.events {
            Some(events) => events.min_rating = Some(least),
            None => return Err(miette!("--min-rating: the spec has no [events]")),
        }
    }
    let Some(out) = &args.out else {
        return Err(miette!("name the folder to make: --out DIR"));
    };
    let begun = args.fetch_images.then(|| is_import_of(&spec, &from, out));
    if begun.flatten() == Some(false) {
        return Err(miette!(
            help = "name another folder with --out, or give the spec and --from that made this one",
            "{} was made by another spec or from another folder: its pictures are not those of this call",
            out.display()
        ));
    }
    if begun.flatten() == Some(true) {
        let fetched = fetch_images(args, out)?;
        if args.json {
            return print_json(&json!({"fetch": fetched}));
        }
        return print(&format!(
            "{}\n{}",
            out.display(),
            table(&fetch_counts(&fetched))
        ));
    }
    let summary = import(&spec, &from, out).map_err(report)?;
    let fetched = match args.fetch_images {
        true => Some(fetch_images(args, out)?),
        false => None,
    };
    if args.json {
        let mut value = serde_json::to_value(&summary).into_diagnostic()?;
        if let Some(fetched) = &fetched {
            value["fetch"] = json!(fetched);
        }
        return print_json(&value);
    }
    notices(&summary);
    if let Some(fetched) = &fetched {
        let counts = [counts(&summary), fetch_counts(fetched)].concat();
        return print(&format!("{} made\n{}", out.display(), table(&counts)));
    }
    print(&format!(
        "{} made\n{}",
        out.display(),
        table(&counts(&summary))
    ))
}

fn fetch_images(args: &ImportArgs, out: &Path) -> miette::Result<FetchSummary> {
    let options = FetchOptions {
        parallel: args.parallel,
        per_host: args.per_host,
        picture_bytes: args.max_picture_mib.saturating_mul(1 << 20),
        total_bytes: args.max_total_gib.saturating_mul(1 << 30),
        retries: args.retries,
        timeout: Duration::from_secs(args.timeout_seconds.max(1)),
        reach: match args.allow_private_addresses {
            true => Reach::All,
            false => Reach::Public,
        },
        ..FetchOptions::default()
    };
    let bar = ProgressBar::new(0);
    let fetched = fetch(out, &options, &|done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let fetched = fetched.map_err(report)?;
    for (url, reason) in fetched.failed.iter().take(20) {
        eprintln!("{url}: {reason}");
    }
    if fetched.failed.len() > 20 {
        eprintln!(
            "… {} pictures could not be fetched in all",
            fetched.failed.len()
        );
    }
    Ok(fetched)
}

fn fetch_counts(fetched: &FetchSummary) -> Vec<(String, u64)> {
    [
        ("pictures fetched", fetched.fetched),
        ("pictures fetched before", fetched.there_already),
        ("pictures not fetched", fetched.failed.len() as u64),
    ]
    .map(|(name, count)| (name.to_owned(), count))
    .to_vec()
}

/// Says what was found out about the files.
pub(super) fn notices(summary: &ImportSummary) {
    for notice in &summary.notices {
        eprintln!("{notice}");
    }
}

fn counts(summary: &ImportSummary) -> Vec<(String, u64)> {
    let mut counts: Vec<(String, u64)> = [
        ("notes", summary.notes),
        ("with a picture", summary.pictures),
        ("with the address of a picture", summary.picture_urls),
        ("whose picture is not there", summary.missing_pictures),
        ("users", summary.users),
        ("events", summary.interactions),
    ]
    .map(|(name, count)| (name.to_owned(), count))
    .to_vec();
    let dropped = summary.dropped.iter();
    counts.extend(dropped.map(|(reason, count)| (format!("left out, {reason}"), *count)));
    counts
}

fn list() -> miette::Result<ExitCode> {
    let mut text = String::from("movielens\n  the one of MovieLens that fits the folder\n");
    for (name, preset) in presets::all() {
        let spec = Spec::parse(preset, name).map_err(report)?;
        text += &format!("{name}\n  {}\n", spec.about);
    }
    print(&text)
}
