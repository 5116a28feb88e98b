//! The result of an evaluation, for people: plain text and Markdown.

use std::fmt::Write;

use mlrm_events::text::{markdown, one_line};

use crate::metrics::SliceMetrics;
use crate::report::EvalReport;

/// Families of metrics with a cut-off, in column order: prefix of the name, heading.
const FAMILIES: [(&str, &str); 3] = [("recall@", "Recall@"), ("ndcg@", "NDCG@"), ("hit@", "Hit@")];
/// Shown for a metric that was not measured.
const MISSING: &str = "–";
/// Columns of a number: `100.00`.
const NUMBER_WIDTH: usize = 6;

/// A column: metric name, heading of its family, and its cut-off.
struct Column {
    metric: String,
    family: &'static str,
    cutoff: String,
}

impl EvalReport {
    /// One aligned block for each slice: the model's row first, under the name `model`, then the
    /// baselines. Numbers are percentages.
    pub fn to_text(&self, model: &str) -> String {
        let columns = self.columns();
        let names = self.baselines.keys().map(String::as_str).chain([model]);
        let name_width = names.map(|name| name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for (slice, metrics) in self.measured_slices() {
            if !text.is_empty() {
                text.push('\n');
            }
            let _ = writeln!(
                text,
                "{slice}: {} queries, pool of {} notes, in %",
                metrics.queries, self.pool
            );
            text.push_str(&header(&columns, name_width));
            for (name, metrics) in self.rows(slice, model) {
                let _ = write!(text, "{name:name_width$}");
                for column in &columns {
                    let _ = write!(
                        text,
                        "  {:>width$}",
                        cell(metrics, column),
                        width = column.width()
                    );
                }
                text.push('\n');
            }
        }
        for line in self.remarks() {
            let _ = writeln!(text, "\n{line}");
        }
        for (name, reason) in &self.left_out {
            let _ = writeln!(text, "\nnot measured: {name}: {}", one_line(reason));
        }
        text
    }

    /// How many queries were drawn, how many notes the model read without a picture, and how many are not
    /// there.
    fn remarks(&self) -> impl Iterator<Item = String> + use<> {
        let line = |count: usize, what: &str| {
            (count > 0).then(|| format!("{count} notes without a usable picture: {what}"))
        };
        let by_text = line(self.read_by_text, "read by text alone");
        let dropped = line(self.dropped, "left out of pool and queries");
        let sampled = (self.queries_sampled_from > 0).then(|| {
            format!(
                "{} of {} queries were drawn (eval.max_queries)",
                self.queries, self.queries_sampled_from
            )
        });
        sampled.into_iter().chain(by_text).chain(dropped)
    }

    /// One Markdown table for each slice, as [`EvalReport::to_text`].
    pub fn to_markdown(&self, model: &str) -> String {
        let columns = self.columns();
        let mut text = String::new();
        for (slice, metrics) in self.measured_slices() {
            if !text.is_empty() {
                text.push('\n');
            }
            let _ = writeln!(
                text,
                "**{}**: {} queries, pool of {} notes, in %\n",
                markdown(slice),
                metrics.queries,
                self.pool
            );
            let headings: String = columns
                .iter()
                .map(|c| format!(" {}{} |", c.family, c.cutoff))
                .collect();
            let _ = writeln!(text, "| |{headings}");
            let _ = writeln!(text, "| --- |{}", " ---: |".repeat(columns.len()));
            for (name, metrics) in self.rows(slice, model) {
                let cells: String = columns
                    .iter()
                    .map(|c| format!(" {} |", cell(metrics, c)))
                    .collect();
                let _ = writeln!(text, "| {} |{cells}", markdown(name));
            }
        }
        for line in self.remarks() {
            let _ = writeln!(text, "\n{line}");
        }
        for (name, reason) in &self.left_out {
            let _ = writeln!(
                text,
                "\nNot measured: {}: {}",
                markdown(name),
                markdown(reason)
            );
        }
        text
    }

    /// The slices that have queries; without any at all, every slice, so that the table says so.
    fn measured_slices(&self) -> impl Iterator<Item = (&String, &SliceMetrics)> {
        let any = self.slices.values().any(|metrics| metrics.queries > 0);
        let slices = self.slices.iter();
        slices.filter(move |(_, metrics)| metrics.queries > 0 || !any)
    }

    /// Rows of a slice: (name, metrics where measured).
    fn rows<'a>(
        &'a self,
        slice: &'a str,
        model: &'a str,
    ) -> impl Iterator<Item = (&'a str, Option<&'a SliceMetrics>)> {
        let baselines = self.baselines.iter();
        std::iter::once((model, self.slices.get(slice)))
            .chain(baselines.map(move |(name, slices)| (name.as_str(), slices.get(slice))))
    }

    /// The columns for which any row of any slice has a number.
    fn columns(&self) -> Vec<Column> {
        let rows = self
            .slices
            .values()
            .chain(self.baselines.values().flat_map(|b| b.values()));
        let names: indexmap::IndexSet<&str> = rows
            .flat_map(|metrics| metrics.values.keys().map(String::as_str))
            .collect();
        let mut columns = Vec::new();
        for (prefix, family) in FAMILIES {
            columns.extend(names.iter().filter_map(|name| {
                Some(Column {
                    metric: (*name).to_owned(),
                    family,
                    cutoff: name.strip_prefix(prefix)?.to_owned(),
                })
            }));
        }
        if names.contains("mrr") {
            columns.push(Column {
                metric: "mrr".into(),
                family: "MRR",
                cutoff: String::new(),
            });
        }
        columns
    }
}

impl Column {
    fn width(&self) -> usize {
        NUMBER_WIDTH.max(self.cutoff.len())
    }
}

/// Two lines: the families, each ending over its first column, and the cut-offs.
fn header(columns: &[Column], name_width: usize) -> String {
    let mut families = " ".repeat(name_width);
    let mut cutoffs = families.clone();
    for (at, column) in columns.iter().enumerate() {
        let width = column.width();
        let _ = write!(cutoffs, "  {:>width$}", column.cutoff);
        if at == 0 || columns[at - 1].family != column.family {
            // The space between columns has room for a heading that is wider than its column.
            let end = cutoffs.chars().count();
            let room = end - families.chars().count();
            let _ = write!(families, "{:>room$}", column.family);
        }
    }
    let line = |text: &str| format!("{}\n", text.trim_end());
    line(&families) + &line(&cutoffs)
}

fn cell(metrics: Option<&SliceMetrics>, column: &Column) -> String {
    let value = metrics.and_then(|metrics| metrics.values.get(&column.metric));
    value.map_or_else(
        || MISSING.to_owned(),
        |value| format!("{:.2}", value * 100.0),
    )
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;

    use super::*;
    use crate::metrics::Slices;

    fn slices(names: &[&str], recall: f64) -> Slices {
        let values: IndexMap<String, f64> = [
            ("recall@1", recall),
            ("recall@10", 1.0),
            ("ndcg@1", 0.5),
            ("ndcg@10", 0.625),
            ("mrr@1", 0.25),
            ("mrr@10", 0.25),
            ("hit@1", 0.0),
            ("hit@10", 1.0),
            ("mrr", 0.1 + 0.2),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        let metrics = SliceMetrics {
            queries: 3,
            values,
            ..SliceMetrics::default()
        };
        names
            .iter()
            .map(|name| ((*name).to_owned(), metrics.clone()))
            .collect()
    }

    fn report() -> EvalReport {
        let mut report = EvalReport {
            queries_sampled_from: 0,
            read_by_text: 0,
            dropped: 0,
            pool: 20,
            queries: 3,
            slices: slices(&["all"], 0.123_456),
            baselines: IndexMap::from([("bm25".to_owned(), slices(&["all"], 0.0))]),
            left_out: IndexMap::new(),
        };
        // Measured for the model alone, and a slice that no query is in.
        let measured = slices(&["short|query"], 0.5);
        report.slices.extend(measured);
        report
            .slices
            .insert("empty".into(), SliceMetrics::default());
        report
    }

    #[test]
    fn text_is_aligned_missing_numbers_are_dashes_and_empty_slices_are_left_out() {
        let expected = "\
all: 3 queries, pool of 20 notes, in %
         Recall@           NDCG@            Hit@             MRR
               1      10       1      10       1      10
notellm2   12.35  100.00   50.00   62.50    0.00  100.00   30.00
bm25        0.00  100.00   50.00   62.50    0.00  100.00   30.00

short|query: 3 queries, pool of 20 notes, in %
         Recall@           NDCG@            Hit@             MRR
               1      10       1      10       1      10
notellm2   50.00  100.00   50.00   62.50    0.00  100.00   30.00
bm25           –       –       –       –       –       –       –
";
        let found = report().to_text("notellm2");
        assert_eq!(found, expected, "\n{found}");
    }

    #[test]
    fn markdown_holds_the_same_numbers() {
        let expected = "\
**all**: 3 queries, pool of 20 notes, in %

| | Recall@1 | Recall@10 | NDCG@1 | NDCG@10 | Hit@1 | Hit@10 | MRR |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| notellm2 | 12.35 | 100.00 | 50.00 | 62.50 | 0.00 | 100.00 | 30.00 |
| bm25 | 0.00 | 100.00 | 50.00 | 62.50 | 0.00 | 100.00 | 30.00 |
";
        let found = report().to_markdown("notellm2");
        assert!(found.starts_with(expected), "\n{found}");
        assert!(found.contains("**short\\|query**: 3 queries"));
        assert!(!found.contains("**empty**"));
    }

    #[test]
    fn json_is_the_documented_record_and_reads_back_exactly() {
        let report = report();
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["pool"], 20);
        assert_eq!(json["slices"]["all"]["queries"], 3);
        assert_eq!(json["slices"]["all"]["recall@1"], 0.123_456);
        assert_eq!(json["baselines"]["bm25"]["all"]["mrr"], 0.1 + 0.2);
        let text = serde_json::to_string(&report).unwrap();
        assert!(
            text.starts_with(r#"{"pool":20,"queries":3,"slices":{"all":{"queries":3,"recall@1":"#)
        );
        assert_eq!(serde_json::from_str::<EvalReport>(&text).unwrap(), report);
    }

    #[test]
    fn that_queries_were_drawn_stands_below() {
        let drawn = EvalReport {
            queries_sampled_from: 900,
            ..report()
        };
        let said = "\n3 of 900 queries were drawn (eval.max_queries)\n";
        assert!(drawn.to_text("notellm2").ends_with(said));
        assert!(drawn.to_markdown("notellm2").ends_with(said));
        assert!(!report().to_text("notellm2").contains("drawn"));
    }

    #[test]
    fn what_was_left_out_stands_below() {
        let mut report = report();
        let reason = "no such model".to_owned();
        report.left_out.insert("zero_shot".into(), reason);
        let text = report.to_text("notellm2");
        assert!(
            text.ends_with("\n\nnot measured: zero_shot: no such model\n"),
            "{text}"
        );
        let markdown = report.to_markdown("notellm2");
        assert!(
            markdown.ends_with("|\n\nNot measured: zero_shot: no such model\n"),
            "{markdown}"
        );
    }
}
