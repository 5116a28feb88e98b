//! The table of a sweep: its JSON, and what people read of it.

use std::fmt::Write;

use mlrm_events::Interval;
use mlrm_events::text::{markdown, one_line};
use serde::{Deserialize, Serialize};

use crate::axis::Scale;
use crate::html::chart::{Chart, ChartLine};
use crate::html::{FOOT, head, run_color, run_dash};
use crate::markup::escaped;

/// `3.02 [2.61, 3.40]`, in percent.
fn percent(of: Interval) -> String {
    let [mean, low, high] = [of.mean, of.low, of.high].map(|value| value * 100.0);
    format!("{mean:.2} [{low:.2}, {high:.2}]")
}

/// A metric of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Name: `recall@10`.
    pub metric: String,
    /// Its value.
    pub value: Interval,
    /// What the row has more than the reference, over the same queries of the same seeds; absent for
    /// the reference itself and where the queries are not the same.
    pub difference: Option<Interval>,
}

/// All runs of one combination of settings, or a baseline of theirs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The points of the axes, joined.
    pub name: String,
    /// Point of every axis, by its label; empty for a baseline.
    pub labels: Vec<String>,
    /// Seeds whose runs are in it.
    pub seeds: Vec<u64>,
    /// Queries of all its seeds together.
    pub queries: usize,
    /// The metrics, in the order of the columns.
    pub measures: Vec<Measure>,
}

impl Row {
    fn measure(&self, metric: &str) -> Option<&Measure> {
        self.measures
            .iter()
            .find(|measure| measure.metric == metric)
    }
}

/// An axis whose points are numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NumericAxis {
    /// The key.
    pub name: String,
    /// Which of a row's labels is its point.
    pub index: usize,
    /// Label and number of each point.
    pub points: Vec<(String, f64)>,
}

/// A run that is not in the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Absent {
    /// Row and seed.
    pub name: String,
    /// Why it failed, or that it is missing.
    pub reason: String,
}

/// A sweep measured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SweepTable {
    /// The baseline of each run whose values these are; absent where they are the models' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// The metric that tells the best row, and that curves show.
    pub metric: String,
    /// The row that the others are compared with.
    pub reference: String,
    /// The best row by `metric`, baselines left aside.
    pub best: String,
    /// The rows, baselines last.
    pub rows: Vec<Row>,
    /// The axes whose points are numbers.
    pub axes: Vec<NumericAxis>,
    /// Runs that failed or are missing.
    pub absent: Vec<Absent>,
}

impl SweepTable {
    fn metrics(&self) -> impl Iterator<Item = &str> {
        let measures = self.rows.first().map_or(&[][..], |row| &row.measures);
        measures.iter().map(|measure| measure.metric.as_str())
    }

    /// What the numbers are.
    fn caption(&self) -> String {
        let of = self.baseline.as_ref();
        let of = of.map_or_else(String::new, |name| {
            format!("Of `{name}` in each run, in place of its model. ")
        });
        format!(
            "{of}In %, mean and 95 % interval over seeds and queries (bootstrap of both). Difference: {} \
             more than `{}` on the same queries of the same seeds; * where its interval leaves out 0 \
             (each row by itself, not corrected for their number). Bold: the best row.",
            self.metric, self.reference
        )
    }

    /// The cells of a row: name, seeds, queries, the metrics, the difference of the main metric.
    fn cells(&self, row: &Row) -> Vec<String> {
        let mut cells = vec![
            row.name.clone(),
            row.seeds.len().to_string(),
            row.queries.to_string(),
        ];
        cells.extend(self.metrics().map(|metric| {
            let measure = row.measure(metric);
            measure.map_or("–".into(), |measure| percent(measure.value))
        }));
        let difference = row
            .measure(&self.metric)
            .and_then(|measure| measure.difference);
        cells.push(match difference {
            Some(difference) if difference.differs() => format!("{} *", percent(difference)),
            Some(difference) => percent(difference),
            None => "–".into(),
        });
        cells
    }

    fn headings(&self) -> Vec<String> {
        let mut headings = vec![String::new(), "seeds".into(), "queries".into()];
        headings.extend(self.metrics().map(str::to_owned));
        headings.push("difference".into());
        headings
    }

    /// The table as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        if self.rows.is_empty() {
            text.push_str("No run is done yet.\n");
        } else {
            let _ = writeln!(text, "{}\n", self.caption());
            let headings = self.headings();
            let _ = writeln!(text, "| {} |", headings.join(" | "));
            let _ = writeln!(text, "| --- |{}", " ---: |".repeat(headings.len() - 1));
            for row in &self.rows {
                let mut cells = self.cells(row);
                cells[0] = markdown(&cells[0]);
                if row.name == self.best {
                    cells[0] = format!("**{}**", cells[0]);
                }
                let _ = writeln!(text, "| {} |", cells.join(" | "));
            }
        }
        for absent in &self.absent {
            let _ = writeln!(
                text,
                "\nNot in the table: {}: {}",
                markdown(&absent.name),
                markdown(&one_line(&absent.reason))
            );
        }
        text
    }

    /// One line a row and metric, as CSV; shares from 0 to 1.
    pub fn to_csv(&self) -> String {
        let mut text = "row,seeds,queries,metric,mean,low,high,difference,difference_low,\
                        difference_high,differs\n"
            .to_owned();
        for row in &self.rows {
            for measure in &row.measures {
                let Interval { mean, low, high } = measure.value;
                let difference = measure.difference.map_or(",,,".into(), |found| {
                    let Interval { mean, low, high } = found;
                    format!("{mean},{low},{high},{}", found.differs())
                });
                let _ = writeln!(
                    text,
                    "\"{}\",{},{},{},{mean},{low},{high},{difference}",
                    row.name.replace('"', "\"\""),
                    row.seeds.len(),
                    row.queries,
                    measure.metric
                );
            }
        }
        text
    }

    /// The main metric over each axis of numbers, a line for each combination of the other axes: name
    /// of the axis, and the drawing.
    pub fn curves(&self) -> Vec<(String, String)> {
        let drawn = |axis: &NumericAxis| Some((axis.name.clone(), self.curve(axis).file()?));
        self.axes.iter().filter_map(drawn).collect()
    }

    fn curve(&self, axis: &NumericAxis) -> Chart {
        let mut names: Vec<String> = Vec::new();
        let mut lines: Vec<Vec<(f64, Interval)>> = Vec::new();
        for row in &self.rows {
            let point = row.labels.get(axis.index);
            let place = point.and_then(|label| axis.points.iter().find(|(name, _)| name == label));
            let (Some((_, x)), Some(measure)) = (place, row.measure(&self.metric)) else {
                continue;
            };
            let others = row.labels.iter().enumerate();
            let others = others.filter(|(index, _)| *index != axis.index);
            let name = others
                .map(|(_, label)| label.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            let line = names
                .iter()
                .position(|other| *other == name)
                .unwrap_or_else(|| {
                    names.push(name);
                    lines.push(Vec::new());
                    lines.len() - 1
                });
            lines[line].push((*x, measure.value));
        }
        let lines = names
            .into_iter()
            .zip(lines)
            .enumerate()
            .map(|(index, (name, mut points))| {
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                let means = points.iter().map(|(x, value)| (*x, value.mean));
                let name = if name.is_empty() {
                    self.metric.clone()
                } else {
                    name
                };
                ChartLine::new(name, run_color(index), run_dash(index), means)
                    .within(points.iter().map(|(x, value)| (*x, value.low, value.high)))
            });
        let mut numbers: Vec<f64> = axis.points.iter().map(|(_, number)| *number).collect();
        numbers.sort_by(f64::total_cmp);
        let spread = numbers.last().zip(numbers.first());
        let wide = spread.is_some_and(|(last, first)| *first > 0.0 && last / first >= 8.0);
        Chart {
            title: format!("{} over {}, with 95 % intervals", self.metric, axis.name),
            lines: lines.collect(),
            percent: true,
            x_scale: if wide { Scale::Log } else { Scale::Linear },
            x_ticks: numbers,
            ..Chart::default()
        }
    }

    /// The table and its curves as an HTML page.
    pub fn to_html(&self, title: &str) -> String {
        let mut html = head(title);
        html.push_str("</header>\n<main>\n<section>\n<div class=\"scroll\"><table>\n<thead><tr>");
        for heading in self.headings() {
            let _ = write!(html, "<th>{}</th>", escaped(&heading));
        }
        html.push_str("</tr></thead>\n<tbody>\n");
        for row in &self.rows {
            let best = if row.name == self.best {
                " class=\"model\""
            } else {
                ""
            };
            let _ = write!(html, "<tr{best}>");
            for cell in self.cells(row) {
                let _ = write!(html, "<td>{}</td>", escaped(&cell));
            }
            html.push_str("</tr>\n");
        }
        let _ = writeln!(
            html,
            "</tbody></table></div>\n<p class=\"muted\">{}</p>",
            escaped(&self.caption())
        );
        for absent in &self.absent {
            let _ = writeln!(
                html,
                "<p class=\"bad\">Not in the table: {}: {}</p>",
                escaped(&absent.name),
                escaped(&one_line(&absent.reason))
            );
        }
        html.push_str("</section>\n<div class=\"grid\">\n");
        for axis in &self.axes {
            self.curve(axis).write(&mut html);
        }
        html.push_str("</div>\n");
        html + FOOT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, labels: &[&str], mean: f64, difference: Option<f64>) -> Row {
        let estimate = |mean: f64| Interval {
            mean,
            low: mean - 0.01,
            high: mean + 0.01,
        };
        Row {
            name: name.into(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            seeds: vec![1, 2],
            queries: 30,
            measures: vec![Measure {
                metric: "recall@10".into(),
                value: estimate(mean),
                difference: difference.map(estimate),
            }],
        }
    }

    fn table() -> SweepTable {
        SweepTable {
            baseline: None,
            metric: "recall@10".into(),
            reference: "a, k=1".into(),
            best: "a, k=10".into(),
            rows: vec![
                row("a, k=1", &["a", "k=1"], 0.2, None),
                row("a, k=10", &["a", "k=10"], 0.25, Some(0.05)),
                row("<b>, k=1", &["<b>", "k=1"], 0.195, Some(-0.005)),
            ],
            axes: vec![NumericAxis {
                name: "x.k".into(),
                index: 1,
                points: vec![("k=1".into(), 1.0), ("k=10".into(), 10.0)],
            }],
            absent: vec![Absent {
                name: "<b>, k=10 seed 1".into(),
                reason: "it diverged".into(),
            }],
        }
    }

    #[test]
    fn the_best_row_and_what_differs_are_marked() {
        let text = table().to_markdown();
        for line in [
            "| a, k=1 | 2 | 30 | 20.00 [19.00, 21.00] | – |",
            "| **a, k=10** | 2 | 30 | 25.00 [24.00, 26.00] | 5.00 [4.00, 6.00] * |",
            "| -0.50 [-1.50, 0.50] |",
            "k=10 seed 1: it diverged",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.contains("not corrected for their number"), "{text}");
        assert!(!text.contains("<b>"), "{text}");
        let csv = table().to_csv();
        assert!(
            csv.contains("\"a, k=1\",2,30,recall@10,0.2,0.19,0.21000000000000002,,,,\n"),
            "{csv}"
        );
        assert!(csv.contains(",true\n") && csv.contains(",false\n"), "{csv}");
        let json = serde_json::to_string(&table()).unwrap();
        assert_eq!(serde_json::from_str::<SweepTable>(&json).unwrap(), table());
        assert!(
            SweepTable::default()
                .to_markdown()
                .contains("No run is done")
        );
    }

    #[test]
    fn curves_have_a_band_and_a_line_for_each_combination() {
        let [(axis, svg)] = <[_; 1]>::try_from(table().curves()).unwrap();
        assert_eq!(axis, "x.k");
        assert!(svg.starts_with("<svg xmlns=") && svg.trim_end().ends_with("</svg>"));
        assert_eq!(svg.matches("<polygon").count(), 1, "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 1);
        assert_eq!(svg.matches("<circle").count(), 1, "a line of one point");
        assert!(svg.contains("&lt;b&gt;") && !svg.contains("<b>"), "{svg}");
        let html = table().to_html("sweep & co");
        assert!(html.contains("<h1>sweep &amp; co</h1>") && html.contains("<polygon"));
        assert!(!html.contains("<b>"), "{html}");
    }
}
