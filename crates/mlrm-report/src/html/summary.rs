//! What the runs are, how they ended, what they warned of.

use std::fmt::Write;

use mlrm_events::EndReason;

use crate::describe;
use crate::format;
use crate::markup::escaped;
use crate::run::Run;
use crate::state::{RunState, Status};

/// The line under the title.
pub(super) fn header(runs: &[Run], html: &mut String) {
    let times = runs.iter().filter_map(|run| run.state.last_time);
    let newest = times.fold(f64::NEG_INFINITY, f64::max);
    let what = match runs {
        [_] => "A training run".to_owned(),
        _ => format!("{} training runs compared", runs.len()),
    };
    let _ = writeln!(
        html,
        "<p class=\"muted\">{what}, as of {}. Made by mlrm {} from the runs' events.</p>",
        format::date(newest),
        env!("CARGO_PKG_VERSION")
    );
}

/// How the run stands, in words.
pub(crate) fn status(state: &RunState) -> (String, &'static str) {
    match state.status() {
        Status::Waiting => ("no event yet".into(), ""),
        Status::Running => ("not ended".into(), ""),
        Status::Paused => ("paused".into(), ""),
        Status::Ended(reason) => {
            let class = match reason {
                EndReason::Completed => "good",
                EndReason::Failed => "bad",
                EndReason::Stopped | EndReason::Other => "",
            };
            let message = state
                .ended
                .as_ref()
                .and_then(|ended| ended.message.as_deref());
            let message = message.map_or(String::new(), |text| format!(": {text}"));
            (format!("{}{message}", describe::end_reason(reason)), class)
        }
    }
}

/// Name and value of what a run is.
pub(crate) fn facts(state: &RunState) -> Vec<(&'static str, String)> {
    let mut facts = vec![("status", status(state).0), ("steps", state.steps())];
    if let Some(seconds) = state.active_seconds() {
        facts.push(("training time", format::duration(seconds)));
    }
    if let Some((time, started)) = &state.started {
        facts.push(("started", format::date(*time)));
        facts.push(("device", started.device.clone()));
        facts.push(("training pairs", format::count(started.train_pairs)));
        facts.push(("notes", format::count(started.notes)));
        facts.push(("parameters", format::large(started.parameters_total)));
        facts.push((
            "parameters trained",
            format::large(started.parameters_trained),
        ));
        let versions = started
            .versions
            .iter()
            .map(|(name, version)| format!("{name} {version}"));
        facts.push(("versions", versions.collect::<Vec<_>>().join(", ")));
    }
    if let Some(preflight) = &state.preflight {
        let host = format::bytes(preflight.peak_host_bytes);
        let memory = match preflight.peak_device_bytes {
            Some(device) => format!(
                "{} on the device, {host} on the host",
                format::bytes(device)
            ),
            None => host,
        };
        facts.push(("memory, as predicted", memory));
    }
    let peak = state.ended.as_ref().and_then(|ended| ended.peak_host_bytes);
    if let Some(peak) = peak {
        facts.push(("memory at its peak (host)", format::bytes(peak)));
    }
    if let Some(step) = &state.last_step {
        facts.push(("last loss", format::number(step.loss)));
    }
    // The middle of the run: warming up and ending apart.
    let speeds: Vec<f64> = state
        .train
        .notes_per_second
        .buckets()
        .iter()
        .map(|b| b.mean)
        .collect();
    if let Some(median) = median(speeds) {
        facts.push(("notes per second (median)", format::number(median)));
    }
    if let Some(share) = state.probe_share().filter(|share| *share > 0.0) {
        facts.push(("time in probes", format::percent(share)));
    }
    facts.push(("warnings", format::count(state.warnings)));
    if state.unreadable_lines > 0 {
        facts.push((
            "unreadable lines in the log",
            format::count(state.unreadable_lines),
        ));
    }
    facts
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

pub(super) fn section(runs: &[Run], html: &mut String) {
    html.push_str("<section>\n<h2>Summary</h2>\n<div class=\"scroll\">\n");
    let columns: Vec<Vec<(&str, String)>> = runs.iter().map(|run| facts(&run.state)).collect();
    comparison(runs, &columns, html);
    html.push_str("</div>\n</section>\n");
}

/// One row a name, one column a run.
pub(super) fn comparison<N: AsRef<str>>(
    runs: &[Run],
    columns: &[Vec<(N, String)>],
    html: &mut String,
) {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in columns.iter().flatten() {
        if !names.contains(&name.as_ref()) {
            names.push(name.as_ref());
        }
    }
    if runs.len() > 1 {
        html.push_str("<table class=\"facts compared\">\n<thead><tr><th></th>");
        for run in runs {
            let _ = write!(html, "<th>{}</th>", escaped(&run.name));
        }
        html.push_str("</tr></thead>\n<tbody>\n");
    } else {
        html.push_str("<table class=\"facts\">\n<tbody>\n");
    }
    for name in names {
        let _ = write!(html, "<tr><th scope=\"row\">{}</th>", escaped(name));
        for (run, column) in runs.iter().zip(columns) {
            let found = column.iter().find(|(key, _)| key.as_ref() == name);
            let value = found.map_or("-", |(_, value)| value.as_str());
            let class = if name == "status" {
                status(&run.state).1
            } else {
                ""
            };
            let _ = write!(html, "<td class=\"{class}\">{}</td>", escaped(value));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table>\n");
}

/// The newest warnings.
pub(super) fn warnings(runs: &[Run], html: &mut String) {
    if runs.iter().all(|run| run.state.warnings == 0) {
        return;
    }
    html.push_str("<section>\n<h2>Warnings</h2>\n");
    for run in runs.iter().filter(|run| run.state.warnings > 0) {
        if runs.len() > 1 {
            let _ = writeln!(html, "<h3>{}</h3>", escaped(&run.name));
        }
        html.push_str("<ul>\n");
        for entry in run.state.newest_warnings().take(50) {
            let step = entry.step.map_or(String::new(), |step| {
                format!("step {}: ", format::count(step))
            });
            let text = entry.text();
            let text = text.strip_prefix("warning: ").unwrap_or(&text);
            let _ = writeln!(html, "<li>{step}{}</li>", escaped(text));
        }
        html.push_str("</ul>\n");
    }
    html.push_str("</section>\n");
}
