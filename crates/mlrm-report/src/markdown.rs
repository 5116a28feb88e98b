//! The report's tables as Markdown, for a README or an issue.

use std::fmt::Write;

use mlrm_events::Interval;
use mlrm_events::text::{markdown, one_line};

use crate::describe;
use crate::format;
use crate::html::{TableRow, facts, main_rows, slice_rows};
use crate::run::{Run, evaluated};
use crate::state::{metric_names, normalised};

/// Summary, retrieval and saliency of `runs`.
pub fn page(runs: &[Run]) -> String {
    let mut text = String::new();
    for run in runs {
        let _ = writeln!(text, "## {}\n\n| | |\n| --- | --- |", markdown(&run.name));
        for (name, value) in facts(&run.state) {
            let _ = writeln!(text, "| {name} | {} |", markdown(&value));
        }
        text.push('\n');
    }
    retrieval(runs, &mut text);
    for run in runs {
        saliency(run, &mut text);
    }
    text
}

fn retrieval(runs: &[Run], text: &mut String) {
    let evaluated = evaluated(runs);
    if evaluated.is_empty() {
        return;
    }
    text.push_str("## Retrieval\n\n");
    for (run, evaluation) in &evaluated {
        let _ = writeln!(
            text,
            "{}: {} notes at step {}, {} queries in a pool of {} notes.\n",
            markdown(&run.name),
            describe::split(evaluation.split),
            evaluation.step,
            evaluation.queries,
            evaluation.pool
        );
    }
    let metrics = metric_names(evaluated.iter().map(|(_, evaluation)| *evaluation));
    table(&main_rows(&evaluated), &metrics, text);
    for (run, evaluation) in evaluated
        .iter()
        .filter(|(_, evaluation)| evaluation.slices.len() > 1)
    {
        let _ = writeln!(text, "### By slice: {}\n", markdown(&run.name));
        table(&slice_rows(evaluation), &metrics, text);
    }
}

fn table(rows: &[TableRow], metrics: &[String], text: &mut String) {
    text.push('|');
    for metric in metrics {
        let _ = write!(text, " | {}", markdown(&format::metric_title(metric)));
    }
    text.push_str(" |\n| ---");
    text.push_str(&" | ---:".repeat(metrics.len()));
    text.push_str(" |\n");
    for row in rows {
        let mark = if row.is_model { "**" } else { "" };
        let _ = write!(text, "| {mark}{}{mark}", markdown(&row.name));
        for metric in metrics {
            let value = row.metrics.get(metric).copied();
            let value = value.map_or("-".to_owned(), format::percent);
            let _ = write!(text, " | {value}");
            if let Some(Interval { low, high, .. }) = Interval::of(row.metrics, metric) {
                let _ = write!(text, " ({:.2} to {:.2})", low * 100.0, high * 100.0);
            }
        }
        text.push_str(" |\n");
    }
    text.push('\n');
}

fn saliency(run: &Run, text: &mut String) {
    let Some(newest) = run.state.saliency.last() else {
        return;
    };
    let _ = writeln!(
        text,
        "## Saliency by layer: {}\n\nStep {}, `{}`, percent of each layer.\n\n\
         | layer | visual | text | other |\n| ---: | ---: | ---: | ---: |",
        markdown(&run.name),
        newest.step,
        one_line(&newest.formula.replace('`', "'"))
    );
    for (layer, shares) in newest.layers.iter().copied().map(normalised).enumerate() {
        let [visual, words, other] = shares.map(|share| share * 100.0);
        let _ = writeln!(
            text,
            "| {} | {visual:.1} | {words:.1} | {other:.1} |",
            layer + 1
        );
    }
    text.push('\n');
}
