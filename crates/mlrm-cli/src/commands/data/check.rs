//! `mlrm data check`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use miette::miette;
use mlrm_config::{DataSettings, OnImageProblem, RunConfig, TimeUnit, place};
use mlrm_data::check::{CheckReport, Finding, FixSummary, Sources, check, write_clean};
use mlrm_data::error::{ProblemKind, visible};
use mlrm_data::image::DecodeOptions;
use serde::Serialize;

use super::pairs::word;
use super::{print, print_json, report, table};

/// Findings of one kind that are shown; `--json` shows all.
const SHOWN_OF_A_KIND: usize = 20;
/// Warnings of one kind that are shown.
const WARNINGS_OF_A_KIND: usize = 3;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Folder or address of the data set; the other files are relative to it.
    #[arg(value_name = "DIR", default_value = ".")]
    root: PathBuf,
    /// Take the files from the `[data]` section of a run's config instead.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["root", "notes", "interactions", "pairs", "images", "time_unit"])]
    config: Option<PathBuf>,
    /// Notes file [default: notes.jsonl].
    #[arg(long, value_name = "FILE")]
    notes: Option<PathBuf>,
    /// Behaviour log [default: interactions.csv, if it is there].
    #[arg(long, value_name = "FILE")]
    interactions: Option<PathBuf>,
    /// Ready-made pairs [default: pairs.csv, if it is there].
    #[arg(long, value_name = "FILE")]
    pairs: Option<PathBuf>,
    /// Folder, tar or Parquet shards, or address of the pictures [default: DIR].
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Unit of the log's times where they are numbers: auto, s, ms, us or ns [default: auto].
    #[arg(long, value_name = "UNIT", value_parser = word::<TimeUnit>)]
    time_unit: Option<TimeUnit>,
    /// Most pixels (width times height) of a picture [default: data.max_image_pixels].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_pixels: Option<u64>,
    /// Most bytes of a picture's file [default: data.max_image_bytes].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_bytes: Option<u64>,
    /// Most bytes of pictures from an object store that are kept on this machine [default:
    /// data.image_cache_max_bytes].
    #[arg(long, value_name = "N")]
    cache_bytes: Option<u64>,
    /// Write the clean rest into this new folder, and left_out.jsonl with what was left out. The
    /// exit code still says whether there was anything to find.
    #[arg(long, value_name = "DIR")]
    fix: Option<PathBuf>,
    /// Print JSON: counts, every finding {"file", "row", "kind", "message", "mend"}, the same of every
    /// warning, and "fixed".
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output<'a> {
    #[serde(flatten)]
    report: &'a CheckReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed: Option<FixSummary>,
}

pub(super) fn run(args: &CheckArgs) -> miette::Result<ExitCode> {
    let (settings, looks_at_pictures) = settings(args)?;
    let sources = sources(args, &settings);
    let mut options = DecodeOptions::new(&settings);
    options.pixels = args.max_pixels.unwrap_or(options.pixels);
    options.file_bytes = args.max_bytes.unwrap_or(options.file_bytes);
    let found = check(&sources, &options);
    // What a run would stop at is no mere warning.
    let strict = looks_at_pictures && settings.on_missing_image == OnImageProblem::Error;
    let refusal = without_picture(args, &found).filter(|_| strict);
    let fix = |out: &PathBuf| write_clean(&sources, &found, out);
    let fixed = args.fix.as_ref().map(fix).transpose();
    if args.json {
        let fixed = fixed.as_ref().ok().copied().flatten();
        print_json(&Output {
            report: &found,
            fixed,
        })?;
    } else {
        print(&text(&found, refusal.as_deref()))?;
    }
    if let Some(help) = other_place(args, &found) {
        eprintln!("help: {help}");
    }
    // The findings first: they say why a set cannot be cleaned.
    let fixed = fixed.map_err(report)?;
    if let (Some(out), Some(fixed), false) = (&args.fix, fixed, args.json) {
        print(&fixed_text(out, &fixed))?;
    }
    let failed = refusal.is_some() || !found.findings.is_empty();
    Ok(ExitCode::from(u8::from(failed)))
}

/// What a run that looks at pictures stops at: notes without one. A set none of whose notes names a picture is one of
/// texts, unless a config means to look at pictures.
fn without_picture(args: &CheckArgs, found: &CheckReport) -> Option<String> {
    let without = found.warnings.iter();
    let without = without
        .filter(|warning| warning.kind == ProblemKind::NoImage)
        .count();
    let none = without == 0 && found.images == 0 && found.notes > 0 && found.findings.is_empty();
    let who = match (without, none && args.config.is_some()) {
        (0, false) => return None,
        (0, true) => "no note has a picture".to_owned(),
        (count, _) => format!("{count} notes have no picture"),
    };
    Some(format!(
        "{who}: a run that looks at pictures stops at them, unless data.on_missing_image is \"text\" or \"drop\""
    ))
}

/// Where pictures that are missing may be: in `images/`, by keys that are paths below it.
fn other_place(args: &CheckArgs, found: &CheckReport) -> Option<String> {
    let folder = args.root.join("images");
    let missing = |finding: &Finding| finding.kind.name() == "missing_image";
    let guessed = args.config.is_none() && args.images.is_none();
    (guessed && folder.is_dir() && found.findings.iter().any(missing)).then(|| {
        format!(
            "keys of pictures are paths below {}; if they are paths below {}, give `--images images`, and \
             set `data.images = \"images\"` in the config",
            args.root.display(),
            folder.display()
        )
    })
}

/// The `[data]` section that is meant, and whether its run looks at pictures.
fn settings(args: &CheckArgs) -> miette::Result<(DataSettings, bool)> {
    match &args.config {
        Some(path) => {
            let config = RunConfig::load(path, &[]).map_err(|error| miette!("{error}"))?;
            let looks = config.model.variant.vision();
            Ok((config.data, looks))
        }
        None => Ok((DataSettings::default(), true)),
    }
}

fn sources(args: &CheckArgs, settings: &DataSettings) -> Sources {
    if args.config.is_some() {
        return Sources::of(settings);
    }
    let file = |given: &Option<PathBuf>, name: &Path| match given {
        Some(path) => place(&args.root, path),
        None => place(&args.root, name),
    };
    let optional = |given: &Option<PathBuf>, name: &str| {
        let path = file(given, Path::new(name));
        (given.is_some() || path.is_file()).then_some(path)
    };
    Sources {
        notes: file(&args.notes, &settings.notes),
        interactions: optional(&args.interactions, "interactions.csv"),
        pairs: optional(&args.pairs, "pairs.csv"),
        images: file(&args.images, &settings.images),
        time_unit: args.time_unit.unwrap_or(settings.time_unit),
        image_cache_max_bytes: args.cache_bytes.unwrap_or(settings.image_cache_max_bytes),
    }
}

/// The findings and warnings, one a line, then the counts, and what a run would refuse besides.
fn text(found: &CheckReport, refusal: Option<&str>) -> String {
    let mut text = String::new();
    let findings = lines(&found.findings, SHOWN_OF_A_KIND, "", &mut text);
    let warnings = lines(&found.warnings, WARNINGS_OF_A_KIND, "warning: ", &mut text);
    if !text.is_empty() {
        text.push('\n');
    }
    for notice in &found.notices {
        text.push_str(&format!("{}: {}\n", notice.file.display(), notice.message));
    }
    text.push_str("checked\n");
    text.push_str(&table(&[
        ("notes", found.notes),
        ("pictures", found.images),
        ("events", found.interactions),
        ("pairs", found.pairs),
    ]));
    match (findings.is_empty(), refusal) {
        (true, None) => text.push_str("nothing is wrong\n"),
        (true, Some(_)) => {}
        (false, _) => text.push_str(&counts("found", findings)),
    }
    if !warnings.is_empty() {
        text.push_str(&counts("warnings", warnings));
    }
    text.extend(refusal.map(|refusal| format!("{refusal}\n")));
    text
}

/// Writes the first `most` of each kind, a line each, and gives the count of every kind.
fn lines<'a>(
    findings: &'a [Finding],
    most: usize,
    level: &str,
    text: &mut String,
) -> BTreeMap<&'a str, usize> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in findings {
        let count = kinds.entry(finding.kind.name()).or_default();
        *count += 1;
        if *count <= most {
            text.push_str(&line(finding, level));
        }
    }
    for (kind, count) in &kinds {
        if let Some(more) = count.checked_sub(most).filter(|more| *more > 0) {
            text.push_str(&format!("… and {more} more {kind} (--json prints all)\n"));
        }
    }
    kinds
}

fn counts(title: &str, kinds: BTreeMap<&str, usize>) -> String {
    let counts: Vec<_> = kinds
        .into_iter()
        .map(|(kind, count)| (kind, count as u64))
        .collect();
    format!("{title}\n{}", table(&counts))
}

fn line(finding: &Finding, level: &str) -> String {
    let file = visible(&finding.file.display().to_string());
    let place = match finding.row {
        Some(row) => format!("{file}:{row}"),
        None => file,
    };
    format!(
        "{place}: {level}{}: {}; {}\n",
        finding.kind.name(),
        finding.message,
        finding.mend
    )
}

fn fixed_text(out: &Path, fixed: &FixSummary) -> String {
    let counts = [
        ("notes", fixed.notes),
        ("pictures", fixed.images),
        ("events", fixed.interactions),
        ("pairs", fixed.pairs),
        ("rows left out", fixed.left_out),
    ];
    format!("{} made\n{}", out.display(), table(&counts))
}

#[cfg(test)]
mod tests {
    use super::super::tests::run_words;

    #[test]
    fn a_missing_folder_is_a_finding() {
        let code = run_words(&["check", "nowhere", "--json"]).unwrap();
        assert_eq!(code, std::process::ExitCode::from(1));
        let words = ["check", "nowhere", "--fix", "nowhere-else"];
        assert!(
            run_words(&words)
                .unwrap_err()
                .to_string()
                .contains("cannot be cleaned")
        );
    }

    #[test]
    fn findings_are_lines_with_place_kind_and_cure() {
        let home = tempfile::tempdir().unwrap();
        let notes: String = (0..25).map(|_| "{oops\n").collect();
        std::fs::write(home.path().join("notes.jsonl"), notes).unwrap();
        let sources = super::Sources {
            notes: home.path().join("notes.jsonl"),
            interactions: None,
            pairs: None,
            images: home.path().into(),
            time_unit: mlrm_config::TimeUnit::Auto,
            image_cache_max_bytes: 1 << 30,
        };
        let found = super::check(&sources, &super::DecodeOptions::default());
        let text = super::text(&found, None);
        assert!(text.contains("notes.jsonl:20: bad_json: no JSON"), "{text}");
        assert!(!text.contains("notes.jsonl:21:"), "{text}");
        assert!(
            text.contains("… and 5 more bad_json (--json prints all)\n"),
            "{text}"
        );
        assert!(text.contains("found\n  bad_json  25\n"), "{text}");
    }
}
