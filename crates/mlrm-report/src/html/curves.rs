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
    let losses: [(&str, SeriesOf); 3] = [
        ("Loss", |run| &run.train.loss),
        ("Multimodal loss", |run| &run.train.loss_multimodal),
        ("Visual loss", |run| &run.train.loss_visual),
    ];
    match runs {
        [run] => losses_together(run, html),
        _ => compare_all(&losses, runs, html),
    }
    let others: [(&str, SeriesOf); 5] = [
        ("Learning rate", |run| &run.train.learning_rate),
        ("Temperature", |run| &run.train.temperature),
        ("Mean gate (1: text, 0: picture)", |run| {
            &run.train.gate_mean
        }),
        ("Gradient norm", |run| &run.train.gradient_norm),
        ("Notes per second", |run| &run.train.notes_per_second),
    ];
    compare_all(&others, runs, html);
    html.push_str("</div>\n</section>\n");
}

/// The loss of a run and its parts.
fn losses_together(run: &Run, html: &mut String) {
    let train = &run.state.train;
    let mut chart = chart("Loss");
    let mut line = |name, color, dash, series| {
        let line = ChartLine::series(name, color, dash, series);
        chart.lines.push(line);
    };
    line("loss", "var(--c0)", "", &train.loss);
    if !train.loss_visual.is_empty() {
        line("multimodal", "var(--text)", "7 3", &train.loss_multimodal);
        line("visual", "var(--visual)", "2 3", &train.loss_visual);
    }
    chart.write(html);
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
    compare_all(&charts, runs, html);
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

/// A chart for each quantity, with a line for each run that has it.
fn compare_all(charts: &[(&str, SeriesOf)], runs: &[Run], html: &mut String) {
    for (title, series) in charts {
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
}
