//! From what runs have kept of their queries to the table of a sweep.

use std::path::Path;

use miette::miette;
use mlrm_config::{Baseline, Cell, Sweep, Variant};
use mlrm_eval::{Bootstrap, Interval, QueryMetrics, QueryRecord};
use mlrm_report::sweep::{Absent, Measure, NumericAxis, Row, SweepTable};

use super::state::{State, state_of};
use crate::commands::read_json;

/// Seed of the intervals: the same runs always have the same.
const SEED: u64 = 0;
/// Baselines that are the same for every row of one seed, and so are rows themselves.
const BASELINES: [&str; 2] = ["bm25", "popularity"];

/// The runs of a row: labels, and the seeds' records.
struct Runs {
    name: String,
    labels: Vec<String>,
    seeds: Vec<(u64, Values)>,
}

/// One model's values on the queries of one seed.
struct Values {
    queries: Vec<String>,
    metrics: QueryMetrics,
}

/// Measures what is done, over seeds and queries: the models, or in their place one `baseline` of each run.
///
/// # Errors
/// Files of a run that cannot be read, or a metric or baseline that none of them has.
pub(super) fn collect(
    sweep: &Sweep,
    cells: &[Cell],
    baseline: Option<&str>,
) -> miette::Result<SweepTable> {
    let mut rows: Vec<Runs> = Vec::new();
    let mut baselines: Vec<Runs> = Vec::new();
    let mut table = SweepTable {
        baseline: baseline.map(str::to_owned),
        axes: numeric_axes(sweep),
        ..SweepTable::default()
    };
    // A run that is done and has not the baseline.
    let mut lacking = None;
    for cell in cells {
        let reason = match state_of(cell.dir())? {
            State::Done => match read(&cell.dir().join("queries.json"))? {
                Some(record) => {
                    match take(sweep, cell, record, baseline, &mut rows, &mut baselines) {
                        Ok(()) => continue,
                        Err(reason) => {
                            lacking.get_or_insert_with(|| format!("{}: {reason}", cell.name()));
                            reason
                        }
                    }
                }
                None if cell.dir().join("eval.json").is_file() => {
                    "an older version measured it and kept no queries; remove it to run it again"
                        .to_owned()
                }
                None => "it holds no test pairs out".to_owned(),
            },
            state => state.words(),
        };
        table.absent.push(Absent {
            name: cell.name(),
            reason,
        });
    }
    let Some(first) = rows.first() else {
        return match (baseline, lacking) {
            (Some(name), Some(cell)) => Err(miette!(
                help = "name one of the `eval.baselines` that the runs were measured with",
                "no run has the baseline `{name}`; {cell}"
            )),
            _ => Ok(table),
        };
    };
    let (metric, metrics) = columns(sweep, first)?;
    let mean = |runs: &Runs| means(runs, &metric).unwrap_or(f64::NEG_INFINITY);
    let best = rows
        .iter()
        .reduce(|best, row| if mean(row) > mean(best) { row } else { best });
    table.best = best.map_or_else(String::new, |row| row.name.clone());
    table.reference = sweep
        .reference
        .clone()
        .unwrap_or_else(|| table.best.clone());
    rows.extend(baselines);
    let reference = rows.iter().find(|row| row.name == table.reference);
    table.rows = rows
        .iter()
        .filter_map(|row| measured(row, reference, &metrics))
        .collect();
    table.metric = metric;
    Ok(table)
}

fn numeric_axes(sweep: &Sweep) -> Vec<NumericAxis> {
    let numeric = sweep.axes.iter().enumerate().filter_map(|(index, axis)| {
        let points = axis
            .points
            .iter()
            .map(|point| Some((point.label.clone(), point.number?)));
        Some(NumericAxis {
            name: axis.name.clone(),
            index,
            points: points.collect::<Option<_>>()?,
        })
    });
    numeric.filter(|axis| axis.points.len() > 1).collect()
}

fn read(path: &Path) -> miette::Result<Option<QueryRecord>> {
    if !path.is_file() {
        return Ok(None);
    }
    let record: QueryRecord = read_json(path, "record of queries")?;
    let whole = record
        .models
        .values()
        .flat_map(|metrics| metrics.values())
        .all(|values| values.len() == record.queries.len());
    match whole {
        true => Ok(Some(record)),
        false => Err(miette!("{}: not every query has a value", path.display())),
    }
}

/// Puts a run's own values, or those of `baseline`, into its row, and those of the baselines that are rows
/// themselves into theirs.
///
/// # Errors
/// A baseline that the run has not, and what it has.
fn take(
    sweep: &Sweep,
    cell: &Cell,
    record: QueryRecord,
    baseline: Option<&str>,
    rows: &mut Vec<Runs>,
    baselines: &mut Vec<Runs>,
) -> Result<(), String> {
    let labels = sweep.axes.iter().zip(&cell.points);
    let labels: Vec<String> = labels
        .map(|(axis, &at)| axis.points[at].label.clone())
        .collect();
    let own = match baseline {
        Some(name) if !is_itself(cell, name) => record.models.get_index_of(name),
        _ => Some(0),
    };
    let Some(own) = own else {
        let known: Vec<&str> = record.models.keys().map(String::as_str).collect();
        return Err(format!("it measured {} alone", known.join(", ")));
    };
    for (index, (model, metrics)) in record.models.into_iter().enumerate() {
        let (into, name, labels) = match index {
            _ if index == own => (&mut *rows, cell.row.as_str(), labels.as_slice()),
            _ if BASELINES.contains(&model.as_str()) => (&mut *baselines, model.as_str(), &[][..]),
            _ => continue,
        };
        let values = Values {
            queries: record.queries.clone(),
            metrics,
        };
        let at = into
            .iter()
            .position(|runs| runs.name == name)
            .unwrap_or_else(|| {
                into.push(Runs {
                    name: name.to_owned(),
                    labels: labels.to_vec(),
                    seeds: Vec::new(),
                });
                into.len() - 1
            });
        // A baseline of the same seed is the same in every row.
        let seeds = &mut into[at].seeds;
        if !seeds.iter().any(|(seed, _)| *seed == cell.seed) {
            seeds.push((cell.seed, values));
        }
    }
    Ok(())
}

/// Whether a run's model is this baseline already, so that it has no other: one that ranks by cosine alone, or reads one
/// modality.
fn is_itself(cell: &Cell, baseline: &str) -> bool {
    let config = &cell.loaded.config;
    let itself = match config.model.variant {
        Variant::Text => Some(Baseline::TextOnly),
        Variant::Image => Some(Baseline::ImageOnly),
        _ => None,
    };
    let cosine = config.eval.popularity_prior == 0.0 && baseline == Baseline::Cosine.name();
    cosine || itself.is_some_and(|itself| baseline == itself.name())
}

/// The main metric, and the columns.
fn columns(sweep: &Sweep, first: &Runs) -> miette::Result<(String, Vec<String>)> {
    let known: Vec<&String> = first.seeds[0].1.metrics.keys().collect();
    for metric in sweep.metrics.iter().chain(&sweep.metric) {
        if !known.contains(&metric) {
            let known: Vec<&str> = known.iter().map(|name| name.as_str()).collect();
            return Err(miette!(
                help = format!("known: {}; cut-offs are those of eval.k", known.join(", ")),
                "no run has the metric `{metric}`"
            ));
        }
    }
    let recalls = || {
        known
            .iter()
            .copied()
            .filter(|name| name.starts_with("recall@"))
    };
    let main = sweep.metric.clone().or_else(|| {
        let ten = recalls().find(|name| *name == "recall@10");
        ten.or_else(|| recalls().next()).cloned()
    });
    let main = main.ok_or_else(|| miette!("no run has a recall; set eval.k"))?;
    let mut metrics = match sweep.metrics.is_empty() {
        true => recalls().cloned().collect(),
        false => sweep.metrics.clone(),
    };
    if !metrics.contains(&main) {
        metrics.push(main.clone());
    }
    Ok((main, metrics))
}

/// The mean over seeds of the means over queries.
fn means(runs: &Runs, metric: &str) -> Option<f64> {
    let groups: Vec<Vec<Vec<f64>>> = runs
        .seeds
        .iter()
        .map(|(_, values)| Some(vec![values.metrics.get(metric)?.clone()]))
        .collect::<Option<_>>()?;
    Some(intervals(&groups)?.first()?.mean)
}

fn intervals(groups: &[Vec<Vec<f64>>]) -> Option<Vec<Interval>> {
    let groups: Vec<&[Vec<f64>]> = groups.iter().map(Vec::as_slice).collect();
    Bootstrap::new(SEED).grouped_intervals(&groups)
}

/// A row's metrics, and what it has more than the reference; `None` where it lacks a metric.
fn measured(runs: &Runs, reference: Option<&Runs>, metrics: &[String]) -> Option<Row> {
    let groups: Vec<Vec<Vec<f64>>> = runs
        .seeds
        .iter()
        .map(|(_, values)| columns_of(values, metrics))
        .collect::<Option<_>>()?;
    let values = intervals(&groups)?;
    let differences = reference
        .filter(|reference| reference.name != runs.name)
        .and_then(|reference| differences(runs, reference, metrics));
    let measures = metrics.iter().enumerate().map(|(at, metric)| Measure {
        metric: metric.clone(),
        value: values[at],
        difference: differences.as_ref().map(|found| found[at]),
    });
    Some(Row {
        name: runs.name.clone(),
        labels: runs.labels.clone(),
        seeds: runs.seeds.iter().map(|(seed, _)| *seed).collect(),
        queries: runs
            .seeds
            .iter()
            .map(|(_, values)| values.queries.len())
            .sum(),
        measures: measures.collect(),
    })
}

fn columns_of(values: &Values, metrics: &[String]) -> Option<Vec<Vec<f64>>> {
    let column = |metric: &String| values.metrics.get(metric).cloned();
    metrics.iter().map(column).collect()
}

/// Differences query by query over the seeds that both have; `None` where the queries of one are not
/// those of the other.
fn differences(runs: &Runs, reference: &Runs, metrics: &[String]) -> Option<Vec<Interval>> {
    let mut groups = Vec::new();
    for (seed, values) in &runs.seeds {
        let Some((_, other)) = reference.seeds.iter().find(|(other, _)| other == seed) else {
            continue;
        };
        if values.queries != other.queries {
            return None;
        }
        let (own, others) = (columns_of(values, metrics)?, columns_of(other, metrics)?);
        let columns = own.into_iter().zip(others);
        let difference = |(own, other): (Vec<f64>, Vec<f64>)| {
            own.iter()
                .zip(other)
                .map(|(own, other)| own - other)
                .collect()
        };
        groups.push(columns.map(difference).collect());
    }
    intervals(&groups)
}
