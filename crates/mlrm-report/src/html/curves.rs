//! What the steps measured.

use super::chart::{Chart, ChartLine};
use super::{run_color, run_dash};
use crate::run::Run;
use crate::state::{RunState, Series};

pub(super) fn section(runs: &[Run], html: &mut String) {
    if runs.iter().all(|run| run.state.train.loss.is_empty()) {
        return;
    }
    html.push_str("<section>\n<h2>Training</h2>\n");
    html.push_str(
        "<p class=\"muted\">Lines are means, pale bands the extremes around them.</p>\n\
         <div class=\"grid\">\n",
    );
    if let [run] = runs {
        let train = &run.state.train;
        let mut chart = chart("Loss");
        chart
            .lines
            .push(ChartLine::series("loss", "var(--c0)", "", &train.loss));
        if !train.loss_visual.is_empty() {
            let multimodal =
                ChartLine::series("multimodal", "var(--text)", "7 3", &train.loss_multimodal);
            chart.lines.push(multimodal);
            chart.lines.push(ChartLine::series(
                "visual",
                "var(--visual)",
                "2 3",
                &train.loss_visual,
            ));
        }
        chart.write(html);
    } else {
        compared("Loss", runs, |run| &run.train.loss, html);
        compared(
            "Multimodal loss",
            runs,
            |run| &run.train.loss_multimodal,
            html,
        );
        compared("Visual loss", runs, |run| &run.train.loss_visual, html);
    }
    compared("Learning rate", runs, |run| &run.train.learning_rate, html);
    compared("Temperature", runs, |run| &run.train.temperature, html);
    compared(
        "Mean gate (1: text, 0: picture)",
        runs,
        |run| &run.train.gate_mean,
        html,
    );
    compared("Gradient norm", runs, |run| &run.train.gradient_norm, html);
    compared(
        "Notes per second",
        runs,
        |run| &run.train.notes_per_second,
        html,
    );
    html.push_str("</div>\n</section>\n");
}

/// How the embeddings of the fixed batch lay.
pub(super) fn embeddings(runs: &[Run], html: &mut String) {
    if runs
        .iter()
        .all(|run| run.state.embeddings.effective_rank.is_empty())
    {
        return;
    }
    html.push_str(
        "<section>\n<h2>Embeddings</h2>\n<p class=\"muted\">Of a fixed batch of pairs: cosines of \
         partners and of unrelated notes, the directions in use, and how far embeddings move when notes \
         show the pictures of others.</p>\n<div class=\"grid\">\n",
    );
    let charts: [(&str, SeriesOf); 6] = [
        ("Similarity of partners", |run| {
            &run.embeddings.positive_similarity
        }),
        ("Similarity of unrelated notes", |run| {
            &run.embeddings.negative_similarity
        }),
        ("Effective rank", |run| &run.embeddings.effective_rank),
        ("Uniformity", |run| &run.embeddings.uniformity),
        ("Alignment", |run| &run.embeddings.alignment),
        ("Picture share", |run| &run.embeddings.picture_share),
    ];
    for (title, series) in charts {
        compared(title, runs, series, html);
    }
    html.push_str("</div>\n</section>\n");
}

type SeriesOf = fn(&RunState) -> &Series;

fn chart(title: &str) -> Chart {
    Chart {
        title: title.into(),
        x_title: "step",
        ..Chart::default()
    }
}

fn compared(title: &str, runs: &[Run], series: SeriesOf, html: &mut String) {
    let mut chart = chart(title);
    for (index, run) in runs.iter().enumerate() {
        let series = series(&run.state);
        if !series.is_empty() {
            let line = ChartLine::series(&run.name, run_color(index), run_dash(index), series);
            chart.lines.push(line);
        }
    }
    chart.write(html);
}
