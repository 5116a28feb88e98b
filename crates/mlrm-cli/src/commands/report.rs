//! `mlrm report RUN…`: one self-contained file about one run, or several compared.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use miette::{IntoDiagnostic, miette};
use mlrm_report::run::{Run, folder_and_name};
use mlrm_report::sweep::SweepTable;
use mlrm_report::{html, markdown};

use super::read_json;
use super::watch::say_unreadable;

/// Write a report of one run, or of several compared.
///
/// The HTML file needs no network and no script; pictures are embedded as thumbnails.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Run folders, or their events.jsonl; or the folder of a sweep.
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Where to write; `-` is standard output. By default report.html in the first run's folder.
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The format; by default what the file's ending says.
    #[arg(long, value_enum)]
    pub format: Option<ReportFormat>,
    /// The title; by default the runs' names.
    #[arg(long)]
    pub title: Option<String>,
    /// Show at most so many examples per run, the worst failures first.
    #[arg(long, default_value_t = 24, value_name = "N")]
    pub examples: usize,
}

/// A report's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// One HTML file with curves, tables and pictures.
    Html,
    /// The tables as Markdown.
    Markdown,
}

/// Runs `mlrm report`.
///
/// # Errors
/// A run cannot be read, or the report cannot be written.
pub fn run(args: ReportArgs) -> miette::Result<ExitCode> {
    if let [sweep] = args.runs.as_slice()
        && sweep.join("table.json").is_file()
    {
        return of_sweep(sweep, &args);
    }
    let runs = args
        .runs
        .iter()
        .map(|run| {
            if !run.exists() {
                return Err(miette!(
                    help = "name the folder that `mlrm train` made (`run.dir` of the config)",
                    "there is no run {}",
                    run.display()
                ));
            }
            let read = Run::read(run).into_diagnostic()?;
            say_unreadable(run, read.state.unreadable_lines);
            Ok(read)
        })
        .collect::<miette::Result<Vec<Run>>>()?;
    let runs = named_apart(runs);
    let out = args.out.unwrap_or_else(|| match args.format {
        Some(ReportFormat::Markdown) => runs[0].folder.join("report.md"),
        _ => runs[0].folder.join("report.html"),
    });
    let format = match args.format {
        Some(format) => format,
        None => format_of(&out)?,
    };
    let text = match format {
        ReportFormat::Html => html::page(
            &runs,
            &html::Options {
                title: args.title,
                examples: args.examples,
            },
        ),
        ReportFormat::Markdown => markdown::page(&runs),
    };
    write(&out, &text)
}

/// The report of a sweep: its table and curves.
fn of_sweep(folder: &Path, args: &ReportArgs) -> miette::Result<ExitCode> {
    let path = folder.join("table.json");
    let table: SweepTable = read_json(&path, "table of a sweep")?;
    let out = args.out.clone().unwrap_or_else(|| match args.format {
        Some(ReportFormat::Markdown) => folder.join("report.md"),
        _ => folder.join("report.html"),
    });
    let format = args.format.map_or_else(|| format_of(&out), Ok)?;
    let name = || folder_and_name(folder).1;
    let title = args.title.clone().unwrap_or_else(name);
    let text = match format {
        ReportFormat::Html => table.to_html(&title),
        ReportFormat::Markdown => table.to_markdown(),
    };
    write(&out, &text)
}

fn write(out: &Path, text: &str) -> miette::Result<ExitCode> {
    if out.as_os_str() == "-" {
        crate::output::data(text.as_bytes());
    } else {
        super::write(out, text)?;
        println!("{}", out.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The format that a file's ending says; without an ending, and for standard output, HTML.
fn format_of(out: &Path) -> miette::Result<ReportFormat> {
    let ending = out.extension().map(|ending| ending.to_string_lossy());
    match ending.map(|ending| ending.to_ascii_lowercase()).as_deref() {
        Some("md" | "markdown") => Ok(ReportFormat::Markdown),
        Some("html" | "htm") | None => Ok(ReportFormat::Html),
        Some(_) => Err(miette!(
            help = "end it in .html or .md, or say which with --format",
            "{}: a report is written as HTML or Markdown",
            out.display()
        )),
    }
}

/// Runs of the same folder name get their numbers.
fn named_apart(mut runs: Vec<Run>) -> Vec<Run> {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for (index, run) in runs.iter_mut().enumerate() {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = format!("{} ({})", names[index], index + 1);
        }
    }
    runs
}
