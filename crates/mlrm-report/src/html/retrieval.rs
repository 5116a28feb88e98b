//! Metrics with their confidence intervals, baselines, slices, and their course.

use std::fmt::Write;

use mlrm_events::{Evaluation, Interval, Metrics, Split};

use super::chart::{Chart, ChartLine, Mark};
use super::{run_color, run_dash};
use crate::describe;
use crate::format;
use crate::markup::escaped;
use crate::run::{Run, evaluated};
use crate::state::metric_names;

pub(super) fn section(runs: &[Run], html: &mut String) {
    let evaluated = evaluated(runs);
    if evaluated.is_empty() {
        return;
    }
    let metrics = metric_names(evaluated.iter().map(|(_, evaluation)| *evaluation));
    html.push_str("<section>\n<h2>Retrieval</h2>\n");
    for (run, evaluation) in &evaluated {
        let name = if runs.len() > 1 {
            format!("{}: ", run.name)
        } else {
            String::new()
        };
        let _ = writeln!(
            html,
            "<p class=\"muted\">{}{} notes at step {}: {} queries in a pool of {} notes.</p>",
            escaped(&name),
            describe::split(evaluation.split),
            format::count(evaluation.step),
            format::count(evaluation.queries),
            format::count(evaluation.pool)
        );
    }
    table(&main_rows(&evaluated), &metrics, true, html);
    html.push_str("<p class=\"muted\">Underlined: the best of a column. ");
    html.push_str("Small: 95 % confidence interval, where it was measured.</p>\n");
    html.push_str("<div class=\"grid\">\n");
    for metric in metrics.iter().filter(|metric| metric.ends_with("@10")) {
        course(runs, metric, html);
    }
    html.push_str("</div>\n");
    let mixed = |(run, newest): &(&Run, &Evaluation)| course_split(run, newest) != newest.split;
    if evaluated.iter().any(mixed) {
        html.push_str("<p class=\"muted\">Lines: on the validation notes. ");
        html.push_str("Dashed levels, where there are any: on the test notes.</p>\n");
    }
    for (run, evaluation) in evaluated
        .iter()
        .filter(|(_, evaluation)| evaluation.slices.len() > 1)
    {
        let name = if runs.len() > 1 {
            format!(": {}", run.name)
        } else {
            String::new()
        };
        let _ = writeln!(html, "<h3>By slice{}</h3>", escaped(&name));
        table(&slice_rows(evaluation), &metrics, false, html);
    }
    html.push_str("</section>\n");
}

/// A row: its name, its metrics, and whether it is a model (not a baseline).
pub(crate) struct TableRow<'a> {
    pub(crate) name: String,
    pub(crate) metrics: &'a Metrics,
    pub(crate) is_model: bool,
}

/// All notes and their slices.
pub(crate) fn slice_rows(evaluation: &Evaluation) -> Vec<TableRow<'_>> {
    let slices = evaluation.slices.iter();
    let rows = slices.map(|(slice, metrics)| TableRow {
        name: format::name_title(slice),
        metrics,
        is_model: slice == "all",
    });
    rows.collect()
}

/// The models, then their baselines; of several runs each baseline with its run, unless all runs
/// measured the same.
pub(crate) fn main_rows<'a>(evaluated: &[(&'a Run, &'a Evaluation)]) -> Vec<TableRow<'a>> {
    let mut rows = Vec::new();
    for (run, evaluation) in evaluated {
        if let Some(metrics) = evaluation.slices.get("all") {
            rows.push(TableRow {
                name: run.name.clone(),
                metrics,
                is_model: true,
            });
        }
    }
    let mut baselines: Vec<(String, &Run, &Metrics)> = Vec::new();
    for (run, evaluation) in evaluated {
        for (name, slices) in &evaluation.baselines {
            let Some(metrics) = slices.get("all") else {
                continue;
            };
            if !baselines
                .iter()
                .any(|(known, _, values)| known == name && *values == metrics)
            {
                baselines.push((name.clone(), run, metrics));
            }
        }
    }
    for (name, run, metrics) in &baselines {
        let alone = baselines.iter().filter(|(other, ..)| other == name).count() == 1;
        let mut title = format::name_title(name);
        if !alone {
            title += &format!(" ({})", run.name);
        }
        rows.push(TableRow {
            name: title,
            metrics,
            is_model: false,
        });
    }
    rows
}

fn table(rows: &[TableRow], metrics: &[String], marks_best: bool, html: &mut String) {
    html.push_str("<div class=\"scroll\">\n<table>\n<thead><tr><th></th>");
    for metric in metrics {
        let _ = write!(
            html,
            "<th scope=\"col\">{}</th>",
            escaped(&format::metric_title(metric))
        );
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        let class = if row.is_model { "model" } else { "" };
        let _ = write!(
            html,
            "<tr class=\"{class}\"><td>{}</td>",
            escaped(&row.name)
        );
        for metric in metrics {
            let Some(&value) = row.metrics.get(metric) else {
                html.push_str("<td>-</td>");
                continue;
            };
            let best = rows
                .iter()
                .filter_map(|row| row.metrics.get(metric))
                .all(|other| *other <= value);
            let class = if best && marks_best { "best" } else { "" };
            let _ = write!(
                html,
                "<td><span class=\"{class}\">{}</span>",
                format::percent(value)
            );
            if let Some(Interval { low, high, .. }) = Interval::of(row.metrics, metric) {
                let _ = write!(
                    html,
                    "<small>{:.2} to {:.2}</small>",
                    low * 100.0,
                    high * 100.0
                );
            }
            html.push_str("</td>");
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
}

/// A metric over the steps on the validation notes; of a single run also its newest evaluation and
/// the baselines beside it, which are of the test notes once there are any.
fn course(runs: &[Run], metric: &str, html: &mut String) {
    let mut chart = Chart {
        title: format!("{} over training", format::metric_title(metric)),
        percent: true,
        x_title: "step",
        ..Chart::default()
    };
    for (index, run) in runs.iter().enumerate() {
        let Some(newest) = run.evaluation() else {
            continue;
        };
        let value = |evaluation: &Evaluation| evaluation.slices.get("all")?.get(metric).copied();
        let split = course_split(run, newest);
        let evaluations = run.state.evaluations.iter();
        let points = evaluations
            .filter(|evaluation| evaluation.split == split)
            .filter_map(|evaluation| Some((evaluation.step as f64, value(evaluation)?)));
        chart.lines.push(ChartLine::new(
            &run.name,
            run_color(index),
            run_dash(index),
            points,
        ));
        if runs.len() == 1 {
            let baselines = newest.baselines.iter().filter_map(|(name, slices)| {
                let value = *slices.get("all")?.get(metric)?;
                Some(Mark {
                    name: format::name_title(name),
                    value,
                })
            });
            chart.marks.extend(baselines);
            if split != newest.split {
                let name = format!("{}, {}", run.name, describe::split(newest.split));
                let mark = value(newest).map(|value| Mark { name, value });
                chart.marks.extend(mark);
            }
        }
    }
    chart.write(html);
}

/// Whose notes the course over training is of: values of two splits make no line.
fn course_split(run: &Run, newest: &Evaluation) -> Split {
    let mut splits = run.state.evaluations.iter().map(|one| one.split);
    splits
        .find(|split| *split == Split::Validation)
        .unwrap_or(newest.split)
}
