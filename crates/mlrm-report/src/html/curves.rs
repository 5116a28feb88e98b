//! What the steps measured.

use super::chart::{Chart, ChartLine};
use super::{run_color, run_dash};
use crate::run::Run;
use crate::state::{Series, TrainSeries};

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
        compared("Loss", runs, |train| &train.loss, html);
        compared(
            "Multimodal loss",
            runs,
            |train| &train.loss_multimodal,
            html,
        );
        compared("Visual loss", runs, |train| &train.loss_visual, html);
    }
    compared("Learning rate", runs, |train| &train.learning_rate, html);
    compared("Temperature", runs, |train| &train.temperature, html);
    compared(
        "Mean gate (1: text, 0: picture)",
        runs,
        |train| &train.gate_mean,
        html,
    );
    compared("Gradient norm", runs, |train| &train.gradient_norm, html);
    compared(
        "Notes per second",
        runs,
        |train| &train.notes_per_second,
        html,
    );
    html.push_str("</div>\n</section>\n");
}

fn chart(title: &str) -> Chart {
    Chart {
        title: title.into(),
        x_title: "step",
        ..Chart::default()
    }
}

fn compared(title: &str, runs: &[Run], series: fn(&TrainSeries) -> &Series, html: &mut String) {
    let mut chart = chart(title);
    for (index, run) in runs.iter().enumerate() {
        let series = series(&run.state.train);
        if !series.is_empty() {
            let line = ChartLine::series(&run.name, run_color(index), run_dash(index), series);
            chart.lines.push(line);
        }
    }
    chart.write(html);
}
