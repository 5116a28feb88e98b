//! The report: one self-contained HTML file, without script and without network.

pub(crate) mod chart;
mod config;
mod curves;
mod heat;
mod pictures;
mod retrieval;
mod summary;

pub(crate) use retrieval::{TableRow, main_rows, slice_rows};
pub(crate) use summary::facts;

use std::fmt::Write;

use crate::markup::escaped;
use crate::run::Run;

/// How the report is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// The title; by default the runs' names.
    pub title: Option<String>,
    /// Most examples per run whose pictures are embedded (some ten to a hundred kilobytes each).
    pub examples: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            title: None,
            examples: 24,
        }
    }
}

/// The report of `runs` as an HTML page.
pub fn page(runs: &[Run], options: &Options) -> String {
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let title = options.title.clone().unwrap_or_else(|| names.join(", "));
    let mut html = head(&title);
    summary::header(runs, &mut html);
    html.push_str("</header>\n<main>\n");
    summary::section(runs, &mut html);
    retrieval::section(runs, &mut html);
    curves::section(runs, &mut html);
    curves::embeddings(runs, &mut html);
    heat::section(runs, &mut html);
    pictures::section(runs, options.examples, &mut html);
    summary::warnings(runs, &mut html);
    config::section(runs, &mut html);
    html.push_str(FOOT);
    html
}

/// The end of every page.
pub(crate) const FOOT: &str = "</main>\n</body>\n</html>\n";

/// The beginning of every page, up to its title within the header.
pub(crate) fn head(title: &str) -> String {
    let mut html = String::with_capacity(1 << 16);
    // The policy forbids everything but the styles and pictures below: whatever a note's text
    // holds, nothing is run and nothing is fetched.
    let _ = write!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         img-src data:; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{0}</title>\n<style>\n{1}</style>\n</head>\n<body>\n<header>\n<h1>{0}</h1>\n",
        escaped(title),
        include_str!("style.css")
    );
    html
}

/// The style variable of the `index`-th run.
pub(crate) fn run_color(index: usize) -> String {
    format!("var(--c{})", index % 6)
}

/// Dashes of the `index`-th run, so that more runs than colours, and runs in black and white, are
/// told apart.
pub(crate) fn run_dash(index: usize) -> &'static str {
    ["", "7 3", "2 3", "9 3 2 3", "4 2", "1 2"][index % 6]
}
